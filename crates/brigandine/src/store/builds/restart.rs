//! Builds that are to be built once more.

use super::change::{changed, count};
use crate::model::{BuildId, BuildStatus, Changed, Restart};
use crate::store::database::Transaction;
use rusqlite::params;

/// Schedules a build that ended badly once more, and with it what failed only because it did.
pub(crate) fn restart(tx: &Transaction, id: BuildId) -> rusqlite::Result<Restart> {
    // A build of no evaluation any more is there for those that need it, and for no other reason.
    let found: Option<(BuildStatus, bool)> = tx
        .prepare_cached(
            "SELECT status, EXISTS (SELECT 1 FROM definition AS d WHERE d.build_id = build.id)
               AND EXISTS (SELECT 1 FROM job AS j WHERE j.build_id = build.id)
             FROM build WHERE id = ?1",
        )?
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .next()
        .transpose()?;
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
    // Each round schedules a build that had ended, so this comes to an end.
    while let Some((id, status)) = open.pop() {
        let Some(row) = schedule(tx, id, status)? else { continue };
        all.push(row);
        let dependants: Vec<BuildId> = tx
            .prepare_cached(
                "SELECT b.id FROM dependency AS d CROSS JOIN build AS b ON b.id = d.build_id
                 WHERE d.needs_id = ?1 AND b.status = 2
                 AND EXISTS (SELECT 1 FROM job AS j WHERE j.build_id = b.id)",
            )?
            .query_map([id], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for dependant in dependants {
            if broken_need(tx, dependant)?.is_none() {
                open.push((dependant, BuildStatus::FailedDependency));
            }
        }
    }
    Ok(Restart::Done(all))
}

/// Schedules the builds again whose output `path` is gone; what needs them waits for them again. A build
/// that nothing says how to make any more stays as it is.
pub(crate) fn rebuild(tx: &Transaction, path: &str) -> rusqlite::Result<Vec<Changed>> {
    let lost: Vec<BuildId> = tx
        .prepare_cached(
            "SELECT o.build_id FROM output AS o CROSS JOIN build AS b ON b.id = o.build_id
             WHERE o.path = ?1 AND substr(o.path, 1, 8) = 'outputs/' AND b.status = 0
             AND EXISTS (SELECT 1 FROM definition AS d WHERE d.build_id = b.id)",
        )?
        .query_map([path], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut all = Vec::new();
    for id in lost {
        let Some(row) = schedule(tx, id, BuildStatus::Succeeded)? else { continue };
        tx.prepare_cached("DELETE FROM output WHERE build_id = ?1")?.execute([id])?;
        tx.prepare_cached("DELETE FROM product WHERE build_id = ?1")?.execute([id])?;
        tx.prepare_cached(
            "UPDATE build SET waiting = waiting + 1
             WHERE status = -2 AND id IN (SELECT build_id FROM dependency WHERE needs_id = ?1)",
        )?
        .execute([id])?;
        all.push(row);
    }
    Ok(all)
}

/// Something that the build needs and that ended badly.
fn broken_need(tx: &Transaction, id: BuildId) -> rusqlite::Result<Option<BuildId>> {
    tx.prepare_cached(
        "SELECT n.id FROM dependency AS d CROSS JOIN build AS n ON n.id = d.needs_id
         WHERE d.build_id = ?1 AND n.status > 0 LIMIT 1",
    )?
    .query_map([id], |row| row.get(0))?
    .next()
    .transpose()
}

fn schedule(
    tx: &Transaction,
    id: BuildId,
    status: BuildStatus,
) -> rusqlite::Result<Option<Changed>> {
    let row = tx
        .prepare_cached(
            "UPDATE build SET status = -2, weather = -1, losses = 0, message = '', started_at = 0,
             stopped_at = 0, log_path = '', log_bytes = 0, log_digest = '',
             waiting = (SELECT count(*) FROM dependency AS d CROSS JOIN build AS n ON n.id = d.needs_id
                        WHERE d.build_id = ?1 AND n.status <> 0)
             WHERE id = ?1 AND status = ?2 RETURNING job, evaluation_id, specification_id",
        )?
        .query_map(params![id, status], |row| changed(id, BuildStatus::Scheduled, row))?
        .next()
        .transpose()?;
    if row.is_some() {
        count(tx, id, status, BuildStatus::Scheduled)?;
    }
    Ok(row)
}
