//! Counts for monitoring. Each is a kept count, or is read by an index of the counted rows alone.

use super::database::Snapshot;
use super::query::Query;
use crate::model::BuildStatus;

/// What the database says about the server's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Figures {
    /// How many builds there are, by status, specification and system. The specification is left out, so entries of the
    /// same status and system must be added up.
    pub(crate) builds: Vec<(BuildStatus, String, i64)>,
    /// How many evaluations run.
    pub(crate) evaluating: i64,
    /// How many specifications there are, without the removed ones.
    pub(crate) specifications: i64,
    /// The number of specifications whose last look at their inputs failed.
    pub(crate) unreachable: i64,
}

/// Reads the counts.
pub(crate) fn figures(s: &Snapshot) -> rusqlite::Result<Figures> {
    let sql = "SELECT status, system, builds FROM build_count WHERE builds > 0";
    let builds = s.all(sql, [], |row| row.try_into())?;
    let sql = "SELECT count(*) FROM evaluation INDEXED BY evaluation_started WHERE status = -1";
    let evaluating = s.query_row(sql, [], |row| row.get(0))?;
    let sql = "SELECT count(*), ifnull(sum(look_failures > 0), 0) FROM specification
         WHERE removed_at = 0";
    let (specifications, unreachable) = s.query_row(sql, [], |row| row.try_into())?;
    Ok(Figures { builds, evaluating, specifications, unreachable })
}
