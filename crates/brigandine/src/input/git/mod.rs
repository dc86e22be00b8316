//! Bare clones, one per URL: fetched into, asked for revisions, exported from.

mod environment;
mod error;
mod fetch;
mod name;
mod read;
mod tidy;

pub(crate) use error::FetchError;
pub(crate) use name::redact;

use crate::input::address::{Access, Origin};
use crate::input::manner::Manner;
use crate::input::reader::{About, AskError, Question, Readers};
use crate::model::{Reference, one_line};
use crate::os::process::{self, CaptureError, Captured, Supervisors};
use name::clone_name;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What an input's reference stands for right now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resolved {
    /// The full revision.
    pub(crate) revision: String,
    /// First line of its message.
    pub(crate) subject: String,
    /// Who wrote it.
    pub(crate) author: String,
    /// When it was committed.
    pub(crate) revision_at: i64,
}

/// The bare clones of a state directory.
#[derive(Debug)]
pub(crate) struct Repositories {
    directory: PathBuf,
    fetch_timeout: Duration,
    state_id: String,
    supervisors: Arc<Supervisors>,
    /// One lock per clone: git's own lock files would make a second fetch fail rather than wait.
    /// Bounded by the number of URLs in use; entries nobody holds are dropped when it grows.
    locks: Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
    pub(super) readers: Readers,
    /// What is known of clones. Guard: the mutex. One entry per URL in use.
    clones: Mutex<HashMap<PathBuf, Known>>,
    /// Names folders.
    serial: AtomicU64,
    /// Filters that may run when files are written, by name.
    filters: Vec<String>,
    manner: tokio::sync::OnceCell<Manner>,
}

/// What is known of a clone.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// How often git has written to it: see `reader.rs`, R2.
    generation: u64,
    /// How often it was made again.
    pub(super) made: u64,
    /// Evaluations since it was looked after.
    untidied: u32,
    /// Whether this server has removed the locks that an earlier one left.
    pub(super) unlocked: bool,
    /// Whether it is to be made again at the next look.
    pub(super) suspect: bool,
    /// When making it again was of no use.
    pub(super) fruitless: Option<Instant>,
}

/// A clone: of what, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bare<'a> {
    pub(super) origin: &'a Origin,
    pub(super) path: &'a Path,
}

/// The beginning of the names of what is not yet, or no longer, a clone.
const TEMPORARY: &str = "partial-";

pub(super) const OUTPUT_MAX: usize = 1024 * 1024;

impl Repositories {
    /// Keeps clones in `directory`, a folder of the state directory; processes carry `state_id`. Of
    /// the filters in git's configuration those in `filters` run.
    pub(crate) fn new(
        directory: PathBuf,
        fetch_timeout: Duration,
        state_id: &str,
        filters: Vec<String>,
        supervisors: Arc<Supervisors>,
    ) -> Self {
        let readers = Readers::new(Arc::clone(&supervisors), state_id);
        let state_id = state_id.to_owned();
        Self {
            directory,
            fetch_timeout,
            state_id,
            supervisors,
            locks: Mutex::default(),
            readers,
            clones: Mutex::default(),
            serial: AtomicU64::new(0),
            filters,
            manner: tokio::sync::OnceCell::new(),
        }
    }

    /// Where the clone of a repository is.
    pub(super) fn path(&self, origin: &Origin) -> PathBuf {
        self.directory.join(clone_name(origin, 32))
    }

    /// The state directory, which holds everybody's clones and outputs.
    pub(super) fn state(&self) -> &Path {
        self.directory.parent().unwrap_or(&self.directory)
    }

    /// Changes or reads what is known of a clone.
    pub(super) fn known<T>(&self, path: &Path, f: impl FnOnce(&mut Known) -> T) -> T {
        let mut clones = self.clones.lock().unwrap_or_else(PoisonError::into_inner);
        f(clones.entry(path.to_owned()).or_default())
    }

    /// Forgets a clone that is none any more.
    pub(super) fn forget(&self, path: &Path) {
        self.clones.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    /// A folder beside the clones that is nobody else's, and is removed at the next start if it is still there.
    pub(super) fn temporary(&self) -> PathBuf {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("{TEMPORARY}{}-{serial}.git", std::process::id()))
    }

    /// Removes what a killed server left half made. Blocks.
    pub(crate) fn clean(&self) {
        let Ok(found) = std::fs::read_dir(&self.directory) else { return };
        for entry in found.flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                let _ = crate::os::folder::remove_all(&entry.path());
            }
        }
    }

    pub(super) async fn lock(&self, path: &Path) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            if locks.len() > 1024 {
                locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            }
            Arc::clone(locks.entry(path.to_owned()).or_default())
        };
        lock.lock_owned().await
    }

    /// How files are converted when they are written: part of the identity of what has rules for it.
    pub(super) async fn conversion(&self) -> Result<String, FetchError> {
        let settings = self.manner().await?.settings(&self.filters);
        let lines = settings.iter().map(|(key, value)| format!("{key}={value}\0"));
        Ok(lines.collect())
    }

    pub(super) async fn run(
        &self,
        doing: &'static str,
        url: &str,
        command: Command,
        output_max: usize,
    ) -> Result<Captured, FetchError> {
        process::capture(&self.supervisors, command.into(), self.fetch_timeout, output_max)
            .await
            .map_err(|source| FetchError::Process { doing, url: redact(url), source })
    }

    pub(super) async fn check(
        &self,
        doing: &'static str,
        url: &str,
        command: Command,
        output_max: usize,
    ) -> Result<Vec<u8>, FetchError> {
        let done = self.run(doing, url, command, output_max).await?;
        if done.status.success() {
            return Ok(done.stdout);
        }
        Err(FetchError::Git { doing, url: redact(url), said: last_words(&done) })
    }

    /// Asks a reader about a clone.
    pub(super) async fn ask(
        &self,
        doing: &'static str,
        clone: Bare<'_>,
        about: About,
    ) -> Result<Vec<u8>, FetchError> {
        let generation = self.known(clone.path, |known| known.generation);
        let question = Question { clone: clone.path.as_os_str().to_owned(), generation, about };
        let answer = self.readers.ask(&question, self.fetch_timeout).await;
        let url = redact(&clone.origin.url);
        answer.map_err(|error| match error {
            AskError::Refused(said) => FetchError::Refused { doing, url, said },
            AskError::Failed(said) | AskError::Died(said) => FetchError::Git { doing, url, said },
            AskError::Timeout => {
                let source = CaptureError::Timeout(self.fetch_timeout);
                FetchError::Process { doing, url, source }
            }
            AskError::Io(error) => {
                FetchError::Process { doing, url, source: CaptureError::Io(error) }
            }
        })
    }

    /// Says that git writes to a clone, or that it is another one.
    pub(super) fn written(&self, path: &Path) {
        self.known(path, |known| known.generation += 1);
    }

    /// See [`Manner`]. Read when it is asked for first, and again after a failure.
    async fn manner(&self) -> Result<&Manner, FetchError> {
        self.manner
            .get_or_try_init(async || {
                // No repository's own settings, nor those that `command` gives: it forbids two protocols.
                let mut command = self.environment(Access::Input);
                command.args(["--git-dir=/dev/null", "config", "--null", "--includes", "--list"]);
                let doing = "read the configuration of";
                let settings = self.check(doing, "git", command, OUTPUT_MAX).await?;
                Ok(Manner::read(&settings))
            })
            .await
    }
}

pub(super) fn describe(reference: &Reference) -> String {
    match reference {
        Reference::Branch(name) => format!("branch {name}"),
        Reference::Tag(name) => format!("tag {name}"),
        Reference::Revision(revision) => format!("revision {revision}"),
        Reference::Head => "HEAD".to_owned(),
    }
}

/// What git said at the end, on one line, without what it says to everybody.
pub(super) fn last_words(done: &Captured) -> String {
    let lines: Vec<&str> = done
        .stderr
        .lines()
        .map(str::trim)
        .filter(|line| {
            !line.is_empty()
                && !line.starts_with("Please make sure you have the correct access rights")
                && !line.starts_with("and the repository exists")
                && !line.starts_with("Errors logged to ")
                && !line.starts_with("Use `git lfs logs last`")
        })
        .collect();
    let kept = lines.len().saturating_sub(3);
    if lines.is_empty() {
        return format!("git: {}", process::describe(done.status));
    }
    one_line(&lines[kept..].join("; "), 1000)
}
