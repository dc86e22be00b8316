//! The commands, one file each: what they ask of the rest and how they print it.

pub(crate) mod builds;
pub(crate) mod change;
pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod evaluate;
pub(crate) mod import;
pub(crate) mod log;
pub(crate) mod prune;
pub(crate) mod serve;
pub(crate) mod spec;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::model::{Evaluation, SpecificationState};
use crate::store::{self, Database, DatabaseError, Snapshot};

/// What was asked for failed.
const FAILED: u8 = 1;
/// No such specification, build or state directory.
const NOT_FOUND: u8 = 3;

/// Why a command ended otherwise than well: a message for standard error and an exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    /// What was asked for failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: FAILED }
    }

    /// What was asked for is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: NOT_FOUND }
    }

    /// Prints the message and gives the status.
    pub(crate) fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            // A file's problems name their file; anything else names the program.
            let told = self.message.contains(": error: ");
            eprintln!("{}{}", if told { "" } else { "brigandine: " }, self.message);
        }
        ExitCode::from(self.status)
    }
}

/// Threads for everything that waits: few, since the work is done by child processes and by the
/// database's own threads.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 8))
        .thread_name("brigandine")
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("threads cannot be started: {error}")))
}

/// The database of a state directory that must be there.
async fn existing(state: &Path) -> Result<Database, Failure> {
    // Where there are build logs, the file should be there: that is told below.
    if !state.join(store::DATABASE_FILE).exists() && !state.join("logs").exists() {
        return Err(Failure::not_found(format!(
            "there is no state in {}; name its directory with --state or BRIGANDINE_STATE",
            state.display()
        )));
    }
    store::open_as_it_is(state).await.map_err(|error| Failure::failed(error.to_string()))
}

#[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
fn trouble(error: DatabaseError) -> Failure {
    Failure::failed(format!("the database failed: {error}"))
}

fn no_specification(name: &str) -> Failure {
    Failure::not_found(format!(
        "there is no specification called `{name}`; `brigandine spec list` lists them"
    ))
}

/// A specification and its latest evaluation.
fn with_evaluation(
    s: &Snapshot,
    name: &str,
) -> rusqlite::Result<Option<(SpecificationState, Option<Evaluation>)>> {
    let Some(state) = store::specification(s, name)? else { return Ok(None) };
    let evaluation = state.latest_evaluation.map(|id| store::evaluation(s, id)).transpose()?;
    Ok(Some((state, evaluation.flatten())))
}

pub(crate) fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => say(&text),
        Err(error) => eprintln!("brigandine: {error}"),
    }
}

/// Prints a line; a reader that has gone is no error.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints rows in columns; the last one is as long as it likes.
fn table<const N: usize>(rows: &[[String; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            if at + 1 < N {
                line.push_str(&format!("{cell:width$}  "));
            } else {
                line.push_str(cell);
            }
        }
        say(line.trim_end());
    }
}
