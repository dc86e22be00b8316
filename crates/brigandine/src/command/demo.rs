//! `brigandine demo`: a sample project, built before the visitor's eyes by the real server.
//!
//! Nothing here is played: a git repository is made, the server fetches it, runs its jobs and
//! stores what comes of them; then a second revision is committed and only what it touches is
//! built again.

mod sample;
mod screen;

use super::serve::{Signals, listen, trace};
use super::{Failure, print_json};
use crate::app::{App, Settings};
use crate::cli;
use crate::config::{self, LogFormat};
use crate::model::{self, BuildId, BuildStatus, Evaluation, EvaluationStatus};
use crate::site::Web;
use crate::store::{self, JobFilter, Snapshot};
use sample::{SECOND, Sample};
use screen::{Screen, print_table};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;

const SPECIFICATION: &str = include_str!("../../demo/specification.toml");

/// How every job ends when all is well.
const EXPECTED: &[(&str, BuildStatus)] = &[
    ("app.link", BuildStatus::Succeeded),
    ("app.package", BuildStatus::FailedDependency),
    ("app.run", BuildStatus::Succeeded),
    ("app.strict", BuildStatus::Failed),
    ("docs.check", BuildStatus::Succeeded),
    ("docs.page", BuildStatus::Succeeded),
    ("lib.compile", BuildStatus::Succeeded),
    ("lib.soak", BuildStatus::Succeeded),
    ("lib.test", BuildStatus::Succeeded),
];

/// The one job that the second revision touches.
const CHANGED: &str = "docs.check";

/// With `--exit`, everything must be built in this time.
const TIME_MAX: Duration = Duration::from_secs(180);

/// The first evaluation stands still for a moment before the second revision, to be looked at.
const LOOK_TIME: Duration = Duration::from_secs(4);

/// Between two drawings of the summary.
const DRAW_PAUSE: Duration = Duration::from_millis(80);

/// Ports that are tried after the wanted one.
const PORTS: u16 = 100;

/// Bytes of a log in which its last line is looked for.
const LAST_BYTES: u64 = 4096;

/// Jobs that are asked for; the sample has far fewer.
const JOBS_MAX: u32 = 1000;

/// Shows the sample project being built.
///
/// # Errors
/// A program that the demo needs is missing, the state directory is not empty, the server failed,
/// or (with `--exit`) the outcome is not the expected one.
pub(crate) fn run(arguments: &cli::Demo) -> Result<(), Failure> {
    // A trace line in the middle of the drawing would break it; pages tell what goes wrong.
    trace(LogFormat::Text, "error");
    for (program, package) in [("git", "git"), ("cc", "gcc and libc6-dev"), ("ar", "binutils")] {
        if !is_installed(program) {
            return Err(Failure::failed(format!(
                "the demo compiles a small C program from a git repository and finds no \
                 `{program}` on the search path; install it (Debian: {package})"
            )));
        }
    }
    let place = Place::make(arguments.state.as_deref())?;
    super::runtime()?.block_on(demo(arguments, &place))
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Where the demo's state is; a temporary directory goes with it.
struct Place {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn make(wanted: Option<&Path>) -> Result<Self, Failure> {
        let failed = |what: &Path, error: std::io::Error| {
            Failure::failed(format!("{}: {error}", what.display()))
        };
        let Some(path) = wanted else {
            let temporary = tempfile::Builder::new()
                .prefix("brigandine-demo-")
                .tempdir()
                .map_err(|error| failed(&std::env::temp_dir(), error))?;
            return Ok(Self { path: temporary.path().to_owned(), _temporary: Some(temporary) });
        };
        std::fs::create_dir_all(path).map_err(|error| failed(path, error))?;
        let mut entries = std::fs::read_dir(path).map_err(|error| failed(path, error))?;
        if entries.next().is_some() {
            return Err(Failure::failed(format!(
                "{} is not empty; the demo starts from nothing, name a new directory",
                path.display()
            )));
        }
        let path = path.canonicalize().map_err(|error| failed(path, error))?;
        Ok(Self { path, _temporary: None })
    }
}

/// An evaluation as the summary shows it.
#[derive(Debug, Clone, Serialize)]
struct Shown {
    id: i64,
    status: &'static str,
    message: String,
    subject: String,
    finished: bool,
    jobs: BTreeMap<String, Job>,
}

/// A job as the summary shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Job {
    build: i64,
    status: &'static str,
    /// Known before this evaluation, and not built again.
    reused: bool,
    seconds: i64,
    /// Why it did not succeed.
    reason: String,
    /// The last line of its log, if it failed.
    last_words: String,
}

impl Job {
    /// Why it did not succeed, to be added to its status.
    fn why(&self) -> String {
        match (self.reason.as_str(), self.last_words.as_str()) {
            ("", _) => String::new(),
            (reason, "") => format!(": {reason}"),
            (reason, last) => format!(": {reason}: {last}"),
        }
    }
}

impl Shown {
    fn read(s: &Snapshot, evaluation: &Evaluation) -> rusqlite::Result<Self> {
        let page = store::job_page(s, evaluation.id, &JobFilter::default(), JOBS_MAX)?;
        let checkouts = store::checkouts(s, evaluation.id)?;
        let counters = &evaluation.counters;
        Ok(Self {
            id: evaluation.id.get(),
            status: evaluation.status.as_str(),
            message: evaluation.message.clone(),
            subject: checkouts.first().map(|c| c.subject.clone()).unwrap_or_default(),
            finished: match evaluation.status {
                EvaluationStatus::Started => false,
                EvaluationStatus::Succeeded => counters.finished() == counters.total(),
                EvaluationStatus::Failed | EvaluationStatus::Aborted => true,
            },
            jobs: page
                .jobs
                .into_iter()
                .map(|job| {
                    let build = job.build;
                    let end = if build.stopped_at > 0 { build.stopped_at } else { model::now() };
                    let seconds = if build.started_at > 0 { end - build.started_at } else { 0 };
                    let shown = Job {
                        build: build.id.get(),
                        status: build.status.as_str(),
                        reused: job.reused,
                        seconds: seconds.max(0),
                        reason: build.message,
                        last_words: String::new(),
                    };
                    (job.job, shown)
                })
                .collect(),
        })
    }

    /// In words: `6 succeeded, 1 failed, 2 running`.
    fn words(&self) -> String {
        if self.jobs.is_empty() {
            return format!("evaluation {}", self.status);
        }
        let mut parts = Vec::new();
        for status in [
            BuildStatus::Succeeded,
            BuildStatus::Failed,
            BuildStatus::FailedDependency,
            BuildStatus::FailedOther,
            BuildStatus::Canceled,
            BuildStatus::Started,
            BuildStatus::Scheduled,
        ] {
            let count = self.jobs.values().filter(|job| job.status == status.as_str()).count();
            if count > 0 {
                parts.push(format!("{count} {status}"));
            }
        }
        let reused = self.jobs.values().filter(|job| job.reused).count();
        if reused > 0 {
            parts.push(format!("{reused} re-used"));
        }
        parts.join(", ")
    }

    /// What is not as expected.
    fn surprises(&self, second: bool, surprises: &mut Vec<String>) {
        let id = self.id;
        if self.status != EvaluationStatus::Succeeded.as_str() {
            surprises.push(format!("evaluation #{id} {}: {}", self.status, self.message));
            return;
        }
        for (name, wanted) in EXPECTED {
            let Some(job) = self.jobs.get(*name) else {
                surprises.push(format!("#{id} has no job {name}"));
                continue;
            };
            if job.status != wanted.as_str() {
                surprises.push(format!("#{id} {name} is {}, not {wanted}", job.status));
            }
            let reused = second && *name != CHANGED;
            if job.reused != reused {
                let how = if reused { "was built again" } else { "was not built" };
                surprises.push(format!("#{id} {name} {how}"));
            }
        }
        for name in self.jobs.keys().filter(|name| EXPECTED.iter().all(|(job, _)| job != name)) {
            surprises.push(format!("#{id} has an unknown job {name}"));
        }
    }
}

/// How the demo ended.
#[derive(Debug, Serialize)]
struct Outcome {
    expected: bool,
    surprises: Vec<String>,
    seconds: f64,
    address: String,
    evaluations: Vec<Shown>,
}

/// The wanted address, or the next port that is free.
async fn bind(wanted: SocketAddr) -> Result<TcpListener, Failure> {
    for step in 0..PORTS {
        let Some(port) = wanted.port().checked_add(step) else { break };
        match TcpListener::bind((wanted.ip(), port)).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Ok(listener) => return Ok(listener),
            Err(_) => break,
        }
    }
    // Says what is wrong with the address that was asked for.
    listen(wanted).await
}

async fn demo(arguments: &cli::Demo, place: &Place) -> Result<(), Failure> {
    let started = Instant::now();
    let failed = |error: crate::app::AppError| Failure::failed(error.to_string());
    let mut signals = Signals::new()?;
    let listener = bind(arguments.listen).await?;
    let address = listener.local_addr().unwrap_or(arguments.listen);
    let sample = Sample::make(place.path.join("sample"))?;
    let mut settings = Settings {
        systems: vec![format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)],
        sandbox: config::Sandbox::Auto,
        ..Settings::new(place.path.join("state"))
    };
    if let Some(jobs) = arguments.max_jobs {
        settings.max_jobs = usize::from(jobs);
    }
    let app = App::start(settings).await.map_err(failed)?;
    app.load(specification(&sample.0)?, false).await.map_err(failed)?;
    let mut screen = Screen::new(arguments.json);
    screen.line("Brigandine builds a sample. Its pages:");
    screen.line(&format!("  http://{address}/"));
    screen.line("Its repository; commit to it and watch:");
    screen.line(&format!("  {}", sample.0.display()));
    if !arguments.exit {
        screen.line("Ctrl-C ends the demo.");
    }
    app.run().await.map_err(failed)?;
    let mut web = Web::start(listener, &app, config::Web::default(), None);
    let ended = tokio::select! {
        ended = show(arguments.exit, &app, &sample, &mut screen, started) => ended,
        error = app.failed() => Err(failed(error)),
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
    app.shutdown(false).await.map_err(failed)?;
    let evaluations = ended?;
    if arguments.exit {
        report(evaluations, started, address, arguments.json)
    } else {
        screen.line("The demo has ended.");
        Ok(())
    }
}

/// The demo's specification, over the sample repository.
fn specification(sample: &Path) -> Result<Vec<model::Specification>, Failure> {
    let path = sample.to_str().ok_or_else(|| {
        Failure::failed(format!("{} is no UTF-8 text; name another --state", sample.display()))
    })?;
    // Quoted as TOML quotes: a path may hold anything but a slash.
    let quoted = path.replace('\\', "\\\\").replace('"', "\\\"");
    let text = SPECIFICATION.replace("\"URL\"", &format!("\"{quoted}\""));
    let placed = config::specification::parse("the demo's specification", &text)
        .map_err(|problems| Failure::failed(problems.to_string()))?;
    Ok(placed.into_iter().map(|placed| placed.specification).collect())
}

/// Follows what happens; with `exit`, until everything is built.
async fn show(
    exit: bool,
    app: &App,
    sample: &Sample,
    screen: &mut Screen,
    started: Instant,
) -> Result<Vec<Shown>, Failure> {
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
        // A visitor sees the first evaluation complete, and then the second begin; whoever waits
        // for the end waits only until it can be told that one job is built again.
        let due = if exit {
            evaluations
                .first()
                .and_then(|first| first.jobs.get(CHANGED))
                .is_some_and(|job| job.status == BuildStatus::Succeeded.as_str())
        } else {
            complete_since.is_some_and(|since: Instant| since.elapsed() >= LOOK_TIME)
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
        // The next change, or a second later when only the clock has changed.
        let pause = if committed || exit { Duration::from_secs(1) } else { LOOK_TIME / 8 };
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

/// The evaluations, oldest first. `last_words` keeps what was read of logs.
async fn evaluations(
    app: &App,
    last_words: &mut HashMap<i64, String>,
) -> Result<Vec<Shown>, Failure> {
    let read = app.database().read(|s| {
        let evaluations = store::evaluations(s, Some("gorget"), 20)?;
        evaluations.iter().rev().map(|evaluation| Shown::read(s, evaluation)).collect()
    });
    let mut all: Vec<Shown> = read.await.map_err(super::trouble)?;
    let failed = BuildStatus::Failed.as_str();
    for job in all.iter_mut().flat_map(|shown| shown.jobs.values_mut()) {
        if job.status != failed {
            continue;
        }
        job.last_words = match last_words.get(&job.build) {
            Some(words) => words.clone(),
            None => {
                let words = last_line(app, BuildId::new(job.build)).await.unwrap_or_default();
                last_words.insert(job.build, words.clone());
                words
            }
        };
    }
    Ok(all)
}

/// The last line of a build's log that says something. `None`: it cannot be read, which its page tells.
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

fn report(
    evaluations: Vec<Shown>,
    started: Instant,
    address: SocketAddr,
    as_json: bool,
) -> Result<(), Failure> {
    let mut surprises = Vec::new();
    for (at, evaluation) in evaluations.iter().enumerate() {
        evaluation.surprises(at > 0, &mut surprises);
    }
    let outcome = Outcome {
        expected: surprises.is_empty(),
        surprises,
        seconds: (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        address: format!("http://{address}/"),
        evaluations,
    };
    if as_json {
        print_json(&outcome);
    } else {
        print_table(&outcome);
    }
    if outcome.expected {
        Ok(())
    } else {
        let list = outcome.surprises.join("\n  ");
        Err(Failure::failed(format!("the outcome is not the expected one:\n  {list}")))
    }
}
