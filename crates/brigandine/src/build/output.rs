//! Outputs: what a build leaves behind, kept in a folder named by the digest of its contents.
//!
//! Whatever a command put into `BRIGANDINE_OUT`, and the files that its product patterns select,
//! becomes `outputs/DIGEST`. Two builds that leave the same bytes share a folder; a folder that
//! has its name is complete, for it was renamed into place. What it holds may have been damaged since, so it
//! is read again before it is shared, and replaced if it is not what its name says.

mod products;

use super::dispatch::{Lost, Outcome};
use crate::health;
use crate::model::{BuildStatus, product_path};
use crate::os::digest::hex;
use crate::os::folder::remove_all;
use crate::store::NewProduct;
use products::Selected;
use rustix::fs::{llistxattr, llistxattr_query, lremovexattr};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many files an output may have.
const FILES_MAX: usize = 1_000_000;
/// How deep directories may lie in one another.
const DEPTH_MAX: usize = 200;
/// How the names begin of what is no output: on its way in, out, and out because it is damaged.
const ASIDE: [&str; 3] = ["partial-", "gone-", "damaged-"];

/// A folder of outputs.
///
/// | state of an output | who says so | leaves it by |
/// |---|---|---|
/// | held: a result that names it is not stored yet | `uses`: how many | the last [`Hold`] is dropped |
/// | being removed | `uses` | [`Removal`] is dropped; whoever wants to hold it waits |
/// | at rest | nothing in `uses` | either |
///
/// O1: a result holds its output before it looks whether the folder is there, until its row is committed.
/// So whoever removes one asks for rows after no hold is left, and finds those of all holds before.
#[derive(Debug)]
pub(crate) struct Outputs {
    directory: PathBuf,
    bytes_max: u64,
    uses: Arc<Uses>,
    /// Names what is on its way in, or out because it is damaged.
    serial: AtomicU64,
    /// The digest of nothing, whose folder is there from the start: most builds leave nothing.
    empty: String,
}

impl Outputs {
    /// Keeps outputs in `directory`, made if need be. Blocks.
    pub(crate) fn new(directory: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let empty = hex(&Sha256::digest([]));
        fs::create_dir_all(directory.join(&empty))?;
        Ok(Self { directory, bytes_max, uses: Arc::default(), serial: AtomicU64::new(0), empty })
    }

    /// Removes what a killed server left half made or half removed in `directory`. Blocks.
    pub(crate) fn clean(directory: &Path) {
        let Ok(found) = fs::read_dir(directory) else { return };
        let left = |name: &str| ASIDE.iter().any(|beginning| name.starts_with(beginning));
        for entry in found.flatten().filter(|it| left(&it.file_name().to_string_lossy())) {
            if let Err(error) = remove_all(&entry.path()) {
                tracing::warn!(%error, path = %entry.path().display(), "cannot remove a leftover");
            }
        }
    }

    /// Where the output of this digest is, if it is there.
    pub(super) fn path(&self, digest: &str) -> Option<PathBuf> {
        let plain = !digest.is_empty() && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let path = self.directory.join(digest);
        (plain && path.is_dir()).then_some(path)
    }

    /// Takes over what a successful command left in `out`, and the products it left in `build`.
    /// Blocks.
    ///
    /// # Errors
    /// There is no room for it: that is no fault of the build.
    pub(super) fn collect(
        &self,
        build: &Path,
        out: &Path,
        products: &[String],
    ) -> Result<Outcome, Lost> {
        match self.try_collect(build, out, products) {
            Ok(outcome) => Ok(outcome),
            Err(CollectError::Rule(message)) => Ok(Outcome::bad(BuildStatus::FailedOther, message)),
            Err(CollectError::Io(error)) => {
                // Paths as the build knows them.
                let place = build.parent().unwrap_or(build).display();
                let text = error.to_string().replace(&format!("`{place}/"), "`");
                let message = format!("cannot keep its outputs: {text}");
                if health::is_full(&error) {
                    return Err(Lost(message));
                }
                Ok(Outcome::bad(BuildStatus::FailedOther, message))
            }
        }
    }

    fn try_collect(
        &self,
        build: &Path,
        out: &Path,
        patterns: &[String],
    ) -> Result<Outcome, CollectError> {
        // The command may have put a link in the place of its own directory, and in a sandbox a link
        // leads to where only the server can go.
        for directory in [build, out] {
            if !of(directory, directory.symlink_metadata())?.is_dir() {
                let message = "it replaced its own directory by something else".to_owned();
                return Err(CollectError::Rule(message));
            }
        }
        let Selected { files: selected, notes } = products::select(build, out, patterns)?;
        if of(out, fs::read_dir(out))?.next().is_none() {
            self.check_empty()?;
            // Never removed, so it need not be held.
            return Ok(Outcome { notes, ..good(self.empty.clone(), Vec::new(), None) });
        }
        let (digest, files) = digest(out, self.bytes_max)?;
        let target = self.directory.join(&digest);
        let hold = self.hold(&digest);
        self.keep(out, &target, &digest, &files)?;
        let products = selected
            .iter()
            .filter_map(|(name, path)| {
                let at = files.binary_search_by(|file| file.path.cmp(path)).ok()?;
                Some(NewProduct {
                    kind: "file".to_owned(),
                    name: name.to_string_lossy().into_owned(),
                    path: product_path(&digest, path),
                    bytes: i64::try_from(files[at].bytes).unwrap_or(i64::MAX),
                    checksum: hex(&files[at].digest),
                })
            })
            .collect();
        Ok(Outcome { notes, ..good(digest, products, Some(hold)) })
    }

    /// Moves `out` to `target`, unless that is there and holds the same.
    fn keep(
        &self,
        out: &Path,
        target: &Path,
        name: &str,
        files: &[Found],
    ) -> Result<(), CollectError> {
        if target.is_dir() {
            match digest(target, u64::MAX) {
                Ok((found, _)) if found == name => return Ok(()),
                _ => self.set_aside(target, name)?,
            }
        }
        // First: a default access list would come back with the copies that are made below.
        remove_attributes(out)?;
        for entry in of(out, fs::read_dir(out))? {
            protect(&of(out, entry)?.path())?;
        }
        take_over(out, &of(out, out.symlink_metadata())?)?;
        sync_tree(out, files)?;
        match self.place(out, target, files) {
            Ok(()) => {
                // Only now: a folder that is protected cannot be moved to another one.
                of(target, fs::set_permissions(target, fs::Permissions::from_mode(0o555)))?;
                sync_folder(target)?;
                Ok(sync_folder(&self.directory)?)
            }
            // Somebody else made the same output a moment ago.
            Err(_) if target.is_dir() => Ok(()),
            Err(error) => Ok(of(target, Err(error))?),
        }
    }

    /// Renames `out` to `target`, by way of a copy where outputs are on another file system than builds.
    fn place(&self, out: &Path, target: &Path, files: &[Found]) -> io::Result<()> {
        match fs::rename(out, target) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
            done => return done,
        }
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let name = format!("partial-{}-{serial}", std::process::id());
        let partial = Partial(self.directory.join(name));
        copy_tree(out, &partial.0, files)?;
        sync_tree(&partial.0, files)?;
        fs::rename(&partial.0, target)
    }

    /// The output that holds nothing is there, and holds nothing.
    fn check_empty(&self) -> io::Result<()> {
        let target = self.directory.join(&self.empty);
        match fs::read_dir(&target).map(|mut entries| entries.next().is_none()) {
            Ok(true) => return Ok(()),
            Ok(false) => self.set_aside(&target, &self.empty)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::create_dir_all(target)
    }

    /// Takes a damaged output out of the way; those who read it go on reading it.
    fn set_aside(&self, target: &Path, name: &str) -> io::Result<()> {
        tracing::error!(
            output = name,
            "an output is not what its name says: it is replaced by what was built just now; find out what \
             wrote to the state directory"
        );
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let aside = format!("damaged-{}-{serial}", std::process::id());
        let aside = self.directory.join(aside);
        fs::set_permissions(target, fs::Permissions::from_mode(0o700))?;
        match fs::rename(target, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        remove_all(&aside)
    }

    /// Whether the output at this path, as the database has it, is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        path.strip_prefix("outputs/").is_none_or(|digest| self.path(digest).is_some())
    }

    fn hold(&self, digest: &str) -> Hold {
        let mut uses = self.uses.lock();
        loop {
            match uses.entry(digest.to_owned()).or_insert(Use::Held(0)) {
                Use::Held(count) => {
                    *count += 1;
                    break;
                }
                // Ends with the removal, which waits for one read and a rename.
                Use::Removed => {
                    uses = self.uses.ended.wait(uses).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        drop(uses);
        Hold(Arc::new(Held { uses: Arc::clone(&self.uses), digest: digest.to_owned() }))
    }

    /// A hold without a result.
    #[cfg(test)]
    pub(crate) fn hold_for_tests(&self, digest: &str) -> Hold {
        self.hold(digest)
    }

    /// Whether it is an output that may ever be removed: a digest and no path, and not that of nothing.
    pub(crate) fn may_go(&self, digest: &str) -> bool {
        let plain = !digest.is_empty() && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain && digest != self.empty
    }

    /// Begins to remove an output that no row may name. `None`: it is held, or may never go.
    pub(crate) fn begin_removal(&self, digest: &str) -> Option<Removal> {
        let mut uses = self.uses.lock();
        if !self.may_go(digest) || uses.contains_key(digest) {
            return None;
        }
        uses.insert(digest.to_owned(), Use::Removed);
        drop(uses);
        let path = self.directory.join(digest);
        Some(Removal { uses: Arc::clone(&self.uses), digest: digest.to_owned(), path })
    }
}

/// Which outputs may not be removed or taken right now. Bounded by the builds that end at once.
#[derive(Debug, Default)]
struct Uses {
    by_digest: Mutex<HashMap<String, Use>>,
    /// Rung when a removal ends.
    ended: Condvar,
}

impl Uses {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Use>> {
        self.by_digest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
enum Use {
    Held(usize),
    Removed,
}

/// Keeps an output from being removed until the row that names it is committed.
#[derive(Debug, Clone)]
pub(crate) struct Hold(Arc<Held>);

#[derive(Debug)]
struct Held {
    uses: Arc<Uses>,
    digest: String,
}

impl PartialEq for Hold {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

impl Eq for Hold {}

impl Drop for Held {
    fn drop(&mut self) {
        let mut uses = self.uses.lock();
        if let Some(Use::Held(count)) = uses.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                uses.remove(&self.digest);
            }
        }
    }
}

/// An output that is being removed. Dropped without [`Removal::finish`], it stays.
#[derive(Debug)]
pub(crate) struct Removal {
    uses: Arc<Uses>,
    digest: String,
    path: PathBuf,
}

impl Removal {
    /// Moves the folder aside, where it can be deleted in peace, and says where that is; one that is gone already
    /// is no error. Blocks.
    pub(crate) fn finish(self) -> io::Result<PathBuf> {
        let aside = self.path.with_file_name(format!("gone-{}", self.digest));
        // A folder that is protected cannot be moved to another one.
        let allow = || fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700));
        match allow().and_then(|()| fs::rename(&self.path, &aside)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(aside),
        }
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.uses.lock().remove(&self.digest);
        self.uses.ended.notify_all();
    }
}

fn good(digest: String, products: Vec<NewProduct>, hold: Option<Hold>) -> Outcome {
    Outcome {
        status: BuildStatus::Succeeded,
        message: String::new(),
        outputs: vec![("out".to_owned(), digest)],
        products,
        hold,
        gone: Vec::new(),
        notes: Vec::new(),
    }
}

/// Characters of a path in a message.
const PATH_SHOWN: usize = 400;

/// Says which file an error is about.
pub(super) fn of<T>(path: &Path, done: io::Result<T>) -> io::Result<T> {
    let name = |error: io::Error| {
        let text = path.to_string_lossy();
        let shown: String = text.chars().take(PATH_SHOWN).collect();
        let cut = if shown.len() < text.len() { "…" } else { "" };
        io::Error::new(error.kind(), format!("`{shown}{cut}`: {error}"))
    };
    done.map_err(name)
}

enum CollectError {
    /// The job broke its own rules.
    Rule(String),
    /// A file.
    Io(io::Error),
}

impl From<io::Error> for CollectError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A folder that disappears unless it was renamed away.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = remove_all(&self.0);
    }
}

/// Copies a protected output to `to`, which is not there.
fn copy_tree(from: &Path, to: &Path, files: &[Found]) -> io::Result<()> {
    fs::create_dir(to)?;
    // Sorted: a directory comes before what is in it.
    for file in files {
        let (source, target) = (from.join(&file.path), to.join(&file.path));
        match file.kind {
            b'd' => fs::create_dir(&target)?,
            b'l' => std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?,
            _ => fs::copy(&source, &target).map(drop)?,
        }
    }
    for file in files.iter().rev().filter(|file| file.kind == b'd') {
        fs::set_permissions(to.join(&file.path), fs::Permissions::from_mode(0o555))?;
    }
    Ok(())
}

struct Found {
    path: PathBuf,
    kind: u8,
    digest: Vec<u8>,
    bytes: u64,
}

/// The name of an output with what is in `root`, and what that is.
fn digest(root: &Path, bytes_max: u64) -> Result<(String, Vec<Found>), CollectError> {
    let mut walk = Walk { root, files: Vec::new(), bytes: 0, bytes_max };
    walk.directory(root, 0)?;
    walk.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let mut digest = Sha256::new();
    for file in &walk.files {
        digest.update(file.path.as_os_str().as_bytes());
        digest.update([0, file.kind]);
        digest.update(&file.digest);
    }
    Ok((hex(&digest.finalize()), walk.files))
}

struct Walk<'a> {
    root: &'a Path,
    files: Vec<Found>,
    bytes: u64,
    bytes_max: u64,
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, depth: usize) -> Result<(), CollectError> {
        if depth > DEPTH_MAX {
            let message = format!("its output has more than {DEPTH_MAX} levels of directories");
            return Err(CollectError::Rule(message));
        }
        for entry in of(path, fs::read_dir(path))? {
            let path = of(path, entry)?.path();
            let metadata = of(&path, path.symlink_metadata())?;
            let (kind, digest, bytes) = if metadata.is_dir() {
                self.directory(&path, depth + 1)?;
                (b'd', Vec::new(), 0)
            } else if metadata.is_symlink() {
                let target = of(&path, fs::read_link(&path))?;
                (b'l', Sha256::digest(target.as_os_str().as_bytes()).to_vec(), 0)
            } else if metadata.is_file() {
                let (digest, bytes) = self.file(&path)?;
                (if is_executable(&metadata) { b'x' } else { b'f' }, digest, bytes)
            } else {
                let message = format!(
                    "its output has `{}`, which is neither file, directory nor link",
                    path.strip_prefix(self.root).unwrap_or(&path).display()
                );
                return Err(CollectError::Rule(message));
            };
            let path = path.strip_prefix(self.root).unwrap_or(&path).to_owned();
            self.files.push(Found { path, kind, digest, bytes });
            if self.files.len() > FILES_MAX {
                let message = format!("its output has more than {FILES_MAX} files");
                return Err(CollectError::Rule(message));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(Vec<u8>, u64), CollectError> {
        let mut file = of(path, fs::File::open(path))?;
        let mut digest = Sha256::new();
        let mut chunk = vec![0; 64 * 1024];
        let mut bytes = 0;
        loop {
            let count = of(path, file.read(&mut chunk))?;
            if count == 0 {
                return Ok((digest.finalize().to_vec(), bytes));
            }
            digest.update(&chunk[..count]);
            bytes += count as u64;
            self.bytes += count as u64;
            if self.bytes > self.bytes_max {
                let message = format!("its output has more than {} bytes", self.bytes_max);
                return Err(CollectError::Rule(message));
            }
        }
    }
}

fn is_executable(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & 0o111 != 0
}

/// Gives everything the mode that its kind has, 0444, or 0555 for what can be run and for directories, and
/// takes all that would make it more than its bytes: other names outside of the output, a changed user, attributes.
fn protect(path: &Path) -> io::Result<()> {
    let metadata = of(path, path.symlink_metadata())?;
    remove_attributes(path)?;
    if metadata.is_symlink() {
        return take_over(path, &metadata);
    }
    let runs = metadata.is_dir() || is_executable(&metadata);
    if metadata.is_dir() {
        for entry in of(path, fs::read_dir(path))? {
            protect(&of(path, entry)?.path())?;
        }
    } else if metadata.nlink() > 1 {
        // Whoever has the other name could change it, or have it changed here.
        let mut copy = path.as_os_str().to_owned();
        copy.push(".brigandine-copy");
        let copy = PathBuf::from(copy);
        let mut file = of(&copy, fs::File::options().write(true).create_new(true).open(&copy))?;
        of(path, io::copy(&mut of(path, fs::File::open(path))?, &mut file))?;
        of(path, fs::rename(&copy, path))?;
    }
    take_over(path, &of(path, path.symlink_metadata())?)?;
    let mode = fs::Permissions::from_mode(if runs { 0o555 } else { 0o444 });
    of(path, fs::set_permissions(path, mode))
}

/// Makes a file the server's own: its build may have run as another user, or changed its group.
fn take_over(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    if (metadata.uid(), metadata.gid()) == (user, group) {
        return Ok(());
    }
    of(path, lchown(path, Some(user), Some(group)))
}

/// Removes extended attributes, which hold access lists and rights of programs. What a machine's own policy
/// attaches to every file stays.
fn remove_attributes(path: &Path) -> io::Result<()> {
    let unknown = |error: &Errno| matches!(*error, Errno::NOTSUP | Errno::NOSYS);
    let names = match llistxattr_query(path) {
        Ok(0) => return Ok(()),
        Ok(length) => {
            let mut names = vec![0; length];
            let length = of(path, llistxattr(path, names.as_mut_slice()).map_err(Into::into))?;
            names.truncate(length);
            names
        }
        Err(error) if unknown(&error) => return Ok(()),
        Err(error) => return of(path, Err(error.into())),
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match lremovexattr(path, name) {
            Err(error) if name.starts_with(b"security.selinux") || error == Errno::NODATA => {}
            done => of(path, done.map_err(Into::into))?,
        }
    }
    Ok(())
}

/// Files that are synced one by one; more of them are left to one call for the whole file system.
const SYNCED_ALONE: usize = 32;

/// Brings an output to the disk, so that a row that names it never outlives it.
fn sync_tree(out: &Path, files: &[Found]) -> io::Result<()> {
    if files.len() > SYNCED_ALONE {
        rustix::fs::syncfs(fs::File::open(out)?)?;
        return Ok(());
    }
    for file in files.iter().filter(|file| file.kind != b'l') {
        let path = out.join(&file.path);
        of(&path, fs::File::open(&path).and_then(|file| file.sync_all()))?;
    }
    Ok(())
}

/// Brings the names in a folder to the disk.
fn sync_folder(folder: &Path) -> io::Result<()> {
    of(folder, fs::File::open(folder).and_then(|folder| folder.sync_all()))
}

#[cfg(test)]
mod tests;
