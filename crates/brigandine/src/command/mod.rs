//! The commands, one file each. A command calls functions of the other modules and prints the results.

pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod builds;
pub(crate) mod change;
pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod evaluate;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod log;
pub(crate) mod pages;
mod password;
pub(crate) mod prune;
mod readiness;
pub(crate) mod reload;
mod remote;
pub(crate) mod serve;
mod settings;
pub(crate) mod spec;
pub(crate) mod status;
mod terminal;
pub(crate) mod token;
pub(crate) mod user;
pub(crate) mod wait;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::app::{self, AppError, Presence, Served};
use crate::backup::BackupError;
use crate::config::Diagnostics;
use crate::model::{self, Build, BuildId, Evaluation, SpecificationState};
use crate::os::account;
use crate::os::state_dir::StateDir;
use crate::store::{self, Database, DatabaseError, Snapshot};
use terminal::{print_json, say, table};

/// Exit status: the command failed.
const FAILED: u8 = 1;
/// Exit status: there is no such specification, build or state directory.
const NOT_FOUND: u8 = 3;
/// Exit status: a build that the command waited for was canceled.
const CANCELED: u8 = 4;
/// Exit status: the time limit of `--timeout` has passed.
const TIMEOUT: u8 = 5;

/// How long a command sleeps between two reads of the database. The server is another process and sends no events.
const POLL_PAUSE: Duration = Duration::from_millis(100);

/// How long a command waits for the database of a server that is just starting. A server that needs longer, for example
/// to migrate its database, says so in its trace.
const START_TIME: Duration = Duration::from_secs(30);

/// How long a command waits before it says for what.
const SILENCE: Duration = Duration::from_secs(2);

/// How long blocked threads may delay the end of the process.
const BLOCKED_TIME: Duration = Duration::from_secs(5);

/// The most names that a message lists.
const NAMES_MAX: usize = 10;

/// Why a command failed: a message for standard error, and an exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    fn new(status: u8, message: impl Into<String>) -> Self {
        Self { message: message.into(), status }
    }

    /// A failure with exit status 1.
    fn failed(message: impl Into<String>) -> Self {
        Self::new(FAILED, message)
    }

    /// A failure with exit status 3.
    fn not_found(message: impl Into<String>) -> Self {
        Self::new(NOT_FOUND, message)
    }

    /// Prints the message and returns the status.
    pub(crate) fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            // Problems of a file begin with the file's name. Other messages get the name of the program in front.
            let first = self.message.lines().next().unwrap_or_default();
            let told = first.contains(": error: ");
            eprintln!("{}{}", if told { "" } else { "brigandine: " }, self.message);
        }
        ExitCode::from(self.status)
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        Self::failed(model::with_causes(&error))
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Self::failed(format!("the database failed: {error}"))
    }
}

impl From<Diagnostics> for Failure {
    fn from(problems: Diagnostics) -> Self {
        Self::failed(problems.to_string())
    }
}

fn file_failed(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}

/// The runtime of the server's tasks. It has few threads, because child processes and the threads of the database do
/// most of the work.
///
/// # Errors
/// The machine refuses a thread.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 8))
        .thread_name("brigandine")
        .enable_all()
        .build()
}

/// Runs a command to its end, on a runtime of its own.
///
/// # Errors
/// The errors of the command; or the machine refuses a thread.
pub(crate) fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime()
        .map_err(|error| Failure::failed(format!("threads cannot be started: {error}")))?;
    let done = runtime.block_on(command);
    // A thread that is blocked by a broken disk or network file system must not keep the process alive.
    runtime.shutdown_timeout(BLOCKED_TIME);
    done
}

/// Opens the database of a state directory, which must exist. Waits for a server that is just starting.
async fn existing(state: &Path) -> Result<Database, Failure> {
    let exists = |path: PathBuf| match path.try_exists() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let dir = state.display();
            let help =
                as_owner(state).unwrap_or_else(|| "run this as the user of its server".into());
            Err(Failure::failed(format!(
                "the state directory {dir} cannot be looked at: {error}; {help}"
            )))
        }
        found => Ok(found.unwrap_or(false)),
    };
    let files = StateDir::new(state);
    // A directory with build logs and without a database is damaged. Opening the database reports that.
    if !exists(files.database())? && !exists(files.logs())? {
        let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
        return Err(Failure::not_found(format!(
            "there is no state in {}; name its directory with --state or BRIGANDINE_STATE",
            state.display()
        )));
    }
    let (began, mut reported) = (Instant::now(), false);
    loop {
        // Checked before the database is opened: if the server finishes its start in between, the database is there. In
        // the other order the failure to open it would be reported although the server only needed a moment.
        let is_starting = app::served(state) == Served::Locked;
        let error = match store::open_as_it_is(state).await {
            Ok(database) => return Ok(database),
            Err(error) => error,
        };
        if !(is_starting && error.is_for_a_server()) || began.elapsed() >= START_TIME {
            return Err(Failure::failed(error.to_string()));
        }
        if !std::mem::replace(&mut reported, true) {
            let state = state.display();
            eprintln!("brigandine: a server starts on {state}: its database is waited for");
        }
        tokio::time::sleep(POLL_PAUSE).await;
    }
}

/// How the command is given as the user to whom a state directory belongs; `None`: nobody knows whose it is.
fn as_owner(state: &Path) -> Option<String> {
    let owner = account::owner(state)?;
    Some(format!("give the command as its user: `sudo --user={owner} brigandine …`"))
}

/// Refuses to make files as root in a state directory of another user, whose server could not use them.
///
/// # Errors
/// This process is root's, and the directory is another user's.
fn check_user(state: &Path) -> Result<(), Failure> {
    match as_owner(state).filter(|_| account::is_root_elsewhere(state)) {
        None => Ok(()),
        Some(help) => Err(Failure::failed(format!(
            "{} is not root's, and its server could not use what root makes there; {help}",
            state.display()
        ))),
    }
}

/// Waits for a write of a command. If it takes long, says on standard error for what it waits.
async fn written<T>(
    write: impl IntoFuture<Output = Result<T, DatabaseError>>,
) -> Result<T, DatabaseError> {
    let mut write = std::pin::pin!(write.into_future());
    if let Ok(done) = tokio::time::timeout(SILENCE, &mut write).await {
        return done;
    }
    eprintln!(
        "brigandine: the database is waited for, up to {} s: another program has it locked, or its disk is slow",
        store::BUSY_TIMEOUT.as_secs()
    );
    write.await
}

/// Calls `read` until it returns a value. The argument tells whether the server of `state` has gone. If it takes long and
/// the server cannot do its work, says so on standard error.
async fn poll<T>(
    state: &Path,
    mut read: impl AsyncFnMut(bool) -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let mut presence = Presence::new(state);
    let (began, mut told) = (Instant::now(), false);
    loop {
        // Checked before the read, so that the read sees everything that the server stored before it ended.
        let gone = presence.has_gone();
        if let Some(found) = read(gone).await? {
            return Ok(found);
        }
        if began.elapsed() >= SILENCE
            && !std::mem::replace(&mut told, true)
            && let Some(why) = readiness::hindrance(state).await
        {
            eprintln!("brigandine: the server is waited for: {why}");
        }
        tokio::time::sleep(POLL_PAUSE).await;
    }
}

fn no_build(id: BuildId) -> Failure {
    Failure::not_found(format!("there is no build {id}; `brigandine builds` lists them"))
}

async fn find_build(database: &Database, id: BuildId) -> Result<Build, Failure> {
    let found = database.read(move |s| store::build(s, id)).await?;
    found.ok_or_else(|| no_build(id))
}

fn no_specification(name: &str, names: &[String]) -> Failure {
    unknown("specification called", name, names)
}

/// The failure for an unknown name: there is no `what` called `word`. The message lists similar names; if there are
/// none, it lists the first of `names`.
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

/// Names similar to `word`, the most similar first.
fn near<'n>(word: &str, names: &'n [String]) -> Vec<&'n str> {
    let folded = word.to_lowercase();
    let most = (folded.chars().count() / 3).max(1);
    let mut found: Vec<(usize, &str)> = names
        .iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let part = folded.len() >= 3 && (lower.contains(&folded) || folded.contains(&lower));
            let distance = strsim::osa_distance(&folded, &lower);
            (part || distance <= most).then_some((distance, name.as_str()))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().take(5).map(|(_, name)| name).collect()
}

/// The specification of this name, or a failure that lists similar names.
fn named(s: &Snapshot, name: &str) -> rusqlite::Result<Result<SpecificationState, Failure>> {
    if let Some(found) = store::specification(s, name)? {
        return Ok(Ok(found));
    }
    let names: Vec<_> =
        store::specifications(s)?.into_iter().map(|state| state.specification.name).collect();
    Ok(Err(no_specification(name, &names)))
}

/// A specification, and the evaluation that determines its state; `None`: it has no evaluation.
type Evaluated = (SpecificationState, Option<Evaluation>);

/// Reads the evaluation that determines a specification's state.
fn with_evaluation(s: &Snapshot, state: SpecificationState) -> rusqlite::Result<Evaluated> {
    let evaluation = state.evaluation().map(|id| store::evaluation(s, id)).transpose()?;
    Ok((state, evaluation.flatten()))
}

fn evaluation_json(evaluation: &Evaluation) -> serde_json::Value {
    serde_json::json!({
        "id": evaluation.id,
        "status": evaluation.status,
        "message": evaluation.message,
        "jobs": evaluation.counters,
    })
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
