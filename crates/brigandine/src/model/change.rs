//! Changes that people and programs ask for: what is asked, of what, by whom, and what becomes of it.

use super::text::{lines, one_line};
use super::{Actor, BuildId, BuildStatus, EvaluationId, Role, Timestamp};

/// What may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// A waiting build is canceled with all builds that need it; a running build is asked to end. Of an evaluation, what
    /// no other evaluation wants.
    Cancel,
    /// A build that ended without success is scheduled once more, with the builds that failed because of it. Of an
    /// evaluation, all that failed.
    Restart,
    /// A build is next in the queue, after the builds that it needs. Of an evaluation, all that waits.
    Bump,
    /// An evaluation is not deleted by retention.
    Keep,
    /// An evaluation is deleted by retention as others are.
    Release,
    /// Nothing changes; the reason is a comment.
    Comment,
    /// A specification's inputs are looked at now.
    Evaluate,
    /// A specification's inputs are looked at from now on.
    Enable,
    /// A specification's inputs are not looked at any more.
    Disable,
    /// An evaluation is canceled, because another one is of newer revisions. Only the server makes this change.
    Supersede,
    /// A specification is added or replaced, which [`Specify`](super::Specify) asks for.
    Define,
    /// A specification is removed, which [`Specify`](super::Specify) asks for.
    Remove,
}

impl Change {
    /// All changes of targets that may be asked for.
    pub const ALL: [Self; 9] = [
        Self::Cancel,
        Self::Restart,
        Self::Bump,
        Self::Keep,
        Self::Release,
        Self::Comment,
        Self::Evaluate,
        Self::Enable,
        Self::Disable,
    ];

    /// The name in the audit, in addresses and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Restart => "restart",
            Self::Bump => "bump",
            Self::Keep => "keep",
            Self::Release => "release",
            Self::Comment => "comment",
            Self::Evaluate => "evaluate",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Supersede => "supersede",
            Self::Define => "define",
            Self::Remove => "remove",
        }
    }

    /// The role that a request over HTTP needs, in the specification that it is about.
    pub const fn role(self) -> Role {
        match self {
            Self::Enable | Self::Disable | Self::Define | Self::Remove => Role::Admin,
            _ => Role::Builder,
        }
    }
}

impl std::str::FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|change| change.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|change| change.as_str()).collect();
            format!("unknown change `{}`; known are {}", one_line(text, 100), known.join(", "))
        })
    }
}

/// What a change is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A build.
    Build(BuildId),
    /// An evaluation.
    Evaluation(EvaluationId),
    /// The builds of an evaluation's jobs that have one of these statuses.
    Jobs(EvaluationId, Vec<BuildStatus>),
    /// A specification, by its name.
    Specification(String),
}

impl Target {
    /// What must exist for the target to exist, such as `evaluation 5`.
    pub fn thing(&self) -> String {
        match self {
            Self::Build(id) => format!("build {id}"),
            Self::Evaluation(id) | Self::Jobs(id, _) => format!("evaluation {id}"),
            Self::Specification(name) => format!("specification `{}`", one_line(name, 200)),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Build(id) => write!(f, "build {id}"),
            Self::Evaluation(id) => write!(f, "evaluation {id}"),
            Self::Jobs(id, statuses) => {
                let statuses: Vec<_> = statuses.iter().map(|status| status.as_str()).collect();
                write!(f, "what is {} in evaluation {id}", statuses.join(" or "))
            }
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
    /// The change of an evaluation's builds is made.
    Many(Counts),
    /// There is no such build, evaluation or specification.
    Missing,
    /// Nothing was changed, and why, in words for people that name the target.
    Refused(String),
}

/// What became of the builds of an evaluation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Builds that were changed, also because others were.
    pub changed: usize,
    /// Running builds that are asked to end.
    pub ending: usize,
    /// Builds that stay as they are: another evaluation wants them, or they cannot be restarted.
    pub left: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.changed += more.changed;
        self.ending += more.ending;
        self.left += more.left;
    }
}
