//! What handlers of requests may ask the running server to do, and the outcomes of canceling and restarting a build.

use super::{Asked, BuildId, BuildStatus, Change, Changed, Outcome, Target};
use std::pin::Pin;

/// A running action. It fails only if the database fails.
pub type Action<'a, T> = Pin<Box<dyn Future<Output = Result<T, lockkeeper::Error>> + Send + 'a>>;

/// Makes changes for the API.
pub trait Actions: Send + Sync {
    /// Makes a change of each target, at most [`TARGETS_MAX`](super::TARGETS_MAX), in one transaction, with its rows of
    /// the audit. The result says of each target what became of it.
    fn change(
        &self,
        change: Change,
        targets: Vec<Target>,
        asked: Asked,
    ) -> Action<'_, Vec<(Target, Outcome)>>;
}

/// The outcome of a request to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancel {
    /// The build was waiting and is canceled now. The list has all builds that changed.
    Done(Vec<Changed>),
    /// The build is running: the caller must stop this attempt.
    Running(i64),
    /// The build has finished or does not exist.
    TooLate,
}

/// The outcome of a request to restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restart {
    /// The build is scheduled, and so are the builds that had failed because of it.
    Done(Vec<Changed>),
    /// The build is waiting or running already, or has succeeded. Nothing was changed.
    Not(BuildStatus),
    /// The build needs this build, which ended without success and must be restarted first. Nothing was changed.
    Needs(BuildId),
    /// The build has no derivation any more. Nothing was changed.
    Undefined,
    /// There is no such build.
    Missing,
}
