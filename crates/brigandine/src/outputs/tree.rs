//! The files of an output: read for its name, made the server's own, brought to the disk.

use crate::os::digest::hex;
use crate::os::file::of;
use crate::os::folder::remove_all;
use rustix::fs::{llistxattr, llistxattr_query, lremovexattr};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use sha2::{Digest, Sha256};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

/// How many files an output may have.
pub(super) const FILES_MAX: usize = 1_000_000;
/// How deep directories may lie in one another.
pub(super) const DEPTH_MAX: usize = 200;

/// Why outputs are not kept.
#[derive(Debug)]
pub(crate) enum NotKept {
    /// The job broke its own rules; the text says which.
    Rule(String),
    /// A file cannot be read or written.
    Io(io::Error),
}

impl From<io::Error> for NotKept {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A folder that disappears unless it was renamed away.
pub(super) struct Partial(pub(super) PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = remove_all(&self.0);
    }
}

/// Copies a protected output to `to`, which is not there.
pub(super) fn copy_tree(from: &Path, to: &Path, files: &[Found]) -> io::Result<()> {
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

/// A file, directory or link of an output.
pub(super) struct Found {
    /// Relative to the output.
    pub(super) path: PathBuf,
    /// `f`, `x` for a file that can be run, `d` or `l`.
    pub(super) kind: u8,
    pub(super) digest: Vec<u8>,
    pub(super) bytes: u64,
}

/// The name of an output with what is in `root`, and what that is.
pub(super) fn digest(root: &Path, bytes_max: u64) -> Result<(String, Vec<Found>), NotKept> {
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
    fn directory(&mut self, path: &Path, depth: usize) -> Result<(), NotKept> {
        if depth > DEPTH_MAX {
            let message = format!("its output has more than {DEPTH_MAX} levels of directories");
            return Err(NotKept::Rule(message));
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
                return Err(NotKept::Rule(message));
            };
            let path = path.strip_prefix(self.root).unwrap_or(&path).to_owned();
            self.files.push(Found { path, kind, digest, bytes });
            if self.files.len() > FILES_MAX {
                let message = format!("its output has more than {FILES_MAX} files");
                return Err(NotKept::Rule(message));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(Vec<u8>, u64), NotKept> {
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
                return Err(NotKept::Rule(message));
            }
        }
    }
}

fn is_executable(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & 0o111 != 0
}

/// Gives everything the mode that its kind has, 0444, or 0555 for what can be run and for directories, and
/// takes all that would make it more than its bytes: other names outside of the output, a changed user, attributes.
pub(super) fn protect(path: &Path) -> io::Result<()> {
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
pub(super) fn take_over(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    if (metadata.uid(), metadata.gid()) == (user, group) {
        return Ok(());
    }
    of(path, lchown(path, Some(user), Some(group)))
}

/// Removes extended attributes, which hold access lists and rights of programs. What a machine's own policy
/// attaches to every file stays.
pub(super) fn remove_attributes(path: &Path) -> io::Result<()> {
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
pub(super) fn sync_tree(out: &Path, files: &[Found]) -> io::Result<()> {
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
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    of(folder, fs::File::open(folder).and_then(|folder| folder.sync_all()))
}
