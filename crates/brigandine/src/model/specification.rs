//! What to build, and how jobs come out of it.

use super::{EvaluationId, SpecificationId, Timestamp};
use serde::{Deserialize, Serialize};

/// Inputs, and an evaluator that turns their checkouts into jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specification {
    /// Unique; letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// At least one; the first is the one evaluators read by default.
    pub inputs: Vec<Input>,
    /// How jobs come out of the checkouts.
    pub evaluator: Evaluator,
    /// Seconds between two looks at the inputs; the server's default when absent.
    #[serde(default)]
    pub interval_s: Option<u64>,
    /// Added to the priority of every job.
    #[serde(default)]
    pub priority: i64,
    /// How long its evaluations are kept; the server's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// Whether its evaluator and all its jobs may use the network from the sandbox.
    #[serde(default, skip_serializing_if = "super::text::is_no")]
    pub network: bool,
    /// A disabled specification is kept, and never looked at.
    #[serde(default = "yes")]
    pub enabled: bool,
}

const fn yes() -> bool {
    true
}

/// Which evaluations are kept, with their builds, build logs and outputs: those that one of the rules
/// names. Without a rule all are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// So many of the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<u32>,
    /// Those that began within so many days.
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
    /// What another definition of the same specification says otherwise, by the names of keys in files:
    /// `interval`, `input source`. Empty: both say the same.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        // Taken apart, so that no field is forgotten.
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
    /// Anything `git fetch` takes: `https://`, `ssh://`, `file://`, a path.
    pub url: String,
    /// Which revision to take.
    pub reference: Reference,
    /// Whether submodules are fetched and exported as well.
    #[serde(default)]
    pub submodules: bool,
    /// The beginnings of addresses that submodules are fetched from with the server's credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub submodules_from: Vec<String>,
}

/// Which revision of a repository to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reference {
    /// The head of the branch.
    Branch(String),
    /// What the tag points to.
    Tag(String),
    /// A full revision, 40 or 64 hexadecimal digits.
    Revision(String),
    /// The branch that the remote's `HEAD` points to.
    Head,
}

/// How jobs come out of checkouts. Both kinds speak the evaluator protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Evaluator {
    /// A job list kept in the repository.
    Jobs {
        /// The input that holds the list; the first one when absent.
        #[serde(default)]
        input: Option<String>,
        /// Path of the list in that input, `brigandine.toml` by default.
        file: String,
        /// The list itself, for repositories that hold none; `file` is then not read.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        jobs: Vec<super::JobEntry>,
    },
    /// Any program that speaks the evaluator protocol.
    Command {
        /// The input in whose checkout the program runs; the first one when absent.
        #[serde(default)]
        input: Option<String>,
        /// Program and arguments. A program with a `/` is looked up in the checkout.
        command: Vec<String>,
        /// Handed to the program as they are.
        #[serde(default)]
        arguments: serde_json::Map<String, serde_json::Value>,
        /// Seconds the program may take; the server's default when absent.
        #[serde(default)]
        timeout_s: Option<u64>,
    },
}

impl Evaluator {
    /// The name of the input that the evaluator reads, if it is not simply the first.
    pub fn input(&self) -> Option<&str> {
        match self {
            Self::Jobs { input, .. } | Self::Command { input, .. } => input.as_deref(),
        }
    }
}

/// A stored specification and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecificationState {
    /// Its row.
    pub id: SpecificationId,
    /// What it says.
    pub specification: Specification,
    /// When it was first stored.
    pub created_at: Timestamp,
    /// The last look at its inputs.
    pub look: Look,
    /// The evaluation of what the inputs were at the last look that went well, if there was one. Not the latest
    /// one if the inputs were set back.
    pub current_evaluation: Option<EvaluationId>,
    /// The latest evaluation, whatever its state.
    pub latest_evaluation: Option<EvaluationId>,
}

impl SpecificationState {
    /// The evaluation that says how the specification stands.
    pub fn evaluation(&self) -> Option<EvaluationId> {
        self.current_evaluation.or(self.latest_evaluation)
    }

    /// The evaluation that the inputs were set back to, if it is not the latest one.
    pub fn set_back_to(&self) -> Option<EvaluationId> {
        self.current_evaluation.filter(|_| self.current_evaluation != self.latest_evaluation)
    }
}

/// What came of the last look at a specification's inputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// When it ended; 0 when nobody looked yet.
    pub looked_at: Timestamp,
    /// What went wrong, for people; empty when nothing did.
    pub error: String,
    /// How many looks failed in a row.
    pub failures: i64,
    /// When the next one is due; 0 when unknown.
    pub next_at: Timestamp,
    /// When somebody last asked for one; 0 when nobody did. Each wish has a time of its own.
    pub wanted_at: Timestamp,
    /// The last wish that stood when this look began. Wishes up to it are answered.
    pub answered_at: Timestamp,
}
