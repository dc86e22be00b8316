//! Canceling a build: because somebody asks for it, or because no evaluation wants it any more.

use super::change::{CANCELED, changed, count};
use super::finish::fail_dependants;
use super::twins::split;
use crate::model::{BuildId, BuildStatus, Cancel, Changed, EvaluationId, Timestamp};
use crate::store::database::Transaction;
use crate::store::query::Query;
use crate::store::wishes::is_wanted;
use rusqlite::params;

/// Cancels a build; `why` becomes its message. A scheduled build ends immediately. For a started build, the attempt's row
/// gets the status canceled, the message, and no time of the end yet: if the attempt then ends without a result, or its
/// server is killed, [`lose`] cancels the build.
///
/// [`lose`]: super::finish::lose
pub(crate) fn cancel(
    tx: &Transaction,
    id: BuildId,
    why: &str,
    now: Timestamp,
) -> rusqlite::Result<Cancel> {
    let sql = "UPDATE build SET status = 4, message = ?3, stopped_at = ?2
         WHERE id = ?1 AND status = -2 RETURNING job, evaluation_id, specification_id";
    let canceled =
        tx.first(sql, params![id, now, why], |row| changed(id, BuildStatus::Canceled, row))?;
    if let Some(canceled) = canceled {
        let mut all = split(tx, id, canceled.specification, BuildStatus::Scheduled)?;
        count(tx, id, BuildStatus::Scheduled, BuildStatus::Canceled)?;
        fail_dependants(tx, canceled, &mut all, now)?;
        return Ok(Cancel::Done(all));
    }
    let sql = "SELECT attempt FROM build WHERE id = ?1 AND status = -1";
    let Some(attempt) = tx.value::<i64>(sql, [id])? else { return Ok(Cancel::TooLate) };
    // Who cancels the build itself has the last word over who cancels its evaluation.
    let sql = "UPDATE attempt SET status = 4, message = ?3
         WHERE build_id = ?1 AND number = ?2 AND (status = -1 OR status = 4 AND ?3 = ?4)";
    tx.execute(sql, params![id, attempt, why, CANCELED])?;
    Ok(Cancel::Running(attempt))
}

/// What [`cancel_unwanted`] did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unwanted {
    /// The build is canceled. The list has all builds that changed.
    Canceled(Vec<Changed>),
    /// The build runs: this attempt is asked to end.
    Ending(i64),
    /// Another evaluation wants the build.
    Wanted,
    /// A pending build needs it. That one may be canceled later.
    Needed,
    /// The build has ended.
    Ended,
}

/// Cancels a pending build for the sake of an evaluation, unless another one wants it (WISH1).
pub(crate) fn cancel_unwanted(
    tx: &Transaction,
    id: BuildId,
    evaluation: EvaluationId,
    why: &str,
    now: Timestamp,
) -> rusqlite::Result<Unwanted> {
    if is_wanted(tx, id, Some(evaluation))? {
        return Ok(Unwanted::Wanted);
    }
    let needed = "SELECT EXISTS (SELECT 1 FROM dependency AS d CROSS JOIN build AS b
           ON b.id = d.build_id WHERE d.needs_id = ?1 AND b.status < 0)";
    if tx.query_row(needed, [id], |row| row.get(0))? {
        return Ok(Unwanted::Needed);
    }
    Ok(match cancel(tx, id, why, now)? {
        Cancel::Done(changed) => Unwanted::Canceled(changed),
        Cancel::Running(attempt) => Unwanted::Ending(attempt),
        Cancel::TooLate => Unwanted::Ended,
    })
}
