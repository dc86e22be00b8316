//! The files of a revision, as builds and evaluators get them from a directory or from the clone.

use super::address::Origin;
use super::git::Repositories;
use super::objects::PATH_BYTES_MAX;
use super::tree::{Entry, EntryKind, Tree};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A revision's files. They stay while this is held.
#[derive(Debug)]
pub(crate) struct ExportedTree {
    /// The paths, kinds and objects of the files.
    pub(crate) tree: Tree,
    pub(super) files: Files,
}

/// Where the files of a revision are.
#[derive(Debug)]
pub(super) enum Files {
    /// The files are in a directory to which nothing writes.
    Directory(PathBuf),
    /// The files are in a clone, where each file is the contents of its git object.
    Clone(ClonedFiles),
}

/// The files of a revision in a clone.
#[derive(Debug)]
pub(super) struct ClonedFiles {
    pub(super) repositories: Arc<Repositories>,
    pub(super) origin: Origin,
    pub(super) revision: String,
}

/// The most files that one question to a reader asks for.
const FILES_AT_ONCE: usize = 64;

/// The most bytes of a file that is read from a clone. Users of larger files need an export to a directory.
const FILE_BYTES_MAX: usize = 16 << 20;

/// The most links that lead to one file, as in the kernel.
const LINKS_MAX: usize = 40;

impl ClonedFiles {
    /// The contents of these files, in their order: as many as fit in one answer, but at least the first. `None` for a
    /// file that is larger than `bytes_max`. Blocks, so it must not be called on a thread that runs futures.
    fn read(&self, entries: &[&Entry], bytes_max: usize) -> io::Result<Vec<Option<Vec<u8>>>> {
        let objects: Vec<String> = entries.iter().map(|entry| entry.object.clone()).collect();
        let read =
            self.repositories.read_objects(&self.origin, &self.revision, &objects, bytes_max);
        tokio::runtime::Handle::current().block_on(read).map_err(io::Error::other)
    }

    fn copy(&self, mut files: &[&Entry], to: &Path) -> io::Result<()> {
        while let Some(first) = files.first() {
            let some = &files[..files.len().min(FILES_AT_ONCE)];
            let contents = self.read(some, FILE_BYTES_MAX).map_err(|error| at(first, &error))?;
            for (entry, contents) in files.iter().zip(&contents) {
                let contents = contents.as_ref().ok_or(io::ErrorKind::FileTooLarge)?;
                write_file(entry, contents, &to.join(entry.path()))
                    .map_err(|error| at(entry, &error))?;
            }
            files = &files[contents.len().clamp(1, files.len())..];
        }
        Ok(())
    }
}

impl ExportedTree {
    /// The directory that has all the files. Nothing writes there. `None`: the files are in a clone.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match &self.files {
            Files::Directory(directory) => Some(directory),
            Files::Clone(_) => None,
        }
    }

    /// Copies the selected files to `to`, which must exist.
    ///
    /// Files are copies (with shared blocks where the file system can), never hard links, because a build may write to
    /// its sources and must not change those of other builds. Blocks.
    ///
    /// # Errors
    /// `FileTooLarge`: these files can be copied only from an export in the form
    /// [`Form::Directory`](super::Form::Directory).
    pub(crate) fn copy(&self, patterns: &[String], to: &Path) -> io::Result<()> {
        let selected = self.tree.selected(patterns)?;
        let mut last_parent = Path::new("");
        for entry in &selected {
            let make = |path: &Path| {
                std::fs::create_dir_all(to.join(path)).map_err(|error| at(entry, &error))
            };
            let parent = entry.path().parent().unwrap_or(Path::new(""));
            if parent != last_parent {
                make(parent)?;
                last_parent = parent;
            }
            if entry.kind == EntryKind::Submodule {
                make(entry.path())?;
            }
        }
        let mut files = selected;
        files.retain(|entry| entry.kind != EntryKind::Submodule);
        match &self.files {
            Files::Directory(directory) => {
                for entry in files {
                    let (source, target) = (directory.join(entry.path()), to.join(entry.path()));
                    copy_file(entry, &source, &target).map_err(|error| at(entry, &error))?;
                }
            }
            Files::Clone(cloned) => cloned.copy(&files, to)?,
        }
        Ok(())
    }

    /// The contents of the regular file at `path`, to which links in the tree may lead. `None`: it has more than
    /// `bytes_max` bytes. Other files are not read. Blocks.
    ///
    /// # Errors
    /// What opening the path in a directory with all files would say. A link out of the tree is an error as well.
    pub(crate) fn read(&self, path: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
        self.contents(self.file(Path::new(path))?, bytes_max)
    }

    /// The entry of the regular file at `path`.
    fn file(&self, path: &Path) -> io::Result<&Entry> {
        let reversed = |path: &Path| -> Vec<OsString> {
            path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
        };
        let (mut place, mut left, mut links) = (PathBuf::new(), reversed(path), 0);
        while let Some(name) = left.pop() {
            match name.as_bytes() {
                b"." => continue,
                b".." if place.pop() => continue,
                b"/" | b".." => return Err(io::Error::other("leads out of the repository")),
                _ => place.push(&name),
            }
            let Some(entry) = self.tree.entry(place.as_os_str().as_bytes()) else { continue };
            match entry.kind {
                EntryKind::File | EntryKind::Executable if left.is_empty() => return Ok(entry),
                EntryKind::File | EntryKind::Executable => return Err(Errno::NOTDIR.into()),
                EntryKind::Link => {
                    links += 1;
                    let target = self.contents(entry, PATH_BYTES_MAX)?;
                    let target = target.filter(|_| links <= LINKS_MAX).ok_or(Errno::LOOP)?;
                    place.pop();
                    left.extend(reversed(Path::new(OsStr::from_bytes(&target))));
                }
                EntryKind::Submodule => {}
            }
        }
        let place = place.as_os_str().as_bytes();
        let is_folder = place.is_empty() || self.tree.has_folder(place);
        let error = if is_folder { Errno::ISDIR } else { Errno::NOENT };
        Err(error.into())
    }

    /// The contents of a file, or the target of a link; `None`: more than `bytes_max` bytes.
    fn contents(&self, entry: &Entry, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
        let contents = match &self.files {
            Files::Clone(cloned) => {
                return Ok(cloned.read(&[entry], bytes_max)?.into_iter().next().flatten());
            }
            Files::Directory(directory) if entry.kind == EntryKind::Link => {
                std::fs::read_link(directory.join(entry.path()))?.into_os_string().into_vec()
            }
            Files::Directory(directory) => {
                let mut contents = Vec::new();
                let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
                let file = File::open(directory.join(entry.path()))?;
                file.take(limit).read_to_end(&mut contents)?;
                contents
            }
        };
        Ok((contents.len() <= bytes_max).then_some(contents))
    }
}

/// Adds the file's path to an error.
fn at(entry: &Entry, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", entry.path().display()))
}

fn copy_file(entry: &Entry, source: &Path, target: &Path) -> io::Result<()> {
    if entry.kind == EntryKind::Link {
        return symlink(std::fs::read_link(source)?, target);
    }
    std::fs::copy(source, target).map(drop)
}

/// Makes a file with the kind and mode that git would give it.
fn write_file(entry: &Entry, contents: &[u8], target: &Path) -> io::Result<()> {
    let mode = match entry.kind {
        EntryKind::Link => return symlink(OsStr::from_bytes(contents), target),
        EntryKind::Executable => 0o777,
        EntryKind::File | EntryKind::Submodule => 0o666,
    };
    let mut file = File::options().write(true).create_new(true).mode(mode).open(target)?;
    file.write_all(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_through_the_links_of_the_tree_and_no_others() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("export");
        let mut entries = Vec::new();
        let mut add = |path: &str, kind, target: &str| {
            let (path, at) = (path.as_bytes().to_vec(), root.join(path));
            std::fs::create_dir_all(at.parent().expect("a parent")).expect("a folder");
            match kind {
                EntryKind::Link => symlink(target, &at).expect("a link"),
                EntryKind::Submodule => std::fs::create_dir(&at).expect("a folder"),
                _ => std::fs::write(&at, target).expect("a file"),
            }
            entries.push(Entry { path, kind, object: String::new() });
        };
        std::fs::write(directory.path().join("outside"), "secret").expect("a file");
        for (path, target) in [
            ("link", "folder/file"),
            ("folder/up", "../folder/./deep/../file"),
            ("folders", "folder/deep"),
            ("twice", "folders/../up"),
            ("to-folder", "folder"),
            ("out", "../outside"),
            ("far-out", "folders/../../../outside"),
            ("absolute", "/etc/passwd"),
            ("dangling", "folder/nothing"),
            ("circle", "circle"),
            ("below-file", "folder/file/x"),
        ] {
            add(path, EntryKind::Link, target);
        }
        add("folder/file", EntryKind::File, "text");
        add("folder/deep/run", EntryKind::Executable, "runs");
        add("module", EntryKind::Submodule, "");
        let tree = Tree::new(entries, String::new()).expect("a tree");
        let tree = ExportedTree { tree, files: Files::Directory(root) };
        for (path, expected) in [
            ("folder/file", "text"),
            ("./folder//file", "text"),
            ("link", "text"),
            ("folder/up", "text"),
            ("folders/run", "runs"),
            ("twice", "text"),
            ("to-folder/deep/run", "runs"),
            ("out", "leads out of the repository"),
            ("far-out", "leads out of the repository"),
            ("absolute", "leads out of the repository"),
            ("../outside", "leads out of the repository"),
            ("/etc/passwd", "leads out of the repository"),
            ("dangling", "No such file or directory (os error 2)"),
            ("nothing", "No such file or directory (os error 2)"),
            ("module/x", "No such file or directory (os error 2)"),
            ("circle", "Too many levels of symbolic links (os error 40)"),
            ("below-file", "Not a directory (os error 20)"),
            ("folder", "Is a directory (os error 21)"),
            ("to-folder", "Is a directory (os error 21)"),
            (".", "Is a directory (os error 21)"),
        ] {
            let read = tree.read(path, 4).map(|contents| contents.expect("small"));
            let found = match read {
                Ok(contents) => String::from_utf8(contents).expect("text"),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{path}");
        }
        assert_eq!(tree.read("link", 3).expect("a file"), None, "it is too large");
    }
}
