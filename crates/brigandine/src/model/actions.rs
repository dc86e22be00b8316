//! What may be asked of the server beyond reading, and what comes of it.

use super::{BuildId, BuildStatus, Changed};
use std::pin::Pin;

/// An action under way. It fails only if the database does.
pub type Action<'a, T> = Pin<Box<dyn Future<Output = Result<T, lockkeeper::Error>> + Send + 'a>>;

/// Who does what is asked for.
pub trait Actions: Send + Sync {
    /// Cancels a build that waits, with all that needs it, or asks for the end of one that runs.
    fn cancel(&self, id: BuildId) -> Action<'_, Cancel>;

    /// Builds once more what ended badly, and what failed for want of it.
    fn restart(&self, id: BuildId) -> Action<'_, Restart>;

    /// Looks at a specification's inputs now rather than when it is time. `false`: none of this name is watched.
    fn look(&self, specification: &str) -> bool;
}

/// What a request to cancel came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancel {
    /// It waited: it is canceled now, and these changed.
    Done(Vec<Changed>),
    /// It runs: this attempt is to be stopped, and its end will be the build's.
    Running(i64),
    /// It is finished or not there.
    TooLate,
}

/// What a request to build once more came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restart {
    /// It is scheduled, and so is everything that had failed for want of it.
    Done(Vec<Changed>),
    /// It waits or runs already, or it succeeded: nothing was changed.
    Not(BuildStatus),
    /// What it needs has failed: this build of it is to be restarted first. Nothing was changed.
    Needs(BuildId),
    /// It has no derivation any more. Nothing was changed.
    Undefined,
    /// There is no such build.
    Missing,
}

/// Why a build in this state is not restarted.
pub fn restart_refused(id: BuildId, status: BuildStatus) -> String {
    if status.is_success() {
        format!("build {id} succeeded; what succeeded is not built again")
    } else {
        format!("build {id} is {status} already")
    }
}
