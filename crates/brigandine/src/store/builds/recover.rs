//! Recovery after a server was killed.

use super::change::{changed, count};
use super::finish::{fail_dependants, lose};
use crate::model::{BuildId, BuildLogFile, BuildStatus, Timestamp};
use crate::store::database::Transaction;
use crate::store::query::Query;
use rusqlite::params;

/// What was left behind by a killed server and has been repaired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Started builds that are rescheduled or canceled now, each with its attempt that has no result.
    pub(crate) builds: Vec<(BuildId, i64)>,
    /// The number of started evaluations that are aborted now. The next look repeats them.
    pub(crate) evaluations: usize,
    /// The number of pending builds that are canceled, because they have no derivation any more.
    pub(crate) gone: usize,
}

/// Reschedules started builds, or cancels those for which a cancel was requested. Aborts started evaluations. Cancels
/// pending builds without a definition.
pub(crate) fn recover(tx: &Transaction, now: Timestamp) -> rusqlite::Result<Recovered> {
    // `status < 0` is the condition of the index `build_queue`, so SQLite can use that index.
    let sql = "SELECT id, attempt, losses FROM build WHERE status < 0 AND status = -1";
    let started: Vec<(BuildId, i64, i64)> = tx.all(sql, [], |row| row.try_into())?;
    for (id, attempt, losses) in &started {
        // The count of losses is not raised, because the server vanished and not the build's worker.
        let message = "the server was stopped";
        let log = BuildLogFile::default();
        lose(tx, *id, *attempt, message, *losses, BuildStatus::Scheduled, &log, now)?;
    }
    let sql = "UPDATE evaluation SET status = 2, message = 'the server was stopped',
         finished_at = max(?1, created_at, checkout_at) WHERE status = -1";
    let evaluations = tx.execute(sql, [now])?;
    let sql = "SELECT b.id FROM build AS b WHERE b.status < 0 AND b.backend = 0
         AND NOT EXISTS (SELECT 1 FROM definition AS d WHERE d.build_id = b.id)";
    let gone: Vec<BuildId> = tx.values(sql, [])?;
    for id in &gone {
        let sql = "UPDATE build SET status = 4, message = 'its derivation is gone', stopped_at = ?2
             WHERE id = ?1 AND status = -2 RETURNING job, evaluation_id, specification_id";
        let canceled =
            tx.first(sql, params![id, now], |row| changed(*id, BuildStatus::Canceled, row))?;
        if let Some(canceled) = canceled {
            count(tx, *id, BuildStatus::Scheduled, BuildStatus::Canceled)?;
            fail_dependants(tx, canceled, &mut Vec::new(), now)?;
        }
    }
    let builds = started.into_iter().map(|(id, attempt, _)| (id, attempt)).collect();
    Ok(Recovered { builds, evaluations, gone: gone.len() })
}
