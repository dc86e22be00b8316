//! What all connections of one database are opened with: the settings, and what they share.

use std::path::Path;
use std::sync::Arc;

use super::file::DatabaseFile;
use super::preflight::Machine;
use crate::config::Config;
use crate::place::Place;
use crate::queue::Wakeups;
use crate::stats::holders::Board;

/// One for each database that is opened.
#[derive(Debug)]
pub(crate) struct Opener {
    pub(crate) config: Arc<Config>,
    /// The file; empty until the writer has found it.
    pub(crate) file: DatabaseFile,
    /// Who holds which connection.
    pub(crate) board: Arc<Board>,
    /// Callers that were answered and are to be woken.
    pub(crate) wakeups: Arc<Wakeups>,
    /// What the file is checked against before it is opened.
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

    /// The path of the database's file, without links once the file was found; `None`: there is no file.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.config.place {
            Place::File(path) => Some(self.file.path().unwrap_or(path)),
            Place::Memory | Place::Nowhere(_) => None,
        }
    }
}
