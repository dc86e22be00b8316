//! The settings with which all connections of one database are opened, and the state that they share.

use std::path::Path;
use std::sync::Arc;

use super::file::DatabaseFile;
use super::preflight::Machine;
use crate::config::Config;
use crate::place::Place;
use crate::queue::Wakeups;
use crate::stats::holders::Board;

/// Opens the connections of one database.
#[derive(Debug)]
pub(crate) struct Opener {
    pub(crate) config: Arc<Config>,
    /// The database's file. Its path is not set until the writer has found the file.
    pub(crate) file: DatabaseFile,
    /// Which call uses which connection.
    pub(crate) board: Arc<Board>,
    /// Callers that were answered and must still be woken.
    pub(crate) wakeups: Arc<Wakeups>,
    /// The properties of SQLite and of the machine against which the file is checked before it is opened.
    pub(crate) machine: Machine,
}

impl Opener {
    pub(crate) fn new(config: Arc<Config>, machine: Machine) -> Self {
        Self {
            config,
            file: DatabaseFile::default(),
            board: Arc::default(),
            wakeups: Arc::default(),
            machine,
        }
    }

    /// The path of the database's file. Once the file was found, symbolic links in the path are resolved. `None`: the
    /// database has no file.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.config.place {
            Place::File(path) => Some(self.file.path().unwrap_or(path)),
            Place::Memory | Place::Nowhere(_) => None,
        }
    }
}
