//! `brigandine-bench builds`: what a build that does nothing costs.
//!
//! A sample repository whose job list has as many jobs as asked for, each the shell command `:`,
//! is looked at, evaluated and built by the real server with everything on (durable commits, clean
//! directories, build logs, attempts, counters); HTTP is off, and the sandbox unless it is asked for. The clock runs
//! from the registered evaluation to the last committed result. Processor time is that of the
//! server's process alone, without its children.
//!
//! Then three times from a trigger to a process that runs, on a server with nothing else to do:
//!
//! - *registered*: one new build is committed (what "queue a run" is elsewhere);
//! - *evaluated*: a specification changed and nothing was pushed: look, evaluation, registering;
//! - *pushed*: a hook tells of a new revision, which has to be fetched from a repository on this
//!   machine first.

use crate::cli::Builds;
use crate::output::Failure;
use brigandine::model::{self, Evaluator, Event, Input, Reference, Specification, SpecificationId};
use brigandine::store;
use brigandine::{App, AppError, Config};
use rustix::time::{ClockId, clock_gettime};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs the measurements and prints the figures.
pub(crate) fn run(arguments: &Builds) -> Result<(), Failure> {
    let temporary = match &arguments.state {
        None => Some(tempfile::tempdir().map_err(|error| failure("a directory", &error))?),
        Some(path) => {
            let empty =
                std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
            if !empty {
                let message = format!("{} is not empty; name a new directory", path.display());
                return Err(Failure::new(message));
            }
            None
        }
    };
    let directory = match (&arguments.state, &temporary) {
        (Some(path), _) => path.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => return Err(Failure::new("no directory")),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failure("the threads", &error))?;
    let figures = runtime.block_on(measure(arguments, &directory))?;
    let shown = if arguments.json { figures.json() } else { figures.text() };
    writeln!(std::io::stdout(), "{shown}").map_err(|error| failure("standard output", &error))
}

fn failure(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("{what}: {error}"))
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        Self::new(error.to_string())
    }
}

struct Figures {
    builds: u32,
    max_jobs: u16,
    start_ms: f64,
    evaluation_ms: f64,
    seconds: f64,
    cpu_ms_per_build: f64,
    registered_ms: [f64; 3],
    evaluated_ms: [f64; 3],
    pushed_ms: [f64; 3],
    memory_mib: f64,
}

impl Figures {
    fn rate(&self) -> f64 {
        f64::from(self.builds) / self.seconds
    }

    fn json(&self) -> String {
        let percentiles = |p: &[f64; 3]| serde_json::json!({"p50": p[0], "p90": p[1], "p99": p[2]});
        serde_json::json!({
            "builds": self.builds,
            "max_jobs": self.max_jobs,
            "builds_per_s": self.rate(),
            "server_cpu_ms_per_build": self.cpu_ms_per_build,
            "registered_to_process_ms": percentiles(&self.registered_ms),
            "evaluate_to_process_ms": percentiles(&self.evaluated_ms),
            "push_to_process_ms": percentiles(&self.pushed_ms),
            "server_start_ms": self.start_ms,
            "evaluation_ms": self.evaluation_ms,
            "memory_mib": self.memory_mib,
        })
        .to_string()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let [p50, p90, p99] = self.registered_ms;
        let [look50, look90, look99] = self.evaluated_ms;
        let [push50, push90, push99] = self.pushed_ms;
        let _ = write!(
            text,
            "{} builds that do nothing, {} at a time: {:.2} s\n\
             builds per second            {:8.0}\n\
             server processor time        {:8.2} ms per build\n\
             registered to process start  {p50:8.2} ms (p90 {p90:.2}, p99 {p99:.2})\n\
             evaluate to process start    {look50:8.2} ms (p90 {look90:.2}, p99 {look99:.2})\n\
             push to process start        {push50:8.2} ms (p90 {push90:.2}, p99 {push99:.2})\n\
             look and evaluation          {:8.0} ms\n\
             server start                 {:8.1} ms\n\
             resident memory              {:8.1} MiB",
            self.builds,
            self.max_jobs,
            self.seconds,
            self.rate(),
            self.cpu_ms_per_build,
            self.evaluation_ms,
            self.start_ms,
            self.memory_mib,
        );
        text
    }
}

async fn measure(arguments: &Builds, directory: &Path) -> Result<Figures, Failure> {
    let repository = directory.join("sample");
    git(directory, &["init", "--quiet", "--initial-branch=main", "sample"])?;
    commit(&repository, &job_list(arguments.count))?;

    let began = Instant::now();
    let mut config = Config::default();
    config.state = directory.join("state");
    config.max_jobs = usize::from(arguments.max_jobs);
    config.interval = Duration::from_secs(3600);
    config.sandbox = arguments.sandbox;
    let app = App::start(config).await?;
    app.run().await?;
    let start_ms = milliseconds(began.elapsed());

    let mut events = app.events();
    let began = Instant::now();
    let mut specification = Specification {
        name: "bench".to_owned(),
        description: String::new(),
        inputs: vec![Input {
            name: "sample".to_owned(),
            url: repository.to_string_lossy().into_owned(),
            reference: Reference::Branch("main".to_owned()),
            submodules: false,
            submodules_from: Vec::new(),
        }],
        evaluator: Evaluator::Jobs {
            input: None,
            file: "brigandine.toml".to_owned(),
            jobs: Vec::new(),
        },
        interval_s: None,
        keep: None,
        priority: 0,
        network: false,
        enabled: true,
    };
    app.load(vec![specification.clone()], false).await?;
    evaluated(&app, &mut events).await?;
    let evaluation_ms = milliseconds(began.elapsed());

    let (began, cpu) = (Instant::now(), processor_time());
    app.wait_idle().await;
    let seconds = began.elapsed().as_secs_f64();
    let cpu_ms_per_build = milliseconds(processor_time() - cpu) / f64::from(arguments.count);
    check(&app, arguments.count).await?;

    let registered_ms = triggers(&app, arguments.triggers).await?;
    let pushed_ms = pushes(&app, &repository, arguments.triggers.min(50)).await?;
    let evaluated_ms = changes(&app, &mut specification, arguments.triggers.min(50)).await?;
    let memory_mib = resident_mib();
    app.shutdown(true).await?;
    Ok(Figures {
        builds: arguments.count,
        max_jobs: arguments.max_jobs,
        start_ms,
        evaluation_ms,
        seconds,
        cpu_ms_per_build,
        registered_ms,
        evaluated_ms,
        pushed_ms,
        memory_mib,
    })
}

/// Waits for the end of an evaluation.
async fn evaluated(
    app: &App,
    events: &mut tokio::sync::broadcast::Receiver<Event>,
) -> Result<(), Failure> {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(Event::Evaluation { status: model::EvaluationStatus::Started, .. }) => {}
                Ok(Event::Evaluation { status: model::EvaluationStatus::Succeeded, .. }) => {
                    return Ok(());
                }
                Ok(Event::Evaluation { id, .. }) => {
                    let found = app.database().read(move |s| store::evaluation(s, id)).await;
                    let message = found.ok().flatten().map(|found| found.message);
                    return Err(Failure::new(message.unwrap_or_default()));
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err(Failure::new("the server ended")),
            },
            error = app.failed() => return Err(error.into()),
        }
    }
}

/// A benchmark of failures would measure nothing.
async fn check(app: &App, count: u32) -> Result<(), Failure> {
    let found = app.database().read(|s| store::evaluations(s, None, 1)).await;
    let found = found.map_err(|error| failure("the database", &error))?;
    let counters = found.first().map(|found| found.counters).unwrap_or_default();
    if counters.succeeded == i64::from(count) {
        return Ok(());
    }
    Err(Failure::new(format!("{} of {count} builds succeeded", counters.succeeded)))
}

/// From the commit of a single new build to its running process, on a server with nothing to do.
async fn triggers(app: &App, count: u32) -> Result<[f64; 3], Failure> {
    let mut starts = app.starts();
    let mut found = Vec::new();
    for number in 0..count {
        let definition = model::Definition {
            version: model::Definition::VERSION,
            name: format!("trigger-{number}"),
            command: vec!["/bin/sh".to_owned(), "-c".to_owned(), ":".to_owned()],
            environment: std::collections::BTreeMap::new(),
            system: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            sources: Vec::new(),
            needs: std::collections::BTreeMap::new(),
            products: Vec::new(),
            isolation: String::new(),
            network: false,
            description: String::new(),
        };
        let text = serde_json::to_string(&definition).unwrap_or_default();
        let job = store::NewJob {
            name: definition.name.clone(),
            derivation: format!("{}.drv", definition.name),
            system: definition.system.clone(),
            nix_name: definition.name.clone(),
            priority: 0,
            timeout_s: 0,
            max_silent_s: 0,
            definition: Some(text),
            needs: Vec::new(),
        };
        let (stamp, now) = (definition.name.clone(), model::now());
        let began = Instant::now();
        let registered = app.database().write(move |tx| {
            let specification = SpecificationId::new(1);
            let begun = store::begin_evaluation(tx, specification, &stamp, &[], "", now)?;
            let store::Begun::New(id) = begun else { return Ok(None) };
            store::register(tx, id, std::slice::from_ref(&job), "", "", now)
        });
        registered.await.map_err(|error| failure("the database", &error))?;
        app.wake();
        let (_, at) = starts.recv().await.map_err(|error| failure("a start", &error))?;
        found.push(milliseconds(at - began));
        app.wait_idle().await;
    }
    Ok(percentiles(found))
}

/// From a hook that tells of a push to the running process: fetch, evaluation and all.
async fn pushes(app: &App, repository: &Path, count: u32) -> Result<[f64; 3], Failure> {
    let mut starts = app.starts();
    let mut found = Vec::new();
    for number in 0..count {
        commit(
            repository,
            &format!("[[job]]\nname = \"push-{number}\"\ncommand = \":\"\nsources = [\"note\"]\n"),
        )?;
        let began = Instant::now();
        app.look("bench");
        found.push(milliseconds(next_start(&mut starts).await? - began));
        app.wait_idle().await;
    }
    Ok(percentiles(found))
}

/// From a changed specification to the running process: a look that finds nothing to fetch, an
/// evaluation, and the start.
async fn changes(
    app: &App,
    specification: &mut Specification,
    count: u32,
) -> Result<[f64; 3], Failure> {
    let mut starts = app.starts();
    let mut found = Vec::new();
    for number in 0..count {
        let job = model::JobEntry {
            name: format!("change-{number}"),
            description: String::new(),
            command: vec![":".to_owned()],
            sources: vec!["note".to_owned()],
            needs: model::Needs::default(),
            env: std::collections::BTreeMap::new(),
            systems: Vec::new(),
            timeout_s: None,
            max_silent_s: None,
            priority: 0,
            products: Vec::new(),
            network: false,
        };
        if let Evaluator::Jobs { jobs, .. } = &mut specification.evaluator {
            *jobs = vec![job];
        }
        let began = Instant::now();
        app.load(vec![specification.clone()], true).await?;
        found.push(milliseconds(next_start(&mut starts).await? - began));
        app.wait_idle().await;
    }
    Ok(percentiles(found))
}

async fn next_start(
    starts: &mut tokio::sync::broadcast::Receiver<(model::BuildId, Instant)>,
) -> Result<Instant, Failure> {
    let start = tokio::time::timeout(Duration::from_secs(60), starts.recv()).await;
    let start = start.map_err(|error| failure("no build started", &error))?;
    start.map(|(_, at)| at).map_err(|error| failure("a start", &error))
}

fn percentiles(mut found: Vec<f64>) -> [f64; 3] {
    found.sort_unstable_by(f64::total_cmp);
    [50, 90, 99].map(|percent| {
        let place = (found.len() * percent / 100).min(found.len().saturating_sub(1));
        found.get(place).copied().unwrap_or(f64::NAN)
    })
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}

fn job_list(count: u32) -> String {
    (0..count).fold(String::new(), |mut text, number| {
        let _ = write!(
            text,
            "[[job]]\nname = \"nothing-{number:06}\"\ncommand = \":\"\nsources = [\"note\"]\n\n"
        );
        text
    })
}

fn commit(repository: &Path, jobs: &str) -> Result<(), Failure> {
    // The only source of the jobs: what is measured is a build, not the copy of a long job list.
    commit_files(repository, &[("brigandine.toml", jobs), ("note", "nothing to do\n")])
}

pub(crate) fn commit_files(repository: &Path, files: &[(&str, &str)]) -> Result<(), Failure> {
    for (name, text) in files {
        std::fs::write(repository.join(name), text).map_err(|error| failure(name, &error))?;
    }
    git(repository, &["add", "--all"])?;
    git(
        repository,
        &[
            "-c",
            "user.name=bench",
            "-c",
            "user.email=bench@localhost",
            "-c",
            "commit.gpgSign=false",
            "-c",
            "gc.auto=0",
            "commit",
            "--quiet",
            "--message=jobs",
        ],
    )
}

pub(crate) fn git(directory: &Path, arguments: &[&str]) -> Result<(), Failure> {
    std::fs::create_dir_all(directory).map_err(|error| failure("a directory", &error))?;
    let done = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .output()
        .map_err(|error| failure("git", &error))?;
    if done.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("git: {}", String::from_utf8_lossy(&done.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::percentiles;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        assert_eq!(percentiles((1..=100).map(f64::from).collect()), [51.0, 91.0, 100.0]);
        assert_eq!(percentiles(vec![7.0]), [7.0; 3]);
    }
}
