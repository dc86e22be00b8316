//! Reschedules builds that have ended.

use super::change::{changed, count};
use crate::model::{BuildId, BuildStatus, Changed, Restart};
use crate::store::database::Transaction;
use crate::store::query::Query;
use crate::store::wishes::want_build_again;
use rusqlite::params;

/// Reschedules a build that ended without success, together with the builds that failed only because of it. The
/// evaluations that have the build want their builds again (WISH2 in `wishes.rs`).
pub(crate) fn restart(tx: &Transaction, id: BuildId) -> rusqlite::Result<Restart> {
    // A build that no evaluation has is kept only because other builds need it. Such a build is not restarted.
    let sql = "SELECT status, EXISTS (SELECT 1 FROM definition AS d WHERE d.build_id = build.id)
           AND EXISTS (SELECT 1 FROM job AS j WHERE j.build_id = build.id)
         FROM build WHERE id = ?1";
    let found: Option<(BuildStatus, bool)> = tx.first(sql, [id], |row| row.try_into())?;
    let Some((status, defined)) = found else { return Ok(Restart::Missing) };
    if !status.is_finished() || status.is_success() {
        return Ok(Restart::Not(status));
    }
    if !defined {
        return Ok(Restart::Undefined);
    }
    if let Some(needed) = broken_need(tx, id)? {
        return Ok(Restart::Needs(needed));
    }
    let mut all = Vec::new();
    let mut open = vec![(id, status)];
    // Each round schedules one build that had ended, so the loop ends.
    while let Some((id, status)) = open.pop() {
        let Some(row) = schedule(tx, id, status)? else { continue };
        all.push(row);
        let sql = "SELECT b.id FROM dependency AS d CROSS JOIN build AS b ON b.id = d.build_id
             WHERE d.needs_id = ?1 AND b.status = 2
             AND EXISTS (SELECT 1 FROM job AS j WHERE j.build_id = b.id)";
        let dependants: Vec<BuildId> = tx.values(sql, [id])?;
        for dependant in dependants {
            if broken_need(tx, dependant)?.is_none() {
                open.push((dependant, BuildStatus::FailedDependency));
            }
        }
    }
    want_build_again(tx, id)?;
    Ok(Restart::Done(all))
}

/// Reschedules the builds whose output `path` is gone. Builds that need them wait for them once more. A build without a
/// definition is not changed.
pub(crate) fn rebuild(tx: &Transaction, path: &str) -> rusqlite::Result<Vec<Changed>> {
    let sql = "SELECT o.build_id FROM output AS o CROSS JOIN build AS b ON b.id = o.build_id
         WHERE o.path = ?1 AND substr(o.path, 1, 8) = 'outputs/' AND b.status = 0
         AND EXISTS (SELECT 1 FROM definition AS d WHERE d.build_id = b.id)";
    let lost: Vec<BuildId> = tx.values(sql, [path])?;
    let mut all = Vec::new();
    for id in lost {
        let Some(row) = schedule(tx, id, BuildStatus::Succeeded)? else { continue };
        tx.execute("DELETE FROM output WHERE build_id = ?1", [id])?;
        tx.execute("DELETE FROM product WHERE build_id = ?1", [id])?;
        let sql = "UPDATE build SET waiting = waiting + 1
             WHERE status = -2 AND id IN (SELECT build_id FROM dependency WHERE needs_id = ?1)";
        tx.execute(sql, [id])?;
        all.push(row);
    }
    Ok(all)
}

/// A build that this build needs and that ended without success; `None`: there is none.
fn broken_need(tx: &Transaction, id: BuildId) -> rusqlite::Result<Option<BuildId>> {
    let sql = "SELECT n.id FROM dependency AS d CROSS JOIN build AS n ON n.id = d.needs_id
         WHERE d.build_id = ?1 AND n.status > 0 LIMIT 1";
    tx.value(sql, [id])
}

fn schedule(
    tx: &Transaction,
    id: BuildId,
    status: BuildStatus,
) -> rusqlite::Result<Option<Changed>> {
    let sql =
        "UPDATE build SET status = -2, weather = -1, losses = 0, message = '', started_at = 0,
         stopped_at = 0, log_path = '', log_bytes = 0, log_digest = '',
         waiting = (SELECT count(*) FROM dependency AS d CROSS JOIN build AS n ON n.id = d.needs_id
                    WHERE d.build_id = ?1 AND n.status <> 0)
         WHERE id = ?1 AND status = ?2 RETURNING job, evaluation_id, specification_id";
    let row = tx.first(sql, params![id, status], |row| changed(id, BuildStatus::Scheduled, row))?;
    if row.is_some() {
        count(tx, id, status, BuildStatus::Scheduled)?;
    }
    Ok(row)
}
