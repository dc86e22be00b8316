//! The interface of an import's sources, and their rows as plain values.

use crate::model::{BuildStatus, Weather};
use serde::Serialize;
use std::collections::HashMap;

/// Why a source cannot be imported.
#[derive(Debug)]
pub enum CuirassError {
    /// SQLite cannot read the source.
    Sqlite(rusqlite::Error),
    /// The source is not a database of Cuirass, or has an unknown table, column or value; the text names it.
    Unknown(String),
}

impl std::fmt::Display for CuirassError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(error) => error.fmt(f),
            Self::Unknown(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for CuirassError {}

impl From<rusqlite::Error> for CuirassError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

pub(super) type Result<T> = std::result::Result<T, CuirassError>;

/// A specification, as Cuirass has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CuirassSpecification {
    pub(super) name: String,
    pub(super) load_path_inputs: String,
    pub(super) package_path_inputs: String,
    pub(super) proc_input: String,
    pub(super) proc_file: String,
    pub(super) proc: String,
    pub(super) proc_args: String,
    /// `None`: the database has none, because it is older.
    pub(super) build_outputs: Option<String>,
    /// The highest is built first, as everywhere in this server.
    pub(super) priority: i64,
    pub(super) inputs: Vec<CuirassInput>,
}

/// An input of a specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CuirassInput {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) load_path: String,
    /// Whether Cuirass does not compile the input.
    pub(super) no_compile: bool,
    pub(super) branch: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) revision: Option<String>,
}

/// An evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CuirassEvaluation {
    pub(super) id: i64,
    pub(super) specification: String,
    /// Revisions in the order of the inputs, each with its input's name where the source has it.
    pub(super) checkouts: Vec<(Option<String>, String)>,
    pub(super) status: i64,
    /// Seconds since 1970; 0: the database has no time.
    pub(super) timestamp: i64,
    pub(super) checkout_at: i64,
    pub(super) finished_at: i64,
}

/// A build with its outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CuirassBuild {
    pub(super) id: i64,
    pub(super) derivation: String,
    pub(super) derivation_key: i64,
    pub(super) evaluation: i64,
    /// `None`: the source does not say which job it is.
    pub(super) job: Option<String>,
    pub(super) system: String,
    pub(super) nix_name: String,
    pub(super) status: BuildStatus,
    pub(super) weather: Weather,
    pub(super) timestamp: i64,
    pub(super) started_at: i64,
    pub(super) stopped_at: i64,
    /// The highest is built first, as everywhere in this server.
    pub(super) priority: i64,
    pub(super) timeout_s: i64,
    pub(super) max_silent_s: i64,
    pub(super) has_log: bool,
    pub(super) outputs: Vec<(String, String)>,
}

impl CuirassBuild {
    /// The specification and the job of the build. `of` maps each evaluation to its specification. `None`: the build
    /// belongs to nothing that is there.
    pub(super) fn place(&self, of: &HashMap<i64, i64>) -> Option<(i64, String)> {
        Some((*of.get(&self.evaluation)?, self.job.clone()?))
    }
}

/// Something of the source that was not imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The table.
    pub table: &'static str,
    /// The column; `None`: whole rows were not imported.
    pub column: Option<&'static str>,
    /// The number of rows in which there is something.
    pub rows: i64,
    /// What it says, for people.
    pub what: &'static str,
}

/// A source of an import.
pub(super) trait Source {
    /// The number of builds, and the highest id.
    fn size(&self) -> Result<(i64, i64)>;
    /// The number of outputs.
    fn outputs(&self) -> Result<i64>;
    /// What the source has and this server has no place for.
    fn left_out(&self) -> Result<Vec<LeftOut>>;
    /// All specifications with their inputs.
    fn specifications(&self) -> Result<Vec<CuirassSpecification>>;
    /// All evaluations, by id.
    fn evaluations(&self) -> Result<Vec<CuirassEvaluation>>;
    /// Passes the builds above `after`, with their outputs, to `take` in the order of their ids, until `take` returns
    /// `false`.
    ///
    /// Without `careful` a source may miss outputs that are not stored in the order of their builds. A caller that got
    /// fewer outputs than [`Source::outputs`] calls again with `careful`.
    fn builds(
        &self,
        after: i64,
        careful: bool,
        take: &mut dyn FnMut(CuirassBuild) -> bool,
    ) -> Result<()>;
}

/// Opens a source; each thread opens its own.
pub(super) type Open<'o> = &'o (dyn Fn() -> Result<Box<dyn Source>> + Sync);
