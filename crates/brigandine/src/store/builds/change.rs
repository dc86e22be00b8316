//! What every change of a build's status has in common.

use crate::model::{BuildId, BuildStatus, Changed, EvaluationId, Timestamp};
use crate::store::database::Transaction;
use rusqlite::{Row, params};

/// Why a build was canceled.
pub(super) const CANCELED: &str = "canceled on request";

pub(super) fn changed(
    id: BuildId,
    status: BuildStatus,
    row: &Row<'_>,
) -> rusqlite::Result<Changed> {
    Ok(Changed {
        id,
        job: row.get(0)?,
        evaluation: row.get(1)?,
        specification: row.get(2)?,
        status,
    })
}

/// Moves a build's jobs from one counter to another in every evaluation that has it.
pub(super) fn count(
    tx: &Transaction,
    id: BuildId,
    from: BuildStatus,
    to: BuildStatus,
) -> rusqlite::Result<()> {
    let mut of_build = tx.prepare_cached(
        "SELECT evaluation_id FROM job WHERE build_id = ?1 ORDER BY evaluation_id",
    )?;
    let mut evaluations = of_build.query([id])?;
    // By number rather than by name: one text for all pairs of statuses.
    let mut update = tx.prepare_cached(
        "UPDATE evaluation SET scheduled = scheduled + ?2, started = started + ?3,
         succeeded = succeeded + ?4, failed = failed + ?5,
         failed_dependency = failed_dependency + ?6, failed_other = failed_other + ?7,
         canceled = canceled + ?8 WHERE id = ?1",
    )?;
    let mut step = |evaluation: EvaluationId, jobs: i64| {
        let by = |code: i64| jobs * (i64::from(to.code() == code) - i64::from(from.code() == code));
        update.execute(params![evaluation, by(-2), by(-1), by(0), by(1), by(2), by(3), by(4)])
    };
    // Usually one; in several jobs of it where an import brought them.
    let mut current: Option<(EvaluationId, i64)> = None;
    while let Some(row) = evaluations.next()? {
        let evaluation = row.get(0)?;
        match &mut current {
            Some((counted, jobs)) if *counted == evaluation => *jobs += 1,
            _ => {
                if let Some((counted, jobs)) = current.replace((evaluation, 1)) {
                    step(counted, jobs)?;
                }
            }
        }
    }
    if let Some((counted, jobs)) = current {
        step(counted, jobs)?;
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
    tx.prepare_cached(
        "UPDATE attempt SET status = ?3, message = ?4, stopped_at = max(?5, started_at)
         WHERE build_id = ?1 AND number = ?2",
    )?
    .execute(params![id, attempt, status, message, now])?;
    Ok(())
}
