//! Folders that a build or an evaluator made: as deep as it liked.
//!
//! A path that the kernel takes has 4096 bytes, and a folder can lie far deeper. What calls itself for each level, or
//! holds a file open for each, ends with the stack, which takes the whole server with it, or with its last
//! descriptor. So
//!
//! - F1: nothing here calls itself for each level, or holds a file open for each. What is removed is open a few
//!   levels at a time; a walk holds one folder open for each 2048 bytes of the path to what it has yet to see;
//! - F2: nothing follows a link.

use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A path of more bytes is replaced by one that begins at an open folder.
const PATH_BYTES_MAX: usize = 2048;
/// How many levels are removed at once: their names, of 255 bytes at most, make a path that the kernel takes.
const LEVELS: usize = 8;

/// A folder, by a path that the kernel takes.
struct Place {
    path: PathBuf,
    /// Keeps the folder open at which the path begins.
    base: Option<Rc<OwnedFd>>,
}

impl Place {
    fn below(&self, name: &OsString) -> io::Result<Self> {
        let path = self.path.join(name);
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { path, base: self.base.clone() });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&path, flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        Ok(Self { path, base: Some(Rc::new(folder)) })
    }
}

/// Calls `f` with everything below a folder, except for what cannot be read.
pub(crate) fn walk(folder: &Path, mut f: impl FnMut(&Metadata)) {
    let mut look = |place: Place, open: &mut Vec<(Rc<Place>, OsString)>| {
        let Ok(entries) = fs::read_dir(&place.path) else { return };
        let place = Rc::new(place);
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            f(&metadata);
            if metadata.is_dir() {
                open.push((Rc::clone(&place), entry.file_name()));
            }
        }
    };
    let mut open = Vec::new();
    look(Place { path: folder.to_owned(), base: None }, &mut open);
    while let Some((above, name)) = open.pop() {
        if let Ok(place) = above.below(&name) {
            drop(above);
            look(place, &mut open);
        }
    }
}

/// Removes a folder with all that is in it, even if a build took away the right to write in parts of it. One that
/// is not there is no error.
pub(crate) fn remove_all(folder: &Path) -> io::Result<()> {
    match folder.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_dir() => return fs::remove_file(folder),
        Ok(metadata) => allow(folder, &metadata),
    }
    let mut aside = Aside { root: folder, folder: None, count: 0 };
    shorten(folder, 1, &mut aside)?;
    let mut next = 0;
    while let Some(part) = aside.part(next) {
        shorten(&part, 1, &mut aside)?;
        fs::remove_dir_all(&part)?;
        next += 1;
    }
    fs::remove_dir_all(folder)
}

/// Moves what lies more than [`LEVELS`] below `folder` aside.
fn shorten(folder: &Path, level: usize, aside: &mut Aside<'_>) -> io::Result<()> {
    // Whoever removes it says what is wrong with it.
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let path = entry.path();
        if let Ok(metadata) = entry.metadata() {
            allow(&path, &metadata);
        }
        if level < LEVELS { shorten(&path, level + 1, aside)? } else { aside.take(&path)? }
    }
    Ok(())
}

/// Gives the owner every right to a folder.
fn allow(folder: &Path, metadata: &Metadata) {
    if metadata.permissions().mode() & 0o700 != 0o700 {
        let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    }
}

/// Parts of a folder that were too deep, beside each other in a folder of their own at its top.
struct Aside<'a> {
    root: &'a Path,
    folder: Option<PathBuf>,
    count: u64,
}

impl Aside<'_> {
    fn take(&mut self, part: &Path) -> io::Result<()> {
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => self.folder.insert(new_folder(self.root)?).clone(),
        };
        fs::rename(part, folder.join(self.count.to_string()))?;
        self.count += 1;
        Ok(())
    }

    fn part(&self, number: u64) -> Option<PathBuf> {
        let folder = self.folder.as_ref().filter(|_| number < self.count)?;
        Some(folder.join(number.to_string()))
    }
}

/// A folder that was not there before.
fn new_folder(root: &Path) -> io::Result<PathBuf> {
    let mut serial = 0_u64;
    loop {
        let path = root.join(format!("deep-{serial}"));
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => serial += 1,
            done => return done.map(|()| path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes folders in each other below `root`, a file of `bytes` in each hundredth, and a link to `outside` in the
    /// last.
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
        for (name, levels) in [("d".to_owned(), 6_000), ("n".repeat(250), 600)] {
            let directory = tempfile::tempdir().expect("a folder");
            let outside = directory.path().join("outside");
            let root = directory.path().join("root");
            for folder in [&outside, &root, &root.join("deep-0"), &root.join("deep-0/x")] {
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
