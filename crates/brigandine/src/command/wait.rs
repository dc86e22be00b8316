//! `brigandine wait`: waits until builds have ended, and exits with their result as the status.
//!
//! `evaluate --wait` uses this too, and `log --follow` returns the same result for its build.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::builds::{Listed, seconds};
use super::terminal::Progress;
use super::{Failure, POLL_PAUSE, existing, no_build, print_json, say};
use crate::app::Presence;
use crate::cli;
use crate::model::{
    Build, BuildId, BuildStatus, Counters, Evaluation, EvaluationId, EvaluationStatus,
};
use crate::store::{self, Database, JobFilter, Snapshot};

/// If an evaluation has more jobs than this, only the builds that did not succeed are reported one by one.
const EACH_MAX: i64 = 500;

/// The most builds of an evaluation that are reported, as lines or in the JSON.
const REPORTED_MAX: u32 = 1000;

/// What the command waits for.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// These builds.
    Builds(Vec<BuildId>),
    /// An evaluation, and all builds of its jobs.
    Evaluation(EvaluationId),
}

/// Why the wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Everything has ended.
    Ended,
    /// The time limit of `--timeout` has passed.
    Timeout,
    /// No server runs that could continue the work.
    NoServer,
}

/// The state of everything that the command waits for.
#[derive(Debug, Clone, Default)]
struct Status {
    evaluation: Option<Evaluation>,
    /// The builds that are reported one by one; for an evaluation, only those that have ended.
    builds: Vec<Reported>,
    counters: Counters,
    ended: bool,
}

/// A build that is reported on a line of its own.
#[derive(Debug, Clone)]
struct Reported {
    build: Build,
    /// The job's name in the evaluation.
    job: String,
    /// Whether an earlier evaluation had built the job already.
    reused: bool,
}

/// Waits, prints what has ended, and returns the result.
///
/// # Errors
/// A build or evaluation does not exist or did not succeed, the time limit has passed, or no server runs.
pub(crate) async fn run(arguments: &cli::Wait) -> Result<(), Failure> {
    let state = &arguments.state.state;
    let database = existing(state).await?;
    let wanted = match arguments.evaluation {
        Some(id) => Wanted::Evaluation(id),
        None => {
            let (mut seen, mut ids) = (HashSet::new(), arguments.builds.clone());
            ids.retain(|id| seen.insert(*id));
            Wanted::Builds(ids)
        }
    };
    wait(state, &database, wanted, arguments.timeout, arguments.json).await
}

/// Waits for `wanted`, and reports how it ended.
///
/// # Errors
/// The errors of [`run`]; the failure has the exit status.
pub(super) async fn wait(
    state: &Path,
    database: &Database,
    wanted: Wanted,
    timeout: Option<Duration>,
    as_json: bool,
) -> Result<(), Failure> {
    let (began, mut presence) = (Instant::now(), Presence::new(state));
    let (mut progress, mut printed) = (Progress::default(), HashSet::new());
    let mut status = Status::default();
    let end = loop {
        // Checked before the read, so that the read sees everything that the server stored before it ended.
        let gone = presence.has_gone();
        status = read(database, wanted.clone(), status).await?;
        let ended = status.builds.iter().filter(|reported| reported.build.status.is_finished());
        for build in ended.filter(|_| !as_json) {
            if printed.insert(build.build.id) {
                progress.line(&build.line());
            }
        }
        let late = timeout.is_some_and(|timeout| began.elapsed() >= timeout);
        let end = [(status.ended, End::Ended), (gone, End::NoServer), (late, End::Timeout)];
        if let Some((_, end)) = end.into_iter().find(|(holds, _)| *holds) {
            break end;
        }
        progress.show(&status.words());
        let left = timeout.map_or(POLL_PAUSE, |timeout| timeout.saturating_sub(began.elapsed()));
        tokio::time::sleep(POLL_PAUSE.min(left)).await;
    };
    drop(progress);
    let (word, exit_status) = status.result(end);
    if as_json {
        let builds: Vec<Build> = status.builds.iter().map(|one| one.build.clone()).collect();
        let builds = database.read(move |s| Listed::all(s, builds.clone())).await?;
        print_json(&json!({
            "result": word,
            "evaluation": status.evaluation.as_ref().map(|evaluation| json!({
                "id": evaluation.id, "specification": evaluation.specification,
                "status": evaluation.status, "message": evaluation.message,
            })),
            "jobs": status.counters,
            "builds": builds,
        }));
    }
    let words = status.words();
    let why = match end {
        End::Ended => {
            if !as_json && (status.builds.len() != 1 || status.evaluation.is_some()) {
                say(&words);
            }
            String::new()
        }
        End::Timeout => format!("the time is over: {words}"),
        End::NoServer => {
            let state = state.display();
            format!("no server runs on {state}, and no build ends before one does: {words}")
        }
    };
    if exit_status == 0 { Ok(()) } else { Err(Failure::new(exit_status, why)) }
}

/// Reads the status. `before` is the status of the previous read.
async fn read(database: &Database, wanted: Wanted, before: Status) -> Result<Status, Failure> {
    let read = database.read(move |s| match &wanted {
        Wanted::Builds(ids) => builds(s, ids),
        Wanted::Evaluation(id) => evaluation(s, *id, &before),
    });
    read.await?
}

/// The status of these builds, or the failure that one of them does not exist.
fn builds(s: &Snapshot, ids: &[BuildId]) -> rusqlite::Result<Result<Status, Failure>> {
    let mut status = Status { ended: true, ..Status::default() };
    for id in ids {
        let Some(build) = store::build(s, *id)? else { return Ok(Err(no_build(*id))) };
        status.ended &= build.status.is_finished();
        *counter(&mut status.counters, build.status) += 1;
        status.builds.push(Reported { job: build.job.clone(), build, reused: false });
    }
    Ok(Ok(status))
}

fn counter(counters: &mut Counters, status: BuildStatus) -> &mut i64 {
    match status {
        BuildStatus::Scheduled => &mut counters.scheduled,
        BuildStatus::Started => &mut counters.started,
        BuildStatus::Succeeded => &mut counters.succeeded,
        BuildStatus::Failed => &mut counters.failed,
        BuildStatus::FailedDependency => &mut counters.failed_dependency,
        BuildStatus::FailedOther => &mut counters.failed_other,
        BuildStatus::Canceled => &mut counters.canceled,
    }
}

/// The status of an evaluation and its builds.
fn evaluation(
    s: &Snapshot,
    id: EvaluationId,
    before: &Status,
) -> rusqlite::Result<Result<Status, Failure>> {
    let Some(evaluation) = store::evaluation(s, id)? else {
        return Ok(Err(Failure::not_found(format!("there is no evaluation {id}"))));
    };
    if before.evaluation.as_ref() == Some(&evaluation) {
        return Ok(Ok(before.clone()));
    }
    let counters = evaluation.counters;
    let is_reported = |status: &BuildStatus| {
        status.is_finished() && (!status.is_success() || counters.total() <= EACH_MAX)
    };
    let statuses = BuildStatus::ALL.iter().copied().filter(is_reported).collect();
    let filter = JobFilter { statuses, ..JobFilter::default() };
    let jobs = store::job_page(s, id, &filter, REPORTED_MAX)?.jobs.into_iter();
    let builds = jobs.map(|j| Reported { build: j.build, job: j.job, reused: j.reused }).collect();
    let ended = evaluation.has_ended();
    Ok(Ok(Status { evaluation: Some(evaluation), builds, counters, ended }))
}

impl Reported {
    /// The build as a line: `build 3 hello/test: failed: exit status 3`.
    fn line(&self) -> String {
        let Build { id, specification, status, message, .. } = &self.build;
        let how = match (message.as_str(), seconds(&self.build)) {
            (_, _) if self.reused && status.is_success() => " (re-used)".to_owned(),
            ("", Some(seconds)) => format!(" in {seconds} s"),
            ("", None) => String::new(),
            (message, _) => format!(": {message}"),
        };
        format!("build {id} {specification}/{}: {status}{how}", self.job)
    }
}

impl Status {
    /// The status in words: `evaluation 4: 6 of 9 jobs succeeded, 1 failed, 2 started`.
    fn words(&self) -> String {
        let (what, jobs) = match &self.evaluation {
            Some(evaluation) if evaluation.status != EvaluationStatus::Succeeded => {
                let why = match evaluation.message.as_str() {
                    "" => String::new(),
                    message => format!(": {message}"),
                };
                return format!("evaluation {} {}{why}", evaluation.id, evaluation.status);
            }
            Some(evaluation) => (format!("evaluation {}: ", evaluation.id), "jobs"),
            None => (String::new(), "builds"),
        };
        let (mut counters, total) = (self.counters, self.counters.total());
        let mut words = format!("{what}{} of {total} {jobs} succeeded", counters.succeeded);
        for status in BuildStatus::ALL.iter().filter(|status| !status.is_success()) {
            let count = *counter(&mut counters, *status);
            if count > 0 {
                words.push_str(&format!(", {count} {status}"));
            }
        }
        words
    }

    /// The result as a word, and the exit status for it.
    fn result(&self, end: End) -> (&'static str, u8) {
        let evaluated =
            self.evaluation.as_ref().is_none_or(|e| e.status == EvaluationStatus::Succeeded);
        match end {
            End::Timeout => ("timeout", super::TIMEOUT),
            End::NoServer => ("no-server", super::FAILED),
            End::Ended if !evaluated || self.counters.all_failed() > 0 => ("failed", super::FAILED),
            End::Ended if self.counters.canceled > 0 => ("canceled", super::CANCELED),
            End::Ended => ("succeeded", 0),
        }
    }
}

/// The result of a build that has ended.
///
/// # Errors
/// The build did not succeed; the failure says how it ended, and has the exit status.
pub(super) fn result_of(build: &Build) -> Result<(), Failure> {
    let status = match build.status {
        BuildStatus::Succeeded => return Ok(()),
        BuildStatus::Canceled => super::CANCELED,
        _ => super::FAILED,
    };
    let reported = Reported { job: build.job.clone(), build: build.clone(), reused: false };
    Err(Failure::new(status, reported.line()))
}
