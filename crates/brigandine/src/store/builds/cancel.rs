//! Canceling a build.

use super::change::{CANCELED, changed, count};
use super::finish::fail_dependants;
use super::twins::split;
use crate::model::{BuildId, BuildStatus, Cancel, Timestamp};
use crate::store::database::Transaction;
use crate::store::query::Query;
use rusqlite::params;

/// Cancels a build. A scheduled build ends immediately. For a started build, the attempt's row gets the status canceled
/// and no time of the end yet: if the attempt then ends without a result, or its server is killed, [`lose`] cancels the
/// build.
///
/// [`lose`]: super::finish::lose
pub(crate) fn cancel(tx: &Transaction, id: BuildId, now: Timestamp) -> rusqlite::Result<Cancel> {
    let sql = "UPDATE build SET status = 4, message = ?3, stopped_at = ?2
         WHERE id = ?1 AND status = -2 RETURNING job, evaluation_id, specification_id";
    let canceled =
        tx.first(sql, params![id, now, CANCELED], |row| changed(id, BuildStatus::Canceled, row))?;
    if let Some(canceled) = canceled {
        let mut all = split(tx, id, canceled.specification, BuildStatus::Scheduled)?;
        count(tx, id, BuildStatus::Scheduled, BuildStatus::Canceled)?;
        fail_dependants(tx, canceled, &mut all, now)?;
        return Ok(Cancel::Done(all));
    }
    let sql = "SELECT attempt FROM build WHERE id = ?1 AND status = -1";
    let Some(attempt) = tx.value::<i64>(sql, [id])? else { return Ok(Cancel::TooLate) };
    let sql = "UPDATE attempt SET status = 4 WHERE build_id = ?1 AND number = ?2 AND status = -1";
    tx.execute(sql, params![id, attempt])?;
    Ok(Cancel::Running(attempt))
}
