//! The files of a revision, as builds and evaluators get them from a directory or from the clone.

use super::address::Origin;
use super::git::Repositories;
use super::tree::{Entry, EntryKind, Tree};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
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

impl ClonedFiles {
    /// The contents of at least the first of these files; `None` for a file that is larger than `bytes_max`. Blocks, so
    /// it must not be called on a thread that runs futures.
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

    /// The contents of `path`. `None`: there is no regular file at `path`, or it has more than `bytes_max` bytes.
    /// Blocks.
    pub(crate) fn read(&self, path: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
        let entry = self.tree.entry(path.as_bytes());
        let regular =
            |entry: &&Entry| matches!(entry.kind, EntryKind::File | EntryKind::Executable);
        let Some(entry) = entry.filter(regular) else { return Ok(None) };
        Ok(match &self.files {
            Files::Clone(cloned) => cloned.read(&[entry], bytes_max)?.into_iter().next().flatten(),
            Files::Directory(directory) => {
                let mut contents = Vec::new();
                let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
                File::open(directory.join(path))?.take(limit).read_to_end(&mut contents)?;
                (contents.len() <= bytes_max).then_some(contents)
            }
        })
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
