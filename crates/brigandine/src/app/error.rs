//! Why a server cannot start or continue; the messages say what to do.

use crate::health;
use crate::os::file;
use crate::store::{DatabaseError, OpenError, SchemaError};
use std::io;
use std::path::PathBuf;

/// Why the server cannot start or continue.
#[derive(Debug)]
pub enum AppError {
    /// Another server runs on this state directory.
    Locked(PathBuf),
    /// The state directory cannot be made or used.
    State(PathBuf, io::Error),
    /// A file of the state directory cannot be used.
    File(PathBuf, io::Error),
    /// The database cannot be opened.
    Open(OpenError),
    /// The database failed.
    Database(DatabaseError),
    /// A sandbox is required, and does not work here.
    NoSandbox(String),
    /// The configured user of builds cannot be used: the user's name, and why.
    NoBuildUser(String, String),
    /// A required task exited.
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
                | OpenError::Importing(_)
                | OpenError::Emptied(_)
                | OpenError::NoRoom { .. } => false,
            },
            Self::Locked(_) | Self::NoSandbox(_) | Self::NoBuildUser(..) | Self::Ended { .. } => {
                false
            }
        }
    }
}

impl std::fmt::Display for AppError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Locked(path) => write!(
                f,
                "another brigandine serves the state directory {}; stop it first, \
                 or name another directory with --state",
                path.display()
            ),
            Self::State(path, error) => {
                let help = match error.kind() {
                    io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                        "; it is no directory: name another one with --state"
                    }
                    io::ErrorKind::PermissionDenied => {
                        "; it has to belong to the user of the server: change its owner, or name another one \
                         with --state"
                    }
                    _ => "; name another one with --state",
                };
                let path = path.display();
                write!(f, "the state directory {path} cannot be used: {error}")?;
                f.write_str(if file::is_full(error) { "" } else { help })
            }
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Open(error) => error.fmt(f),
            Self::Database(error) => write!(f, "the database failed: {error}"),
            Self::NoSandbox(why) => write!(
                f,
                "builds are to run in a sandbox, and there is none here: {why}; \
                 install bubblewrap, or allow builds without it (sandbox = \"off\")",
            ),
            Self::NoBuildUser(name, why) => {
                write!(f, "builds are to run as `{name}` (build-user), and cannot: {why}")
            }
            Self::Ended { part, why } => write!(f, "{part} ended: {why}"),
        }
    }
}

impl std::error::Error for AppError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::State(_, error) | Self::File(_, error) => Some(error),
            Self::Open(error) => Some(error),
            Self::Database(error) => Some(error),
            Self::Locked(_) | Self::NoSandbox(_) | Self::NoBuildUser(..) | Self::Ended { .. } => {
                None
            }
        }
    }
}

impl From<DatabaseError> for AppError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl From<OpenError> for AppError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}
