//! Outputs: what a build leaves behind, kept in a folder named by the digest of its contents.
//!
//! What a command puts into `BRIGANDINE_OUT`, and the files that its product patterns select, become `outputs/DIGEST`.
//! Two builds that leave the same bytes share a folder. A folder gets its name when it is complete. It may be damaged
//! later, so it is read again before another build shares it, and replaced if its contents do not match its name.
//!
//! | state of an output | kept in | left by |
//! |---|---|---|
//! | held: a result that names it is not stored yet | `uses`: how many | the last [`Hold`] is dropped |
//! | being removed | `uses` | [`Removal`] is dropped; until then [`Outputs::collect`] waits |
//! | at rest | not in `uses` | a hold or a removal begins |
//!
//! - OUT1: a build's result takes a hold before it checks whether the folder exists, and keeps it until the result's
//!   row is committed. A removal begins only when there is no hold, and reads the rows after that, so it finds the rows
//!   of all earlier holds.

mod products;
mod tree;

pub(crate) use tree::NotKept;

use crate::model::{NewProduct, output_digest, product_path};
use crate::os::digest::hex;
use crate::os::file::of;
use crate::os::folder::{Temporary, remove_all, remove_leftovers, unused};
use products::Selected;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tree::OutputFile;

/// The beginnings of the names of other folders beside the outputs: unfinished ones, removed ones, damaged ones.
const ASIDE: [&str; 3] = ["partial-", "gone-", "damaged-"];

/// A folder of outputs.
#[derive(Debug)]
pub(crate) struct Outputs {
    directory: PathBuf,
    bytes_max: u64,
    uses: Arc<Uses>,
    /// The digest of the empty output, which most builds leave. Its folder exists from the start.
    empty: String,
}

impl Outputs {
    /// Keeps outputs in `directory`, which is made if need be. Blocks.
    pub(crate) fn new(directory: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let empty = hex(&Sha256::digest([]));
        fs::create_dir_all(directory.join(&empty))?;
        Ok(Self { directory, bytes_max, uses: Arc::default(), empty })
    }

    /// Removes what a killed server left unfinished in `directory`. Blocks.
    pub(crate) fn clean(directory: &Path) {
        remove_leftovers(directory, &ASIDE);
    }

    /// The path of the output with this digest; `None`: it does not exist.
    pub(crate) fn path(&self, digest: &str) -> Option<PathBuf> {
        let path = self.directory.join(digest);
        (is_digest(digest) && path.is_dir()).then_some(path)
    }

    /// Takes over what a successful command left in `out`, and the products that it left in `build`. Blocks.
    ///
    /// # Errors
    /// The job broke a rule, or a file cannot be kept. The message names the file relative to the build's own
    /// directory.
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
        // The command may have replaced its own directory by a link, which could lead to a path that the sandbox hid.
        for directory in [build, out] {
            if !of(directory, directory.symlink_metadata())?.is_dir() {
                let message = "it replaced its own directory by something else".to_owned();
                return Err(NotKept::Rule(message));
            }
        }
        let Selected { files: selected, notes } = products::select(build, out, patterns)?;
        if of(out, fs::read_dir(out))?.next().is_none() {
            self.check_empty()?;
            // The empty output is never removed, so it needs no hold.
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

    /// Moves `out` to `target`, unless `target` exists with the same contents.
    fn keep(
        &self,
        out: &Path,
        target: &Path,
        name: &str,
        files: &[OutputFile],
    ) -> Result<(), NotKept> {
        if target.is_dir() {
            match tree::digest(target, u64::MAX) {
                Ok((found, _)) if found == name => return Ok(()),
                _ => self.set_aside(target, name)?,
            }
        }
        // Before `tree::protect`, which may copy a file in `out`: the copy would inherit the default ACL of `out`.
        tree::remove_attributes(out)?;
        for entry in of(out, fs::read_dir(out))? {
            tree::protect(&of(out, entry)?.path())?;
        }
        tree::take_over(out, &of(out, out.symlink_metadata())?)?;
        tree::sync_tree(out, files)?;
        match self.place(out, target, files) {
            Ok(()) => {
                // The mode is changed only after the rename, because a read-only folder cannot be moved to another
                // parent.
                of(target, fs::set_permissions(target, fs::Permissions::from_mode(0o555)))?;
                tree::sync_folder(target)?;
                Ok(tree::sync_folder(&self.directory)?)
            }
            // Another build left the same output meanwhile.
            Err(_) if target.is_dir() => Ok(()),
            Err(error) => Ok(of(target, Err(error))?),
        }
    }

    /// Renames `out` to `target`. If outputs and builds are on different file systems, it renames a copy of `out`.
    fn place(&self, out: &Path, target: &Path, files: &[OutputFile]) -> io::Result<()> {
        match fs::rename(out, target) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
            done => return done,
        }
        let partial = Temporary(self.aside("partial-"));
        tree::copy_tree(out, &partial.0, files)?;
        tree::sync_tree(&partial.0, files)?;
        fs::rename(&partial.0, target)
    }

    /// The path of a new folder beside the outputs; `kind` is one of [`ASIDE`].
    fn aside(&self, kind: &str) -> PathBuf {
        unused(&self.directory, kind, "")
    }

    /// Makes sure that the empty output exists and is empty.
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

    /// Removes a damaged output. Files that are open in it stay readable.
    fn set_aside(&self, target: &Path, name: &str) -> io::Result<()> {
        tracing::error!(
            output = name,
            "an output is not what its name says: it is replaced by what was built just now; find out what \
             wrote to the state directory"
        );
        let aside = self.aside("damaged-");
        fs::set_permissions(target, fs::Permissions::from_mode(0o700))?;
        match fs::rename(target, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        remove_all(&aside)
    }

    /// Whether the output with this stored path exists. `true` if the path names no output in the state directory.
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
                // This wait is short: a removal takes one read of the database and a rename.
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

    /// Whether this digest names an output that may be removed. The empty output may not.
    pub(crate) fn may_go(&self, digest: &str) -> bool {
        is_digest(digest) && digest != self.empty
    }

    /// Begins to remove an output. The caller then checks that no row names it. `None`: it is held or being removed
    /// already, or may never be removed.
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

/// Whether this is a digest, and not another path.
fn is_digest(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a build left.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The digest of the build's output, which is the output's name.
    pub(crate) digest: String,
    /// The products: files that pages offer for download.
    pub(crate) products: Vec<NewProduct>,
    /// Keeps the output until the build's row is stored; `None` for the empty output.
    pub(crate) hold: Option<Hold>,
    /// Notes for the build log.
    pub(crate) notes: Vec<String>,
}

/// The outputs that are held or being removed. Their number is bounded by the number of builds that end at the same
/// time.
#[derive(Debug, Default)]
struct Uses {
    by_digest: Mutex<HashMap<String, Use>>,
    /// Notified when a removal ends.
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
pub(crate) struct Hold(#[expect(dead_code, reason = "kept for what its drop does")] Arc<Held>);

#[derive(Debug)]
struct Held {
    uses: Arc<Uses>,
    digest: String,
}

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

/// An output that is being removed. If this is dropped without [`Removal::finish`], the output stays.
#[derive(Debug)]
pub(crate) struct Removal {
    uses: Arc<Uses>,
    digest: String,
    path: PathBuf,
}

impl Removal {
    /// Moves the folder aside, and returns the paths that the caller must delete: the folder's new path, and what an
    /// earlier removal of the same output could not delete. A missing folder is no error. Blocks.
    pub(crate) fn finish(self) -> io::Result<Vec<PathBuf>> {
        // The name is that of the digest, so that a removal finds what an earlier one has left.
        let mut gone = vec![self.path.with_file_name(format!("gone-{}", self.digest))];
        if gone[0].symlink_metadata().is_ok() {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            gone.insert(0, unused(folder, "gone-", ""));
        }
        // A read-only folder cannot be moved, so its mode is changed first.
        let allow = || fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700));
        match allow().and_then(|()| fs::rename(&self.path, &gone[0])) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(gone),
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
