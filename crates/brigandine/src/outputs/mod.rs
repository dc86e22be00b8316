//! Outputs: what a build leaves behind, kept in a folder named by the digest of its contents.
//!
//! Whatever a command put into `BRIGANDINE_OUT`, and the files that its product patterns select,
//! becomes `outputs/DIGEST`. Two builds that leave the same bytes share a folder; a folder that
//! has its name is complete, for it was renamed into place. What it holds may have been damaged since, so it
//! is read again before it is shared, and replaced if it is not what its name says.

mod products;
mod tree;

pub(crate) use tree::NotKept;

use crate::model::{NewProduct, output_digest, product_path};
use crate::os::digest::hex;
use crate::os::file::of;
use crate::os::folder::remove_all;
use products::Selected;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tree::{Found, Partial};

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
    pub(crate) fn path(&self, digest: &str) -> Option<PathBuf> {
        let plain = !digest.is_empty() && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let path = self.directory.join(digest);
        (plain && path.is_dir()).then_some(path)
    }

    /// Takes over what a successful command left in `out`, and the products it left in `build`.
    /// Blocks.
    ///
    /// # Errors
    /// The job broke a rule, or a file cannot be kept; the message names it as the build knows it.
    pub(crate) fn collect(
        &self,
        build: &Path,
        out: &Path,
        products: &[String],
    ) -> Result<Kept, NotKept> {
        self.try_collect(build, out, products).map_err(|error| match error {
            NotKept::Rule(message) => NotKept::Rule(message),
            NotKept::Io(error) => {
                let place = build.parent().unwrap_or(build).display();
                let text = error.to_string().replace(&format!("`{place}/"), "`");
                NotKept::Io(io::Error::new(error.kind(), text))
            }
        })
    }

    fn try_collect(&self, build: &Path, out: &Path, patterns: &[String]) -> Result<Kept, NotKept> {
        // The command may have put a link in the place of its own directory, and in a sandbox a link
        // leads to where only the server can go.
        for directory in [build, out] {
            if !of(directory, directory.symlink_metadata())?.is_dir() {
                let message = "it replaced its own directory by something else".to_owned();
                return Err(NotKept::Rule(message));
            }
        }
        let Selected { files: selected, notes } = products::select(build, out, patterns)?;
        if of(out, fs::read_dir(out))?.next().is_none() {
            self.check_empty()?;
            // Never removed, so it need not be held.
            return Ok(Kept {
                digest: self.empty.clone(),
                products: Vec::new(),
                hold: None,
                notes,
            });
        }
        let (digest, files) = tree::digest(out, self.bytes_max)?;
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
        Ok(Kept { digest, products, hold: Some(hold), notes })
    }

    /// Moves `out` to `target`, unless that is there and holds the same.
    fn keep(&self, out: &Path, target: &Path, name: &str, files: &[Found]) -> Result<(), NotKept> {
        if target.is_dir() {
            match tree::digest(target, u64::MAX) {
                Ok((found, _)) if found == name => return Ok(()),
                _ => self.set_aside(target, name)?,
            }
        }
        // First: a default access list would come back with the copies that are made below.
        tree::remove_attributes(out)?;
        for entry in of(out, fs::read_dir(out))? {
            tree::protect(&of(out, entry)?.path())?;
        }
        tree::take_over(out, &of(out, out.symlink_metadata())?)?;
        tree::sync_tree(out, files)?;
        match self.place(out, target, files) {
            Ok(()) => {
                // Only now: a folder that is protected cannot be moved to another one.
                of(target, fs::set_permissions(target, fs::Permissions::from_mode(0o555)))?;
                tree::sync_folder(target)?;
                Ok(tree::sync_folder(&self.directory)?)
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
        tree::copy_tree(out, &partial.0, files)?;
        tree::sync_tree(&partial.0, files)?;
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
        output_digest(path).is_none_or(|digest| self.path(digest).is_some())
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

/// What a build left.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The name of its output.
    pub(crate) digest: String,
    /// Files to download.
    pub(crate) products: Vec<NewProduct>,
    /// Keeps the output there until its row is stored; nothing needs to keep the one that is empty.
    pub(crate) hold: Option<Hold>,
    /// What the build log is to say besides.
    pub(crate) notes: Vec<String>,
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

#[cfg(test)]
mod tests;
