//! What the bare clones of a state directory share: their folders, locks and readers, and how git is run.

use super::error::FetchError;
use super::name::clone_name;
use crate::input::address::{Access, Origin};
use crate::input::configuration::Configuration;
use crate::input::reader::Readers;
use crate::model::redact;
use crate::model::{Live, one_line};
use crate::os::account;
use crate::os::folder::{remove_leftovers, unused};
use crate::os::process::{self, Captured, Supervisors};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// The bare clones of a state directory.
///
/// Lock order: a clone's lock is taken first, and is held across awaits. Each of the two mutexes is held only for a
/// moment, and never both at once.
#[derive(Debug)]
pub(crate) struct Repositories {
    pub(super) directory: PathBuf,
    pub(super) fetch_timeout: Live<Duration>,
    pub(super) state_id: String,
    supervisors: Arc<Supervisors>,
    /// A lock for each clone, because with git's own lock files alone a second fetch would fail instead of waiting.
    /// Guard: the mutex. Bounded by the number of URLs in use; with more than 1024 locks, those that are not held are
    /// dropped.
    locks: Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
    pub(crate) readers: Readers,
    /// What is known of each clone, by the path of the clone. The mutex protects it. One entry per URL that was used
    /// since the server started.
    clones: Mutex<HashMap<PathBuf, Known>>,
    /// The names of the filters that may run when files are written.
    pub(super) filters: Vec<String>,
    configuration: OnceCell<Configuration>,
}

/// What is known of a clone.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// How many times git has written to the clone (READ2 in `reader.rs`).
    pub(super) generation: u64,
    /// How many times a new clone has replaced it.
    pub(crate) made: u64,
    /// The number of evaluations so far, by which `tidy.rs` decides when to tidy the clone.
    pub(super) untidied: u32,
    /// Whether this server has removed the lock files that an earlier one left.
    pub(crate) unlocked: bool,
    /// `true`: the next fetch makes a new clone.
    pub(crate) suspect: bool,
    /// When a new clone was last made without success. `None`: never, or a later one succeeded.
    pub(crate) fruitless: Option<Instant>,
}

/// A bare clone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bare<'a> {
    /// The repository that was cloned.
    pub(crate) origin: &'a Origin,
    /// The clone's folder.
    pub(crate) path: &'a Path,
}

/// How the names of temporary folders begin.
const TEMPORARY: &str = "partial-";

/// The most bytes of git's output that are read, unless the caller names another bound.
pub(crate) const OUTPUT_MAX: usize = 1024 * 1024;

impl Repositories {
    /// Keeps clones in `directory`, a folder of the state directory. Processes carry `state_id`. `filters` names the
    /// filters of git's configuration that may run.
    pub(crate) fn new(
        directory: PathBuf,
        fetch_timeout: Live<Duration>,
        state_id: &str,
        filters: Vec<String>,
        supervisors: Arc<Supervisors>,
    ) -> Self {
        Self {
            directory,
            fetch_timeout,
            state_id: state_id.to_owned(),
            readers: Readers::new(Arc::clone(&supervisors), state_id),
            supervisors,
            locks: Mutex::default(),
            clones: Mutex::default(),
            filters,
            configuration: OnceCell::new(),
        }
    }

    /// The path of a repository's clone.
    pub(crate) fn path(&self, origin: &Origin) -> PathBuf {
        self.directory.join(clone_name(origin, 32))
    }

    /// The state directory.
    pub(crate) fn state(&self) -> &Path {
        self.directory.parent().unwrap_or(&self.directory)
    }

    /// Reads or changes what is known of a clone.
    pub(crate) fn known<T>(&self, path: &Path, f: impl FnOnce(&mut Known) -> T) -> T {
        let mut clones = self.clones.lock().unwrap_or_else(PoisonError::into_inner);
        f(clones.entry(path.to_owned()).or_default())
    }

    /// Forgets what is known of a clone that is gone.
    pub(crate) fn forget(&self, path: &Path) {
        self.clones.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    /// The path of a new folder beside the clones. [`Repositories::clean`] removes the folder if it is left behind.
    pub(crate) fn temporary(&self) -> PathBuf {
        unused(&self.directory, TEMPORARY, ".git")
    }

    /// Removes the temporary folders of a killed server. Blocks.
    pub(crate) fn clean(&self) {
        remove_leftovers(&self.directory, &[TEMPORARY]);
    }

    /// Locks a clone. A task that writes to a clone must hold this lock.
    pub(crate) async fn lock(&self, path: &Path) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            if locks.len() > 1024 {
                locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            }
            Arc::clone(locks.entry(path.to_owned()).or_default())
        };
        lock.lock_owned().await
    }

    /// The settings of the filters that convert files. They are a part of the identity of files with attributes.
    pub(crate) async fn conversion(&self) -> Result<String, FetchError> {
        let settings = self.configuration().await?.settings(&self.filters);
        let lines = settings.iter().map(|(key, value)| format!("{key}={value}\0"));
        Ok(lines.collect())
    }

    /// Runs git to its end. `doing` is the verb of messages about failures.
    pub(crate) async fn run(
        &self,
        doing: &'static str,
        url: &str,
        command: Command,
        output_max: usize,
    ) -> Result<Captured, FetchError> {
        process::capture(&self.supervisors, command.into(), self.fetch_timeout.get(), output_max)
            .await
            .map_err(|source| FetchError::Process { doing, url: redact(url), source })
    }

    /// Like [`Repositories::run`], but returns git's output, or an error if git fails.
    pub(crate) async fn check(
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

    /// Notes that git has written to a clone, or that a new clone has taken its place.
    pub(crate) fn written(&self, path: &Path) {
        self.known(path, |known| known.generation += 1);
    }

    /// The configuration that git has for the server's user. The first call reads it; after a failure the next call
    /// tries again.
    pub(super) async fn configuration(&self) -> Result<&Configuration, FetchError> {
        self.configuration
            .get_or_try_init(async || {
                // `--git-dir=/dev/null` excludes the settings of repositories. The settings of `command`, which forbid
                // two protocols, must not be listed either.
                let mut command = self.environment(Access::Input);
                command.args(["--git-dir=/dev/null", "config", "--null", "--includes", "--list"]);
                let doing = "read the configuration of";
                let settings = self.check(doing, "git", command, OUTPUT_MAX).await?;
                Ok(Configuration::read(&settings))
            })
            .await
    }
}

/// The last lines of git's standard error, joined to one line, without git's general advice.
pub(super) fn last_words(done: &Captured) -> String {
    words(&done.stderr).unwrap_or_else(|| format!("git: {}", process::describe(done.status)))
}

/// The lines of git's standard error that say what went wrong: the last three, and before them the first that names a
/// failure, which is the cause of the others. `None`: git said nothing.
fn words(stderr: &str) -> Option<String> {
    let lines: Vec<&str> = stderr
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
    let (before, last) = lines.split_at(lines.len().saturating_sub(3));
    let is_failure = |line: &&&str| line.starts_with("fatal: ") || line.starts_with("error: ");
    let mut said = String::new();
    for line in before.iter().find(is_failure).into_iter().chain(last) {
        if !said.is_empty() {
            said.push_str(if said.ends_with(':') { " " } else { "; " });
        }
        said.push_str(line);
    }
    if said.contains("detected dubious ownership") {
        let user = account::own_name();
        said.push_str(&format!("; give that command as the server's user, {user}"));
    }
    (!said.is_empty()).then(|| one_line(&said, 1000))
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn the_cause_of_a_failure_is_told_and_not_only_its_consequences() {
        let stderr = "warning: one\n\
             fatal: detected dubious ownership in repository at '/srv/it/.git'\n\
             To add an exception for this directory, call:\n\n\
             \tgit config --global --add safe.directory /srv/it/.git\n\
             fatal: Could not read from remote repository.\n\n\
             Please make sure you have the correct access rights\nand the repository exists.\n";
        let said = words(stderr).expect("git said something");
        let wanted = "fatal: detected dubious ownership in repository at '/srv/it/.git'; To add an exception for this \
             directory, call: git config --global --add safe.directory /srv/it/.git; fatal: Could not read from remote \
             repository.; give that command as the server's user, ";
        assert!(said.starts_with(wanted), "{said}");
        for (stderr, said) in [
            ("", None),
            ("Please make sure you have the correct access rights\n", None),
            ("a\nb\nc\nd\n", Some("b; c; d")),
            ("error: x\na\nfatal: b\nc\nd\n", Some("error: x; fatal: b; c; d")),
            ("a\nfatal: b\nfatal: c\n", Some("a; fatal: b; fatal: c")),
        ] {
            assert_eq!(words(stderr).as_deref(), said, "{stderr:?}");
        }
    }
}
