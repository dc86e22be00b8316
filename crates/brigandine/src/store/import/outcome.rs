//! How far an import is, what it imported, and why it failed.

use super::source::{CuirassError, LeftOut};
use crate::store::schema::SchemaError;
use serde::Serialize;
use std::path::PathBuf;

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The state directory has a database already.
    #[error(
        "there is a database already: {0}; builds keep their numbers, so they are imported into a new state directory \
         only: name one with --state"
    )]
    Present(PathBuf),
    /// The file that an interrupted import left is from another source.
    #[error("{0} was begun from another file ({1}); give that one, or remove {0} to begin anew")]
    Other(PathBuf, String),
    /// The source cannot be read or understood.
    #[error("cannot import {0}: {1}")]
    Source(PathBuf, #[source] CuirassError),
    /// A line of a history cannot be stored.
    #[error("cannot import {0}: line {1}: {2}")]
    Line(PathBuf, u64, String),
    /// The rows of a history do not fit together.
    #[error("cannot import {0}: {1}")]
    Unfit(PathBuf, String),
    /// The file is nothing that can be imported.
    #[error(
        "cannot import {0}: it is neither a database of Cuirass nor a history that `brigandine export` wrote \
         (uncompressed)"
    )]
    Unknown(PathBuf),
    /// The file is a database of this program.
    #[error(
        "cannot import {0}: it is a database of Brigandine; `brigandine backup` copies it with its logs and outputs, and \
         what `brigandine export` makes of it can be imported"
    )]
    Own(PathBuf),
    /// The new file cannot be written.
    #[error("cannot write {0}: {1}; what is stored stays, and the same command goes on from there")]
    Target(PathBuf, #[source] rusqlite::Error),
    /// The new file's schema cannot be made.
    #[error("cannot make {0}: {1}")]
    Schema(PathBuf, #[source] SchemaError),
    /// A file cannot be opened, written or renamed.
    #[error("{0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
}

/// A report of the import's progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// How many builds are stored, and how many there are in the source.
    Builds(i64, i64),
    /// How many rows of a history are stored, and how many there are.
    Rows(i64, i64),
    /// Another step, described in words.
    Other(String),
}

/// What was imported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// The number of specifications.
    pub specifications: usize,
    /// The number of evaluations.
    pub evaluations: usize,
    /// The number of builds.
    pub builds: i64,
    /// The number of outputs.
    pub outputs: i64,
    /// The number of builds that were running in Cuirass and are scheduled here.
    pub rescheduled: i64,
    /// The number of builds whose build log is a file of Cuirass. The file stays where it is.
    pub logs: i64,
    /// How many builds an earlier, interrupted import had stored.
    pub resumed_at: i64,
    /// What was not imported, because this server has no place for it.
    pub left_out: Vec<LeftOut>,
}
