//! Events of the server.

use super::{BuildId, BuildStatus, EvaluationId, EvaluationStatus, SpecificationId};
use tokio::sync::broadcast;

/// A committed change. Sent over a bounded broadcast: a receiver that lags loses the oldest events, and has to read the
/// state again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The notices of the server changed: what it waits for, or how the specification files differ from what is stored.
    Notice,
    /// A specification was added, changed or removed.
    Specification {
        /// The specification.
        id: SpecificationId,
    },
    /// A look at a specification's inputs ended.
    Looked {
        /// The specification.
        specification: SpecificationId,
        /// Whether the look failed.
        failed: bool,
    },
    /// An evaluation began or ended.
    Evaluation {
        /// The evaluation.
        id: EvaluationId,
        /// Its specification.
        specification: SpecificationId,
        /// Its new status.
        status: EvaluationStatus,
    },
    /// A build has a new status.
    Build {
        /// The build.
        id: BuildId,
        /// The job's name.
        job: String,
        /// The first evaluation that wanted it.
        evaluation: EvaluationId,
        /// The first specification that wanted it.
        specification: SpecificationId,
        /// The new status.
        status: BuildStatus,
    },
}

/// A build that has a new status: what becomes [`Event::Build`] after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The build.
    pub id: BuildId,
    /// The job's name.
    pub job: String,
    /// The first evaluation that wanted it.
    pub evaluation: EvaluationId,
    /// The first specification that wanted it.
    pub specification: SpecificationId,
    /// The new status.
    pub status: BuildStatus,
}

/// Publishes builds that have a new status. Call it after the commit.
pub fn publish(events: &broadcast::Sender<Event>, changed: &[Changed]) {
    for build in changed {
        // It fails only if there are no receivers.
        let _ = events.send(Event::Build {
            id: build.id,
            job: build.job.clone(),
            evaluation: build.evaluation,
            specification: build.specification,
            status: build.status,
        });
    }
}
