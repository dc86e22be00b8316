//! Changes that people and programs ask for: what is asked, of what, by whom, and what becomes of it.

use super::text::lines;
use super::{Actor, BuildId, Changed, EvaluationId, Timestamp};

/// What may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// A waiting build is canceled with all builds that need it; a running build is asked to end.
    Cancel,
    /// A build that ended without success is scheduled once more, with the builds that failed because of it.
    Restart,
    /// A specification's inputs are looked at now.
    Evaluate,
}

impl Change {
    /// The name in the audit, in addresses and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Restart => "restart",
            Self::Evaluate => "evaluate",
        }
    }
}

/// What a change is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A build.
    Build(BuildId),
    /// An evaluation.
    Evaluation(EvaluationId),
    /// A specification, by its name.
    Specification(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Build(id) => write!(f, "build {id}"),
            Self::Evaluation(id) => write!(f, "evaluation {id}"),
            Self::Specification(name) => write!(f, "`{name}`"),
        }
    }
}

/// The most targets of one request. They are changed in one transaction, which others wait for.
pub const TARGETS_MAX: usize = 1000;

/// Who asks, when, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Who asks.
    pub actor: Actor,
    /// When.
    pub at: Timestamp,
    /// Why, in the actor's words; may be empty.
    pub reason: String,
}

impl Asked {
    /// The most bytes of a reason. A longer one is cut.
    pub const REASON_BYTES_MAX: usize = 2000;

    /// A request of `actor` at this time. Control characters in `reason` are escaped.
    pub fn new(actor: Actor, at: Timestamp, reason: &str) -> Self {
        Self { actor, at, reason: lines(reason, Self::REASON_BYTES_MAX) }
    }
}

/// What became of a request for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The change is made. This many builds have a new status because of it.
    Done(usize),
    /// The build runs: this attempt is asked to end, and killed if it does not.
    Ending(i64),
    /// There is no such build, evaluation or specification.
    Missing,
    /// Nothing was changed, and why, in words for people that name the target.
    Refused(String),
}

/// What a write of requested changes did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requested {
    /// Each target with what became of it, in the order of the request.
    pub outcomes: Vec<(Target, Outcome)>,
    /// Builds that have a new status.
    pub changed: Vec<Changed>,
    /// Running attempts that must be told to end.
    pub running: Vec<(BuildId, i64)>,
}
