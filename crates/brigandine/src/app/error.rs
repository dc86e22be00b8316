//! Why a server cannot start or continue; the messages say what to do.

use crate::health;
use crate::os::file;
use crate::store::{DatabaseError, OpenError, SchemaError};
use std::io;
use std::path::PathBuf;

/// Why the server cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Another server runs on this state directory.
    #[error(
        "another brigandine serves the state directory {0}; stop it first, or name another directory with --state"
    )]
    Locked(PathBuf),
    /// The state directory cannot be made or used.
    #[error("the state directory {0} cannot be used: {1}{help}", help = help(.1))]
    State(PathBuf, #[source] io::Error),
    /// A file of the state directory cannot be used.
    #[error("{0}: {1}")]
    File(PathBuf, #[source] io::Error),
    /// The database cannot be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] DatabaseError),
    /// A sandbox is required, and does not work here.
    #[error(
        "builds are to run in a sandbox, and there is none here: {0}; install bubblewrap, or allow builds without it \
         (sandbox = \"off\")"
    )]
    NoSandbox(String),
    /// The configured user of builds cannot be used: the user's name, and why.
    #[error("builds are to run as `{0}` (build-user), and cannot: {1}")]
    NoBuildUser(String, String),
    /// A required task exited.
    #[error("{part} ended: {why}")]
    Ended {
        /// The name of the task.
        part: String,
        /// The task's error.
        why: String,
    },
}

impl AppError {
    /// Whether the server can wait until the problem has passed: the disk is full, or another program has locked the
    /// database.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::State(_, error) | Self::File(_, error) => file::is_full(error),
            Self::Database(error) => health::passes(error),
            Self::Open(error) => match error {
                OpenError::Directory(_, error) => file::is_full(error),
                OpenError::Database(_, error) | OpenError::Copy(_, error) => health::passes(error),
                OpenError::Schema(_, SchemaError::Sqlite(error)) => health::passes_in_sqlite(error),
                OpenError::Schema(..)
                | OpenError::ReadOnly(..)
                | OpenError::Importing(_)
                | OpenError::Restoring(_)
                | OpenError::Backup(_)
                | OpenError::Emptied(_)
                | OpenError::NoRoom { .. } => false,
            },
            Self::Locked(_) | Self::NoSandbox(_) | Self::NoBuildUser(..) | Self::Ended { .. } => {
                false
            }
        }
    }
}

/// What can be done about a state directory that cannot be used.
fn help(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if file::is_full(error) => "",
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            "; it is no directory: name another one with --state"
        }
        io::ErrorKind::PermissionDenied => {
            "; it has to belong to the user of the server: change its owner, or name another one with --state"
        }
        _ => "; name another one with --state",
    }
}
