//! Copies files and folders from one state directory or backup to another.

use super::control::{Control, Files, Step};
use super::error::BackupError;
use crate::os::file::{of, open_regular};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A folder by a short path. What is in it can have a longer path than the kernel accepts behind the folder's own.
pub(super) struct Root {
    path: PathBuf,
    /// Keeps the number in `path` valid.
    _folder: File,
}

impl Root {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let opened = of(folder, File::open(folder))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        Ok(Self { path, _folder: opened })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Copies files, and counts them.
pub(super) struct Copier<'run> {
    control: &'run Control,
    step: fn(Files) -> Step,
    pub(super) copied: Files,
}

impl<'run> Copier<'run> {
    /// Reports each file as `step`.
    pub(super) fn new(control: &'run Control, step: fn(Files) -> Step) -> Self {
        Self { control, step, copied: Files::default() }
    }

    /// Copies a regular file with its mode to the new file `to`. `false`: there is no file `from`.
    pub(super) fn file(&mut self, from: &Path, to: &Path) -> Result<bool, BackupError> {
        self.control.step((self.step)(self.copied))?;
        let mut source = match open_regular(from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => of(from, opened)?,
        };
        let mut target = of(to, File::options().write(true).create_new(true).open(to))?;
        self.copied.bytes += of(to, io::copy(&mut source, &mut target))?;
        let mode = of(from, source.metadata())?.permissions().mode() & 0o777;
        of(to, target.set_permissions(Permissions::from_mode(mode)))?;
        self.copied.files += 1;
        Ok(true)
    }

    /// Copies a folder with everything in it to the new folder `to`. Links are copied as links. `false`: there is no
    /// folder `from`.
    pub(super) fn folder(&mut self, from: &Path, to: &Path) -> Result<bool, BackupError> {
        let (source, target) = match Root::open(from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => {
                of(to, fs::create_dir(to))?;
                (opened?, Root::open(to)?)
            }
        };
        // A folder comes before those in it.
        let mut folders = vec![PathBuf::new()];
        let mut next = 0;
        while let Some(inside) = folders.get(next).cloned() {
            next += 1;
            let from = source.path().join(&inside);
            for entry in of(&from, fs::read_dir(&from))? {
                let inside = inside.join(of(&from, entry)?.file_name());
                let (from, to) = (source.path().join(&inside), target.path().join(&inside));
                let metadata = of(&from, from.symlink_metadata())?;
                if metadata.is_dir() {
                    of(&to, fs::create_dir(&to))?;
                    folders.push(inside);
                } else if metadata.is_symlink() {
                    let leads = of(&from, fs::read_link(&from))?;
                    of(&to, std::os::unix::fs::symlink(leads, &to))?;
                    self.copied.files += 1;
                } else if !self.file(&from, &to)? {
                    of(&from, Err(io::ErrorKind::NotFound.into()))?;
                }
            }
        }
        // Last, because nothing can be made in a read-only folder.
        for inside in folders.iter().rev() {
            let (from, to) = (source.path().join(inside), target.path().join(inside));
            let mode = of(&from, from.metadata())?.permissions().mode() & 0o777;
            of(&to, fs::set_permissions(&to, Permissions::from_mode(mode)))?;
        }
        Ok(true)
    }
}
