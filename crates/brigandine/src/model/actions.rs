//! Changes that a request may ask for, and their outcomes.

use super::{BuildId, BuildStatus, Changed};
use std::pin::Pin;

/// A running action. It fails only if the database fails.
pub type Action<'a, T> = Pin<Box<dyn Future<Output = Result<T, lockkeeper::Error>> + Send + 'a>>;

/// Makes changes for the API.
pub trait Actions: Send + Sync {
    /// Cancels a waiting build and all builds that need it, or tells a running build to end.
    fn cancel(&self, id: BuildId) -> Action<'_, Cancel>;

    /// Reschedules a build that ended without success, together with the builds that failed because of it.
    fn restart(&self, id: BuildId) -> Action<'_, Restart>;

    /// Requests a look at a specification's inputs now. `false`: no specification of this name has a monitor.
    fn look(&self, specification: &str) -> bool;
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

/// The message for [`Restart::Not`].
pub fn restart_refused(id: BuildId, status: BuildStatus) -> String {
    if status.is_success() {
        format!("build {id} succeeded; what succeeded is not built again")
    } else {
        format!("build {id} is {status} already")
    }
}
