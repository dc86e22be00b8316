//! `brigandine log ID`: a build log, from the files of the state directory.

use std::io::Write;

use super::wait::result_of;
use super::{Failure, PAUSE, existing, trouble};
use crate::app::Presence;
use crate::cli;
use crate::log::{LogReader, Logs};
use crate::model::{BuildId, EvaluationId, EvaluationStatus};
use crate::store::{self, Database};

/// Prints the log; with `--follow`, until the build has ended.
///
/// # Errors
/// There is no such build, evaluation or state directory, or the log cannot be read. With `--follow`: it
/// did not succeed, or no server runs that could end it.
pub(crate) fn run(arguments: &cli::Log) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        let state = &arguments.state.state;
        let database = existing(state).await?;
        let logs = Logs::new(state, u64::MAX);
        match (arguments.evaluation, arguments.build) {
            (Some(id), _) => evaluation(arguments, &database, &logs, EvaluationId::new(id)).await,
            (None, id) => build(arguments, &database, &logs, BuildId::new(id.unwrap_or(0))).await,
        }
    })
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
    let mut presence = Presence::new(&arguments.state.state);
    let (mut offset, mut attempt) = (0, 0);
    loop {
        // Looked at first: what a server stored before it went is read below.
        let is_gone = arguments.follow && presence.has_gone();
        let found = database.read(move |s| store::build(s, id)).await.map_err(trouble)?;
        let build = found.ok_or_else(|| {
            Failure::not_found(format!("there is no build {id}; `brigandine builds` lists them"))
        })?;
        if build.attempt != attempt {
            // Started again: its log begins anew.
            (offset, attempt) = (0, build.attempt);
        }
        // The status was read first: what is in the file afterwards is the whole log of a build
        // that had ended then.
        let mut reader = logs.open(&build, offset).await;
        if !print(reader.as_mut(), &mut offset).await? {
            return Ok(());
        }
        if reader.is_some_and(|reader| reader.is_missing()) && !build.log.path.is_empty() {
            return Err(lost(&format!("build {id}")));
        }
        let none = build.no_log().filter(|_| build.status.is_finished() || !arguments.follow);
        if let Some(why) = none {
            // With `--follow`, its result decides.
            eprintln!("brigandine: build {id} has no log. {why}");
        }
        if !arguments.follow {
            return Ok(());
        }
        if build.status.is_finished() {
            return result_of(&build);
        }
        if is_gone {
            return Err(gone(arguments, &format!("build {id}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn evaluation(
    arguments: &cli::Log,
    database: &Database,
    logs: &Logs,
    id: EvaluationId,
) -> Result<(), Failure> {
    let mut presence = Presence::new(&arguments.state.state);
    let mut offset = 0;
    loop {
        let is_gone = arguments.follow && presence.has_gone();
        let found = database.read(move |s| store::evaluation(s, id)).await.map_err(trouble)?;
        let evaluation =
            found.ok_or_else(|| Failure::not_found(format!("there is no evaluation {id}")))?;
        let mut reader = logs.open_evaluation(&evaluation, offset).await;
        if !print(Some(&mut reader), &mut offset).await? {
            return Ok(());
        }
        if reader.is_missing() && !evaluation.log_path.is_empty() {
            return Err(lost(&format!("evaluation {id}")));
        }
        if !arguments.follow {
            return Ok(());
        }
        match evaluation.status {
            EvaluationStatus::Started if is_gone => {
                return Err(gone(arguments, &format!("evaluation {id}")));
            }
            EvaluationStatus::Started => tokio::time::sleep(PAUSE).await,
            EvaluationStatus::Succeeded => return Ok(()),
            status => {
                let message = evaluation.message;
                return Err(Failure::failed(format!("evaluation {id} {status}: {message}")));
            }
        }
    }
}

/// Prints what is there from `offset` on. `false`: nobody reads it any more.
async fn print(reader: Option<&mut LogReader>, offset: &mut u64) -> Result<bool, Failure> {
    let Some(reader) = reader else { return Ok(true) };
    let mut out = std::io::stdout();
    while let Some(bytes) = reader.next().await.map_err(failed)? {
        *offset += bytes.len() as u64;
        match out.write_all(&bytes) {
            // `brigandine log 7 | head`
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(false),
            other => other.map_err(failed)?,
        }
    }
    let _ = out.flush();
    Ok(true)
}
