//! Folders of any depth, as a build or an evaluator may make them.
//!
//! The kernel accepts paths of at most 4096 bytes, but a folder can be nested far deeper. Code that recurses for each
//! level overflows the stack, which ends the server; code that holds a file open for each level runs out of
//! descriptors. So:
//!
//! - FOLD1: nothing here recurses, and at most four files are open, whatever the depth. To go up, the walk opens `..`
//!   and checks that this is the folder above; if it is not, the walk goes down again from the top. Memory holds the
//!   names on each level.
//! - FOLD2: symbolic links are not followed, except a link that is the given path itself, where the function says so.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The most names of subfolders that are held at once while a folder is emptied.
const BATCH: usize = 256;
/// How many times `empty_this` tries to empty a folder in which other processes move folders.
const ROUNDS: usize = 3;
/// The most bytes of a path that a message shows.
const SHOWN_BYTES_MAX: usize = 200;

/// Makes a folder, and those above it, for this user alone. One that is there stays as it is.
pub(crate) fn make_private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The top, the current folder, or a folder between them.
struct Level {
    /// The folder's name in the level above; empty at the top.
    name: CString,
    /// Device and inode.
    id: (u64, u64),
    /// Subfolders that have not been entered yet.
    pending: Vec<CString>,
    /// Names in the folder that cannot be removed.
    kept: HashSet<CString>,
}

/// A walk through a folder, which holds only the top and the current folder open (FOLD1).
struct Trail {
    root: OwnedFd,
    here: OwnedFd,
    /// The folders from `root` to `here`. Never empty.
    levels: Vec<Level>,
}

impl Trail {
    fn new(root: OwnedFd) -> io::Result<Self> {
        let here = open_at(&root, c".")?;
        let level = Level::new(CString::default(), &here)?;
        Ok(Self { root, here, levels: vec![level] })
    }

    fn last(&mut self) -> &mut Level {
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    /// Enters a subfolder of the current folder.
    fn enter(&mut self, name: CString) -> io::Result<()> {
        let below = open_at(&self.here, &name)?;
        self.levels.push(Level::new(name, &below)?);
        self.here = below;
        Ok(())
    }

    /// Goes back to the level above, or, if folders were moved, to the lowest level that is still in its place.
    /// `false`: the current folder is the top.
    fn leave(&mut self) -> bool {
        if self.levels.len() == 1 {
            return false;
        }
        self.levels.pop();
        let above = self.last().id;
        match open_at(&self.here, c"..") {
            Ok(folder) if identity(&folder).is_ok_and(|id| id == above) => self.here = folder,
            _ => self.go_again(),
        }
        true
    }

    /// Opens the folders in `levels` again, from the top down, until one of them is missing or is another folder than
    /// before. Forgets that level and all levels below it.
    fn go_again(&mut self) {
        let mut reached = 1;
        if let Ok(top) = open_at(&self.root, c".") {
            self.here = top;
        }
        for level in &self.levels[1..] {
            match open_at(&self.here, &level.name) {
                Ok(folder) if identity(&folder).is_ok_and(|id| id == level.id) => {
                    self.here = folder;
                    reached += 1;
                }
                _ => break,
            }
        }
        self.levels.truncate(reached);
    }

    /// Calls `f` with each entry of the current folder, and adds its subfolders to `pending`.
    fn look(
        &mut self,
        f: &mut impl FnMut(&OwnedFd, &DirEntry) -> io::Result<()>,
    ) -> io::Result<()> {
        for entry in fs::read_dir(format!("/proc/self/fd/{}", self.here.as_raw_fd()))? {
            let entry = entry?;
            f(&self.here, &entry)?;
            if entry.file_type()?.is_dir() {
                let name = CString::new(entry.file_name().into_vec())?;
                self.last().pending.push(name);
            }
        }
        Ok(())
    }

    /// Calls `f` with everything below the current folder, a folder before its contents. With `whole` the first error
    /// ends the walk; otherwise a folder that cannot be read is skipped.
    fn walk(
        mut self,
        whole: bool,
        f: &mut impl FnMut(&OwnedFd, &DirEntry) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut looked = self.look(f);
        loop {
            if whole {
                looked?;
            }
            looked = match self.last().pending.pop() {
                Some(name) => self.enter(name).and_then(|()| self.look(f)),
                None if self.leave() => Ok(()),
                None => return Ok(()),
            };
        }
    }

    /// The path of the entry `name` of the current folder, from the top, shortened for a message.
    fn shown(&self, name: &CStr) -> String {
        let mut path = PathBuf::new();
        for level in self.levels.iter().skip(1) {
            path.push(OsStr::from_bytes(level.name.to_bytes()));
            if path.as_os_str().len() > SHOWN_BYTES_MAX {
                return format!("{}/…", path.display());
            }
        }
        path.push(OsStr::from_bytes(name.to_bytes()));
        path.display().to_string()
    }
}

impl Level {
    fn new(name: CString, folder: &OwnedFd) -> io::Result<Self> {
        Ok(Self { name, id: identity(folder)?, pending: Vec::new(), kept: HashSet::new() })
    }
}

fn identity(folder: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(folder)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn open_at(folder: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
}

/// Calls `f` with everything below a folder, except for what cannot be read. `folder` may be a link to the folder.
pub(crate) fn walk(folder: &Path, mut f: impl FnMut(&Metadata)) {
    let root = folder.canonicalize().and_then(|folder| open_path(&folder));
    let Ok(trail) = root.and_then(Trail::new) else { return };
    let mut note = |_: &OwnedFd, entry: &DirEntry| {
        if let Ok(metadata) = entry.metadata() {
            f(&metadata);
        }
        Ok(())
    };
    let _ = trail.walk(false, &mut note);
}

/// Calls `f` with the parent folder and the name of everything below `folder`, a folder before its contents. The first
/// error ends the walk and is returned.
pub(crate) fn each(
    folder: &Path,
    mut f: impl FnMut(BorrowedFd<'_>, &OsString) -> io::Result<()>,
) -> io::Result<()> {
    let mut call = |here: &OwnedFd, entry: &DirEntry| f(here.as_fd(), &entry.file_name());
    Trail::new(open_path(folder)?)?.walk(true, &mut call)
}

fn open_path(folder: &Path) -> io::Result<OwnedFd> {
    open_at(CWD, &CString::new(folder.as_os_str().as_bytes())?)
}

/// Removes a folder with its contents, even parts that a build has made read-only. A missing folder is no error. What
/// cannot be removed stays, with the folders above it; everything else is removed.
///
/// # Errors
/// The first thing that could not be removed, and why.
pub(crate) fn remove_all(folder: &Path) -> io::Result<()> {
    match folder.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_dir() => return fs::remove_file(folder),
        Ok(_) => {}
    }
    empty_this(folder)?;
    fs::remove_dir(folder)
}

/// A path in `folder` that nothing has, for something temporary: `beginning`, a number, `end`. No other call in this
/// process returns the same path.
///
/// The number alone is not enough: a process that was killed may have had this process's id, and may have left
/// something that cannot be removed.
pub(crate) fn unused(folder: &Path, beginning: &str, end: &str) -> PathBuf {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    loop {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{beginning}{}-{serial}{end}", std::process::id()));
        if path.symlink_metadata().is_err() {
            return path;
        }
    }
}

/// Removes each entry of `folder` whose name begins with one of `beginnings`. Failures are logged. Blocks.
pub(crate) fn remove_leftovers(folder: &Path, beginnings: &[&str]) {
    let Ok(found) = fs::read_dir(folder) else { return };
    let left = |name: &str| beginnings.iter().any(|beginning| name.starts_with(beginning));
    for entry in found.flatten().filter(|it| left(&it.file_name().to_string_lossy())) {
        if let Err(error) = remove_all(&entry.path()) {
            tracing::warn!(%error, path = %entry.path().display(), "cannot remove a leftover");
        }
    }
}

/// Removes the contents of a folder, as [`remove_all`] does. The folder itself stays, and so does a link to it, because
/// another disk may be mounted there.
///
/// # Errors
/// The first thing that could not be removed, and why.
pub(crate) fn empty(folder: &Path) -> io::Result<()> {
    match folder.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(folder) => empty_this(&folder),
    }
}

fn empty_this(folder: &Path) -> io::Result<()> {
    let path = CString::new(folder.as_os_str().as_bytes())?;
    let mut last = Ok(());
    for _ in 0..ROUNDS {
        allow(CWD, &path);
        let mut trail = Trail::new(open_at(CWD, &path)?)?;
        match clear(&mut trail) {
            Cleared::Whole(result) => return result,
            Cleared::Moved => {
                let message = "something in it was moved about while it was removed";
                last = Err(io::Error::other(message));
            }
        }
    }
    last
}

/// The bytes that are free on the disk of a folder for this user; as many as there can be, if nobody knows.
pub(crate) fn room(folder: &Path) -> u64 {
    let found = rustix::fs::statvfs(folder).ok();
    found.map_or(u64::MAX, |found| found.f_bavail.saturating_mul(found.f_frsize))
}

/// A folder that is removed when this is dropped, unless it was renamed away. Dropping it blocks.
#[derive(Debug)]
pub(crate) struct Temporary(pub(crate) PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = remove_all(&self.0);
    }
}

/// Like [`Temporary`], but a thread of its own removes the folder: that may take long, and the dropping thread may run
/// futures.
#[derive(Debug)]
pub(crate) struct RemovedInBackground(pub(crate) PathBuf);

impl Drop for RemovedInBackground {
    fn drop(&mut self) {
        let folder = Temporary(std::mem::take(&mut self.0));
        if folder.0.symlink_metadata().is_ok() {
            let thread = std::thread::Builder::new().name("folder-removal".to_owned());
            drop(thread.spawn(move || drop(folder)));
        }
    }
}

enum Cleared {
    /// The whole folder was visited. `Err`: the first thing that could not be removed, and why.
    Whole(io::Result<()>),
    /// Another process moved folders, so the walk lost its place and must begin again.
    Moved,
}

fn clear(trail: &mut Trail) -> Cleared {
    let mut outcome = Ok(());
    loop {
        if let Some(name) = trail.last().pending.pop() {
            allow(&trail.here, &name);
            let entered = trail.enter(name.clone());
            if let Err(error) = entered {
                keep(trail, name, &error, &mut outcome);
            }
            continue;
        }
        match remove_files(trail, &mut outcome) {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                let name = c".".to_owned();
                keep(trail, name, &error, &mut outcome);
            }
        }
        let (depth, name) = (trail.levels.len(), trail.last().name.clone());
        if !trail.leave() {
            return Cleared::Whole(outcome);
        }
        if trail.levels.len() != depth - 1 {
            return Cleared::Moved;
        }
        match rustix::fs::unlinkat(&trail.here, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => keep(trail, name, &error.into(), &mut outcome),
        }
    }
}

/// Removes the files of the current folder, and adds up to `BATCH` subfolders to `pending`. `false`: only entries that
/// cannot be removed are left.
fn remove_files(trail: &mut Trail, outcome: &mut io::Result<()>) -> io::Result<bool> {
    let mut found = false;
    let mut entries = Dir::read_from(&trail.here)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." || trail.last().kept.contains(name) {
            continue;
        }
        found = true;
        let name = name.to_owned();
        let is_folder = match entry.file_type() {
            // Some file systems do not tell the type.
            FileType::Unknown => {
                let stat = rustix::fs::statat(&trail.here, &name, AtFlags::SYMLINK_NOFOLLOW);
                stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
            }
            kind => kind == FileType::Directory,
        };
        if is_folder {
            trail.last().pending.push(name);
            if trail.last().pending.len() == BATCH {
                break;
            }
            continue;
        }
        match rustix::fs::unlinkat(&trail.here, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => keep(trail, name, &error.into(), outcome),
        }
    }
    Ok(found)
}

/// Notes that the entry `name` of the current folder cannot be removed.
fn keep(trail: &mut Trail, name: CString, error: &io::Error, outcome: &mut io::Result<()>) {
    if outcome.is_ok() {
        let message = format!("{}: {error}", trail.shown(&name));
        *outcome = Err(io::Error::new(error.kind(), message));
    }
    trail.last().kept.insert(name);
}

/// Sets the mode of a folder to 0700 if its owner lacks a right.
fn allow(folder: impl AsFd, name: &CStr) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(held) = rustix::fs::openat(folder, name, flags, Mode::empty()) else { return };
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    if rustix::fs::fstat(&held).is_ok_and(|stat| stat.st_mode & 0o700 != 0o700) {
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes nested folders below `root`, a file of `bytes` bytes in each hundredth, and a link to `outside` in the
    /// lowest.
    fn dig(root: &Path, name: &str, levels: usize, bytes: usize, outside: &Path) {
        let mut at = OwnedFd::from(fs::File::open(root).expect("a folder"));
        for level in 0..levels {
            rustix::fs::mkdirat(&at, name, Mode::RWXU).expect("a folder");
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            at = rustix::fs::openat(&at, name, flags, Mode::empty()).expect("a folder");
            if level % 100 == 0 {
                let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&at, "file", flags, Mode::RUSR).expect("a file");
                rustix::io::write(&file, &vec![1; bytes]).expect("written");
            }
        }
        rustix::fs::symlinkat(outside, &at, "link").expect("a link");
    }

    #[test]
    fn a_folder_deeper_than_a_path_or_the_stack_is_walked_and_removed() {
        for (name, levels) in [("d".to_owned(), 20_000), ("n".repeat(250), 600)] {
            let directory = tempfile::tempdir().expect("a folder");
            let outside = directory.path().join("outside");
            let root = directory.path().join("root");
            for folder in [&outside, &root, &root.join("beside"), &root.join("beside/x")] {
                fs::create_dir(folder).expect("a folder");
            }
            fs::write(outside.join("kept"), "x").expect("a file");
            dig(&root, &name, levels, 4096, &outside);
            let (mut folders, mut bytes) = (0, 0);
            walk(&root, |metadata| {
                folders += usize::from(metadata.is_dir());
                bytes += if metadata.is_file() { metadata.len() } else { 0 };
            });
            assert_eq!((folders, bytes), (levels + 2, levels as u64 / 100 * 4096));
            remove_all(&root).expect("removed");
            assert!(root.symlink_metadata().is_err());
            assert!(outside.join("kept").exists(), "a link was followed");
        }
    }

    #[test]
    fn an_unused_path_is_given_once_and_never_while_something_is_there() {
        let directory = tempfile::tempdir().expect("a folder");
        let mut given = HashSet::new();
        for number in 0..100 {
            if number % 2 == 0 {
                let name = format!("x-{}-{number}.git", std::process::id());
                std::os::unix::fs::symlink("nowhere", directory.path().join(name)).expect("a link");
            }
            let path = unused(directory.path(), "x-", ".git");
            assert!(path.symlink_metadata().is_err() && given.insert(path));
        }
    }

    #[test]
    fn what_is_not_there_or_no_folder_is_removed_as_well() {
        let directory = tempfile::tempdir().expect("a folder");
        let path = |name: &str| directory.path().join(name);
        remove_all(&path("nothing")).expect("no error");
        fs::create_dir(path("kept")).expect("a folder");
        std::os::unix::fs::symlink(path("kept"), path("link")).expect("a link");
        remove_all(&path("link")).expect("removed");
        assert!(path("kept").is_dir() && path("link").symlink_metadata().is_err());
        fs::create_dir_all(path("shut/in")).expect("a folder");
        fs::write(path("shut/in/file"), "x").expect("a file");
        for folder in ["shut/in", "shut"] {
            fs::set_permissions(path(folder), fs::Permissions::from_mode(0o000)).expect("a mode");
        }
        remove_all(&path("shut")).expect("removed");
        assert!(!path("shut").exists());
    }
}
