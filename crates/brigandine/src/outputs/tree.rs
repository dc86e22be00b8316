//! The files of an output: computes the digest that names it, gives the files to the server, syncs them to the disk.

use crate::os::digest::hex;
use crate::os::file::of;
use crate::os::folder::unused;
use rustix::fs::{llistxattr, llistxattr_query, lremovexattr};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use sha2::{Digest, Sha256};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

/// The most files of an output.
pub(super) const FILES_MAX: usize = 1_000_000;
/// The most levels of directories in an output.
pub(super) const DEPTH_MAX: usize = 200;

/// Why an output is not kept.
#[derive(Debug)]
pub(crate) enum NotKept {
    /// The job broke a rule; the text says which.
    Rule(String),
    /// A file cannot be read or written.
    Io(io::Error),
}

impl From<io::Error> for NotKept {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Copies a protected output to `to`, which must not exist.
pub(super) fn copy_tree(from: &Path, to: &Path, files: &[OutputFile]) -> io::Result<()> {
    fs::create_dir(to)?;
    // The files are sorted, so a directory comes before what is in it.
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
pub(super) struct OutputFile {
    /// The path relative to the output.
    pub(super) path: PathBuf,
    /// `f`: a file, `x`: an executable file, `d`: a directory, `l`: a link.
    pub(super) kind: u8,
    pub(super) digest: Vec<u8>,
    pub(super) bytes: u64,
}

/// The name of an output with the contents of `root`, and its files.
pub(super) fn digest(root: &Path, bytes_max: u64) -> Result<(String, Vec<OutputFile>), NotKept> {
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
    files: Vec<OutputFile>,
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
            self.files.push(OutputFile { path, kind, digest, bytes });
            if self.files.len() > FILES_MAX {
                let message = format!("its output has more than {FILES_MAX} files");
                return Err(NotKept::Rule(message));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(Vec<u8>, u64), NotKept> {
        // One byte beyond the limit shows that there is more.
        let most = (self.bytes_max - self.bytes).saturating_add(1);
        let file = of(path, fs::File::open(path))?.take(most);
        let mut digest = Sha256::new();
        let bytes = io::copy(&mut io::BufReader::with_capacity(64 * 1024, file), &mut digest);
        let bytes = of(path, bytes)?;
        self.bytes += bytes;
        if self.bytes > self.bytes_max {
            let message = format!("its output has more than {} bytes", self.bytes_max);
            return Err(NotKept::Rule(message));
        }
        Ok((digest.finalize().to_vec(), bytes))
    }
}

fn is_executable(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & 0o111 != 0
}

/// Sets the mode of a file, or of a directory and everything below it: 0555 for directories and executable files, 0444
/// for others. Removes everything that is not contents: hard links to files outside of the output, other owners,
/// extended attributes.
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
        // Another hard link may exist outside of the output, and the file could be changed through it. So the file is
        // replaced by a copy.
        // The build may have used any name, and its own name may be as long as a name can be.
        let copy = unused(path.parent().unwrap_or(Path::new(".")), ".brigandine-copy-", "");
        let mut file = of(&copy, fs::File::options().write(true).create_new(true).open(&copy))?;
        of(path, io::copy(&mut of(path, fs::File::open(path))?, &mut file))?;
        of(path, fs::rename(&copy, path))?;
    }
    take_over(path, &of(path, path.symlink_metadata())?)?;
    let mode = fs::Permissions::from_mode(if runs { 0o555 } else { 0o444 });
    of(path, fs::set_permissions(path, mode))
}

/// Makes the server's user the owner of a file, because the build may have run as another user or changed the group.
pub(super) fn take_over(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    if (metadata.uid(), metadata.gid()) == (user, group) {
        return Ok(());
    }
    of(path, lchown(path, Some(user), Some(group)))
}

/// Removes extended attributes, which hold ACLs and capabilities. An SELinux label stays if it cannot be removed.
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

/// The most files that are synced one by one. If there are more, the whole file system is synced.
const SYNCED_ALONE: usize = 32;

/// Syncs an output to the disk. This happens before the row that names the output is written.
pub(super) fn sync_tree(out: &Path, files: &[OutputFile]) -> io::Result<()> {
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

/// Syncs the names in a folder to the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    of(folder, fs::File::open(folder).and_then(|folder| folder.sync_all()))
}
