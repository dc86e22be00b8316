//! The file under a database.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What is known of the file; shared by everything that belongs to one database.
#[derive(Debug, Default)]
pub(crate) struct DatabaseFile {
    /// Absolute, without links. Empty: it has not been looked for, or the database is in memory.
    path: OnceLock<PathBuf>,
}

impl DatabaseFile {
    /// The path by which SQLite is given it.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.get().map(PathBuf::as_path)
    }

    /// To be called once, before it is opened.
    pub(crate) fn found(&self, path: PathBuf) {
        let _ = self.path.set(path);
    }
}
