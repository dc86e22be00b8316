//! Evaluations, their checkouts and their counts.

use super::{Build, EvaluationId, EvaluationStatus, SpecificationId, Timestamp};
use serde::{Deserialize, Serialize};

/// An input at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    /// The input's name in its specification.
    pub input: String,
    /// The full revision.
    pub revision: String,
    /// First line of the revision's message.
    pub subject: String,
    /// Who wrote it, name only.
    pub author: String,
    /// When it was committed.
    pub revision_at: Timestamp,
}

/// One run of a specification's evaluator over one set of checkouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// Its row.
    pub id: EvaluationId,
    /// The specification's row.
    pub specification_id: SpecificationId,
    /// The specification's name.
    pub specification: String,
    /// How far it got.
    pub status: EvaluationStatus,
    /// Why it failed, for people; empty unless failed or aborted.
    pub message: String,
    /// When the row was stored.
    pub created_at: Timestamp,
    /// When the checkouts were ready; 0 when not yet.
    pub checkout_at: Timestamp,
    /// When it ended; 0 when not yet.
    pub finished_at: Timestamp,
    /// Path of the evaluator's log relative to the state directory; empty when there is none.
    pub log_path: String,
    /// Its jobs by status.
    pub counters: Counters,
}

impl Evaluation {
    /// Whether the evaluation and the builds of all its jobs have ended.
    pub fn is_complete(&self) -> bool {
        match self.status {
            EvaluationStatus::Started => false,
            EvaluationStatus::Succeeded => self.counters.finished() == self.counters.total(),
            EvaluationStatus::Failed | EvaluationStatus::Aborted => true,
        }
    }
}

/// How many jobs of an evaluation have builds of each status. The transaction that changes a build changes them, so that
/// no page counts builds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Wait for dependencies or room.
    pub scheduled: i64,
    /// Run.
    pub started: i64,
    /// Succeeded.
    pub succeeded: i64,
    /// Failed.
    pub failed: i64,
    /// Failed through a dependency.
    pub failed_dependency: i64,
    /// Failed for another reason.
    pub failed_other: i64,
    /// Canceled.
    pub canceled: i64,
}

impl Counters {
    /// All jobs.
    pub const fn total(&self) -> i64 {
        self.scheduled
            + self.started
            + self.succeeded
            + self.failed
            + self.failed_dependency
            + self.failed_other
            + self.canceled
    }

    /// Jobs whose builds have ended.
    pub const fn finished(&self) -> i64 {
        self.total() - self.scheduled - self.started
    }

    /// Jobs that ended badly, canceled ones left out.
    pub const fn all_failed(&self) -> i64 {
        self.failed + self.failed_dependency + self.failed_other
    }
}

/// An evaluation with everything that its page shows but the builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationDetails {
    /// The evaluation.
    pub evaluation: Evaluation,
    /// Its checkouts, in the order of the specification's inputs.
    pub checkouts: Vec<Checkout>,
    /// The succeeded evaluation of the same specification before it.
    pub previous: Option<EvaluationId>,
    /// The next evaluation of the same specification.
    pub next: Option<EvaluationId>,
}

/// A job of an evaluation with its build, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobState {
    /// The job's name in this evaluation.
    pub job: String,
    /// Its build, which may come from an earlier evaluation.
    pub build: Build,
    /// Whether the build was already known when this evaluation was registered.
    pub reused: bool,
}

/// How a job changed since the previous evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobChange {
    /// Failed now, succeeded before.
    NewlyFailing,
    /// Succeeded now, failed before.
    Fixed,
    /// Was not there before.
    New,
    /// Is not there any more.
    Gone,
}
