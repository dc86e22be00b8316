//! Damaged clones: if git or a reader fails on a clone, a new clone is made. It replaces the old one if it works.
//!
//! A clone holds nothing that its source does not have, except for revisions that the source has lost. The new clone
//! takes over those that can still be read. So the server does not search for particular kinds of damage: if a clone
//! fails, its source answers and a new clone works, the old clone was damaged.
//!
//! | the clone | the source | a new clone | result |
//! |---|---|---|---|
//! | fails | does not answer | – | the clone's error |
//! | fails | answers | fails | the new clone's error; no further clone is made for an hour |
//! | fails | answers | works | it takes the place of the old one |
//!
//! - MEND1: the old clone stays in its place until the new one is whole. The two are then exchanged in one step, so a
//!   reader always finds one of them. Objects have the same names in both.

use super::error::FetchError;
use super::repositories::{Bare, OUTPUT_MAX, Repositories};
use crate::input::address::{self, Origin};
use crate::input::revision::Resolved;
use crate::model::Reference;
use crate::model::redact;
use crate::os::folder::{RemovedInBackground, remove_all};
use crate::os::process::CaptureError;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long no further clone is made after a new clone has failed.
const FRUITLESS: Duration = Duration::from_secs(3600);
/// The most bytes of a list of references; a longer list is not read.
const REFERENCES_BYTES_MAX: usize = 16 * OUTPUT_MAX;
/// The settings of a partial clone that name the repository with the missing objects.
const PROMISES: &str = r"^remote\..*\.(promisor|url)$";
/// What the message about a missing reference asks.
const MISSING: &str = "was it renamed or removed?";
/// The most branches or tags that a message names.
const BRANCHES_SHOWN: usize = 5;

/// What a repository says about itself.
struct Remote {
    /// The format of its objects' names: `sha1` or `sha256`.
    format: &'static str,
    /// The names of its references; `None`: there are too many.
    references: Option<Vec<String>>,
}

impl Repositories {
    /// Fetches the revision that `reference` names.
    ///
    /// # Cancel safety
    /// If the future is dropped, git is killed; the clone stays usable.
    pub(crate) async fn obtain(
        &self,
        origin: &Origin,
        reference: &Reference,
    ) -> Result<Resolved, FetchError> {
        let path = self.path(origin);
        let _lock = self.lock(&path).await;
        self.obtain_locked(Bare { origin, path: &path }, reference).await
    }

    async fn obtain_locked(
        &self,
        clone: Bare<'_>,
        reference: &Reference,
    ) -> Result<Resolved, FetchError> {
        let url = || redact(&clone.origin.url);
        if let Some(real) = address::real_path(&clone.origin.url) {
            address::refuse_state(&real, self.state()).map_err(|said| FetchError::Refused {
                doing: "fetch",
                url: url(),
                said,
            })?;
        }
        let suspect = self.known(clone.path, |known| {
            if !std::mem::replace(&mut known.unlocked, true) {
                remove_locks(clone.path);
            }
            std::mem::take(&mut known.suspect)
        });
        if suspect {
            let said = "its garbage could not be collected".to_owned();
            let failure = FetchError::Git { doing: "tidy the clone of", url: url(), said };
            if let Ok(found) = self.make_again(clone, reference, failure, false).await {
                return Ok(found);
            }
        }
        let brought = async {
            self.create(clone).await?;
            self.bring(clone, reference).await
        };
        let brought = match brought.await {
            Err(error) if error.may_be_damage() => {
                self.make_again(clone, reference, error, true).await
            }
            brought => brought,
        };
        match brought {
            Err(error @ FetchError::Git { .. }) => Err(self.explained(clone.origin, error).await),
            brought => brought,
        }
    }

    /// The same error, or a better one if the source is a partial clone. To git, a partial clone looks like damage.
    async fn explained(&self, origin: &Origin, error: FetchError) -> FetchError {
        let Some(path) = address::real_path(&origin.url) else { return error };
        let mut command = self.command_without(origin.access);
        command.arg("-C").arg(path).args(["config", "--null", "--get-regexp", PROMISES]);
        let Ok(done) = self.run("read", &origin.url, command, OUTPUT_MAX).await else {
            return error;
        };
        let settings = String::from_utf8_lossy(&done.stdout).into_owned();
        let pairs: Vec<(&str, &str)> =
            settings.split('\0').filter_map(|record| record.split_once('\n')).collect();
        let is_promisor =
            |(key, value): &&(&str, &str)| *value == "true" && key.ends_with(".promisor");
        let Some((key, _)) = pairs.iter().find(is_promisor) else { return error };
        let url = key.trim_end_matches("promisor").to_owned() + "url";
        let from = pairs.iter().find(|(key, _)| *key == url).map_or("its origin", |(_, url)| url);
        let said = format!(
            "it is a partial clone, which has not all files: name what it was cloned from, {}",
            redact(from)
        );
        FetchError::Refused { doing: "fetch", url: redact(&origin.url), said }
    }

    /// Does `work` with a revision that the clone has. If that fails in a way that may be damage, does it with a new
    /// clone.
    pub(crate) async fn mended<T, F>(
        &self,
        origin: &Origin,
        revision: &str,
        work: impl Fn() -> F,
    ) -> Result<T, FetchError>
    where
        F: Future<Output = Result<T, FetchError>>,
    {
        let path = self.path(origin);
        let made = self.known(&path, |known| known.made);
        let failure = match work().await {
            Err(error) if error.may_be_damage() => error,
            done => return done,
        };
        {
            let _lock = self.lock(&path).await;
            let clone = Bare { origin, path: &path };
            let reference = Reference::Revision(revision.to_owned());
            // Another caller may have made a new clone meanwhile.
            if self.known(&path, |known| known.made) == made {
                self.make_again(clone, &reference, failure, false).await?;
            } else {
                self.obtain_locked(clone, &reference).await?;
            }
        }
        let done = work().await;
        if done.is_err() {
            self.known(&path, |known| known.fruitless = Some(Instant::now()));
        }
        done
    }

    /// Makes a new clone in place of `clone`, which the caller has locked (see the module's header). With `retry` the
    /// old clone is tried once more first.
    async fn make_again(
        &self,
        clone: Bare<'_>,
        reference: &Reference,
        failure: FetchError,
        retry: bool,
    ) -> Result<Resolved, FetchError> {
        let Bare { origin, path } = clone;
        let fruitless = self.known(path, |known| known.fruitless);
        if fruitless.is_some_and(|at| at.elapsed() < FRUITLESS) {
            return Err(failure);
        }
        let Ok(remote) = self.remote(origin).await else { return Err(failure) };
        // The first failure may have been a short outage.
        if retry && let Ok(found) = self.bring(clone, reference).await {
            return Ok(found);
        }
        let fresh = RemovedInBackground(self.temporary());
        let new = Bare { origin, path: &fresh.0 };
        let brought = async {
            self.init(new, remote.format).await?;
            self.bring(new, reference).await
        };
        let found = match brought.await {
            Ok(found) => found,
            Err(error) => {
                self.forget(new.path);
                self.known(path, |known| known.fruitless = Some(Instant::now()));
                return Err(error);
            }
        };
        // Takes over as many pinned revisions as can still be read.
        let _ = self.take_over(path, new).await;
        self.forget(new.path);
        exchange(&fresh.0, path)
            .map_err(|source| FetchError::File { path: path.to_owned(), source })?;
        self.known(path, |known| (known.made, known.fruitless) = (known.made + 1, None));
        self.written(path);
        self.readers.dismiss();
        // This message does not mean damage: the first clone of a SHA-256 repository was made as a SHA-1 one.
        if !failure.to_string().contains("mismatched algorithms") {
            tracing::warn!(repository = redact(&origin.url), reason = %failure, "a clone was made again");
        }
        Ok(found)
    }

    /// Asks a repository for its references.
    async fn remote(&self, origin: &Origin) -> Result<Remote, FetchError> {
        let mut command = self.command_without(origin.access);
        command.args(["ls-remote", "--", &origin.url]);
        let (doing, url) = ("list the references of", &origin.url);
        let listed = match self.check(doing, url, command, REFERENCES_BYTES_MAX).await {
            Ok(listed) => Some(String::from_utf8_lossy(&listed).into_owned()),
            Err(FetchError::Process { source: CaptureError::Output(_), .. }) => None,
            Err(error) => return Err(error),
        };
        let pair = |line: &str| {
            line.split_once('\t').map(|(object, name)| (object.len(), name.to_owned()))
        };
        let pairs: Option<Vec<_>> = listed.map(|listed| listed.lines().filter_map(pair).collect());
        let long = pairs.iter().flatten().any(|(length, _)| *length == 64);
        Ok(Remote {
            format: if long { "sha256" } else { "sha1" },
            references: pairs.map(|pairs| pairs.into_iter().map(|(_, name)| name).collect()),
        })
    }

    /// The error for a reference that the repository does not have. It names some that the repository has.
    pub(super) async fn no_reference(&self, origin: &Origin, reference: &Reference) -> FetchError {
        let url = redact(&origin.url);
        let (missing, prefix) = match reference {
            Reference::Head => {
                ("its HEAD is on a branch that is not there: name a `branch`", "refs/heads/")
            }
            Reference::Tag(_) => (MISSING, "refs/tags/"),
            Reference::Branch(_) | Reference::Revision(_) => (MISSING, "refs/heads/"),
        };
        let hint = match self.remote(origin).await {
            Ok(remote) if remote.references.as_ref().is_some_and(Vec::is_empty) => {
                "it is empty: push a revision".to_owned()
            }
            Ok(remote) => missing.to_owned() + &remote.shown(prefix),
            Err(_) => MISSING.to_owned(),
        };
        FetchError::NoReference { url, reference: describe(reference), hint }
    }
}

fn describe(reference: &Reference) -> String {
    match reference {
        Reference::Branch(name) => format!("branch {name}"),
        Reference::Tag(name) => format!("tag {name}"),
        Reference::Revision(revision) => format!("revision {revision}"),
        Reference::Head => "HEAD".to_owned(),
    }
}

impl Remote {
    /// The first few of its branches or tags, for people.
    fn shown(&self, prefix: &str) -> String {
        let names =
            || self.references.iter().flatten().filter_map(|name| name.strip_prefix(prefix));
        let shown: Vec<&str> = names().take(BRANCHES_SHOWN).collect();
        match (shown.is_empty(), names().count() > shown.len()) {
            (true, _) => String::new(),
            (false, false) => format!(" There are: {}", shown.join(", ")),
            (false, true) => format!(" There are: {}, …", shown.join(", ")),
        }
    }
}

/// Exchanges a new clone and the one at `place`.
fn exchange(new: &Path, place: &Path) -> io::Result<()> {
    match renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE) {
        Ok(()) => return Ok(()),
        // Nothing is at `place`, or the file system cannot exchange.
        Err(_) => remove_all(place)?,
    };
    std::fs::rename(new, place)
}

/// Removes the lock files and half-written packs that a killed git left in a clone. No other git may be running there.
/// Blocks.
pub(super) fn remove_locks(clone: &Path) {
    let is_left = |name: &str| {
        name.ends_with(".lock") || name.starts_with("tmp_") || matches!(name, "gc.pid" | "gc.log")
    };
    let folders = ["", "objects", "objects/info", "objects/info/commit-graphs", "objects/pack"];
    for folder in folders {
        remove_files(&clone.join(folder), &is_left, &mut Vec::new());
    }
    let mut open = vec![clone.join("refs")];
    while let Some(folder) = open.pop() {
        remove_files(&folder, &is_left, &mut open);
    }
}

/// Removes the files of a folder whose names `which` accepts, and adds its folders to `folders`.
fn remove_files(folder: &Path, which: &dyn Fn(&str) -> bool, folders: &mut Vec<PathBuf>) {
    let Ok(found) = std::fs::read_dir(folder) else { return };
    for entry in found.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        } else if entry.file_name().to_str().is_some_and(which) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
