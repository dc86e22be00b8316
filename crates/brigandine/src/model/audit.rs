//! The audit: which changes were asked for, by whom, when and why.

use super::{BuildId, EvaluationId, Timestamp};

/// A change that was made, as the audit has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// The row number. A later change has a higher number.
    pub id: i64,
    /// When the change was asked for.
    pub at: Timestamp,
    /// The name of who asked.
    pub actor: String,
    /// The name of the change ([`Change::as_str`](super::Change::as_str)).
    pub change: String,
    /// The build that was changed; `None`: the change was not asked for a build.
    pub build: Option<BuildId>,
    /// The evaluation that was changed, or the first one that needed the build.
    pub evaluation: Option<EvaluationId>,
    /// The name of the specification that was changed, or to which the evaluation or build belongs.
    pub specification: Option<String>,
    /// What the change did, in words.
    pub result: String,
    /// Why, in the actor's words; may be empty.
    pub reason: String,
}

/// Which rows of the audit a list has. A field that is `None` allows all values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// The build.
    pub build: Option<BuildId>,
    /// The evaluation; changes of its builds are in the list too.
    pub evaluation: Option<EvaluationId>,
    /// The name of the specification; changes of its evaluations and builds are in the list too.
    pub specification: Option<String>,
    /// Only rows with lower numbers than this one.
    pub before: Option<i64>,
}
