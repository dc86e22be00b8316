//! Exports: the files of a revision without git's own files, shared by all users of that revision.
//!
//! In most revisions each file is the contents of its git object. Then nothing is exported: builds take the files that
//! they need from the clone. Otherwise git itself makes a directory with all files: when attributes, filters such as
//! LFS or submodules change files, when a file is too large to be read from the clone, or when the caller asks for a
//! directory.
//!
//! - CKOUT1: the contents of a file depend on the revision's tree and on the filters that may run, and on no other
//!   setting of the machine or of a clone (`Repositories::export_command`).

use super::address::{GONE, Origin};
use super::exported::{ClonedFiles, ExportedTree, Files};
use super::git::{FetchError, OUTPUT_MAX, Repositories};
use super::objects::FILES_MAX;
use super::tree::{Entry, EntryKind, Tree};
use crate::model::redact;
use crate::os::digest::hex;
use crate::os::folder::{Temporary, remove_all, remove_leftovers, unused};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How the names of unfinished exports begin.
const PARTIAL: &str = "partial-";
/// The most levels of submodules in submodules.
const SUBMODULE_DEPTH_MAX: usize = 8;

/// The form in which a caller wants a revision's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The files may be in the clone or in a directory.
    Any,
    /// All files must be in a directory.
    Directory,
}

/// The revision whose files a caller wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WantedRevision<'a> {
    /// The address of the repository.
    pub(crate) url: &'a str,
    /// The full revision.
    pub(crate) revision: &'a str,
    /// Whether submodules are exported as well.
    pub(crate) submodules: bool,
    /// The beginnings of the addresses from which submodules are fetched with the server's credentials.
    pub(crate) submodules_from: &'a [String],
}

impl WantedRevision<'_> {
    /// The name of the export: a digest of everything that decides its contents.
    fn key(&self, conversion: &str) -> String {
        let mut digest = Sha256::new();
        let from = if self.submodules { self.submodules_from } else { &[] };
        let texts = [self.url, self.revision, conversion].into_iter();
        for text in texts.chain(from.iter().map(String::as_str)) {
            digest.update(text.len().to_be_bytes());
            digest.update(text);
        }
        let suffix = if self.submodules { "-with-submodules" } else { "" };
        format!("{}{suffix}", hex(&digest.finalize()))
    }
}

#[derive(Debug, Default)]
struct Cached {
    slot: Arc<tokio::sync::Mutex<Option<Arc<ExportedTree>>>>,
    /// The clock's value when a caller last asked for this export.
    used: u64,
}

/// The exports of a state directory.
///
/// A slot's lock is held while its export is made, so a second caller waits for the first. The mutex is held only for a
/// moment. A task that holds a slot may take the mutex; a task that holds the mutex only tries slots and never waits
/// for one.
#[derive(Debug)]
pub(crate) struct Checkouts {
    repositories: Arc<Repositories>,
    directory: PathBuf,
    /// Exports that are not in use are removed while there are more than this many.
    kept: usize,
    /// A clock that counts calls, and the exports by their names. Guard: the mutex.
    cached: Mutex<(u64, HashMap<String, Cached>)>,
}

impl Checkouts {
    /// Keeps exports in `directory`.
    pub(crate) fn new(repositories: Arc<Repositories>, directory: PathBuf, kept: usize) -> Self {
        let cached = Mutex::new((0, HashMap::new()));
        Self { repositories, directory, kept, cached }
    }

    /// The files of a revision, fetched and exported if need be. `held_already`: the caller knows that the clone has
    /// the revision, so it is not fetched.
    ///
    /// # Cancel safety
    /// If the future is dropped, git is killed, and the unfinished export is never used.
    pub(crate) async fn export(
        &self,
        wanted: WantedRevision<'_>,
        form: Form,
        held_already: bool,
    ) -> Result<Arc<ExportedTree>, FetchError> {
        let (origin, revision) = (Origin::input(wanted.url), wanted.revision);
        let conversion = self.repositories.conversion().await?;
        let key = wanted.key(&conversion);
        let slot = {
            let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
            let (clock, map) = &mut *cached;
            *clock += 1;
            let entry = map.entry(key.clone()).or_default();
            entry.used = *clock;
            Arc::clone(&entry.slot)
        };
        let mut held = slot.lock().await;
        if let Some(tree) = &*held
            && (form == Form::Any || tree.directory().is_some())
        {
            return Ok(Arc::clone(tree));
        }
        let directory = self.directory.join(&key);
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| FetchError::File { path, source }
        };
        std::fs::create_dir_all(&self.directory).map_err(file_error(&self.directory))?;
        if !held_already {
            self.repositories.ensure_revision(&origin, revision).await?;
        }
        let mut export = Export { checkouts: self, wanted, root: None, entries: Vec::new() };
        let files = if directory.is_dir() {
            // An earlier server has made the export. It is complete, because an export gets this name last.
            export.add(&origin, revision, b"", 0).await?;
            Files::Directory(directory)
        } else if form == Form::Any && export.add_plain(&origin).await? {
            let repositories = Arc::clone(&self.repositories);
            Files::Clone(ClonedFiles { repositories, origin, revision: revision.to_owned() })
        } else {
            let partial = Temporary(self.partial(""));
            std::fs::create_dir_all(&partial.0).map_err(file_error(&partial.0))?;
            export.root = Some(partial.0.clone());
            export.add(&origin, revision, b"", 0).await?;
            std::fs::rename(&partial.0, &directory).map_err(file_error(&directory))?;
            Files::Directory(directory)
        };
        let tree = Tree::new(export.entries, conversion).ok_or_else(|| FetchError::Unreadable {
            doing: "list the files of",
            url: redact(wanted.url),
        })?;
        let tree = Arc::new(ExportedTree { tree, files });
        *held = Some(Arc::clone(&tree));
        drop(held);
        self.evict().await;
        Ok(tree)
    }

    /// The path of a new folder beside the exports. [`Checkouts::clean`] removes the folder if it is left behind.
    fn partial(&self, suffix: &str) -> PathBuf {
        unused(&self.directory, PARTIAL, suffix)
    }

    /// Removes the least recently used exports that are not in use.
    async fn evict(&self) {
        let mut gone = Vec::new();
        {
            let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
            let map = &mut cached.1;
            while map.len() > self.kept {
                let oldest = map
                    .iter()
                    // The map owns each slot, and the slot owns its tree. So an export is in use if the slot or the
                    // tree has a second owner, or if the slot is locked.
                    .filter(|(_, entry)| {
                        Arc::strong_count(&entry.slot) == 1
                            && entry.slot.try_lock().is_ok_and(|held| {
                                held.as_ref().is_none_or(|tree| Arc::strong_count(tree) == 1)
                            })
                    })
                    .min_by_key(|(_, entry)| entry.used)
                    .map(|(key, _)| key.clone());
                let Some(key) = oldest else { break };
                map.remove(&key);
                // The export is renamed under the lock, so that a later caller exports the revision again.
                let away = self.partial("");
                if std::fs::rename(self.directory.join(&key), &away).is_ok() {
                    gone.push(away);
                }
            }
        }
        if gone.is_empty() {
            return;
        }
        let removal = tokio::task::spawn_blocking(move || {
            for path in gone {
                let _ = remove_all(&path);
            }
        });
        let _ = removal.await;
    }

    /// Removes the unfinished exports of a killed server, and exports beyond the bound. Blocks.
    pub(crate) fn clean(&self) {
        self.repositories.clean();
        remove_leftovers(&self.directory, &[PARTIAL]);
        let Ok(found) = std::fs::read_dir(&self.directory) else { return };
        for entry in found.flatten().skip(self.kept) {
            let _ = remove_all(&entry.path());
        }
    }
}

/// An export that is being made.
struct Export<'a> {
    checkouts: &'a Checkouts,
    wanted: WantedRevision<'a>,
    /// The directory to which the files are written. `None`: they are only listed.
    root: Option<PathBuf>,
    entries: Vec<Entry>,
}

impl Export<'_> {
    /// Adds the files of the revision if each is the contents of its git object. `false`: attributes or submodules may
    /// change files, so nothing was added.
    async fn add_plain(&mut self, origin: &Origin) -> Result<bool, FetchError> {
        let repositories = &self.checkouts.repositories;
        let found = repositories.list(origin, self.wanted.revision, b"", FILES_MAX).await?;
        let special = |entry: &Entry| entry.name() == b".gitattributes" || self.is_submodule(entry);
        if found.iter().any(special) {
            return Ok(false);
        }
        self.entries = found;
        Ok(true)
    }

    /// Adds the files of a revision, with `prefix` before their paths. Calls itself for submodules, `depth` levels
    /// deep.
    async fn add(
        &mut self,
        origin: &Origin,
        revision: &str,
        prefix: &[u8],
        depth: usize,
    ) -> Result<(), FetchError> {
        let repositories = &self.checkouts.repositories;
        let most = FILES_MAX.saturating_sub(self.entries.len());
        let (found, ()) = tokio::try_join!(
            repositories.list(origin, revision, prefix, most),
            self.write_out(origin, revision, prefix)
        )?;
        let submodules = if found.iter().any(|entry| self.is_submodule(entry)) {
            self.submodules(origin, revision).await?
        } else {
            HashMap::new()
        };
        for entry in found {
            if !self.is_submodule(&entry) {
                self.entries.push(entry);
                continue;
            }
            let name = &entry.path[prefix.len()..];
            let refuse = |said: String| FetchError::Refused {
                doing: "export the submodules of",
                url: redact(&origin.url),
                said,
            };
            let shown = String::from_utf8_lossy(name);
            let address = match submodules.get(name) {
                Some(Submodule::At(address)) => address,
                // As in git, the submodule's folder exists and is empty.
                None | Some(Submodule::Off) => {
                    if let Some(root) = &self.root {
                        let path = root.join(entry.path());
                        let made = std::fs::create_dir_all(&path);
                        made.map_err(|source| FetchError::File { path, source })?;
                    }
                    self.entries.push(entry);
                    continue;
                }
                Some(Submodule::Nowhere) => {
                    return Err(refuse(format!("`.gitmodules` has no `url` for `{shown}`")));
                }
            };
            if depth == SUBMODULE_DEPTH_MAX {
                return Err(refuse(format!("more than {SUBMODULE_DEPTH_MAX} levels")));
            }
            let state = repositories.state();
            let below = origin.submodule(address, self.wanted.submodules_from, state);
            let below = below.map_err(|why| {
                let said = format!("submodule `{shown}`: {why}");
                if why.starts_with(GONE) {
                    FetchError::Git { doing: "fetch", url: redact(&origin.url), said }
                } else {
                    refuse(said)
                }
            })?;
            repositories.ensure_revision(&below, &entry.object).await?;
            let folder = [entry.path.as_slice(), b"/"].concat();
            Box::pin(self.add(&below, &entry.object, &folder, depth + 1)).await?;
        }
        Ok(())
    }

    fn is_submodule(&self, entry: &Entry) -> bool {
        self.wanted.submodules && entry.kind == EntryKind::Submodule
    }

    /// Writes the files of a revision, without its submodules, below the root, if there is one.
    async fn write_out(
        &self,
        origin: &Origin,
        revision: &str,
        prefix: &[u8],
    ) -> Result<(), FetchError> {
        let Some(root) = &self.root else { return Ok(()) };
        let directory = &root.join(OsStr::from_bytes(prefix));
        let repositories = &self.checkouts.repositories;
        let write = move || async move {
            let blank = Temporary(self.checkouts.partial(".git"));
            let failed = |source| FetchError::File { path: directory.clone(), source };
            std::fs::create_dir_all(directory).map_err(failed)?;
            let command = repositories.export_command(origin, &blank.0, directory).await;
            let mut command = command.map_err(failed)?;
            command.args(["read-tree", "--reset", "-u", revision]);
            let written = repositories.check("export", &origin.url, command, OUTPUT_MAX).await;
            written.map(drop).map_err(|error| match error {
                FetchError::Git { doing, url, said } if is_without_lfs(&said) => {
                    FetchError::Refused { doing, url, said: WITHOUT_LFS.to_owned() }
                }
                error => error,
            })
        };
        repositories.mended(origin, revision, write).await
    }

    /// The submodules that the `.gitmodules` of a revision names, by path.
    async fn submodules(
        &self,
        origin: &Origin,
        revision: &str,
    ) -> Result<HashMap<Vec<u8>, Submodule>, FetchError> {
        let repositories = &self.checkouts.repositories;
        let mut command = repositories.command(&repositories.path(origin), origin.access);
        command.args(["config", "--null", "--blob", &format!("{revision}:.gitmodules")]);
        command.args(["--get-regexp", r"^submodule\..*\.(path|url|update)$"]);
        // git's exit status is ignored, because git also fails if the revision has no `.gitmodules` or the file has no
        // such setting.
        let done = repositories.run("read", &origin.url, command, OUTPUT_MAX).await?;
        Ok(Submodule::read(&done.stdout))
    }
}

/// Whether an error says that git-lfs could not be started. The message is the shell's, or git's if git noticed the
/// failure first.
fn is_without_lfs(said: &str) -> bool {
    let ended = ["not found", "initialization for subprocess"];
    said.contains("git-lfs") && ended.iter().any(|words| said.contains(words))
}

const WITHOUT_LFS: &str = "it has large files, kept by git-lfs: install git-lfs where the server \
    runs, or set `git-filters = []` in its configuration to build with the pointers to them";

/// What a `.gitmodules` says about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Submodule {
    /// The address of the submodule's repository.
    At(String),
    /// `.gitmodules` names no address.
    Nowhere,
    /// The submodule is checked out only on request (`update = none`).
    Off,
}

impl Submodule {
    /// Parses the output of `git config --null --get-regexp`.
    fn read(settings: &[u8]) -> HashMap<Vec<u8>, Self> {
        let mut sections: HashMap<&[u8], [Option<&[u8]>; 3]> = HashMap::new();
        for record in settings.split(|byte| *byte == 0) {
            let end = record.iter().position(|byte| *byte == b'\n');
            let (key, value) = record.split_at(end.unwrap_or(record.len()));
            let dot = key.iter().rposition(|byte| *byte == b'.').unwrap_or(0);
            let (section, name) = key.split_at(dot);
            let names = [&b".path"[..], b".url", b".update"];
            if let Some(place) = names.iter().position(|known| *known == name) {
                // If a key occurs several times, its last value applies.
                sections.entry(section).or_default()[place] = value.get(1..);
            }
        }
        let known = sections.into_values().filter_map(|[path, url, update]| {
            let submodule = match (url, update) {
                (_, Some(b"none")) => Self::Off,
                (Some(url), _) => Self::At(String::from_utf8_lossy(url).into_owned()),
                (None, _) => Self::Nowhere,
            };
            Some((plain_path(path?), submodule))
        });
        known.collect()
    }
}

/// A path without its empty and `.` components, in the form that trees have.
fn plain_path(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|byte| *byte == b'/');
    let parts: Vec<&[u8]> = parts.filter(|part| !matches!(*part, b"" | b".")).collect();
    parts.join(&b'/')
}
