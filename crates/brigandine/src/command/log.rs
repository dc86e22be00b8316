//! `brigandine log ID`: prints a build log from the files of the state directory.

use std::io::Write;

use super::wait::result_of;
use super::{Failure, existing, find_build, poll};
use crate::cli;
use crate::log::{LogReader, Logs};
use crate::model::{Build, BuildId, EvaluationId, EvaluationStatus};
use crate::store::{self, Database};

/// Prints the log. With `--follow`, prints until the build has ended.
///
/// # Errors
/// There is no such build, evaluation or state directory, or the log cannot be read. With `--follow` also: the build or
/// evaluation did not succeed, or no server runs that could end it.
pub(crate) async fn run(arguments: &cli::Log) -> Result<(), Failure> {
    let state = &arguments.state.state;
    let database = existing(state).await?;
    let logs = Logs::new(state, u64::MAX);
    match (arguments.evaluation, arguments.build, arguments.attempt) {
        (Some(id), ..) => evaluation(arguments, &database, &logs, id).await,
        (None, Some(id), None) => build(arguments, &database, &logs, id).await,
        (None, Some(id), Some(number)) => attempt(&database, &logs, id, number).await,
        // Does not happen: the command line requires one of the two.
        (None, None, _) => Ok(()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
fn failed(error: std::io::Error) -> Failure {
    Failure::failed(format!("the log cannot be read: {error}"))
}

fn lost(what: &str) -> Failure {
    Failure::failed(format!("the log of {what} is not kept any more: its file is gone"))
}

fn gone(arguments: &cli::Log, what: &str) -> Failure {
    let state = arguments.state.state.display();
    Failure::failed(format!("no server runs on {state}: {what} will not end before one does"))
}

async fn build(
    arguments: &cli::Log,
    database: &Database,
    logs: &Logs,
    id: BuildId,
) -> Result<(), Failure> {
    let (mut offset, mut attempt) = (0, 0);
    let ended = poll(&arguments.state.state, async |is_gone| {
        let build = find_build(database, id).await?;
        if build.attempt != attempt {
            // Each attempt has a log of its own.
            (offset, attempt) = (0, build.attempt);
        }
        // The status was read before the file, so the file of an ended build has the whole log.
        let mut reader = logs.open(&build, offset).await;
        if !print(reader.as_mut(), &mut offset).await? {
            return Ok(Some(None));
        }
        if reader.is_some_and(|reader| reader.is_missing()) && !build.log.path.is_empty() {
            return Err(lost(&format!("build {id}")));
        }
        let is_last = build.status.is_finished() || !arguments.follow;
        if let Some(why) = build.no_log().filter(|_| is_last) {
            eprintln!("brigandine: build {id} has no log. {why}{}", earlier(&build));
        }
        if is_last {
            return Ok(Some(arguments.follow.then_some(build)));
        }
        if is_gone { Err(gone(arguments, &format!("build {id}"))) } else { Ok(None) }
    });
    // With `--follow` the exit status tells the build's result.
    ended.await?.map_or(Ok(()), |build| result_of(&build))
}

/// Which command prints the log of the last attempt at a build that has no log of its own; empty: there was no attempt.
fn earlier(build: &Build) -> String {
    match build.attempt {
        0 => String::new(),
        last => {
            format!(
                " `brigandine log {} --attempt {last}` prints that of its last attempt.",
                build.id
            )
        }
    }
}

/// Prints the log of one attempt.
async fn attempt(
    database: &Database,
    logs: &Logs,
    id: BuildId,
    number: i64,
) -> Result<(), Failure> {
    let build = find_build(database, id).await?;
    let Some(mut reader) = logs.open_attempt(&build, number, 0).await else {
        let attempts = build.attempt;
        return Err(Failure::not_found(format!(
            "build {id} has no attempt {number}; it had {attempts}"
        )));
    };
    let whole = print(Some(&mut reader), &mut 0).await?;
    if whole && reader.is_missing() {
        let what = format!("attempt {number} of build {id}");
        return Err(Failure::failed(format!("{what} printed nothing, or its log is gone")));
    }
    Ok(())
}

async fn evaluation(
    arguments: &cli::Log,
    database: &Database,
    logs: &Logs,
    id: EvaluationId,
) -> Result<(), Failure> {
    let mut offset = 0;
    let printed = poll(&arguments.state.state, async |is_gone| {
        let found = database.read(move |s| store::evaluation(s, id)).await?;
        let evaluation =
            found.ok_or_else(|| Failure::not_found(format!("there is no evaluation {id}")))?;
        let mut reader = logs.open_evaluation(&evaluation, offset).await;
        if !print(Some(&mut reader), &mut offset).await? {
            return Ok(Some(()));
        }
        if reader.is_missing() && !evaluation.log_path.is_empty() {
            return Err(lost(&format!("evaluation {id}")));
        }
        match evaluation.status {
            _ if !arguments.follow => Ok(Some(())),
            EvaluationStatus::Started if is_gone => {
                Err(gone(arguments, &format!("evaluation {id}")))
            }
            EvaluationStatus::Started => Ok(None),
            EvaluationStatus::Succeeded => Ok(Some(())),
            status => {
                let message = evaluation.message;
                Err(Failure::failed(format!("evaluation {id} {status}: {message}")))
            }
        }
    });
    printed.await
}

/// Prints the log from `offset` on. `false`: standard output has no reader any more.
async fn print(reader: Option<&mut LogReader>, offset: &mut u64) -> Result<bool, Failure> {
    let Some(reader) = reader else { return Ok(true) };
    let mut out = std::io::stdout();
    while let Some(bytes) = reader.next().await.map_err(failed)? {
        *offset += bytes.len() as u64;
        match out.write_all(&bytes) {
            // For example `brigandine log 7 | head`.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(false),
            other => other.map_err(failed)?,
        }
    }
    let _ = out.flush();
    Ok(true)
}
