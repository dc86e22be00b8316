//! `brigandine wait`: until builds have ended, with their result as the exit status.
//!
//! Used by `evaluate --wait` as well; `log --follow` gives the same result of its build. The server is
//! another process and says nothing itself: the database is asked, and whether the server is still there.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::builds::{Listed, seconds};
use super::terminal::Progress;
use super::{Failure, PAUSE, existing, print_json, say, trouble};
use crate::app::Presence;
use crate::cli;
use crate::model::{
    Build, BuildId, BuildStatus, Counters, Evaluation, EvaluationId, EvaluationStatus,
};
use crate::store::{self, Database, JobFilter, Snapshot};

/// Of an evaluation with more jobs, only those that did not succeed are told one by one.
const EACH_MAX: i64 = 500;

/// Builds of an evaluation that are told one by one, and stand in the JSON.
const TOLD_MAX: u32 = 1000;

/// What is waited for.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// These builds.
    Builds(Vec<BuildId>),
    /// All builds of an evaluation, and itself.
    Evaluation(EvaluationId),
}

/// Why the waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Everything has ended.
    Ended,
    /// The time was over.
    Timeout,
    /// No server runs that could go on.
    Gone,
}

/// How everything stands.
#[derive(Debug, Clone, Default)]
struct Standing {
    evaluation: Option<Evaluation>,
    /// Those that are told one by one; of an evaluation those that have ended.
    builds: Vec<Told>,
    counters: Counters,
    ended: bool,
}

/// A build that is told.
#[derive(Debug, Clone)]
struct Told {
    build: Build,
    /// The job's name in the evaluation.
    job: String,
    /// Known before the evaluation, and not built again.
    reused: bool,
}

/// Waits, prints what ended, and gives the result.
///
/// # Errors
/// A build or evaluation is not there or did not succeed, the time is over, or no server runs.
pub(crate) fn run(arguments: &cli::Wait) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        let state = &arguments.state.state;
        let database = existing(state).await?;
        let wanted = match arguments.evaluation {
            Some(id) => Wanted::Evaluation(EvaluationId::new(id)),
            None => {
                let (mut seen, mut ids) = (HashSet::new(), arguments.builds.clone());
                ids.retain(|id| seen.insert(*id));
                Wanted::Builds(ids.into_iter().map(BuildId::new).collect())
            }
        };
        wait(state, &database, wanted, arguments.timeout, arguments.json).await
    })
}

/// Waits for what is wanted and says how it ended.
///
/// # Errors
/// As [`run`]; the failure has the exit status.
pub(super) async fn wait(
    state: &Path,
    database: &Database,
    wanted: Wanted,
    timeout: Option<Duration>,
    as_json: bool,
) -> Result<(), Failure> {
    let (began, mut presence) = (Instant::now(), Presence::new(state));
    let (mut progress, mut told) = (Progress::default(), HashSet::new());
    let mut standing = Standing::default();
    let end = loop {
        // Looked at first: what a server stored before it went is read below.
        let gone = presence.has_gone();
        standing = look(database, wanted.clone(), standing).await?;
        let ended = standing.builds.iter().filter(|told| told.build.status.is_finished());
        for build in ended.filter(|_| !as_json) {
            if told.insert(build.build.id) {
                progress.line(&build.line());
            }
        }
        let late = timeout.is_some_and(|timeout| began.elapsed() >= timeout);
        let end = [(standing.ended, End::Ended), (gone, End::Gone), (late, End::Timeout)];
        if let Some((_, end)) = end.into_iter().find(|(holds, _)| *holds) {
            break end;
        }
        progress.show(&standing.words());
        let left = timeout.map_or(PAUSE, |timeout| timeout.saturating_sub(began.elapsed()));
        tokio::time::sleep(PAUSE.min(left)).await;
    };
    drop(progress);
    let (word, result) = standing.result(end);
    if as_json {
        let builds: Vec<Build> = standing.builds.iter().map(|told| told.build.clone()).collect();
        let builds = database.read(move |s| Listed::all(s, builds.clone())).await;
        print_json(&json!({
            "result": word,
            "evaluation": standing.evaluation.as_ref().map(|evaluation| json!({
                "id": evaluation.id, "specification": evaluation.specification,
                "status": evaluation.status, "message": evaluation.message,
            })),
            "jobs": standing.counters,
            "builds": builds.map_err(trouble)?,
        }));
    }
    let words = standing.words();
    let why = match end {
        End::Ended => {
            if !as_json && (standing.builds.len() != 1 || standing.evaluation.is_some()) {
                say(&words);
            }
            return result;
        }
        End::Timeout => format!("the time is over: {words}"),
        End::Gone => {
            format!(
                "no server runs on {}, and no build ends before one does: {words}",
                state.display()
            )
        }
    };
    result.map_err(|failure| failure.saying(why))
}

/// How everything stands now; `before` is how it stood.
async fn look(database: &Database, wanted: Wanted, before: Standing) -> Result<Standing, Failure> {
    let read = database.read(move |s| match &wanted {
        Wanted::Builds(ids) => builds(s, ids),
        Wanted::Evaluation(id) => evaluation(s, *id, &before),
    });
    read.await.map_err(trouble)?.map_err(Failure::not_found)
}

/// How these builds stand, or which of them is not there.
fn builds(s: &Snapshot, ids: &[BuildId]) -> rusqlite::Result<Result<Standing, String>> {
    let mut standing = Standing { ended: true, ..Standing::default() };
    for id in ids {
        let Some(build) = store::build(s, *id)? else {
            return Ok(Err(format!("there is no build {id}; `brigandine builds` lists them")));
        };
        standing.ended &= build.status.is_finished();
        *counter(&mut standing.counters, build.status) += 1;
        standing.builds.push(Told { job: build.job.clone(), build, reused: false });
    }
    Ok(Ok(standing))
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

/// How an evaluation and its builds stand.
fn evaluation(
    s: &Snapshot,
    id: EvaluationId,
    before: &Standing,
) -> rusqlite::Result<Result<Standing, String>> {
    let Some(evaluation) = store::evaluation(s, id)? else {
        return Ok(Err(format!("there is no evaluation {id}")));
    };
    if before.evaluation.as_ref() == Some(&evaluation) {
        return Ok(Ok(before.clone()));
    }
    let counters = evaluation.counters;
    let ended = |status: &BuildStatus| {
        status.is_finished() && (!status.is_success() || counters.total() <= EACH_MAX)
    };
    let statuses = BuildStatus::ALL.iter().copied().filter(ended).collect();
    let filter = JobFilter { statuses, ..JobFilter::default() };
    let page = store::job_page(s, id, &filter, TOLD_MAX)?;
    let builds = page.jobs.into_iter();
    let builds = builds.map(|j| Told { build: j.build, job: j.job, reused: j.reused }).collect();
    let ended = match evaluation.status {
        EvaluationStatus::Started => false,
        EvaluationStatus::Succeeded => counters.finished() == counters.total(),
        EvaluationStatus::Failed | EvaluationStatus::Aborted => true,
    };
    Ok(Ok(Standing { evaluation: Some(evaluation), builds, counters, ended }))
}

impl Told {
    /// In a line: `build 3 hello/test: failed: exit status 3`.
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

impl Standing {
    /// In words: `evaluation 4: 6 of 9 jobs succeeded, 1 failed, 2 started`.
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

    /// The result in a word, and as a failure with its exit status that says nothing.
    fn result(&self, end: End) -> (&'static str, Result<(), Failure>) {
        let failed = |status| Err(Failure::with_status(status, ""));
        let evaluated =
            self.evaluation.as_ref().is_none_or(|e| e.status == EvaluationStatus::Succeeded);
        match end {
            End::Timeout => ("timeout", failed(super::TIMEOUT)),
            End::Gone => ("no-server", failed(super::FAILED)),
            End::Ended if !evaluated || self.counters.all_failed() > 0 => {
                ("failed", failed(super::FAILED))
            }
            End::Ended if self.counters.canceled > 0 => ("canceled", failed(super::CANCELED)),
            End::Ended => ("succeeded", Ok(())),
        }
    }
}

/// The result of one build that has ended.
///
/// # Errors
/// It did not succeed; the failure says how it ended and has the exit status.
pub(super) fn result_of(build: &Build) -> Result<(), Failure> {
    let status = match build.status {
        BuildStatus::Succeeded => return Ok(()),
        BuildStatus::Canceled => super::CANCELED,
        _ => super::FAILED,
    };
    let told = Told { job: build.job.clone(), build: build.clone(), reused: false };
    Err(Failure::with_status(status, told.line()))
}
