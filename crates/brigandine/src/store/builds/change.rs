//! What every change of a build's status has to do.

use crate::model::{BuildId, BuildStatus, Changed, EvaluationId, Timestamp};
use crate::store::database::Transaction;
use crate::store::query::{Query, integer};
use rusqlite::{Row, params};

/// The message of a build that was canceled.
pub(crate) const CANCELED: &str = "canceled on request";

/// The change of a build, from a row of `job, evaluation_id, specification_id`.
pub(super) fn changed(
    id: BuildId,
    status: BuildStatus,
    row: &Row<'_>,
) -> rusqlite::Result<Changed> {
    let (job, evaluation, specification) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(Changed { id, job, evaluation, specification, status })
}

/// Moves the jobs of a build from one counter to another, in each evaluation that has the build.
pub(super) fn count(
    tx: &Transaction,
    id: BuildId,
    from: BuildStatus,
    to: BuildStatus,
) -> rusqlite::Result<()> {
    let sql = "SELECT evaluation_id FROM job WHERE build_id = ?1 ORDER BY evaluation_id";
    let evaluations: Vec<EvaluationId> = tx.values(sql, [id])?;
    // One statement sets all seven counters, so that all pairs of statuses share one prepared text.
    let mut update = tx.prepare_cached(
        "UPDATE evaluation SET scheduled = scheduled + ?2, started = started + ?3,
         succeeded = succeeded + ?4, failed = failed + ?5,
         failed_dependency = failed_dependency + ?6, failed_other = failed_other + ?7,
         canceled = canceled + ?8 WHERE id = ?1",
    )?;
    // Only an imported evaluation has several jobs of one build.
    for jobs in evaluations.chunk_by(|one, other| one == other) {
        let count = integer(jobs.len());
        let by =
            |code: i64| count * (i64::from(to.code() == code) - i64::from(from.code() == code));
        update.execute(params![jobs[0], by(-2), by(-1), by(0), by(1), by(2), by(3), by(4)])?;
    }
    Ok(())
}

pub(super) fn end_attempt(
    tx: &Transaction,
    id: BuildId,
    attempt: i64,
    status: BuildStatus,
    message: &str,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "UPDATE attempt SET status = ?3, message = ?4, stopped_at = max(?5, started_at)
         WHERE build_id = ?1 AND number = ?2";
    tx.execute(sql, params![id, attempt, status, message, now])?;
    Ok(())
}
