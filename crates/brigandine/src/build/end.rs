//! Running builds, and the ends of attempts in the form in which they are stored.

use super::state::State;
use crate::model::{self, BuildId, BuildLogFile, Changed};
use crate::outputs::Hold;
use crate::store::{self, Abandoned, Finish};
use std::time::Instant;

/// The end of one attempt, in the form in which it is stored.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// The build is finished. Its outputs are held until this value is dropped, which happens after the commit of its
    /// row.
    Finished(Finish, #[expect(dead_code, reason = "kept for what its drop does")] Option<Hold>),
    /// The attempt was lost. `next` says whether the build is scheduled again, or has failed after too many losses.
    Lost {
        id: BuildId,
        attempt: i64,
        message: String,
        next: State,
        log: BuildLogFile,
        /// Digests of missing outputs that must be built again first.
        gone: Vec<String>,
    },
    /// The build cannot be started, or its end cannot be stored, because the database refuses it.
    Abandoned(Abandoned),
}

impl End {
    /// The build and its attempt; 0: there was no attempt.
    pub(super) fn key(&self) -> (BuildId, i64) {
        match self {
            Self::Finished(finish, _) => (finish.id, finish.attempt),
            Self::Lost { id, attempt, .. } => (*id, *attempt),
            Self::Abandoned(abandoned) => (abandoned.id, abandoned.attempt.unwrap_or(0)),
        }
    }

    /// The end that is stored instead of this one, which the database refuses: `why`. `None`: this is such an end.
    pub(super) fn instead(&self, why: &str, now: i64) -> Option<Self> {
        let log = match self {
            Self::Finished(finish, _) => finish.log.clone(),
            Self::Lost { log, .. } => log.clone(),
            Self::Abandoned(_) => return None,
        };
        let (id, attempt) = self.key();
        let message =
            format!("its end could not be stored, because the database refuses it: {why}");
        Some(Self::Abandoned(Abandoned { id, attempt: Some(attempt), message, log, now }))
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
                // This comes after the build is scheduled again, because it makes the build wait for these outputs.
                for digest in gone {
                    all.extend(store::rebuild(tx, &model::output_path(digest))?);
                }
                Ok(all)
            }
            Self::Abandoned(abandoned) => store::abandon(tx, abandoned),
        }
    }
}

/// A build from its claim to the write that stores its end.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) state: State,
    /// When it was claimed: in UTC seconds by the clock, which may go back, and by the monotonic clock.
    pub(super) started: (i64, Instant),
    /// `true`: it was told to end because the server stops.
    pub(super) cut: bool,
    /// The names of its specification and its job, for tracing.
    pub(super) specification: String,
    pub(super) job: String,
}

impl Running {
    /// The time now in UTC seconds, but not before the build's start plus the monotonic time that has passed since.
    pub(super) fn end(&self) -> i64 {
        let (at, since) = self.started;
        let took = i64::try_from(since.elapsed().as_secs()).unwrap_or(0);
        model::now().max(at.saturating_add(took))
    }
}
