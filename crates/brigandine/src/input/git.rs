//! Bare clones, one per URL: fetched into, asked for revisions, exported from.

use super::address::{self, Access, Origin};
use super::manner::Manner;
use super::objects::{self, Pool};
use super::tree::Entry;
use crate::model::{Reference, one_line};
use crate::process::{self, CaptureError, Captured, STATE_VARIABLE, Supervisors};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What an input's reference stands for right now.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Why a repository could not be looked at.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// The process git could not be run, took too long or wrote too much.
    Process {
        /// What it was to do.
        doing: &'static str,
        /// The repository.
        url: String,
        /// Why.
        source: CaptureError,
    },
    /// git said no.
    Git {
        /// What it was to do.
        doing: &'static str,
        /// The repository.
        url: String,
        /// Its last words.
        said: String,
    },
    /// The repository is there, and the reference is not.
    NoReference {
        /// The repository.
        url: String,
        /// `branch main`, `tag v1`, …
        reference: String,
    },
    /// git said something that cannot be understood.
    Unreadable {
        /// What it was to do.
        doing: &'static str,
        /// The repository.
        url: String,
    },
    /// A file of the state directory.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process { doing, url, source } => write!(f, "{doing} {url}: git {source}"),
            Self::Git { doing, url, said } => write!(f, "{doing} {url}: {said}"),
            Self::NoReference { url, reference } => {
                write!(f, "{url} has no {reference}; was it renamed or removed?")
            }
            Self::Unreadable { doing, url } => {
                write!(f, "{doing} {url}: git's answer cannot be understood")
            }
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
        }
    }
}

impl std::error::Error for FetchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Process { source, .. } => Some(source),
            Self::File { source, .. } => Some(source),
            Self::Git { .. } | Self::NoReference { .. } | Self::Unreadable { .. } => None,
        }
    }
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
    pool: Arc<Pool>,
    /// Evaluations since a clone was looked after. Guard: the mutex. One entry per URL in use.
    untidied: Mutex<HashMap<PathBuf, u32>>,
    /// Filters that may run when files are written, by name.
    filters: Vec<String>,
    manner: tokio::sync::OnceCell<Manner>,
}

const OUTPUT_MAX: usize = 1024 * 1024;
/// How many revisions a clone keeps before it asks whether they are needed.
const PINS_MAX: usize = 500;
/// Every so many evaluations a clone is looked after.
const TIDY_EVERY: u32 = 32;

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
        let state_id = state_id.to_owned();
        Self {
            directory,
            fetch_timeout,
            state_id,
            supervisors,
            locks: Mutex::default(),
            pool: Arc::default(),
            untidied: Mutex::default(),
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

    async fn lock(&self, path: &Path) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            if locks.len() > 1024 {
                locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            }
            Arc::clone(locks.entry(path.to_owned()).or_default())
        };
        lock.lock_owned().await
    }

    /// git with its environment alone, which has it ask nobody anything. Of the server's variables it has those
    /// that say where its configuration, keys, certificates and proxies are.
    fn environment(&self, access: Access) -> Command {
        let mut command = Command::new("git");
        let ssh = std::env::var("GIT_SSH_COMMAND").unwrap_or_else(|_| "ssh".to_owned());
        command.envs(process::passed_on(is_for_git));
        command
            .env(STATE_VARIABLE, &self.state_id)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("SSH_ASKPASS", "true")
            .env("GCM_INTERACTIVE", "never")
            .env("GIT_SSH_COMMAND", format!("{ssh} {SSH_OPTIONS}"))
            .env("GIT_PROTOCOL_FROM_USER", if access == Access::Input { "1" } else { "0" })
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("LC_ALL", "C")
            .current_dir(&self.directory);
        command
    }

    /// A git command that reads no configuration of a work tree and asks nobody anything.
    pub(super) fn command(&self, repository: &Path, access: Access) -> Command {
        let mut command = self.environment(access);
        command
            .arg("--git-dir")
            .arg(repository)
            .args(["-c", "core.hooksPath=/dev/null"])
            .args(["-c", "core.fsmonitor=false"])
            // No helper runs a program that an address names.
            .args(["-c", "protocol.ext.allow=never", "-c", "protocol.fd.allow=never"])
            // A host that accepts a connection and says nothing.
            .args(["-c", "http.lowSpeedLimit=1", "-c", LOW_SPEED_TIME])
            // `tidy` does it, when nobody waits.
            .args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"])
            // Objects come whole or not at all: O1.
            .args(["-c", "fetch.unpackLimit=1"])
            .args(["-c", "advice.detachedHead=false"]);
        let allowed = match access {
            Access::Input => return command,
            Access::Local => "file",
            Access::Named => "https:http:git:ssh",
            Access::Anonymous => {
                // Neither configuration nor keys, cookies or passwords of the server's user.
                for name in ["GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS", "XDG_CONFIG_HOME"] {
                    command.env_remove(name);
                }
                command
                    .env_remove("SSH_AUTH_SOCK")
                    .env("GIT_CONFIG_GLOBAL", "/dev/null")
                    .env("GIT_CONFIG_NOSYSTEM", "1")
                    .env("HOME", NO_HOME)
                    .args(["-c", "credential.helper="]);
                "https:http:git"
            }
        };
        command.env("GIT_ALLOW_PROTOCOL", allowed);
        command
    }

    /// A git command that writes the files of a clone's revision below `work`, as the tree says and not
    /// as this machine would have it: from a repository without settings or `info/attributes`, which
    /// lies at `blank` for the time, and without filters but those that may run.
    pub(super) async fn export_command(
        &self,
        origin: &Origin,
        blank: &Path,
        work: &Path,
    ) -> io::Result<Command> {
        for folder in ["refs", "objects"] {
            std::fs::create_dir_all(blank.join(folder))?;
        }
        std::fs::write(blank.join("HEAD"), "ref: refs/heads/none\n")?;
        let clone = self.path(origin);
        let manner = self.manner().await.map_err(io::Error::other)?;
        let mut command = self.command(blank, origin.access);
        command
            .env("GIT_OBJECT_DIRECTORY", clone.join("objects"))
            .env("GIT_WORK_TREE", work)
            .env("GIT_ATTR_NOSYSTEM", "1")
            .current_dir(work)
            .args(["-c", "core.bare=false"]);
        for setting in INDEPENDENT {
            command.args(["-c", setting]);
        }
        let mut settings = manner.settings(&self.filters);
        // Wins over an `.lfsconfig` in the tree, which could name any place.
        settings.push(("lfs.url".to_owned(), lfs_url(&origin.url)));
        let storage = clone.join("lfs").to_string_lossy().into_owned();
        settings.push(("lfs.storage".to_owned(), storage));
        // Counted after what the server's own environment has.
        let anonymous = origin.access == Access::Anonymous;
        let before = std::env::var("GIT_CONFIG_COUNT").ok().filter(|_| !anonymous);
        let before: usize = before.and_then(|count| count.parse().ok()).unwrap_or(0);
        command.env("GIT_CONFIG_COUNT", (before + settings.len()).to_string());
        for (place, (key, value)) in settings.into_iter().enumerate() {
            let place = before + place;
            command.env(format!("GIT_CONFIG_KEY_{place}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{place}"), value);
        }
        Ok(command)
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

    /// Asks a clone something on a thread that may block. Nobody can kill that: what takes long is
    /// for git's own program.
    async fn ask<T: Send + 'static>(
        &self,
        doing: &'static str,
        origin: &Origin,
        f: impl FnOnce(&git2::Repository) -> Result<T, git2::Error> + Send + 'static,
    ) -> Result<T, FetchError> {
        let (pool, path, url) = (Arc::clone(&self.pool), self.path(origin), &origin.url);
        let asked = tokio::task::spawn_blocking(move || pool.with(&path, f));
        let failed = |said: String| FetchError::Git { doing, url: redact(url), said };
        match tokio::time::timeout(self.fetch_timeout, asked).await {
            Ok(Ok(done)) => done.map_err(|error| failed(error.message().to_owned())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(FetchError::Process {
                doing,
                url: redact(url),
                source: CaptureError::Timeout(self.fetch_timeout),
            }),
        }
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
        prefix: &str,
        most: usize,
    ) -> Result<Vec<Entry>, FetchError> {
        let (revision, prefix) = (revision.to_owned(), prefix.to_owned());
        let list = move |clone: &git2::Repository| objects::list(clone, &revision, &prefix, most);
        self.ask("list the files of", origin, list).await
    }

    /// The contents of a file of a clone. `None`: it is larger than `bytes_max`. Blocks.
    pub(super) fn read_object(
        &self,
        clone: &Path,
        object: &str,
        bytes_max: usize,
    ) -> io::Result<Option<Vec<u8>>> {
        self.pool
            .with(clone, |clone| objects::read(clone, object, bytes_max))
            .map_err(|error| io::Error::other(error.message().to_owned()))
    }

    /// Brings a branch of a repository on this machine up to date without a process of git.
    /// `None`: git's own program is to do it, or to say what is wrong.
    async fn follow(&self, origin: &Origin, remote: &str, local: &str) -> Option<Resolved> {
        let source = local_path(&origin.url)?;
        // Where they cannot be read, git's own program says why.
        if self.manner().await.ok()?.rewrites {
            return None;
        }
        let (remote, local) = (remote.to_owned(), local.to_owned());
        let deadline = Instant::now() + self.fetch_timeout;
        let follow = move |clone: &git2::Repository| {
            let followed = objects::follow(&source, clone, &remote, &local, deadline)?;
            if followed { objects::resolve(clone, &local).map(Some) } else { Ok(None) }
        };
        let followed = self.ask("fetch", origin, follow).await;
        followed.inspect_err(|error| tracing::debug!(%error, "left to git")).ok().flatten()
    }

    async fn create(&self, path: &Path, origin: &Origin) -> Result<(), FetchError> {
        if let Some(real) = address::real_path(&origin.url) {
            address::refuse_state(&real, self.state()).map_err(|said| FetchError::Git {
                doing: "fetch",
                url: redact(&origin.url),
                said,
            })?;
        }
        if path.join("HEAD").exists() {
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
        let mut command = self.command(path, origin.access);
        command.env("GIT_DEFAULT_HASH", "sha1").env("GIT_DEFAULT_REF_FORMAT", "files").args([
            "init",
            "--quiet",
            "--bare",
            "--template=",
        ]);
        self.check("prepare a clone of", &origin.url, command, OUTPUT_MAX).await?;
        Ok(())
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
        let origin = Origin::input(url);
        let path = self.path(&origin);
        let _lock = self.lock(&path).await;
        self.create(&path, &origin).await?;
        let (remote, local) = match reference {
            Reference::Branch(name) => {
                (format!("refs/heads/{name}"), format!("refs/brigandine/heads/{name}"))
            }
            Reference::Tag(name) => {
                (format!("refs/tags/{name}"), format!("refs/brigandine/tags/{name}"))
            }
            Reference::Head => ("HEAD".to_owned(), "refs/brigandine/HEAD".to_owned()),
            Reference::Revision(revision) => {
                return self.fetch_revision(&path, &origin, revision).await;
            }
        };
        let moves = !matches!(reference, Reference::Tag(_));
        if moves && let Some(followed) = self.follow(&origin, &remote, &local).await {
            return Ok(followed);
        }
        let mut command = self.command(&path, origin.access);
        fetch_arguments(&mut command);
        command.arg("--").arg(url).arg(format!("+{remote}:{local}"));
        let done = self.run("fetch", url, command, OUTPUT_MAX).await?;
        if !done.status.success() {
            if done.stderr.contains("couldn't find remote ref") {
                return Err(FetchError::NoReference {
                    url: redact(url),
                    reference: describe(reference),
                });
            }
            return Err(FetchError::Git {
                doing: "fetch",
                url: redact(url),
                said: last_words(&done),
            });
        }
        self.resolve(&origin, &local).await
    }

    /// Makes sure that a revision is in the clone, fetching it if need be.
    pub(super) async fn ensure_revision(
        &self,
        origin: &Origin,
        revision: &str,
    ) -> Result<(), FetchError> {
        let path = self.path(origin);
        let _lock = self.lock(&path).await;
        self.create(&path, origin).await?;
        self.fetch_revision(&path, origin, revision).await.map(drop)
    }

    async fn fetch_revision(
        &self,
        path: &Path,
        origin: &Origin,
        revision: &str,
    ) -> Result<Resolved, FetchError> {
        let url = &origin.url;
        if let Ok(found) = self.resolve(origin, revision).await {
            return Ok(found);
        }
        // Most servers hand out any revision they know; for the others, all branches and tags may
        // hold it.
        let pin = format!("+{revision}:{}", objects::pin_name(revision));
        let mut failure = None;
        for refspecs in [
            vec![pin],
            vec![
                "+refs/heads/*:refs/brigandine/heads/*".to_owned(),
                "+refs/tags/*:refs/brigandine/tags/*".to_owned(),
            ],
        ] {
            let mut command = self.command(path, origin.access);
            fetch_arguments(&mut command);
            command.arg("--").arg(url).args(refspecs);
            let done = self.run("fetch", url, command, OUTPUT_MAX).await?;
            if let Ok(found) = self.resolve(origin, revision).await {
                return Ok(found);
            }
            if !done.status.success() {
                failure = Some(last_words(&done));
            }
        }
        Err(match failure {
            Some(said) if !said.contains("not our ref") => {
                FetchError::Git { doing: "fetch", url: redact(url), said }
            }
            _ => FetchError::NoReference {
                url: redact(url),
                reference: format!("revision {revision}"),
            },
        })
    }

    async fn resolve(&self, origin: &Origin, name: &str) -> Result<Resolved, FetchError> {
        let name = name.to_owned();
        self.ask("read", origin, move |clone| objects::resolve(clone, &name)).await
    }

    /// Keeps a revision from being collected, although a force push may take away its branch.
    pub(crate) async fn pin(&self, url: &str, revision: &str) -> Result<(), FetchError> {
        let origin = Origin::input(url);
        let _lock = self.lock(&self.path(&origin)).await;
        let revision = revision.to_owned();
        self.ask("keep a revision of", &origin, move |clone| objects::pin(clone, &revision)).await
    }

    /// Collects garbage when it is worth it, and lets go of revisions that only the server still
    /// kept, once there are more than [`PINS_MAX`] of them and `needed` does not name them.
    /// `needed` gives nothing when it is not known. Called after each evaluation; most calls do
    /// nothing.
    pub(crate) async fn tidy<N, F>(&self, url: &str, needed: N) -> Result<(), FetchError>
    where
        N: FnOnce() -> F,
        F: Future<Output = Option<HashSet<String>>>,
    {
        let origin = Origin::input(url);
        let path = self.path(&origin);
        {
            let mut untidied = self.untidied.lock().unwrap_or_else(PoisonError::into_inner);
            let count = untidied.entry(path.clone()).or_default();
            *count += 1;
            if *count % TIDY_EVERY != 1 {
                return Ok(());
            }
        }
        let _lock = self.lock(&path).await;
        let place = path.clone();
        let look =
            move |clone: &git2::Repository| Ok((objects::pins(clone)?, objects::is_untidy(&place)));
        let (pins, untidy) = self.ask("list the revisions of", &origin, look).await?;
        if pins.len() > PINS_MAX
            && let Some(needed) = needed().await
        {
            let release = move |clone: &git2::Repository| {
                let mut gone = pins.iter().filter(|pin| !needed.contains(*pin));
                gone.try_for_each(|pin| objects::unpin(clone, pin))
            };
            self.ask("let go of a revision of", &origin, release).await?;
        }
        if !untidy {
            return Ok(());
        }
        let mut command = self.command(&path, origin.access);
        command.args([
            "-c",
            "gc.auto=6700",
            "-c",
            "gc.autoDetach=false",
            "gc",
            "--auto",
            "--quiet",
        ]);
        self.check("tidy the clone of", url, command, OUTPUT_MAX).await.map(drop)
    }
}

/// Settings under which a file is what its tree and its attributes say, on every machine.
const INDEPENDENT: [&str; 7] = [
    "core.attributesFile=/dev/null",
    "core.autocrlf=false",
    "core.eol=lf",
    "core.symlinks=true",
    "core.fileMode=true",
    "core.sparseCheckout=false",
    "core.ignoreCase=false",
];

/// A host that does not take the connection, and one that falls silent, are given up.
const SSH_OPTIONS: &str =
    "-oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=15 -oServerAliveCountMax=4";
const LOW_SPEED_TIME: &str = "http.lowSpeedTime=60";
/// A home without keys and passwords.
const NO_HOME: &str = "/nonexistent";

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

/// Where LFS keeps the files of a repository: with the repository, whatever its tree says.
fn lfs_url(url: &str) -> String {
    let trimmed = url.trim_end_matches('/');
    if trimmed.starts_with("https://") || trimmed.starts_with("http://") {
        let bare = trimmed.strip_suffix(".git").unwrap_or(trimmed);
        return format!("{bare}.git/info/lfs");
    }
    if trimmed.starts_with('/') {
        return format!("file://{trimmed}");
    }
    // `git://` has no LFS: what cannot be reached is an error rather than another place.
    trimmed.to_owned()
}

/// The path of a repository on this machine.
fn local_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("file://").filter(|path| !path.contains('%')).unwrap_or(url);
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// Variables of the server's that git is to have.
fn is_for_git(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "TMPDIR",
        "TZ",
        "SSH_AUTH_SOCK",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "GIT_EXEC_PATH",
        "GIT_SSH",
        "GIT_SSH_VARIANT",
        "GIT_HTTP_USER_AGENT",
        "GIT_PROXY_COMMAND",
    ];
    const BEGINNINGS: [&str; 3] = ["XDG_", "GIT_CONFIG_", "GIT_SSL_"];
    NAMES.contains(&name)
        || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || matches!(
            name.to_ascii_lowercase().as_str(),
            "http_proxy" | "https_proxy" | "all_proxy" | "no_proxy"
        )
}

fn fetch_arguments(command: &mut Command) {
    command.args([
        OsStr::new("fetch"),
        OsStr::new("--quiet"),
        OsStr::new("--no-tags"),
        OsStr::new("--force"),
        OsStr::new("--no-write-fetch-head"),
        OsStr::new("--no-recurse-submodules"),
    ]);
}

fn describe(reference: &Reference) -> String {
    match reference {
        Reference::Branch(name) => format!("branch {name}"),
        Reference::Tag(name) => format!("tag {name}"),
        Reference::Revision(revision) => format!("revision {revision}"),
        Reference::Head => "HEAD".to_owned(),
    }
}

/// What git said at the end, on one line, without what it says to everybody.
fn last_words(done: &Captured) -> String {
    let lines: Vec<&str> = done
        .stderr
        .lines()
        .map(str::trim)
        .filter(|line| {
            !line.is_empty()
                && !line.starts_with("Please make sure you have the correct access rights")
                && !line.starts_with("and the repository exists")
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

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::{lfs_url, local_path, redact};

    #[test]
    fn files_of_lfs_are_where_the_repository_is() {
        for (url, lfs) in [
            ("https://h/a.git", "https://h/a.git/info/lfs"),
            ("https://h/a/", "https://h/a.git/info/lfs"),
            ("/srv/a.git", "file:///srv/a.git"),
            ("file:///srv/a", "file:///srv/a"),
            ("git@h:a.git", "git@h:a.git"),
        ] {
            assert_eq!(lfs_url(url), lfs, "{url}");
        }
    }

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
