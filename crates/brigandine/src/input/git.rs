//! Bare clones, one per URL: fetched into, asked for revisions, exported from.

mod environment;
mod error;
mod tidy;

pub(crate) use error::FetchError;

use super::address::{Access, Origin};
use super::by_git;
use super::manner::Manner;
use super::objects;
use super::reader::{About, AskError, Question, Readers};
use super::tree::Entry;
use crate::model::{Reference, one_line};
use crate::os::digest::hex;
use crate::os::process::{self, CaptureError, Captured, Supervisors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ffi::OsStr;
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

    /// All files of a revision that the clone has, without those of its submodules: an error if they are more than
    /// `most`, with folders.
    pub(super) async fn list(
        &self,
        origin: &Origin,
        revision: &str,
        prefix: &[u8],
        most: usize,
    ) -> Result<Vec<Entry>, FetchError> {
        self.mended(origin, revision, || self.list_once(origin, revision, prefix, most)).await
    }

    async fn list_once(
        &self,
        origin: &Origin,
        revision: &str,
        prefix: &[u8],
        most: usize,
    ) -> Result<Vec<Entry>, FetchError> {
        let doing = "list the files of";
        let path = self.path(origin);
        let clone = Bare { origin, path: &path };
        let listing = if by_git::is_for(&path) {
            by_git::list(self, clone, revision).await?
        } else {
            self.ask(doing, clone, About::List { revision: revision.to_owned(), most }).await?
        };
        let url = || redact(&origin.url);
        Entry::parse(&listing, prefix, most).map_err(|said| FetchError::Refused {
            doing,
            url: url(),
            said,
        })
    }

    /// The contents of as many of these files of a revision as are to be had in one go, one at least. `None` for
    /// each that is larger than `bytes_max`.
    pub(super) async fn read_objects(
        &self,
        origin: &Origin,
        revision: &str,
        objects: &[String],
        bytes_max: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, FetchError> {
        self.mended(origin, revision, || self.read_once(origin, objects, bytes_max)).await
    }

    async fn read_once(
        &self,
        origin: &Origin,
        objects: &[String],
        bytes_max: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, FetchError> {
        let doing = "read the files of";
        let path = self.path(origin);
        let clone = Bare { origin, path: &path };
        if by_git::is_for(&path) {
            let object = objects.first().map_or("", String::as_str);
            return Ok(vec![by_git::read(self, clone, object, bytes_max).await?]);
        }
        let about = About::Read { objects: objects.to_vec(), bytes_max, most: READ_BYTES_MAX };
        let answer = self.ask(doing, clone, about).await?;
        objects::contents(&answer)
            .filter(|contents| !contents.is_empty())
            .ok_or_else(|| FetchError::Unreadable { doing, url: redact(&origin.url) })
    }

    /// Brings a branch of a repository on this machine up to date without a process of git.
    /// `None`: git's own program is to do it, or to say what is wrong.
    async fn follow(&self, clone: Bare<'_>, remote: &str, local: &str) -> Option<Resolved> {
        let source = local_path(&clone.origin.url)?;
        // Where they cannot be read, git's own program says why.
        if self.manner().await.ok()?.rewrites || by_git::is_for(clone.path) {
            return None;
        }
        let about = About::Follow {
            source: source.into_os_string(),
            remote: remote.to_owned(),
            local: local.to_owned(),
            time: self.fetch_timeout / 2,
        };
        let followed = self.ask("fetch", clone, about).await;
        let followed = followed.inspect_err(|error| tracing::debug!(%error, "left to git")).ok()?;
        serde_json::from_slice(&followed).ok().flatten()
    }

    /// An empty clone.
    pub(super) async fn init(&self, clone: Bare<'_>, format: &str) -> Result<(), FetchError> {
        self.written(clone.path);
        let mut command = self.command(clone.path, clone.origin.access);
        command.env("GIT_DEFAULT_REF_FORMAT", "files").args([
            "init",
            "--quiet",
            "--bare",
            "--template=",
            &format!("--object-format={format}"),
        ]);
        self.check("prepare a clone of", &clone.origin.url, command, OUTPUT_MAX).await?;
        Ok(())
    }

    /// A clone, if there is none.
    pub(super) async fn create(&self, clone: Bare<'_>) -> Result<(), FetchError> {
        let Bare { origin, path } = clone;
        if std::fs::symlink_metadata(path).is_ok() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.directory)
            .map_err(|source| FetchError::File { path: self.directory.clone(), source })?;
        if origin.access == Access::Input {
            // As earlier versions named it.
            let earlier = self.directory.join(clone_name(origin, 8));
            if earlier.join("HEAD").exists() && std::fs::rename(&earlier, path).is_ok() {
                return Ok(());
            }
        }
        self.init(clone, "sha1").await
    }

    /// Fetches what `reference` stands for and says which revision that is.
    ///
    /// # Cancel safety
    /// Dropped: git is killed; the clone stays usable.
    pub(crate) async fn fetch(
        &self,
        url: &str,
        reference: &Reference,
    ) -> Result<Resolved, FetchError> {
        self.obtain(&Origin::input(url), reference).await
    }

    /// Makes sure that a revision is in the clone, fetching it if need be.
    pub(super) async fn ensure_revision(
        &self,
        origin: &Origin,
        revision: &str,
    ) -> Result<(), FetchError> {
        self.obtain(origin, &Reference::Revision(revision.to_owned())).await.map(drop)
    }

    /// Fetches into a clone that is locked.
    pub(super) async fn bring(
        &self,
        clone: Bare<'_>,
        reference: &Reference,
    ) -> Result<Resolved, FetchError> {
        let remote = match reference {
            Reference::Branch(name) => format!("refs/heads/{name}"),
            Reference::Tag(name) => format!("refs/tags/{name}"),
            Reference::Head => "HEAD".to_owned(),
            Reference::Revision(revision) => return self.bring_revision(clone, revision).await,
        };
        let local = objects::tip_name(&remote);
        let moves = !matches!(reference, Reference::Tag(_));
        if moves && let Some(followed) = self.follow(clone, &remote, &local).await {
            return Ok(followed);
        }
        if let Some(said) = self.fetch_into(clone, &[format!("+{remote}:{local}")]).await? {
            if said.contains("couldn't find remote ref") {
                return Err(self.no_reference(clone.origin, reference).await);
            }
            return Err(fetch_failed(clone.origin, said));
        }
        self.resolve(clone, &local).await
    }

    /// Has git fetch. What it says if it fails.
    async fn fetch_into(
        &self,
        clone: Bare<'_>,
        refspecs: &[String],
    ) -> Result<Option<String>, FetchError> {
        let url = &clone.origin.url;
        let mut command = self.command(clone.path, clone.origin.access);
        fetch_arguments(&mut command);
        if refspecs.iter().any(|refspec| refspec.contains('*')) {
            // A branch may have become a folder of branches.
            command.arg("--prune");
        }
        command.arg("--").arg(url).args(refspecs);
        let done = self.run("fetch", url, command, OUTPUT_MAX).await;
        self.written(clone.path);
        let failed = !done.as_ref().is_ok_and(|done| done.status.success());
        if failed {
            super::mend::remove_locks(clone.path);
        }
        done.map(|done| failed.then(|| last_words(&done)))
    }

    /// Fetches what an older clone keeps of revisions that their source may not have any more.
    pub(super) async fn take_over(&self, old: &Path, new: Bare<'_>) -> Result<(), FetchError> {
        for file in ["HEAD", "config"] {
            // The same in all clones.
            let _ = std::fs::copy(new.path.join(file), old.join(file));
        }
        let mut command = self.command(new.path, Access::Input);
        fetch_arguments(&mut command);
        let pins = format!("+{0}*:{0}*", objects::PINS);
        command.arg("--").arg(old).arg(pins);
        self.check("fetch", &new.origin.url, command, OUTPUT_MAX).await.map(drop)
    }

    async fn bring_revision(
        &self,
        clone: Bare<'_>,
        revision: &str,
    ) -> Result<Resolved, FetchError> {
        match self.resolve(clone, revision).await {
            Err(FetchError::Git { .. } | FetchError::Process { .. }) => {}
            known => return known,
        }
        // Most servers hand out any revision they know; for the others, all branches and tags may
        // hold it.
        let mut failure = None;
        for refspecs in [
            vec![format!("+{revision}:{}", objects::pin_name(revision))],
            vec![
                "+refs/heads/*:refs/brigandine/all/heads/*".to_owned(),
                "+refs/tags/*:refs/brigandine/all/tags/*".to_owned(),
            ],
        ] {
            let said = self.fetch_into(clone, &refspecs).await?;
            match self.resolve(clone, revision).await {
                Err(FetchError::Git { .. } | FetchError::Process { .. }) => {}
                Ok(found) => {
                    self.pin_locked(clone, revision).await?;
                    return Ok(found);
                }
                refused => return refused,
            }
            failure = said.or(failure);
        }
        match failure {
            Some(said) if !said.contains("not our ref") => Err(fetch_failed(clone.origin, said)),
            _ => {
                let reference = Reference::Revision(revision.to_owned());
                Err(self.no_reference(clone.origin, &reference).await)
            }
        }
    }

    pub(super) async fn resolve(
        &self,
        clone: Bare<'_>,
        name: &str,
    ) -> Result<Resolved, FetchError> {
        if by_git::is_for(clone.path) {
            return by_git::resolve(self, clone, name).await;
        }
        let answer = self.ask("read", clone, About::Resolve { name: name.to_owned() }).await?;
        let found = serde_json::from_slice::<Option<Resolved>>(&answer).ok().flatten();
        let url = || redact(&clone.origin.url);
        found.ok_or_else(|| FetchError::Unreadable { doing: "read", url: url() })
    }

    /// Keeps a revision from being collected, although a force push may take away its branch.
    pub(crate) async fn pin(&self, url: &str, revision: &str) -> Result<(), FetchError> {
        let origin = Origin::input(url);
        self.mended(&origin, revision, || self.pin_once(&origin, revision)).await
    }

    async fn pin_once(&self, origin: &Origin, revision: &str) -> Result<(), FetchError> {
        let path = self.path(origin);
        let _lock = self.lock(&path).await;
        self.pin_locked(Bare { origin, path: &path }, revision).await
    }

    async fn pin_locked(&self, clone: Bare<'_>, revision: &str) -> Result<(), FetchError> {
        if by_git::is_for(clone.path) {
            return by_git::pin(self, clone, revision).await;
        }
        let about = About::Pin { revision: revision.to_owned() };
        self.ask("keep a revision of", clone, about).await.map(drop)
    }
}

fn fetch_failed(origin: &Origin, said: String) -> FetchError {
    FetchError::Git { doing: "fetch", url: redact(&origin.url), said }
}

/// How many bytes of files are read in one go, beyond the first.
const READ_BYTES_MAX: usize = 4 << 20;
/// The beginning of the names of what is not yet, or no longer, a clone.
const TEMPORARY: &str = "partial-";

/// The folder of a clone, named by so many bytes of its digest and, for people, by the repository.
fn clone_name(origin: &Origin, digest_bytes: usize) -> String {
    let digest = Sha256::digest(origin.key());
    let hex = hex(&digest[..digest_bytes]);
    let name: String = origin
        .url
        .trim_end_matches('/')
        .rsplit(['/', ':'])
        .next()
        .unwrap_or_default()
        .trim_end_matches(".git")
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .take(40)
        .collect();
    format!("{hex}-{name}.git")
}

/// The path of a repository on this machine.
fn local_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("file://").filter(|path| !path.contains('%')).unwrap_or(url);
    path.starts_with('/').then(|| PathBuf::from(path))
}

fn fetch_arguments(command: &mut Command) {
    command.args([
        OsStr::new("fetch"),
        OsStr::new("--quiet"),
        OsStr::new("--no-tags"),
        OsStr::new("--force"),
        OsStr::new("--no-write-fetch-head"),
        OsStr::new("--no-recurse-submodules"),
        // A shallow repository is built as far as it goes.
        OsStr::new("--update-shallow"),
    ]);
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

/// A URL without the password that may stand in it.
pub(crate) fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((user, host)) if user.contains(':') => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}{}", &rest[end..])
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{local_path, redact};

    #[test]
    fn a_repository_on_this_machine_is_known_by_its_url() {
        assert_eq!(local_path("file:///a/b"), Some("/a/b".into()));
        assert_eq!(local_path("/a/b"), Some("/a/b".into()));
        assert_eq!(local_path("file:///a%20b"), None);
        assert_eq!(local_path("git@host:a"), None);
        assert_eq!(local_path("file://host/a"), None);
    }

    #[test]
    fn a_password_in_a_url_is_never_shown() {
        assert_eq!(redact("https://me:secret@host/x.git"), "https://me:***@host/x.git");
        assert_eq!(redact("https://me:a@b@host/x.git"), "https://me:***@host/x.git");
        assert_eq!(redact("https://host/x:y@z.git"), "https://host/x:y@z.git");
        assert_eq!(redact("git@host:x.git"), "git@host:x.git");
    }
}
