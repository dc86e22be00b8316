//! What the database knows of the reasons for a build: what its job was built of before, and what stands before it in the
//! queue.

use super::database::Snapshot;
use super::derivations::definition;
use super::query::Query;
use crate::model::{Build, BuildId, Definition};
use rusqlite::params;

/// The most builds before another one in the queue that are counted, for each system.
const AHEAD_MAX: i64 = 1000;

/// The job's build before, as far as it explains the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Predecessor {
    pub(crate) id: BuildId,
    /// Whether it has the same derivation.
    pub(crate) is_same: bool,
    /// `None`: another backend than `command` built it.
    pub(crate) definition: Option<Definition>,
}

/// What is known of the job's build before.
pub(crate) fn predecessor(
    s: &Snapshot,
    build: &Build,
    id: BuildId,
) -> rusqlite::Result<Option<Predecessor>> {
    let sql = "SELECT derivation FROM build WHERE id = ?1";
    let Some(derivation) = s.value::<String>(sql, [id])? else { return Ok(None) };
    let is_same = derivation == build.derivation;
    Ok(Some(Predecessor { id, is_same, definition: definition(s, id)? }))
}

/// How many ready builds a server for `systems` starts before this scheduled one. Of one system, at most [`AHEAD_MAX`] of a
/// higher priority and as many of the same are counted.
pub(crate) fn ahead(s: &Snapshot, build: &Build, systems: &[String]) -> rusqlite::Result<i64> {
    // Two statements, so that each is a range of the index of ready builds.
    let higher = "SELECT count(*) FROM (SELECT 1 FROM build INDEXED BY build_ready
         WHERE status = -2 AND waiting = 0 AND backend = 0 AND system = ?1 AND priority > ?2
         LIMIT ?3) AS e";
    let same = "SELECT count(*) FROM (SELECT 1 FROM build INDEXED BY build_ready
         WHERE status = -2 AND waiting = 0 AND backend = 0 AND system = ?1 AND priority = ?2
         AND (submitted_at, derivation, id) < (?3, ?4, ?5) LIMIT ?6) AS e";
    let Build { priority, submitted_at, derivation, id, .. } = build;
    let mut ahead = 0;
    for system in systems {
        let values = params![system, priority, AHEAD_MAX];
        ahead += s.query_row(higher, values, |row| row.get::<_, i64>(0))?;
        let values = params![system, priority, submitted_at, derivation, id, AHEAD_MAX];
        ahead += s.query_row(same, values, |row| row.get::<_, i64>(0))?;
    }
    Ok(ahead)
}
