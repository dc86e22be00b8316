//! The history of a job, and how the jobs of a specification did from one evaluation to the next.

use super::{Build, BuildId, EvaluationId};
use std::collections::BTreeSet;

/// The build of a job in an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPast {
    /// The build.
    pub build: Build,
    /// The evaluation, which may not be the first that needed the build.
    pub evaluation: EvaluationId,
    /// Whether the build was known before this evaluation.
    pub reused: bool,
}

/// How reliable a job is, over the latest evaluations of its specification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobRates {
    /// How many evaluations were looked at.
    pub evaluations: i64,
    /// How many builds succeeded.
    pub succeeded: i64,
    /// How many builds failed. Canceled ones did not.
    pub failed: i64,
    /// How many derivations were tried to an end: an attempt succeeded, failed, or reached a limit.
    pub derivations: i64,
    /// The derivations that both succeeded and did not.
    pub flaky: BTreeSet<String>,
    /// The latest evaluation in which the job succeeded, and its build; `None`: none of those that were looked at.
    pub success: Option<(EvaluationId, BuildId)>,
}
