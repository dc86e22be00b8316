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
mod terminal;
pub(crate) mod wait;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::app::{self, Served};
use crate::config;
use crate::model::{self, Evaluation, SpecificationState};
use crate::os::state_dir::StateDir;
use crate::store::{self, Database, DatabaseError, Snapshot};

use terminal::table;
pub(crate) use terminal::{print_json, say};

/// What was asked for failed.
const FAILED: u8 = 1;
/// No such specification, build or state directory.
const NOT_FOUND: u8 = 3;
/// A build that was waited for was canceled.
const CANCELED: u8 = 4;
/// What was waited for has not ended in time.
const TIMEOUT: u8 = 5;

/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(100);

/// Names that a message lists at most.
const NAMES_MAX: usize = 10;

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

    /// With another exit status.
    fn with_status(status: u8, message: impl Into<String>) -> Self {
        Self { message: message.into(), status }
    }

    /// The same with another message.
    fn saying(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// Prints the message and gives the status.
    pub(crate) fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            // A file's problems name their file; anything else names the program.
            let first = self.message.lines().next().unwrap_or_default();
            let told = first.contains(": error: ");
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
    let there = |path: PathBuf| match path.try_exists() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(Failure::failed(format!(
                "the state directory {} cannot be looked at: {error}; run this as the user of its server",
                state.display()
            )))
        }
        found => Ok(found.unwrap_or(false)),
    };
    let files = StateDir::new(state);
    if !there(files.database())? && !there(files.logs())? {
        return Err(Failure::not_found(format!(
            "there is no state in {}; name its directory with --state or BRIGANDINE_STATE",
            state.display()
        )));
    }
    let (began, mut told) = (Instant::now(), false);
    loop {
        // Asked first: a server that has started meanwhile has made what is missing.
        let starts = app::served(state) == Served::Locked;
        let error = match store::open_as_it_is(state).await {
            Ok(database) => return Ok(database),
            Err(error) => error,
        };
        if !(starts && error.is_for_a_server()) || began.elapsed() >= STARTS {
            return Err(Failure::failed(error.to_string()));
        }
        if !std::mem::replace(&mut told, true) {
            let state = state.display();
            eprintln!("brigandine: a server starts on {state}: its database is waited for");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// How long a server that starts is waited for; one that has much to do to its database says so in its trace.
const STARTS: Duration = Duration::from_secs(30);

#[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
fn trouble(error: DatabaseError) -> Failure {
    Failure::failed(format!("the database failed: {error}"))
}

fn no_specification(name: &str, names: &[String]) -> Failure {
    unknown("specification called", name, names)
}

/// There is no `what` `word`: says so, with the known names that are near it, or the first of all.
fn unknown(what: &str, word: &str, names: &[String]) -> Failure {
    let near = near(word, names);
    let quoted = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    let all: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
    let more = names.len() - all.len();
    let help = match (near.is_empty(), more) {
        (false, _) => format!("did you mean {}?", quoted(&near)),
        (true, _) if all.is_empty() => "there is none at all".to_owned(),
        (true, 0) => format!("there are {}", quoted(&all)),
        (true, more) => format!("there are {} and {more} more", quoted(&all)),
    };
    Failure::not_found(format!("there is no {what} `{}`; {help}", model::one_line(word, 200)))
}

/// The names that were probably meant, nearest first.
fn near<'n>(word: &str, names: &'n [String]) -> Vec<&'n str> {
    let folded = word.to_lowercase();
    let most = (folded.chars().count() / 3).max(1);
    let mut found: Vec<(usize, &str)> = names
        .iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let part = folded.len() >= 3 && (lower.contains(&folded) || folded.contains(&lower));
            let distance = config::distance(&folded, &lower);
            (part || distance <= most).then_some((distance, name.as_str()))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().take(5).map(|(_, name)| name).collect()
}

/// The specification of this name, or a failure that names near ones.
fn named(s: &Snapshot, name: &str) -> rusqlite::Result<Result<SpecificationState, Failure>> {
    if let Some(found) = store::specification(s, name)? {
        return Ok(Ok(found));
    }
    let all = store::specifications(s)?;
    let names: Vec<_> = all.into_iter().map(|state| state.specification.name).collect();
    Ok(Err(no_specification(name, &names)))
}

/// A specification and the evaluation that says how it stands.
fn with_evaluation(
    s: &Snapshot,
    name: &str,
) -> rusqlite::Result<Option<(SpecificationState, Option<Evaluation>)>> {
    let Some(state) = store::specification(s, name)? else { return Ok(None) };
    let evaluation = state.evaluation().map(|id| store::evaluation(s, id)).transpose()?;
    Ok(Some((state, evaluation.flatten())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_through_typing_errors_and_parts() {
        let names = ["hello", "hello-world", "zlib", "core-updates"].map(str::to_owned);
        for (word, found) in [
            ("helo", &["hello"][..]),
            ("hello-wrld", &["hello-world", "hello"]),
            ("ZLIB", &["zlib"]),
            ("updates", &["core-updates"]),
            ("nope", &[]),
        ] {
            assert_eq!(near(word, &names), found, "{word}");
        }
    }
}
