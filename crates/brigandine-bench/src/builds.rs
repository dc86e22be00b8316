//! `brigandine-bench builds`: the costs of a build that does nothing.
//!
//! The real server looks at a sample repository, evaluates its job list, which has the requested length, and builds the
//! jobs. Each job is the shell command `:`. Everything is on (durable commits, clean directories, build logs, attempts,
//! counters) except HTTP and, by default, the sandbox. The clock runs from the registered evaluation to the last
//! committed result. The processor time is that of the server's process without its children.
//!
//! Then the time from a trigger to the running process of a build is measured, on a server that has nothing else to do.
//! There are three triggers:
//!
//! - *registered*: one new build is committed (other servers call this "queue a run");
//! - *evaluated*: a specification changes and there is nothing to fetch. The time covers the look, the evaluation and
//!   the registration;
//! - *pushed*: a hook reports a new revision, which is first fetched from a repository on this machine.

use crate::cli::Builds;
use crate::output::{Failure, failed, print_json, say};
use crate::process::memory_mib;
use crate::server::NO_JOB;
use crate::statistics::{milliseconds, percentile, sorted};
use brigandine::model::{self, Evaluator, Event, Specification, SpecificationId};
use brigandine::store;
use brigandine::{App, Config};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::json;
use std::fmt::{self, Display, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// Runs the measurements and prints the figures.
pub(crate) fn run(arguments: &Builds) -> Result<(), Failure> {
    let temporary = tempfile::tempdir()?;
    let directory = arguments.state.as_deref().unwrap_or(temporary.path());
    if std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
        let message = format!("{} is not empty; name a new directory", directory.display());
        return Err(failed(message));
    }
    let figures = brigandine::runtime()?.block_on(measure(arguments, directory))?;
    if arguments.json {
        print_json(&figures);
    } else {
        say(&figures.to_string());
    }
    Ok(())
}

#[derive(Serialize)]
struct Figures {
    builds: u32,
    max_jobs: u16,
    #[serde(skip)]
    seconds: f64,
    builds_per_s: f64,
    server_cpu_ms_per_build: f64,
    registered_to_process_ms: Percentiles,
    evaluate_to_process_ms: Percentiles,
    push_to_process_ms: Percentiles,
    server_start_ms: f64,
    evaluation_ms: f64,
    memory_mib: f64,
}

#[derive(Serialize)]
struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
}

impl Percentiles {
    fn of(values: Vec<f64>) -> Self {
        let values = sorted(values);
        let [p50, p90, p99] = [50, 90, 99].map(|percent| percentile(&values, percent));
        Self { p50, p90, p99 }
    }
}

impl Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:8.2} ms (p90 {:.2}, p99 {:.2})", self.p50, self.p90, self.p99)
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} builds that do nothing, {} at a time: {:.2} s\n\
             builds per second            {:8.0}\n\
             server processor time        {:8.2} ms per build\n\
             registered to process start  {}\n\
             evaluate to process start    {}\n\
             push to process start        {}\n\
             look and evaluation          {:8.0} ms\n\
             server start                 {:8.1} ms\n\
             resident memory              {:8.1} MiB",
            self.builds,
            self.max_jobs,
            self.seconds,
            self.builds_per_s,
            self.server_cpu_ms_per_build,
            self.registered_to_process_ms,
            self.evaluate_to_process_ms,
            self.push_to_process_ms,
            self.evaluation_ms,
            self.server_start_ms,
            self.memory_mib,
        )
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
    let server_start_ms = milliseconds(began.elapsed());

    let mut events = app.events();
    let began = Instant::now();
    let mut specification: Specification = serde_json::from_value(json!({
        "name": "bench",
        "inputs": [{ "name": "sample", "url": repository, "reference": { "branch": "main" } }],
        "evaluator": { "kind": "jobs", "file": "brigandine.toml" },
    }))?;
    app.load(vec![specification.clone()], false).await?;
    evaluated(&app, &mut events).await?;
    let evaluation_ms = milliseconds(began.elapsed());

    let (began, cpu) = (Instant::now(), processor_time());
    app.wait_idle().await;
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), processor_time() - cpu);
    check(&app, arguments.count).await?;

    let registered_to_process_ms = triggers(&app, arguments.triggers).await?;
    let few = arguments.triggers.min(50);
    let push_to_process_ms = pushes(&app, &repository, few).await?;
    let evaluate_to_process_ms = changes(&app, &mut specification, few).await?;
    let memory_mib = memory_mib("self", "VmRSS");
    app.shutdown(true).await?;
    Ok(Figures {
        builds: arguments.count,
        max_jobs: arguments.max_jobs,
        seconds,
        builds_per_s: f64::from(arguments.count) / seconds,
        server_cpu_ms_per_build: milliseconds(cpu) / f64::from(arguments.count),
        registered_to_process_ms,
        evaluate_to_process_ms,
        push_to_process_ms,
        server_start_ms,
        evaluation_ms,
        memory_mib,
    })
}

/// Waits for the end of an evaluation.
async fn evaluated(app: &App, events: &mut Receiver<Event>) -> Result<(), Failure> {
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
                    return Err(failed(message.unwrap_or_default()));
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err(failed("the server ended")),
            },
            error = app.failed() => return Err(error.into()),
        }
    }
}

/// Fails unless all builds have succeeded.
async fn check(app: &App, count: u32) -> Result<(), Failure> {
    let found = app.database().read(|s| store::evaluations(s, None, 1)).await?;
    let counters = found.first().map(|found| found.counters).unwrap_or_default();
    if counters.succeeded == i64::from(count) {
        return Ok(());
    }
    Err(failed(format!("{} of {count} builds succeeded", counters.succeeded)))
}

/// Measures the time from the commit of a single new build to its running process, on an idle server.
async fn triggers(app: &App, count: u32) -> Result<Percentiles, Failure> {
    let mut starts = app.starts();
    let mut times = Vec::new();
    for number in 0..count {
        let definition = model::Definition {
            version: model::Definition::VERSION,
            name: format!("trigger-{number}"),
            command: ["/bin/sh", "-c", ":"].map(str::to_owned).to_vec(),
            system: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            ..model::Definition::default()
        };
        let job = store::NewJob {
            name: definition.name.clone(),
            derivation: format!("{}.drv", definition.name),
            system: definition.system.clone(),
            nix_name: definition.name.clone(),
            definition: Some(serde_json::to_string(&definition)?),
            ..NO_JOB
        };
        let (stamp, now) = (definition.name, model::now());
        let began = Instant::now();
        let registered = app.database().write(move |tx| {
            let specification = SpecificationId::new(1);
            let begun = store::begin_evaluation(tx, specification, &stamp, &[], "", now)?;
            let store::Begun::New(id) = begun else { return Ok(None) };
            store::register(tx, id, std::slice::from_ref(&job), "", "", now)
        });
        registered.await?;
        app.wake();
        times.push(milliseconds(next_start(&mut starts).await? - began));
        app.wait_idle().await;
    }
    Ok(Percentiles::of(times))
}

/// Measures the time from a hook that reports a push to the running process. The time includes the fetch and the
/// evaluation.
async fn pushes(app: &App, repository: &Path, count: u32) -> Result<Percentiles, Failure> {
    let mut starts = app.starts();
    let mut times = Vec::new();
    for number in 0..count {
        commit(
            repository,
            &format!("[[job]]\nname = \"push-{number}\"\ncommand = \":\"\nsources = [\"note\"]\n"),
        )?;
        let began = Instant::now();
        app.look("bench");
        times.push(milliseconds(next_start(&mut starts).await? - began));
        app.wait_idle().await;
    }
    Ok(Percentiles::of(times))
}

/// Measures the time from a changed specification to the running process. The time includes a look that has nothing to
/// fetch, an evaluation, and the start.
async fn changes(
    app: &App,
    specification: &mut Specification,
    count: u32,
) -> Result<Percentiles, Failure> {
    let mut starts = app.starts();
    let mut times = Vec::new();
    for number in 0..count {
        if let Evaluator::Jobs { jobs, .. } = &mut specification.evaluator {
            *jobs = vec![model::JobEntry {
                name: format!("change-{number}"),
                command: vec![":".to_owned()],
                sources: vec!["note".to_owned()],
                ..model::JobEntry::default()
            }];
        }
        let began = Instant::now();
        app.load(vec![specification.clone()], true).await?;
        times.push(milliseconds(next_start(&mut starts).await? - began));
        app.wait_idle().await;
    }
    Ok(Percentiles::of(times))
}

async fn next_start(starts: &mut Receiver<(model::BuildId, Instant)>) -> Result<Instant, Failure> {
    let start = tokio::time::timeout(Duration::from_secs(60), starts.recv()).await;
    Ok(start.map_err(|_| failed("no build started in a minute"))??.1)
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
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
    // `note` is the only source of the jobs, so builds do not copy the long job list.
    commit_files(repository, &[("brigandine.toml", jobs), ("note", "nothing to do\n")])
}

pub(crate) fn commit_files(repository: &Path, files: &[(&str, &str)]) -> Result<(), Failure> {
    for (name, text) in files {
        let path = repository.join(name);
        std::fs::write(&path, text).map_err(|e| failed(format!("{}: {e}", path.display())))?;
    }
    git(repository, &["add", "--all"])?;
    git(repository, &["commit", "--quiet", "--message=jobs"])
}

pub(crate) fn git(directory: &Path, arguments: &[&str]) -> Result<(), Failure> {
    std::fs::create_dir_all(directory)?;
    let done = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"])
        .args(["-c", "commit.gpgSign=false", "-c", "gc.auto=0"])
        .args(arguments)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .output()
        .map_err(|error| failed(format!("git: {error}")))?;
    if done.status.success() {
        return Ok(());
    }
    Err(failed(format!("git: {}", String::from_utf8_lossy(&done.stderr).trim())))
}
