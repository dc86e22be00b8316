//! The types and paths that the writing end and the reading end of a log share.

use std::path::{Path, PathBuf};

/// What a writer tells its readers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub(super) bytes: u64,
    pub(super) finished: bool,
}

/// The path of the compressed file.
pub(super) fn compressed(plain: &Path) -> PathBuf {
    let mut path = plain.as_os_str().to_owned();
    path.push(".zst");
    path.into()
}
