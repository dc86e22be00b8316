//! Exports: the files of a revision without git's own, shared by everybody who needs that revision.
//!
//! Mostly a file is what its object is, and then nothing is exported at all: whoever needs some of
//! the files takes them out of the clone. A directory with all of them is made by git's own
//! program, when attributes, filters such as LFS or submodules have a say in what a file is, when
//! a file is too large to be taken out in one piece, or when somebody asks for a directory.
//!
//! X1: what a file is depends on its tree and on the filters that may run, never on another setting of the
//! machine or of a clone (`Repositories::export_command`).

use super::address::{GONE, Origin};
use super::exported::{Bundle, ExportedTree, Files};
use super::git::{FetchError, OUTPUT_MAX, Repositories, redact};
use super::objects::FILES_MAX;
use super::tree::{Entry, EntryKind, Tree};
use crate::os::digest::hex;
use crate::os::folder::remove_all;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How deep submodules may lie in submodules.
const SUBMODULE_DEPTH_MAX: usize = 8;

/// How a revision's files are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// However they can be copied.
    Any,
    /// All of them in a directory.
    Directory,
}

/// Whose files are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Where the repository is.
    pub(crate) url: &'a str,
    /// The full revision.
    pub(crate) revision: &'a str,
    /// Whether submodules are exported as well.
    pub(crate) submodules: bool,
    /// The beginnings of addresses that submodules are fetched from with the server's credentials.
    pub(crate) submodules_from: &'a [String],
}

impl Wanted<'_> {
    /// Names the export: everything that decides what is in it.
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

type Slot = Arc<tokio::sync::Mutex<Option<Arc<ExportedTree>>>>;

#[derive(Debug)]
struct Cached {
    slot: Slot,
    used: u64,
}

/// The exports of a state directory: at most `kept` beyond those in use.
#[derive(Debug)]
pub(crate) struct Checkouts {
    repositories: Arc<Repositories>,
    directory: PathBuf,
    kept: usize,
    /// Guard: the mutex. A slot's own lock makes the second who asks wait for the first.
    cached: Mutex<(u64, HashMap<String, Cached>)>,
    /// Names temporary directories.
    serial: AtomicU64,
}

impl Checkouts {
    /// Keeps exports in `directory`.
    pub(crate) fn new(repositories: Arc<Repositories>, directory: PathBuf, kept: usize) -> Self {
        let cached = Mutex::new((0, HashMap::new()));
        Self { repositories, directory, kept, cached, serial: AtomicU64::new(0) }
    }

    /// The files of a revision, exported if need be, fetched if they are not known.
    /// With `held_already` the caller knows that the clone has the revision.
    ///
    /// # Cancel safety
    /// Dropped: git is killed, and a half-made export is never seen.
    pub(crate) async fn export(
        &self,
        wanted: Wanted<'_>,
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
            let entry =
                map.entry(key.clone()).or_insert_with(|| Cached { slot: Slot::default(), used: 0 });
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
        let mut entries = Vec::new();
        let files = if directory.is_dir() {
            // Left by an earlier server; renamed into place only when complete.
            self.list(wanted, &origin, revision, b"", 0, None, &mut entries).await?;
            Files::Directory(directory)
        } else if let Some(found) = self.plain(wanted, &origin, form).await? {
            entries = found;
            let repositories = Arc::clone(&self.repositories);
            Files::Clone(Bundle { repositories, origin, revision: revision.to_owned() })
        } else {
            let serial = self.serial.fetch_add(1, Ordering::Relaxed);
            let partial =
                Partial(self.directory.join(format!("partial-{}-{serial}", std::process::id())));
            std::fs::create_dir_all(&partial.0).map_err(file_error(&partial.0))?;
            let root = Some(partial.0.as_path());
            self.list(wanted, &origin, revision, b"", 0, root, &mut entries).await?;
            std::fs::rename(&partial.0, &directory).map_err(file_error(&directory))?;
            Files::Directory(directory)
        };
        let tree = Tree::new(entries, conversion).ok_or_else(|| FetchError::Unreadable {
            doing: "list the files of",
            url: redact(wanted.url),
        })?;
        let tree = Arc::new(ExportedTree { tree, files });
        *held = Some(Arc::clone(&tree));
        drop(held);
        self.evict().await;
        Ok(tree)
    }

    /// The listing of a revision whose files are what their objects are; `None` if they may not be,
    /// or if a directory is wanted.
    async fn plain(
        &self,
        wanted: Wanted<'_>,
        origin: &Origin,
        form: Form,
    ) -> Result<Option<Vec<Entry>>, FetchError> {
        if form == Form::Directory {
            return Ok(None);
        }
        let entries = self.repositories.list(origin, wanted.revision, b"", FILES_MAX).await?;
        let special = |entry: &Entry| {
            entry.name() == b".gitattributes"
                || (wanted.submodules && entry.kind == EntryKind::Submodule)
        };
        Ok(if entries.iter().any(special) { None } else { Some(entries) })
    }

    /// Removes the least recently used exports that nobody holds.
    async fn evict(&self) {
        let mut gone = Vec::new();
        {
            let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
            let map = &mut cached.1;
            while map.len() > self.kept {
                let oldest = map
                    .iter()
                    // One of the slot's owners is the map, one of the tree's is the slot; a slot
                    // that is locked is in use.
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
                let path = self.directory.join(&key);
                // Renamed at once, under the lock: whoever asks for it from now on makes it anew.
                let serial = self.serial.fetch_add(1, Ordering::Relaxed);
                let away = self.directory.join(format!("partial-{}-{serial}", std::process::id()));
                if std::fs::rename(&path, &away).is_ok() {
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

    /// Removes what a killed server left half made, and exports beyond the bound. Blocks.
    pub(crate) fn clean(&self) {
        self.repositories.clean();
        let Ok(found) = std::fs::read_dir(&self.directory) else { return };
        let mut whole = 0;
        for entry in found.flatten() {
            let partial = entry.file_name().to_string_lossy().starts_with("partial-");
            whole += usize::from(!partial);
            if partial || whole > self.kept {
                let path = entry.path();
                let _ = remove_all(&path);
            }
        }
    }

    /// Lists the files of a revision, and writes them below `root` if it is given.
    #[expect(clippy::too_many_arguments, reason = "a recursion that carries its state along")]
    async fn list(
        &self,
        wanted: Wanted<'_>,
        origin: &Origin,
        revision: &str,
        prefix: &[u8],
        depth: usize,
        root: Option<&Path>,
        entries: &mut Vec<Entry>,
    ) -> Result<(), FetchError> {
        // Neither needs the other.
        let (found, ()) = tokio::try_join!(
            self.repositories.list(
                origin,
                revision,
                prefix,
                FILES_MAX.saturating_sub(entries.len())
            ),
            self.write_out(origin, revision, prefix, root)
        )?;
        let is_submodule = |entry: &Entry| wanted.submodules && entry.kind == EntryKind::Submodule;
        let submodules = if found.iter().any(is_submodule) {
            self.submodules(origin, revision).await?
        } else {
            HashMap::new()
        };
        for entry in found {
            if !is_submodule(&entry) {
                entries.push(entry);
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
                // As git does: the folder is there.
                None | Some(Submodule::Off) => {
                    if let Some(root) = root {
                        let path = root.join(entry.path());
                        let made = std::fs::create_dir_all(&path);
                        made.map_err(|source| FetchError::File { path, source })?;
                    }
                    entries.push(entry);
                    continue;
                }
                Some(Submodule::Nowhere) => {
                    return Err(refuse(format!("`.gitmodules` has no `url` for `{shown}`")));
                }
            };
            if depth == SUBMODULE_DEPTH_MAX {
                return Err(refuse(format!("more than {SUBMODULE_DEPTH_MAX} levels")));
            }
            let state = self.repositories.state();
            let below = origin.submodule(address, wanted.submodules_from, state);
            let below = below.map_err(|why| {
                let said = format!("submodule `{shown}`: {why}");
                if why.starts_with(GONE) {
                    FetchError::Git { doing: "fetch", url: redact(&origin.url), said }
                } else {
                    refuse(said)
                }
            })?;
            self.repositories.ensure_revision(&below, &entry.object).await?;
            let folder = [entry.path.as_slice(), b"/"].concat();
            Box::pin(self.list(wanted, &below, &entry.object, &folder, depth + 1, root, entries))
                .await?;
        }
        Ok(())
    }

    /// Writes the files of a revision, without its submodules, below `root`.
    async fn write_out(
        &self,
        origin: &Origin,
        revision: &str,
        prefix: &[u8],
        root: Option<&Path>,
    ) -> Result<(), FetchError> {
        let Some(root) = root else { return Ok(()) };
        let directory = root.join(OsStr::from_bytes(prefix));
        let write = || self.write_files(origin, revision, &directory);
        self.repositories.mended(origin, revision, write).await
    }

    async fn write_files(
        &self,
        origin: &Origin,
        revision: &str,
        directory: &Path,
    ) -> Result<(), FetchError> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let blank = format!("partial-{}-{serial}.git", std::process::id());
        let blank = Partial(self.directory.join(blank));
        let failed = |source| FetchError::File { path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let command = self.repositories.export_command(origin, &blank.0, directory).await;
        let mut command = command.map_err(failed)?;
        command.args(["read-tree", "--reset", "-u", revision]);
        let written = self.repositories.check("export", &origin.url, command, OUTPUT_MAX).await;
        written.map(drop).map_err(|error| match error {
            FetchError::Git { doing, url, said } if is_without_lfs(&said) => {
                FetchError::Refused { doing, url, said: WITHOUT_LFS.to_owned() }
            }
            error => error,
        })
    }

    /// What the `.gitmodules` of a revision says of each path.
    async fn submodules(
        &self,
        origin: &Origin,
        revision: &str,
    ) -> Result<HashMap<Vec<u8>, Submodule>, FetchError> {
        let mut command = self.repositories.command(&self.repositories.path(origin), origin.access);
        command.args(["config", "--null", "--blob", &format!("{revision}:.gitmodules")]);
        command.args(["--get-regexp", r"^submodule\..*\.(path|url|update)$"]);
        // Fails where there is none, or nothing in it.
        let done = self.repositories.run("read", &origin.url, command, OUTPUT_MAX).await?;
        Ok(Submodule::read(&done.stdout))
    }
}

/// Whether git says that it could not start git-lfs: by the shell's words, or by its own if it wrote to it first.
fn is_without_lfs(said: &str) -> bool {
    let ended = ["not found", "initialization for subprocess"];
    said.contains("git-lfs") && ended.iter().any(|words| said.contains(words))
}

const WITHOUT_LFS: &str = "it has large files, kept by git-lfs: install git-lfs where the server \
    runs, or set `git-filters = []` in its configuration to build with the pointers to them";

/// What a `.gitmodules` says of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Submodule {
    /// Where its repository is.
    At(String),
    /// No address.
    Nowhere,
    /// It is not checked out unless somebody asks for it by name (`update = none`).
    Off,
}

impl Submodule {
    /// From `git config --null --get-regexp`.
    fn read(settings: &[u8]) -> HashMap<Vec<u8>, Self> {
        let mut sections: HashMap<&[u8], [Option<&[u8]>; 3]> = HashMap::new();
        for record in settings.split(|byte| *byte == 0) {
            let end = record.iter().position(|byte| *byte == b'\n');
            let (key, value) = record.split_at(end.unwrap_or(record.len()));
            let dot = key.iter().rposition(|byte| *byte == b'.').unwrap_or(0);
            let (section, name) = key.split_at(dot);
            let names = [&b".path"[..], b".url", b".update"];
            if let Some(place) = names.iter().position(|known| *known == name) {
                // The last one counts.
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

/// A path as trees have it: without what does not change where it leads.
fn plain_path(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|byte| *byte == b'/');
    let parts: Vec<&[u8]> = parts.filter(|part| !matches!(*part, b"" | b".")).collect();
    parts.join(&b'/')
}

/// A directory that disappears unless it was renamed away.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = remove_all(&self.0);
    }
}
