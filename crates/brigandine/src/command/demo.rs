//! `brigandine demo`: a real server builds a sample project, and the demo shows the progress.
//!
//! The demo makes a git repository, starts the server for it, and draws the builds while they run. Then it commits a
//! second revision. The server builds only the job whose sources this revision changes.

mod sample;
mod screen;
mod summary;

use super::serve::{Signals, listen, trace};
use super::{Failure, file_failed, print_json};
use crate::app::App;
use crate::cli;
use crate::config::{self, Config, LogFormat};
use crate::model::{self, BuildId, BuildStatus};
use crate::site::Web;
use crate::store;
use sample::{SECOND, Sample};
use screen::{Screen, print_table};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use summary::{CHANGED, Outcome, Summary};
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;

const SPECIFICATION: &str = include_str!("../../demo/specification.toml");

/// With `--exit`: the time limit for all builds.
const TIME_MAX: Duration = Duration::from_secs(180);

/// How long the complete first evaluation stays on the screen before the second revision is committed.
const READING_TIME: Duration = Duration::from_secs(4);

/// The least time between two drawings of the summary.
const DRAW_PAUSE: Duration = Duration::from_millis(80);

/// How many ports are tried, including the wanted one.
const PORTS: u16 = 100;

/// How many bytes at the end of a build log are searched for the last line.
const LAST_BYTES: u64 = 4096;

/// Builds the sample project, and shows the progress.
///
/// # Errors
/// A program that the demo needs is missing, the state directory is not empty, the server failed, or (with `--exit`)
/// the outcome is not the expected one.
pub(crate) async fn run(arguments: &cli::Demo) -> Result<(), Failure> {
    // A trace line would break the drawing, so only errors are traced. The pages show what fails.
    trace(LogFormat::Text, "error");
    for (program, package) in [("git", "git"), ("cc", "gcc and libc6-dev"), ("ar", "binutils")] {
        if !is_installed(program) {
            return Err(Failure::failed(format!(
                "the demo compiles a small C program from a git repository and finds no \
                 `{program}` on the search path; install it (Debian: {package})"
            )));
        }
    }
    let temporary;
    let directory = match &arguments.state {
        Some(path) => empty_directory(path)?,
        None => {
            temporary = tempfile::Builder::new()
                .prefix("brigandine-demo-")
                .tempdir()
                .map_err(|error| file_failed(&std::env::temp_dir(), &error))?;
            temporary.path().to_owned()
        }
    };
    demo(arguments, &directory).await
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Makes the directory `path`. If the directory exists, it must be empty.
fn empty_directory(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: std::io::Error| file_failed(path, &error);
    std::fs::create_dir_all(path).map_err(failed)?;
    if std::fs::read_dir(path).map_err(failed)?.next().is_some() {
        return Err(Failure::failed(format!(
            "{} is not empty; the demo starts from nothing, name a new directory",
            path.display()
        )));
    }
    path.canonicalize().map_err(failed)
}

/// Listens at the wanted address, or at the next free port.
async fn bind(wanted: SocketAddr) -> Result<TcpListener, Failure> {
    for step in 0..PORTS {
        let Some(port) = wanted.port().checked_add(step) else { break };
        match TcpListener::bind((wanted.ip(), port)).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Ok(listener) => return Ok(listener),
            Err(_) => break,
        }
    }
    // No port is free. `listen` reports the problem of the wanted address.
    listen(wanted).await
}

async fn demo(arguments: &cli::Demo, directory: &Path) -> Result<(), Failure> {
    let started = Instant::now();
    let mut signals = Signals::new()?;
    let listener = bind(arguments.listen).await?;
    let address = listener.local_addr().unwrap_or(arguments.listen);
    let sample = Sample::make(directory.join("sample"))?;
    let mut config = Config { state: directory.join("state"), ..Config::default() };
    config.max_jobs = arguments.max_jobs.map_or(config.max_jobs, usize::from);
    let app = App::start(config).await?;
    app.load(specification(&sample.0)?, false).await?;
    let mut screen = Screen::new(arguments.json);
    screen.line("Brigandine builds a sample. Its pages:");
    screen.line(&format!("  http://{address}/"));
    screen.line("Its repository; commit to it and watch:");
    screen.line(&format!("  {}", sample.0.display()));
    if !arguments.exit {
        screen.line("Ctrl-C ends the demo.");
    }
    app.run().await?;
    let mut web = Web::start(listener, &app, config::Web::default(), None, None);
    let ended = tokio::select! {
        ended = show(arguments.exit, &app, &sample, &mut screen, started) => ended,
        error = app.failed() => Err(error.into()),
        why = web.died() => Err(Failure::failed(format!("the web server ended: {why}"))),
        name = signals.next() => {
            if arguments.exit {
                Err(Failure::failed(format!("{name}: ended before everything was built")))
            } else {
                Ok(Vec::new())
            }
        }
    };
    web.close().await;
    app.shutdown(false).await?;
    let evaluations = ended?;
    if !arguments.exit {
        screen.line("The demo has ended.");
        return Ok(());
    }
    let seconds = started.elapsed().as_secs_f64();
    let outcome = Outcome::new(evaluations, seconds, format!("http://{address}/"));
    if arguments.json {
        print_json(&outcome);
    } else {
        print_table(&outcome);
    }
    if outcome.expected {
        return Ok(());
    }
    let list = outcome.surprises.join("\n  ");
    Err(Failure::failed(format!("the outcome is not the expected one:\n  {list}")))
}

/// The demo's specification, with the sample repository as its input.
fn specification(sample: &Path) -> Result<Vec<model::Specification>, Failure> {
    let path = sample.to_str().ok_or_else(|| {
        Failure::failed(format!("{} is no UTF-8 text; name another --state", sample.display()))
    })?;
    // Escaped as in a TOML string, because a path may contain quotes and backslashes.
    let quoted = path.replace('\\', "\\\\").replace('"', "\\\"");
    let text = SPECIFICATION.replace("\"URL\"", &format!("\"{quoted}\""));
    let placed = config::specification::parse("the demo's specification", &text)?;
    Ok(placed.into_iter().map(|placed| placed.specification).collect())
}

/// Draws the evaluations whenever they change. With `exit`, returns when both are complete.
async fn show(
    exit: bool,
    app: &App,
    sample: &Sample,
    screen: &mut Screen,
    started: Instant,
) -> Result<Vec<Summary>, Failure> {
    let mut events = app.events();
    let mut committed = false;
    let mut complete_since = None;
    let mut last_words = HashMap::new();
    loop {
        let evaluations = evaluations(app, &mut last_words).await?;
        screen.draw(&evaluations);
        let complete = evaluations.first().is_some_and(|first| first.finished);
        if complete && complete_since.is_none() {
            complete_since = Some(Instant::now());
        }
        // Without `--exit`, a visitor sees the complete first evaluation before the second begins. With `--exit`, the
        // second revision is committed as soon as the job that it changes has succeeded, so that this job must be built
        // again.
        let due = if exit {
            evaluations
                .first()
                .and_then(|first| first.jobs.get(CHANGED))
                .is_some_and(|job| job.status == BuildStatus::Succeeded.as_str())
        } else {
            complete_since.is_some_and(|since: Instant| since.elapsed() >= READING_TIME)
        };
        if due && !committed {
            committed = true;
            sample.commit(SECOND, "Count the rings in the manual")?;
            app.look("gorget");
        }
        if let Some(bad) = evaluations.iter().find(|e| e.finished && e.jobs.is_empty())
            && exit
        {
            return Err(Failure::failed(format!("evaluation #{}: {}", bad.id, bad.message)));
        }
        if exit && evaluations.len() > 1 && evaluations.iter().all(|one| one.finished) {
            return Ok(evaluations);
        }
        if exit && started.elapsed() > TIME_MAX {
            return Err(Failure::failed("not everything was built in time"));
        }
        // Draws again at the next change, or after `pause`, because the running times have grown.
        let pause = if committed || exit { Duration::from_secs(1) } else { READING_TIME / 8 };
        let next = async {
            match events.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => tokio::time::sleep(DRAW_PAUSE).await,
                Err(RecvError::Closed) => std::future::pending().await,
            }
            while events.try_recv().is_ok() {}
        };
        let _ = tokio::time::timeout(pause, next).await;
    }
}

/// The evaluations, oldest first. `last_words` caches the last line of each failed build's log.
async fn evaluations(
    app: &App,
    last_words: &mut HashMap<i64, String>,
) -> Result<Vec<Summary>, Failure> {
    let read = app.database().read(|s| {
        let evaluations = store::evaluations(s, Some("gorget"), 20)?;
        evaluations.iter().rev().map(|evaluation| Summary::read(s, evaluation)).collect()
    });
    let mut all: Vec<Summary> = read.await?;
    let jobs = all.iter_mut().flat_map(|evaluation| evaluation.jobs.values_mut());
    for job in jobs.filter(|job| job.status == BuildStatus::Failed.as_str()) {
        let words = match last_words.entry(job.build) {
            Entry::Occupied(words) => words.into_mut(),
            Entry::Vacant(none) => {
                none.insert(last_line(app, BuildId::new(job.build)).await.unwrap_or_default())
            }
        };
        job.last_words.clone_from(words);
    }
    Ok(all)
}

/// The last line of a build's log that is not blank. `None`: there is none, or the log cannot be read (the page of the
/// build reports that).
async fn last_line(app: &App, id: BuildId) -> Option<String> {
    let build = app.database().read(move |s| store::build(s, id)).await.ok()??;
    let end = u64::try_from(build.log.bytes).unwrap_or(0);
    let mut log = app.logs().open(&build, end.saturating_sub(LAST_BYTES)).await?;
    let mut bytes = Vec::new();
    while let Some(more) = log.next().await.ok()? {
        bytes.extend(more);
    }
    let text = String::from_utf8_lossy(&bytes);
    let last = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(model::one_line(last, 200))
}
