//! What the server tells those who watch.

use super::{BuildId, BuildStatus, EvaluationId, EvaluationStatus, SpecificationId};

/// Something changed, and the change is committed. Sent over a bounded broadcast: a receiver that
/// lags loses the oldest events and reads the state again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
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
