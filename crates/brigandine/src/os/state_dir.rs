//! The state directory: what lies where in it.

use std::path::{Path, PathBuf};

/// Folders that are named in the database as well, with what is in them.
pub(crate) const OUTPUTS: &str = "outputs";
/// See [`OUTPUTS`].
pub(crate) const LOGS: &str = "logs";

/// The paths below a state directory. Made where they are needed; nothing is looked at.
#[derive(Debug, Clone, Copy)]
pub struct StateDir<'path>(&'path Path);

impl<'path> StateDir<'path> {
    /// The directory at this path.
    pub const fn new(path: &'path Path) -> Self {
        Self(path)
    }

    /// The database.
    pub fn database(self) -> PathBuf {
        self.0.join("brigandine.db")
    }

    /// The files that SQLite makes beside the database.
    pub(crate) fn wal(self) -> [PathBuf; 2] {
        [self.0.join("brigandine.db-wal"), self.0.join("brigandine.db-shm")]
    }

    /// The database of an import that has not ended.
    pub(crate) fn import(self) -> PathBuf {
        self.0.join("brigandine.db.import")
    }

    /// What its server locks.
    pub(crate) fn lock(self) -> PathBuf {
        self.0.join("lock")
    }

    /// What supervisors hold while processes of the server live.
    pub(crate) fn processes_lock(self) -> PathBuf {
        self.0.join("processes.lock")
    }

    /// The socket by which other programs tell its server something.
    pub(crate) fn wake_socket(self) -> PathBuf {
        self.0.join("wake.sock")
    }

    /// What its server was told.
    pub(crate) fn server(self) -> PathBuf {
        self.0.join("server.json")
    }

    /// The token that allows changes over HTTP, unless the configuration names another file.
    pub(crate) fn token(self) -> PathBuf {
        self.0.join("token")
    }

    /// Directories of builds and evaluators that run.
    pub(crate) fn work(self) -> PathBuf {
        self.0.join("work")
    }

    /// What builds left.
    pub(crate) fn outputs(self) -> PathBuf {
        self.0.join(OUTPUTS)
    }

    /// Logs of builds and evaluations.
    pub(crate) fn logs(self) -> PathBuf {
        self.0.join(LOGS)
    }

    /// Clones of inputs.
    pub(crate) fn repositories(self) -> PathBuf {
        self.0.join("repositories")
    }

    /// Exported revisions.
    pub(crate) fn checkouts(self) -> PathBuf {
        self.0.join("checkouts")
    }

    /// Itself, and what may be on other file systems.
    pub(crate) fn disks(self) -> Vec<PathBuf> {
        let folders =
            [self.work(), self.outputs(), self.logs(), self.repositories(), self.checkouts()];
        folders.into_iter().chain([self.0.to_owned()]).collect()
    }
}
