//! Counts for monitoring. Each is a kept count, or is read by an index of the counted rows alone.

use super::database::Snapshot;
use super::hidden::Hidden;
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

/// Reads the counts, without those of hidden specifications.
pub(super) fn figures(s: &Snapshot, hidden: &Hidden) -> rusqlite::Result<Figures> {
    if !hidden.is_empty() {
        return figures_without(s, &hidden.json());
    }
    let sql = "SELECT status, system, builds FROM build_count WHERE builds > 0";
    let builds = s.all(sql, [], |row| row.try_into())?;
    let sql = "SELECT count(*) FROM evaluation INDEXED BY evaluation_started WHERE status = -1";
    let evaluating = s.query_row(sql, [], |row| row.get(0))?;
    let sql = "SELECT count(*), ifnull(sum(look_failures > 0), 0) FROM specification
         WHERE removed_at = 0";
    let (specifications, unreachable) = s.query_row(sql, [], |row| row.try_into())?;
    Ok(Figures { builds, evaluating, specifications, unreachable })
}

/// The counts without those of the specifications whose numbers `hidden` lists.
fn figures_without(s: &Snapshot, hidden: &str) -> rusqlite::Result<Figures> {
    let sql = "SELECT c.status, c.system, c.builds FROM build_count AS c
         WHERE c.builds > 0 AND c.specification_id NOT IN (SELECT value FROM json_each(?1))";
    let builds = s.all(sql, [hidden], |row| row.try_into())?;
    let sql = "SELECT count(*) FROM evaluation INDEXED BY evaluation_started WHERE status = -1
         AND specification_id NOT IN (SELECT value FROM json_each(?1))";
    let evaluating = s.query_row(sql, [hidden], |row| row.get(0))?;
    let sql = "SELECT count(*), ifnull(sum(look_failures > 0), 0) FROM specification
         WHERE removed_at = 0 AND id NOT IN (SELECT value FROM json_each(?1))";
    let (specifications, unreachable) = s.query_row(sql, [hidden], |row| row.try_into())?;
    Ok(Figures { builds, evaluating, specifications, unreachable })
}
