//! Builds that run, and their ends as they are stored.

use super::state::State;
use crate::model::{self, BuildId, BuildLogFile, Changed};
use crate::outputs::Hold;
use crate::store::{self, Finish};
use std::time::Instant;

/// The end of one attempt, as it is stored.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// Its outputs are held until this is dropped, after the commit of its row.
    Finished(Finish, #[expect(dead_code, reason = "kept for what its drop does")] Option<Hold>),
    /// It is scheduled again, or has failed after too many losses, as `next` says.
    Lost {
        id: BuildId,
        attempt: i64,
        message: String,
        next: State,
        log: BuildLogFile,
        /// Whether the log stays: not if the next attempt will write the same again.
        keep_log: bool,
        /// Digests of missing outputs that are built again first.
        gone: Vec<String>,
    },
}

impl End {
    pub(super) fn key(&self) -> (BuildId, i64) {
        match self {
            Self::Finished(finish, _) => (finish.id, finish.attempt),
            Self::Lost { id, attempt, .. } => (*id, *attempt),
        }
    }

    pub(super) fn write(
        &self,
        tx: &store::Transaction,
        now: i64,
    ) -> rusqlite::Result<Vec<Changed>> {
        match self {
            Self::Finished(finish, _) => store::finish(tx, finish),
            Self::Lost { id, attempt, message, next, log, gone, .. } => {
                let (losses, status) = (next.losses, next.status);
                let mut all = store::lose(tx, *id, *attempt, message, losses, status, log, now)?;
                // After the build is scheduled again: this makes it wait.
                for digest in gone {
                    all.extend(store::rebuild(tx, &model::output_path(digest))?);
                }
                Ok(all)
            }
        }
    }
}

/// A build from its claim to the write that stores its end.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) state: State,
    /// When it was claimed, by the clock, which may go back, and by the monotonic one.
    pub(super) started: (i64, Instant),
    /// Whether it was told to end because the server stops.
    pub(super) cut: bool,
    /// The names of its specification and job, for the trace.
    pub(super) specification: String,
    pub(super) job: String,
}

impl Running {
    /// The time now, but not before its start plus the time that has passed since.
    pub(super) fn end(&self) -> i64 {
        let (at, since) = self.started;
        let took = i64::try_from(since.elapsed().as_secs()).unwrap_or(0);
        model::now().max(at.saturating_add(took))
    }
}
