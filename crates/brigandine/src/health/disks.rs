//! The room on file systems.

use serde::Serialize;
use std::path::{Path, PathBuf};

/// A file system that bounds the number of its files is full if fewer new files can be made than this, or, if it is
/// small, fewer than a hundredth of that number.
const FILES: u64 = 64;

/// The room on a file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    pub(super) free: u64,
    pub(super) total: u64,
    used: u64,
    /// `true`: hardly any more files can be made.
    pub(super) out_of_files: bool,
    /// Tells file systems apart.
    id: u64,
}

impl Space {
    /// Blocks if the file system does not answer (HEAL1).
    pub(super) fn of(folder: &Path) -> Option<Self> {
        let found = rustix::fs::statvfs(folder).ok()?;
        // Blocks that are reserved for root are not counted as free, because builds may run as another user.
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Self {
            free: bytes(found.f_bavail),
            total: bytes(found.f_blocks),
            used: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
            out_of_files: found.f_files > 0 && found.f_favail < FILES.min(found.f_files / 100),
            id: rustix::fs::stat(folder).ok()?.st_dev,
        })
    }
}

/// A file system of the state directory, as the last look found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Disk {
    /// A folder on it: the state directory, or one of its folders that is on another file system.
    pub(crate) folder: PathBuf,
    pub(crate) free: u64,
    pub(crate) used: u64,
}

impl Disk {
    /// The folder's name in the state directory `state`; `.`: the state directory itself.
    pub(crate) fn name(&self, state: &Path) -> String {
        let inside = self.folder.strip_prefix(state).unwrap_or(&self.folder);
        match inside.as_os_str().is_empty() {
            true => ".".to_owned(),
            false => inside.display().to_string(),
        }
    }
}

/// The file systems of some folders as they are now, each once. The last folder is preferred. Blocks if a file system
/// does not answer (HEAL1).
pub(crate) fn disks_of(folders: &[PathBuf]) -> Vec<Disk> {
    distinct(&spaces(folders))
}

/// The folders whose file systems say how much room they have. Blocks if a file system does not answer (HEAL1).
pub(super) fn spaces(folders: &[PathBuf]) -> Vec<(&PathBuf, Space)> {
    folders.iter().filter_map(|folder| Some((folder, Space::of(folder)?))).collect()
}

/// The file systems of some folders, each once. The last folder is preferred.
pub(super) fn distinct(found: &[(&PathBuf, Space)]) -> Vec<Disk> {
    let mut disks: Vec<(u64, Disk)> = Vec::new();
    for (folder, Space { free, used, id, .. }) in found.iter().rev() {
        if disks.iter().all(|(known, _)| known != id) {
            disks.push((*id, Disk { folder: (*folder).clone(), free: *free, used: *used }));
        }
    }
    disks.into_iter().map(|(_, disk)| disk).collect()
}
