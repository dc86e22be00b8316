//! Builds that somebody wants canceled.

use super::change::{CANCELED, changed, count};
use super::finish::fail_dependants;
use super::twins::split;
use crate::model::{BuildId, BuildStatus, Cancel, Timestamp};
use crate::store::database::Transaction;
use rusqlite::params;

/// Cancels a build that waits, or says which attempt of it runs. That attempt's row has the status
/// canceled from then on, with no time of its end: however the attempt ends without an end of its own, and
/// if its server is killed, the build is canceled ([`lose`]).
pub(crate) fn cancel(tx: &Transaction, id: BuildId, now: Timestamp) -> rusqlite::Result<Cancel> {
    let row = tx
        .prepare_cached(
            "UPDATE build SET status = 4, message = ?3, stopped_at = ?2
             WHERE id = ?1 AND status = -2 RETURNING job, evaluation_id, specification_id",
        )?
        .query_map(params![id, now, CANCELED], |row| changed(id, BuildStatus::Canceled, row))?
        .next()
        .transpose()?;
    if let Some(row) = row {
        let mut all = split(tx, id, row.specification, BuildStatus::Scheduled)?;
        count(tx, id, BuildStatus::Scheduled, BuildStatus::Canceled)?;
        fail_dependants(tx, row, &mut all, now)?;
        return Ok(Cancel::Done(all));
    }
    let attempt: Option<i64> = tx
        .prepare_cached("SELECT attempt FROM build WHERE id = ?1 AND status = -1")?
        .query_map([id], |row| row.get(0))?
        .next()
        .transpose()?;
    let Some(attempt) = attempt else { return Ok(Cancel::TooLate) };
    tx.prepare_cached(
        "UPDATE attempt SET status = 4 WHERE build_id = ?1 AND number = ?2 AND status = -1",
    )?
    .execute(params![id, attempt])?;
    Ok(Cancel::Running(attempt))
}
