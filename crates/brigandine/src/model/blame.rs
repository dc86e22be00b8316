//! Since when a job fails.

use super::{BuildId, EvaluationId};

/// Since when a job of a specification fails, as seen from one evaluation in which it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// The latest evaluation before in which the job succeeded, and its build; `None`: it did not, as far as was looked.
    pub success: Option<(EvaluationId, BuildId)>,
    /// The first evaluation after that in which the job failed, and its build.
    pub failure: (EvaluationId, BuildId),
    /// The latest of the evaluations after the success, up to the failure, the latest first: one of their revisions broke
    /// the job. Empty if there is no success.
    pub suspects: Vec<EvaluationId>,
    /// How many suspects are not in the list.
    pub others: i64,
}

/// What stands around a build in the history of its job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The job's build in the last evaluation before that has another one; `None`: there is none.
    pub previous: Option<BuildId>,
    /// The job's build in the first evaluation after that has another one; `None`: there is none.
    pub next: Option<BuildId>,
    /// The latest evaluations that have the build, the latest first.
    pub evaluations: Vec<EvaluationId>,
    /// How many further evaluations have it.
    pub others: i64,
    /// Since when the job fails; `None`: the build did not fail.
    pub blame: Option<Blame>,
}
