//! Builds that are started: everything that an executor needs of those that are ready.

use super::change::{changed, count};
use crate::model::{BuildId, BuildStatus, Changed, Timestamp};
use crate::store::database::Transaction;
use rusqlite::params;
use std::collections::HashSet;

/// A build that was started, with what an executor needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// For the event channel.
    pub changed: Changed,
    /// The name of the specification that asked first.
    pub specification: String,
    /// The number of this start.
    pub attempt: i64,
    /// Starts whose worker vanished.
    pub losses: i64,
    /// JSON of [`crate::model::Definition`], when there is one.
    pub definition: Option<String>,
    /// What it needs: the derivation, and the path of its output.
    pub needs: Vec<(String, String)>,
    /// Seconds it may take; 0: the server's default.
    pub timeout_s: u64,
    /// Seconds it may be silent; 0: the server's default.
    pub max_silent_s: u64,
}

pub(super) const READY: &str = "SELECT id, derivation, priority, submitted_at FROM build AS b
    WHERE status = -2 AND waiting = 0 AND backend = 0 AND system = ?1
    AND NOT EXISTS (SELECT 1 FROM build AS twin WHERE twin.derivation_key = b.derivation_key
      AND twin.derivation = b.derivation AND twin.status = -1)
    ORDER BY priority DESC, submitted_at, derivation LIMIT ?2";

/// Which builds are to be started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    /// What can be built.
    pub(crate) systems: &'a [String],
    /// How many at most.
    pub(crate) limit: usize,
    /// Builds that wait for a pause to end.
    pub(crate) resting: &'a [BuildId],
    /// Who builds them.
    pub(crate) worker: &'a str,
    /// The time.
    pub(crate) now: Timestamp,
}

/// Starts builds that wait for nothing: by priority, then age, then derivation, whatever their system. One whose
/// derivation is being built by another waits for that one's end ([`adopt`]).
pub(crate) fn claim(tx: &Transaction, wanted: &Claim<'_>) -> rusqlite::Result<Vec<Claimed>> {
    let Claim { systems, limit, resting, worker, now } = *wanted;
    let mut claimed = Vec::new();
    loop {
        let left = limit - claimed.len();
        let most = i64::try_from(left + resting.len()).unwrap_or(i64::MAX);
        let mut ready = Vec::new();
        for system in systems {
            let mut statement = tx.prepare_cached(READY)?;
            let found = statement.query_map(params![system, most], |row| {
                let order = (-row.get::<_, i64>(2)?, row.get::<_, i64>(3)?);
                Ok((order, row.get::<_, String>(1)?, row.get::<_, BuildId>(0)?))
            })?;
            for row in found {
                ready.push(row?);
            }
        }
        ready.sort_unstable();
        let ready = ready.into_iter().filter(|(.., id)| !resting.contains(id)).take(left);
        let before = claimed.len();
        let mut seen = HashSet::new();
        let mut twins = false;
        for (_, derivation, id) in ready {
            if seen.insert(derivation) {
                claimed.extend(start(tx, id, worker, now)?);
            } else {
                twins = true;
            }
        }
        // The places of twins go to those behind them, which the next question finds.
        if !twins || claimed.len() == before || claimed.len() >= limit {
            return Ok(claimed);
        }
    }
}

/// Starts a build that is scheduled. `None`: it is not, and nothing was changed.
pub fn start(
    tx: &Transaction,
    id: BuildId,
    worker: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Claimed>> {
    let found = tx
        .prepare_cached(
            "UPDATE build SET status = -1, attempt = attempt + 1, started_at = ?2, message = ''
             WHERE id = ?1 AND status = -2
             RETURNING job, evaluation_id, specification_id, attempt, timeout_s, max_silent_s,
             losses",
        )?
        .query_map(params![id, now], |row| {
            Ok(Claimed {
                changed: changed(id, BuildStatus::Started, row)?,
                specification: String::new(),
                attempt: row.get(3)?,
                losses: row.get(6)?,
                timeout_s: row.get::<_, i64>(4)?.unsigned_abs(),
                max_silent_s: row.get::<_, i64>(5)?.unsigned_abs(),
                definition: None,
                needs: Vec::new(),
            })
        })?
        .next()
        .transpose()?;
    let Some(found) = found else { return Ok(None) };
    let definition = tx
        .prepare_cached("SELECT text FROM definition WHERE build_id = ?1")?
        .query_map([id], |row| row.get(0))?
        .next()
        .transpose()?;
    let mut needs: Vec<(String, String)> = tx
        .prepare_cached(
            "SELECT n.derivation, o.path FROM dependency AS d
             CROSS JOIN build AS n ON n.id = d.needs_id
             CROSS JOIN output AS o ON o.build_id = n.id AND o.name = 'out'
             WHERE d.build_id = ?1",
        )?
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    needs.sort_unstable();
    tx.prepare_cached(
        "INSERT INTO attempt (build_id, number, worker, status, message, started_at,
         stopped_at) VALUES (?1, ?2, ?3, -1, '', ?4, 0)",
    )?
    .execute(params![id, found.attempt, worker, now])?;
    count(tx, id, BuildStatus::Scheduled, BuildStatus::Started)?;
    let specification = tx
        .prepare_cached("SELECT name FROM specification WHERE id = ?1")?
        .query_row([found.changed.specification], |row| row.get(0))?;
    Ok(Some(Claimed { specification, definition, needs, ..found }))
}

/// Claims for one system.
#[cfg(test)]
pub(crate) fn claim_for(
    tx: &Transaction,
    system: &str,
    limit: usize,
    now: Timestamp,
) -> rusqlite::Result<Vec<Claimed>> {
    let systems = &[system.to_owned()];
    claim(tx, &Claim { systems, limit, resting: &[], worker: "w", now })
}
