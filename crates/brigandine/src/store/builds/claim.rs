//! Starts builds, and returns everything that an executor needs.

use super::change::{changed, count};
use crate::model::{BuildId, BuildStatus, Changed, Timestamp};
use crate::store::database::Transaction;
use crate::store::query::{Query, integer, is_refusal};
use rusqlite::params;
use std::collections::HashSet;

/// A build that was started, with what an executor needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The change, for the event channel.
    pub changed: Changed,
    /// The name of the specification that the build belongs to.
    pub specification: String,
    /// The number of this start.
    pub attempt: i64,
    /// How many attempts have lost their worker.
    pub losses: i64,
    /// JSON of [`crate::model::Definition`]; `None`: the build has no definition.
    pub definition: Option<String>,
    /// The derivation and the path of the output of each build that this one needs.
    pub needs: Vec<(String, String)>,
    /// The most seconds that the build may take; 0: the server's default.
    pub timeout_s: u64,
    /// The most seconds without output; 0: the server's default.
    pub max_silent_s: u64,
}

pub(super) const READY: &str = "SELECT id, derivation, priority, submitted_at FROM build AS b
    WHERE status = -2 AND waiting = 0 AND backend = 0 AND system = ?1
    AND NOT EXISTS (SELECT 1 FROM build AS twin WHERE twin.derivation_key = b.derivation_key
      AND twin.derivation = b.derivation AND twin.status = -1)
    ORDER BY priority DESC, submitted_at, derivation LIMIT ?2";

/// Which builds to start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    /// The systems that the worker builds for.
    pub(crate) systems: &'a [String],
    /// The most builds to start.
    pub(crate) limit: usize,
    /// Builds that must not start yet, because they pause between two attempts.
    pub(crate) resting: &'a [BuildId],
    /// The worker's name.
    pub(crate) worker: &'a str,
    /// The time.
    pub(crate) now: Timestamp,
}

/// A ready build that the database refuses to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedStart {
    /// The build. It stays scheduled.
    pub(crate) id: BuildId,
    /// What the database says.
    pub(crate) why: String,
}

/// A claim ends when the database has refused this many starts: then the fault is perhaps not that of the builds.
pub(crate) const REFUSED_MAX: usize = 16;

/// Starts ready builds of all `systems`, ordered by priority, then age, then derivation. If another build of the same
/// derivation is running, a build stays scheduled and gets the end of that build (`twins.rs`). Also returns the builds
/// whose start the database refuses; the builds behind them are started nevertheless.
pub(crate) fn claim(
    tx: &Transaction,
    wanted: &Claim<'_>,
) -> rusqlite::Result<(Vec<Claimed>, Vec<RefusedStart>)> {
    let Claim { systems, limit, resting, worker, now } = *wanted;
    let (mut claimed, mut refused): (Vec<Claimed>, Vec<RefusedStart>) = (Vec::new(), Vec::new());
    loop {
        let left = limit - claimed.len();
        let most = integer(left + resting.len() + refused.len());
        let mut ready: Vec<((i64, i64), String, BuildId)> = Vec::new();
        for system in systems {
            ready.append(&mut tx.all(READY, params![system, most], |row| {
                let order = (-row.get::<_, i64>(2)?, row.get(3)?);
                Ok((order, row.get(1)?, row.get(0)?))
            })?);
        }
        ready.sort_unstable();
        ready.retain(|(.., id)| !resting.contains(id) && refused.iter().all(|it| it.id != *id));
        ready.truncate(left);
        let before = claimed.len() + refused.len();
        let mut seen = HashSet::new();
        let mut again = false;
        for (_, derivation, id) in ready {
            if !seen.insert(derivation) {
                again = true;
                continue;
            }
            match tx.savepoint(|tx| start(tx, id, worker, now)) {
                Ok(started) => claimed.extend(started),
                Err(error) if is_refusal(&error) => {
                    refused.push(RefusedStart { id, why: error.to_string() });
                    again = true;
                }
                Err(error) => return Err(error),
            }
        }
        // Twins and refused builds filled places in the list and were not started, so another round reads the builds
        // after them.
        let progress = claimed.len() + refused.len() > before;
        if !again || !progress || claimed.len() >= limit || refused.len() >= REFUSED_MAX {
            return Ok((claimed, refused));
        }
    }
}

/// Starts a build that is scheduled. `None`: the build is not scheduled, and nothing was changed.
pub fn start(
    tx: &Transaction,
    id: BuildId,
    worker: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Claimed>> {
    let sql = "UPDATE build SET status = -1, attempt = attempt + 1, started_at = ?2, message = ''
         WHERE id = ?1 AND status = -2
         RETURNING job, evaluation_id, specification_id, attempt, timeout_s, max_silent_s, losses";
    let found = tx.first(sql, params![id, now], |row| {
        Ok(Claimed {
            changed: changed(id, BuildStatus::Started, row)?,
            specification: String::new(),
            attempt: row.get(3)?,
            losses: row.get(6)?,
            definition: None,
            needs: Vec::new(),
            timeout_s: row.get::<_, i64>(4)?.unsigned_abs(),
            max_silent_s: row.get::<_, i64>(5)?.unsigned_abs(),
        })
    })?;
    let Some(mut claimed) = found else { return Ok(None) };
    claimed.definition = tx.value("SELECT text FROM definition WHERE build_id = ?1", [id])?;
    let sql = "SELECT n.derivation, o.path FROM dependency AS d
         CROSS JOIN build AS n ON n.id = d.needs_id
         CROSS JOIN output AS o ON o.build_id = n.id AND o.name = 'out'
         WHERE d.build_id = ?1";
    claimed.needs = tx.all(sql, [id], |row| row.try_into())?;
    claimed.needs.sort_unstable();
    let sql =
        "INSERT INTO attempt (build_id, number, worker, status, message, started_at, stopped_at)
         VALUES (?1, ?2, ?3, -1, '', ?4, 0)";
    tx.execute(sql, params![id, claimed.attempt, worker, now])?;
    count(tx, id, BuildStatus::Scheduled, BuildStatus::Started)?;
    let sql = "SELECT name FROM specification WHERE id = ?1";
    claimed.specification = tx.query_row(sql, [claimed.changed.specification], |row| row.get(0))?;
    Ok(Some(claimed))
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
    let (claimed, refused) = claim(tx, &Claim { systems, limit, resting: &[], worker: "w", now })?;
    assert_eq!(refused, []);
    Ok(claimed)
}
