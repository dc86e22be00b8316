//! Specifications: what the server evaluates and builds.

use super::{EvaluationId, SpecificationId, Timestamp, redact};
use serde::{Deserialize, Serialize};

/// The inputs, and the evaluator that makes jobs from their checkouts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specification {
    /// The unique name, of letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// The project that the specification belongs to. Hydra's addresses name a specification by both.
    #[serde(default = "main_project", skip_serializing_if = "is_main_project")]
    pub project: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// At least one input. Evaluators read the first by default.
    pub inputs: Vec<Input>,
    /// The evaluator, which makes jobs from the checkouts.
    pub evaluator: Evaluator,
    /// Seconds between two looks at the inputs; `None`: the server's default.
    #[serde(default)]
    pub interval_s: Option<u64>,
    /// Added to the priority of every job.
    #[serde(default)]
    pub priority: i64,
    /// Which evaluations of the specification are kept; `None`: the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// What happens to builds that only evaluations of other revisions want.
    #[serde(default, skip_serializing_if = "Supersede::is_nothing")]
    pub supersede: Supersede,
    /// Whether the evaluator and all jobs may use the network from the sandbox.
    #[serde(default, skip_serializing_if = "super::text::is_no")]
    pub network: bool,
    /// Whether only those who have a role in the specification may see it, and whatever belongs to it.
    #[serde(default, skip_serializing_if = "super::text::is_no")]
    pub private: bool,
    /// Whether the server looks at the inputs.
    #[serde(default = "yes")]
    pub enabled: bool,
}

const fn yes() -> bool {
    true
}

/// The project of specifications that name none.
pub const MAIN_PROJECT: &str = "main";

fn main_project() -> String {
    MAIN_PROJECT.to_owned()
}

fn is_main_project(project: &str) -> bool {
    project == MAIN_PROJECT
}

/// Names that no specification may have: `/jobset/NAME/grid` is kept for a page about the specification `NAME`, and
/// `/jobset/PROJECT/grid` would be the address of a specification `grid`.
pub const RESERVED_NAMES: [&str; 2] = ["badge.svg", "grid"];
/// Why no specification may have one of [`RESERVED_NAMES`], for people.
pub const RESERVED_WHY: &str =
    "`/jobset/NAME/grid` and `/jobset/NAME/badge.svg` are kept for pages of their own";

/// Which evaluations are kept, with their builds, build logs and outputs. An evaluation is kept if one of the rules
/// keeps it. Without a rule, all are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// This many of the newest evaluations are kept; `None`: no such rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<u32>,
    /// Evaluations that began within this many days are kept; `None`: no such rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
}

impl Keep {
    /// Whether there is no rule, so that nothing is deleted.
    pub const fn is_everything(self) -> bool {
        self.evaluations.is_none() && self.days.is_none()
    }
}

/// What happens to builds that only evaluations of other revisions want, when the inputs have new revisions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Supersede {
    /// They are built.
    #[default]
    Nothing,
    /// They are canceled, except those of evaluations that somebody keeps.
    Cancel,
}

impl Supersede {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

impl Specification {
    /// The keys of specification files in which `other` differs, such as `interval` or `input source`. Empty: both are
    /// equal.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        // The compiler refuses this pattern if a field is missing.
        let Self {
            name: _,
            project,
            description,
            inputs,
            evaluator,
            interval_s,
            priority,
            keep,
            supersede,
            network,
            private,
            enabled,
        } = self;
        let mut keys: Vec<String> = [
            ("project", *project != other.project),
            ("description", *description != other.description),
            ("interval", *interval_s != other.interval_s),
            ("priority", *priority != other.priority),
            ("keep", *keep != other.keep),
            ("supersede", *supersede != other.supersede),
            ("network", *network != other.network),
            ("private", *private != other.private),
            ("enabled", *enabled != other.enabled),
        ]
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| key.to_owned())
        .collect();
        let find = |all: &[Input], name: &str| all.iter().find(|one| one.name == name).cloned();
        let named: Vec<&Input> = inputs.iter().chain(&other.inputs).collect();
        let mut told: Vec<&str> = Vec::new();
        for Input { name, .. } in named {
            if find(inputs, name) != find(&other.inputs, name) && !told.contains(&name.as_str()) {
                told.push(name);
                keys.push(format!("input {name}"));
            }
        }
        if told.is_empty() && *inputs != other.inputs {
            keys.push("the order of inputs".to_owned());
        }
        if *evaluator != other.evaluator {
            let list = |evaluator: &Evaluator| matches!(evaluator, Evaluator::Jobs { jobs, .. } if !jobs.is_empty());
            let own = list(evaluator) || list(&other.evaluator);
            keys.push(if own { "job" } else { "evaluator" }.to_owned());
        }
        keys
    }
}

/// A git repository at a branch, tag or revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The input's name, unique in its specification.
    pub name: String,
    /// An address for `git fetch`: `https://`, `ssh://`, `file://`, a path.
    pub url: String,
    /// The branch, tag or revision.
    pub reference: Reference,
    /// Whether submodules are fetched and exported too.
    #[serde(default)]
    pub submodules: bool,
    /// Beginnings of addresses from which submodules are fetched with the server's credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub submodules_from: Vec<String>,
}

impl Input {
    /// The address without the credentials in it, for pages, the API and messages.
    pub fn shown(&self) -> String {
        redact(&self.url)
    }
}

/// Which revision of a repository is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reference {
    /// The head of the branch.
    Branch(String),
    /// The commit of the tag.
    Tag(String),
    /// This revision: 40 or 64 hexadecimal digits.
    Revision(String),
    /// The branch that the remote's `HEAD` points to.
    Head,
}

/// How jobs are made from checkouts. Both kinds use the evaluator protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Evaluator {
    /// A job list kept in the repository.
    Jobs {
        /// The input that has the list; `None`: the first input.
        #[serde(default)]
        input: Option<String>,
        /// The path of the list in that input, `brigandine.toml` by default.
        file: String,
        /// The jobs, for repositories that have no list. If there are any, `file` is not read.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        jobs: Vec<super::JobEntry>,
    },
    /// A program that uses the evaluator protocol.
    Command {
        /// The input in whose checkout the program runs; `None`: the first input.
        #[serde(default)]
        input: Option<String>,
        /// The program and its arguments. If the program's name has a `/`, it is a path relative to the checkout.
        command: Vec<String>,
        /// Arguments that are passed to the program unchanged.
        #[serde(default)]
        arguments: serde_json::Map<String, serde_json::Value>,
        /// The most seconds that the program may run; `None`: the server's default.
        #[serde(default)]
        timeout_s: Option<u64>,
    },
}

impl Evaluator {
    /// The name of the input that the evaluator reads; `None`: the first input.
    pub fn input(&self) -> Option<&str> {
        match self {
            Self::Jobs { input, .. } | Self::Command { input, .. } => input.as_deref(),
        }
    }
}

/// A stored specification and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecificationState {
    /// The row number.
    pub id: SpecificationId,
    /// The definition.
    pub specification: Specification,
    /// When it was first stored.
    pub created_at: Timestamp,
    /// The last look at the inputs.
    pub look: Look,
    /// The evaluation of the revisions that the last successful look found. It is not the latest evaluation if the
    /// inputs have returned to earlier revisions. `None`: there is none.
    pub current_evaluation: Option<EvaluationId>,
    /// The latest evaluation; `None`: there is none.
    pub latest_evaluation: Option<EvaluationId>,
}

impl SpecificationState {
    /// The evaluation that determines the state of the specification.
    pub fn evaluation(&self) -> Option<EvaluationId> {
        self.current_evaluation.or(self.latest_evaluation)
    }

    /// The older evaluation to whose revisions the inputs have returned; `None`: the current evaluation is the latest
    /// one.
    pub fn set_back_to(&self) -> Option<EvaluationId> {
        self.current_evaluation.filter(|_| self.current_evaluation != self.latest_evaluation)
    }
}

/// The last look at a specification's inputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// When the look ended; 0: there has been no look.
    pub looked_at: Timestamp,
    /// Why the look failed, for people; empty: it succeeded.
    pub error: String,
    /// How many looks failed in a row.
    pub failures: i64,
    /// When the next look is due; 0: unknown.
    pub next_at: Timestamp,
    /// The time of the last request for a look; 0: there was none. Each request has a different time.
    pub wanted_at: Timestamp,
    /// The time of the last request that was made before this look began. The look answers all requests up to this
    /// time.
    pub answered_at: Timestamp,
}
