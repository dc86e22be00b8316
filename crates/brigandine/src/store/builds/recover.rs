//! What a killed server left started.

use super::change::{changed, count};
use super::finish::{fail_dependants, lose};
use crate::model::{BuildId, BuildLogFile, BuildStatus, Timestamp};
use crate::store::database::Transaction;
use rusqlite::params;

/// What a killed server left behind, put right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Started builds that are scheduled again, with the attempt that came to nothing.
    pub(crate) builds: Vec<(BuildId, i64)>,
    /// Started evaluations that are aborted now; the next look runs them again.
    pub(crate) evaluations: usize,
    /// Pending builds that are canceled, since they have no derivation any more.
    pub(crate) gone: usize,
}

/// Started builds become scheduled, or canceled if that was asked for, started evaluations aborted,
/// builds without a definition canceled.
pub(crate) fn recover(tx: &Transaction, now: Timestamp) -> rusqlite::Result<Recovered> {
    let started: Vec<(BuildId, i64, i64)> = tx
        .prepare_cached("SELECT id, attempt, losses FROM build WHERE status < 0 AND status = -1")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (id, attempt, losses) in &started {
        // Not counted: the server vanished, not the build's worker.
        let message = "the server was stopped";
        let log = BuildLogFile::default();
        lose(tx, *id, *attempt, message, *losses, BuildStatus::Scheduled, &log, now)?;
    }
    let evaluations = tx
        .prepare_cached(
            "UPDATE evaluation SET status = 2, message = 'the server was stopped',
             finished_at = max(?1, created_at, checkout_at) WHERE status = -1",
        )?
        .execute([now])?;
    let gone: Vec<BuildId> = tx
        .prepare_cached(
            "SELECT b.id FROM build AS b WHERE b.status < 0 AND b.backend = 0
             AND NOT EXISTS (SELECT 1 FROM definition AS d WHERE d.build_id = b.id)",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in &gone {
        let row = tx
            .prepare_cached(
                "UPDATE build SET status = 4, message = 'its derivation is gone', stopped_at = ?2
                 WHERE id = ?1 AND status = -2 RETURNING job, evaluation_id, specification_id",
            )?
            .query_map(params![id, now], |row| changed(*id, BuildStatus::Canceled, row))?
            .next()
            .transpose()?;
        if let Some(row) = row {
            count(tx, *id, BuildStatus::Scheduled, BuildStatus::Canceled)?;
            fail_dependants(tx, row, &mut Vec::new(), now)?;
        }
    }
    let builds = started.into_iter().map(|(id, attempt, _)| (id, attempt)).collect();
    Ok(Recovered { builds, evaluations, gone: gone.len() })
}
