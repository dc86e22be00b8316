//! Recovery after a server was killed.

use super::abandon::{Abandoned, abandon};
use super::change::{changed, count};
use super::finish::{fail_dependants, lose};
use crate::model::{BuildId, BuildLogFile, BuildStatus, Changed, Timestamp};
use crate::store::database::Transaction;
use crate::store::query::{Query, is_refusal};
use rusqlite::params;

/// The message of builds and evaluations that ran when their server was killed.
pub(crate) const KILLED: &str = "the server was killed";

/// What was left behind by a killed server and has been repaired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Started builds that are rescheduled or canceled now, each with its attempt that has no result.
    pub(crate) builds: Vec<(BuildId, i64)>,
    /// The builds that have another status now, for the figures.
    pub(crate) changed: Vec<Changed>,
    /// The number of started evaluations that are aborted now. The next look repeats them.
    pub(crate) evaluations: usize,
    /// The number of pending builds that are canceled, because they have no derivation any more.
    pub(crate) gone: usize,
    /// The builds that cannot be rescheduled or canceled, and what the database says about each. They have failed now,
    /// or, if the database refuses that too, have the same status as before.
    pub(crate) refused: Vec<(BuildId, String)>,
}

/// Reschedules started builds, or cancels those for which a cancel was requested. Aborts started evaluations. Cancels
/// pending builds whose derivation is gone (there is no row in `definition`).
pub(crate) fn recover(tx: &Transaction, now: Timestamp) -> rusqlite::Result<Recovered> {
    // `status < 0` is the condition of the index `build_queue`, so SQLite can use that index.
    let sql = "SELECT id, attempt, losses FROM build WHERE status < 0 AND status = -1";
    let started: Vec<(BuildId, i64, i64)> = tx.all(sql, [], |row| row.try_into())?;
    let (mut builds, mut all, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for (id, attempt, losses) in started {
        // The count of losses is not raised, because the server vanished and not the build's worker.
        let log = BuildLogFile::default();
        let lost = tx.savepoint(|tx| {
            lose(tx, id, attempt, KILLED, losses, BuildStatus::Scheduled, &log, now)
        });
        match lost {
            Ok(changed) => {
                builds.push((id, attempt));
                all.extend(changed);
            }
            Err(error) => refused.push((id, give_up(tx, id, Some(attempt), error, now, &mut all)?)),
        }
    }
    let sql = "UPDATE evaluation SET status = 2, message = ?2,
         finished_at = max(?1, created_at, checkout_at) WHERE status = -1";
    let evaluations = tx.execute(sql, params![now, KILLED])?;
    let sql = "SELECT b.id FROM build AS b WHERE b.status < 0 AND b.backend = 0
         AND NOT EXISTS (SELECT 1 FROM definition AS d WHERE d.build_id = b.id)";
    let gone: Vec<BuildId> = tx.values(sql, [])?;
    let mut canceled = 0;
    for id in gone {
        match tx.savepoint(|tx| cancel_gone(tx, id, now)) {
            Ok(changed) => {
                canceled += usize::from(!changed.is_empty());
                all.extend(changed);
            }
            Err(error) => refused.push((id, give_up(tx, id, None, error, now, &mut all)?)),
        }
    }
    Ok(Recovered { builds, changed: all, evaluations, gone: canceled, refused })
}

/// Cancels a scheduled build, with the builds that need it. An empty result: it is not scheduled, because the database
/// refused to reschedule it.
fn cancel_gone(tx: &Transaction, id: BuildId, now: Timestamp) -> rusqlite::Result<Vec<Changed>> {
    let sql = "UPDATE build SET status = 4, message = 'its derivation is gone', stopped_at = ?2
         WHERE id = ?1 AND status = -2 RETURNING job, evaluation_id, specification_id";
    let canceled =
        tx.first(sql, params![id, now], |row| changed(id, BuildStatus::Canceled, row))?;
    let Some(canceled) = canceled else { return Ok(Vec::new()) };
    count(tx, id, BuildStatus::Scheduled, BuildStatus::Canceled)?;
    let mut all = Vec::new();
    fail_dependants(tx, canceled, &mut all, now)?;
    Ok(all)
}

/// Ends a build whose change was refused with `error`, so that it does not keep the server from starting. Returns what
/// the database said, and adds the builds that have ended to `all`.
///
/// # Errors
/// `error` concerns the whole database, or such an error occurs now.
fn give_up(
    tx: &Transaction,
    id: BuildId,
    attempt: Option<i64>,
    error: rusqlite::Error,
    now: Timestamp,
    all: &mut Vec<Changed>,
) -> rusqlite::Result<String> {
    if !is_refusal(&error) {
        return Err(error);
    }
    let why = error.to_string();
    let message = format!("{KILLED}, and the database refuses the change: {why}");
    let log = BuildLogFile::default();
    let abandoned = Abandoned { id, attempt, message, log, now };
    match tx.savepoint(|tx| abandon(tx, &abandoned)) {
        Err(error) if !is_refusal(&error) => return Err(error),
        abandoned => all.extend(abandoned.unwrap_or_default()),
    }
    Ok(why)
}
