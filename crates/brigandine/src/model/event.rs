//! What the server tells those who watch.

use super::{BuildId, BuildStatus, EvaluationId, EvaluationStatus, SpecificationId};
use tokio::sync::broadcast;

/// Something changed, and the change is committed. Sent over a bounded broadcast: a receiver that
/// lags loses the oldest events and reads the state again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What the server waits for began or ended.
    Notice,
    /// A specification was added, changed or removed.
    Specification {
        /// Which.
        id: SpecificationId,
    },
    /// A look at a specification's inputs ended.
    Looked {
        /// Whose.
        specification: SpecificationId,
        /// Whether it went wrong.
        failed: bool,
    },
    /// An evaluation began or ended.
    Evaluation {
        /// Which.
        id: EvaluationId,
        /// Whose.
        specification: SpecificationId,
        /// Its status now.
        status: EvaluationStatus,
    },
    /// A build has a new status.
    Build {
        /// Which.
        id: BuildId,
        /// The job's name.
        job: String,
        /// The evaluation that asked first.
        evaluation: EvaluationId,
        /// The specification that asked first.
        specification: SpecificationId,
        /// Its status now.
        status: BuildStatus,
    },
}

/// A build that has a new status, for the event channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The build.
    pub id: BuildId,
    /// The job's name.
    pub job: String,
    /// The evaluation that asked first.
    pub evaluation: EvaluationId,
    /// The specification that asked first.
    pub specification: SpecificationId,
    /// The new status.
    pub status: BuildStatus,
}

/// Tells watchers of builds that have a new status. Call it after the commit.
pub fn publish(events: &broadcast::Sender<Event>, changed: &[Changed]) {
    for build in changed {
        // Nobody may be watching.
        let _ = events.send(Event::Build {
            id: build.id,
            job: build.job.clone(),
            evaluation: build.evaluation,
            specification: build.specification,
            status: build.status,
        });
    }
}
