//! Builds that run, and their ends in the form in which they are written.

use super::state::State;
use crate::model::{self, BuildId, BuildLogFile, Changed};
use crate::outputs::Hold;
use crate::store::{self, Finish};
use std::time::Instant;

/// The end of one start, in the form in which it is written.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// What holds its outputs goes with it, when its row is committed.
    Finished(Finish, #[expect(dead_code, reason = "kept for what its drop does")] Option<Hold>),
    /// Nobody runs it any more; `next` is scheduled, or failed-other after too many losses.
    /// Its log is kept unless the server's own end cut it.
    Lost {
        id: BuildId,
        attempt: i64,
        message: String,
        next: State,
        log: BuildLogFile,
        keep_log: bool,
    },
    /// As lost: outputs that it needs are gone, and are to be made again.
    Gone { id: BuildId, attempt: i64, message: String, next: State, outputs: Vec<String> },
}

impl End {
    pub(super) fn key(&self) -> (BuildId, i64) {
        match self {
            Self::Finished(finish, _) => (finish.id, finish.attempt),
            Self::Lost { id, attempt, .. } | Self::Gone { id, attempt, .. } => (*id, *attempt),
        }
    }

    pub(super) fn write(
        &self,
        tx: &store::Transaction,
        now: i64,
    ) -> rusqlite::Result<Vec<Changed>> {
        match self {
            Self::Finished(finish, _) => store::finish(tx, finish),
            Self::Lost { id, attempt, message, next, log, .. } => {
                store::lose(tx, *id, *attempt, message, next.losses, next.status, log, now)
            }
            Self::Gone { id, attempt, message, next, outputs } => {
                // First scheduled again, then made to wait.
                let log = BuildLogFile::default();
                let (losses, status) = (next.losses, next.status);
                let mut all = store::lose(tx, *id, *attempt, message, losses, status, &log, now)?;
                for digest in outputs {
                    all.extend(store::rebuild(tx, &model::output_path(digest))?);
                }
                Ok(all)
            }
        }
    }
}

/// A build between its claim and the write that stores its end.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) state: State,
    /// When it was claimed, by the clock and for measuring: the clock may go back.
    pub(super) started: (i64, Instant),
    /// Whether the server's own end cuts it.
    pub(super) cut: bool,
    /// For the trace: the names of its specification and job.
    pub(super) specification: String,
    pub(super) job: String,
}

impl Running {
    /// The time of its end, which is no earlier than that of its beginning and what passed since.
    pub(super) fn end(&self) -> i64 {
        let (at, since) = self.started;
        let took = i64::try_from(since.elapsed().as_secs()).unwrap_or(0);
        model::now().max(at.saturating_add(took))
    }
}
