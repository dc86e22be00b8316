//! The events that the server publishes.

use super::{BuildId, BuildStatus, EvaluationId, EvaluationStatus, SpecificationId};
use tokio::sync::broadcast;

/// A committed change. Events are sent over a bounded broadcast channel: a receiver that lags loses the oldest events,
/// and must read the state again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server's notices changed: what it waits for, or how the specification files differ from the stored
    /// specifications.
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
        /// The evaluation's specification.
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
        /// The first evaluation that needed the build.
        evaluation: EvaluationId,
        /// The first specification that needed the build.
        specification: SpecificationId,
        /// The new status.
        status: BuildStatus,
    },
}

/// A build that has a new status. After the commit it is published as [`Event::Build`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The build.
    pub id: BuildId,
    /// The job's name.
    pub job: String,
    /// The first evaluation that needed the build.
    pub evaluation: EvaluationId,
    /// The first specification that needed the build.
    pub specification: SpecificationId,
    /// The new status.
    pub status: BuildStatus,
}

/// Publishes builds that have a new status. Must be called after the commit.
pub fn publish(events: &broadcast::Sender<Event>, changed: &[Changed]) {
    for build in changed {
        // Sending fails only if there are no receivers.
        let _ = events.send(Event::Build {
            id: build.id,
            job: build.job.clone(),
            evaluation: build.evaluation,
            specification: build.specification,
            status: build.status,
        });
    }
}
