//! How builds end whose ordinary start or end the database refuses, for example because a counter of their evaluation
//! would become negative. Without this such a build would be tried for ever.

use super::change::{changed, count, end_attempt};
use super::finish::{Finish, dependants, fail_dependant, finish, needs};
use crate::model::{BuildId, BuildLogFile, BuildStatus, Changed, Timestamp};
use crate::store::database::Transaction;
use crate::store::query::{Query, is_refusal};
use rusqlite::params;

/// A build that cannot be started or ended in the ordinary way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Abandoned {
    /// The build.
    pub(crate) id: BuildId,
    /// The attempt that ended; `None`: the build could not be started.
    pub(crate) attempt: Option<i64>,
    /// Why, for people.
    pub(crate) message: String,
    /// The log of the attempt.
    pub(crate) log: BuildLogFile,
    /// The time.
    pub(crate) now: Timestamp,
}

/// Ends a build as failed-other, without a result. If the database refuses that too, the build's row is changed alone,
/// and everything that depends on the row as far as the database accepts it: then counters may be wrong, and builds may
/// wait for this one until they are canceled.
///
/// An empty result: the row has another attempt or status now, and nothing was changed.
///
/// # Errors
/// The database refuses even the change of the row; or the error concerns the whole database.
pub(crate) fn abandon(tx: &Transaction, it: &Abandoned) -> rusqlite::Result<Vec<Changed>> {
    let Abandoned { id, attempt, ref message, ref log, now } = *it;
    if let Some(attempt) = attempt {
        let (outputs, products) = (Vec::new(), Vec::new());
        let (status, message, log) = (BuildStatus::FailedOther, message.clone(), log.clone());
        let end = Finish { id, attempt, status, message, stopped_at: now, log, outputs, products };
        match tx.savepoint(|tx| finish(tx, &end)) {
            Err(error) if is_refusal(&error) => {}
            done => return done,
        }
    }
    let was = if attempt.is_some() { BuildStatus::Started } else { BuildStatus::Scheduled };
    // Positive, because a finished build has a date, even where the clock is wrong.
    let now = now.max(1);
    let sql = "UPDATE build SET status = 3, message = ?4, stopped_at = max(?5, started_at),
         log_path = ?6, log_bytes = ?7, log_digest = ?8
         WHERE id = ?1 AND status = ?2 AND attempt = coalesce(?3, attempt)
         RETURNING job, evaluation_id, specification_id";
    let values = params![id, was, attempt, message, now, log.path, log.bytes, log.digest];
    let row = tx.first(sql, values, |row| changed(id, BuildStatus::FailedOther, row))?;
    let Some(row) = row else { return Ok(Vec::new()) };
    if let Some(attempt) = attempt {
        let status = BuildStatus::FailedOther;
        accepted(tx, |tx| end_attempt(tx, id, attempt, status, message, now))?;
    }
    accepted(tx, |tx| count(tx, id, was, BuildStatus::FailedOther))?;
    let why = needs(&row);
    let mut all = vec![row];
    for dependant in accepted(tx, |tx| dependants(tx, id))?.unwrap_or_default() {
        all.extend(accepted(tx, |tx| fail_dependant(tx, dependant, &why, now))?);
    }
    Ok(all)
}

/// Does a part of a change, or nothing of the part if the database refuses it (`None`).
///
/// # Errors
/// The error concerns the whole database.
pub(super) fn accepted<T>(
    tx: &Transaction,
    part: impl FnOnce(&Transaction) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    match tx.savepoint(part) {
        Ok(done) => Ok(Some(done)),
        Err(error) if is_refusal(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
