//! Specifications: what is evaluated and built.

use super::{EvaluationId, SpecificationId, Timestamp};
use serde::{Deserialize, Serialize};

/// Inputs, and the evaluator that makes jobs of their checkouts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specification {
    /// Unique; letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// At least one; evaluators read the first by default.
    pub inputs: Vec<Input>,
    /// What makes jobs of the checkouts.
    pub evaluator: Evaluator,
    /// Seconds between two looks at the inputs; `None`: the server's default.
    #[serde(default)]
    pub interval_s: Option<u64>,
    /// Added to the priority of every job.
    #[serde(default)]
    pub priority: i64,
    /// Which of its evaluations are kept; `None`: the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// Whether its evaluator and all its jobs may use the network from the sandbox.
    #[serde(default, skip_serializing_if = "super::text::is_no")]
    pub network: bool,
    /// Whether its inputs are looked at.
    #[serde(default = "yes")]
    pub enabled: bool,
}

const fn yes() -> bool {
    true
}

/// Which evaluations are kept, with their builds, build logs and outputs: those that satisfy one of the rules. Without a
/// rule all are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The number of newest evaluations that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<u32>,
    /// Evaluations that began within so many days are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
}

impl Keep {
    /// Whether nothing is ever deleted.
    pub const fn is_everything(self) -> bool {
        self.evaluations.is_none() && self.days.is_none()
    }
}

impl Specification {
    /// The keys of specification files in which another definition differs: `interval`, `input source`. Empty: both are
    /// equal.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        // The compiler refuses this if a field is missing.
        let Self {
            name: _,
            description,
            inputs,
            evaluator,
            interval_s,
            priority,
            keep,
            network,
            enabled,
        } = self;
        let mut keys: Vec<String> = [
            ("description", *description != other.description),
            ("interval", *interval_s != other.interval_s),
            ("priority", *priority != other.priority),
            ("keep", *keep != other.keep),
            ("network", *network != other.network),
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
    /// Unique in its specification.
    pub name: String,
    /// An address for `git fetch`: `https://`, `ssh://`, `file://`, a path.
    pub url: String,
    /// The revision.
    pub reference: Reference,
    /// Whether submodules are fetched and exported as well.
    #[serde(default)]
    pub submodules: bool,
    /// The beginnings of addresses from which submodules are fetched with the server's credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub submodules_from: Vec<String>,
}

/// A revision of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reference {
    /// The head of the branch.
    Branch(String),
    /// The commit of the tag.
    Tag(String),
    /// A full revision, 40 or 64 hexadecimal digits.
    Revision(String),
    /// The branch that the remote's `HEAD` points to.
    Head,
}

/// What makes jobs of checkouts. Both kinds use the evaluator protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Evaluator {
    /// A job list kept in the repository.
    Jobs {
        /// The input that has the list; `None`: the first.
        #[serde(default)]
        input: Option<String>,
        /// Path of the list in that input, `brigandine.toml` by default.
        file: String,
        /// The list itself, for repositories without one; `file` is then not read.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        jobs: Vec<super::JobEntry>,
    },
    /// A program that uses the evaluator protocol.
    Command {
        /// The input in whose checkout the program runs; `None`: the first.
        #[serde(default)]
        input: Option<String>,
        /// Program and arguments. The path of a program with a `/` is relative to the checkout.
        command: Vec<String>,
        /// Passed to the program unchanged.
        #[serde(default)]
        arguments: serde_json::Map<String, serde_json::Value>,
        /// Seconds that the program may take; `None`: the server's default.
        #[serde(default)]
        timeout_s: Option<u64>,
    },
}

impl Evaluator {
    /// The name of the input that the evaluator reads, if it names one.
    pub fn input(&self) -> Option<&str> {
        match self {
            Self::Jobs { input, .. } | Self::Command { input, .. } => input.as_deref(),
        }
    }
}

/// A stored specification and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecificationState {
    /// Its row.
    pub id: SpecificationId,
    /// The definition.
    pub specification: Specification,
    /// When it was first stored.
    pub created_at: Timestamp,
    /// The last look at its inputs.
    pub look: Look,
    /// The evaluation of the revisions that the last successful look found. Not the latest evaluation if the inputs were
    /// set back to earlier revisions.
    pub current_evaluation: Option<EvaluationId>,
    /// The latest evaluation.
    pub latest_evaluation: Option<EvaluationId>,
}

impl SpecificationState {
    /// The evaluation that determines the state of the specification.
    pub fn evaluation(&self) -> Option<EvaluationId> {
        self.current_evaluation.or(self.latest_evaluation)
    }

    /// The evaluation that the inputs were set back to, if it is not the latest one.
    pub fn set_back_to(&self) -> Option<EvaluationId> {
        self.current_evaluation.filter(|_| self.current_evaluation != self.latest_evaluation)
    }
}

/// The last look at a specification's inputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// When it ended; 0 before the first look.
    pub looked_at: Timestamp,
    /// Why it failed, for people; empty if it succeeded.
    pub error: String,
    /// How many looks failed in a row.
    pub failures: i64,
    /// When the next look is due; 0 if unknown.
    pub next_at: Timestamp,
    /// The time of the last request for a look; 0 without one. Every request has a time of its own.
    pub wanted_at: Timestamp,
    /// The last request before this look began. This look answers all requests up to it.
    pub answered_at: Timestamp,
}
