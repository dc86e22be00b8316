//! What an import tells: how far it is, what was imported, why it ended.

use super::cuirass::CuirassError;
use crate::store::schema::SchemaError;
use serde::Serialize;
use std::path::PathBuf;

/// Why an import ended.
#[derive(Debug)]
pub enum ImportError {
    /// The state directory has a database.
    Present(PathBuf),
    /// The file that an earlier import left is of another source.
    Other(PathBuf, String),
    /// The source cannot be read or understood.
    Source(PathBuf, CuirassError),
    /// The new file.
    Target(PathBuf, rusqlite::Error),
    /// The new file's schema.
    Schema(PathBuf, SchemaError),
    /// A directory or a rename.
    File(PathBuf, std::io::Error),
}

impl std::fmt::Display for ImportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Present(path) => write!(
                f,
                "there is a database already: {}; builds keep their numbers, so they are imported \
                 into a new state directory only: name one with --state",
                path.display()
            ),
            Self::Other(path, source) => write!(
                f,
                "{} was begun from another database ({source}); remove it to begin anew",
                path.display()
            ),
            Self::Source(path, error) => write!(f, "cannot import {}: {error}", path.display()),
            Self::Target(path, error) => write!(
                f,
                "cannot write {}: {error}; what is stored stays, and the same command goes on \
                 from there",
                path.display()
            ),
            Self::Schema(path, error) => write!(f, "cannot make {}: {error}", path.display()),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ImportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Present(_) | Self::Other(..) => None,
            Self::Source(_, error) => Some(error),
            Self::Target(_, error) => Some(error),
            Self::Schema(_, error) => Some(error),
            Self::File(_, error) => Some(error),
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This many of so many builds are stored.
    Builds(i64, i64),
    /// Something else, in words.
    Other(String),
}

/// What was imported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Specifications.
    pub specifications: usize,
    /// Evaluations.
    pub evaluations: usize,
    /// Builds.
    pub builds: i64,
    /// Outputs.
    pub outputs: i64,
    /// Builds that ran and are scheduled now.
    pub rescheduled: i64,
    /// Builds whose log Cuirass has as a file of its own, which stays where it is.
    pub logs: i64,
    /// Builds that an interrupted import had stored.
    pub resumed_at: i64,
}
