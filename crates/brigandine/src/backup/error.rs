//! Why a backup cannot be made or restored.

use crate::store::{DatabaseError, SchemaError};
use std::io;
use std::path::PathBuf;

/// Why a backup cannot be made or restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// Something has the name of the new backup.
    #[error(
        "there is something at {0} already, and a backup replaces nothing: name another directory"
    )]
    Exists(PathBuf),
    /// The backup would be in the state directory.
    #[error("{0} is in the state directory, and would be lost with it: name a directory elsewhere")]
    Inside(PathBuf),
    /// The database cannot be copied.
    #[error("the database cannot be copied: {0}")]
    Database(#[from] DatabaseError),
    /// The copy of the database cannot be used.
    #[error("the copy {0} of the database cannot be used: {1}")]
    Copy(PathBuf, #[source] SchemaError),
    /// A file cannot be read or written; the error names it.
    #[error("{0}")]
    File(#[from] io::Error),
    /// The target's disk has too little room.
    #[error("there is no room at {target}: {needed} bytes are needed, and {free} are free")]
    NoRoom {
        /// Where the room is needed.
        target: PathBuf,
        /// The bytes that are needed.
        needed: u64,
        /// The bytes that are free.
        free: u64,
    },
    /// The caller has stopped the work.
    #[error("stopped; what was copied has been removed")]
    Stopped,
    /// The directory is no backup.
    #[error("{0} is no backup: {1}")]
    NoBackup(PathBuf, String),
    /// A newer program made the backup.
    #[error("the backup {0} was made by a newer program ({1}); use that one or a later one")]
    Newer(PathBuf, String),
    /// The contents of the backup are not those that its manifest names.
    #[error("the backup {0} is damaged: {1}; use another one")]
    Damaged(PathBuf, String),
    /// The directory into which the backup is to be restored has something in it.
    #[error(
        "{0} is not empty, and a backup is restored only into a directory that is: name another one with --state"
    )]
    NotEmpty(PathBuf),
    /// An earlier restore into the directory was interrupted.
    #[error("a restore into {0} was interrupted: empty the directory, and give the command again")]
    Interrupted(PathBuf),
}

impl BackupError {
    pub(super) fn copy(path: PathBuf) -> impl FnOnce(rusqlite::Error) -> Self {
        move |error| Self::Copy(path, error.into())
    }
}
