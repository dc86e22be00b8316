//! The paths in the state directory.

use std::path::{Path, PathBuf};

/// The folder of outputs. The database stores the paths of outputs with this name as their first component.
pub(crate) const OUTPUTS: &str = "outputs";
/// The folder of logs, named in the database like [`OUTPUTS`].
pub(crate) const LOGS: &str = "logs";

/// The name of the manifest of a backup. A state directory has none.
pub(crate) const MANIFEST: &str = "manifest.json";

/// The paths below a state directory. They need not exist.
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

    /// The database of an unfinished import.
    pub(crate) fn import(self) -> PathBuf {
        self.0.join("brigandine.db.import")
    }

    /// The database of an unfinished restore.
    pub(crate) fn restore(self) -> PathBuf {
        self.0.join("brigandine.db.restore")
    }

    /// The file that only a backup has.
    pub(crate) fn manifest(self) -> PathBuf {
        self.0.join(MANIFEST)
    }

    /// What a restore that has not ended has left: the database, or the file from which its copy is made.
    pub(crate) fn unfinished_restore(self) -> Option<PathBuf> {
        let restore = self.restore();
        let name = restore.file_name()?;
        let entries = std::fs::read_dir(self.0).ok()?.flatten();
        let is_left = |entry: &std::fs::DirEntry| {
            entry.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes())
        };
        entries.filter(is_left).map(|entry| entry.path()).min()
    }

    /// The file that says from which backup the directory was restored, until a server has started.
    pub(crate) fn restored(self) -> PathBuf {
        self.0.join("restored.json")
    }

    /// The file that the server of this directory locks.
    pub(crate) fn lock(self) -> PathBuf {
        self.0.join("lock")
    }

    /// The file that supervisors lock while programs of the server are alive.
    pub(crate) fn processes_lock(self) -> PathBuf {
        self.0.join("processes.lock")
    }

    /// The socket on which the server of this directory takes messages of other programs.
    pub(crate) fn wake_socket(self) -> PathBuf {
        self.0.join("wake.sock")
    }

    /// The file that says how the server of this directory was started.
    pub(crate) fn server(self) -> PathBuf {
        self.0.join("server.json")
    }

    /// The file with the token that allows changes over HTTP, unless the configuration names another file.
    pub(crate) fn token(self) -> PathBuf {
        self.0.join("token")
    }

    /// The directories of running builds and evaluators.
    pub(crate) fn work(self) -> PathBuf {
        self.0.join("work")
    }

    /// The outputs of builds.
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

    /// The state directory itself, and those of its folders that may be on other file systems.
    pub(crate) fn disks(self) -> Vec<PathBuf> {
        let folders =
            [self.work(), self.outputs(), self.logs(), self.repositories(), self.checkouts()];
        folders.into_iter().chain([self.0.to_owned()]).collect()
    }
}
