//! Evaluations, their checkouts and their counters.

use super::{Build, EvaluationId, EvaluationStatus, SpecificationId, Timestamp};
use serde::{Deserialize, Serialize};

/// An input at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    /// The input's name in its specification.
    pub input: String,
    /// The full revision.
    pub revision: String,
    /// The first line of the revision's message.
    pub subject: String,
    /// The name of the revision's author.
    pub author: String,
    /// When the revision was committed.
    pub revision_at: Timestamp,
}

/// One run of a specification's evaluator over one set of checkouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// The row number.
    pub id: EvaluationId,
    /// The specification's row.
    pub specification_id: SpecificationId,
    /// The specification's name.
    pub specification: String,
    /// The status.
    pub status: EvaluationStatus,
    /// Why the evaluation failed or was aborted, for people; otherwise empty.
    pub message: String,
    /// When the row was stored.
    pub created_at: Timestamp,
    /// When the checkouts were ready; 0: they are not ready yet.
    pub checkout_at: Timestamp,
    /// When the evaluation ended; 0: it has not ended.
    pub finished_at: Timestamp,
    /// The path of the evaluator's log, relative to the state directory; empty: there is none.
    pub log_path: String,
    /// The jobs, counted by status.
    pub counters: Counters,
    /// Whether somebody has said that retention must not delete the evaluation.
    pub kept: bool,
    /// Whether the evaluation wants no builds any more, because it was canceled or superseded.
    pub withdrawn: bool,
    /// The evaluation that superseded this one; `None`: none did.
    pub successor: Option<EvaluationId>,
}

impl Evaluation {
    /// Whether the evaluation and the builds of all its jobs have ended, also by a cancel.
    pub fn has_ended(&self) -> bool {
        match self.status {
            EvaluationStatus::Started => false,
            EvaluationStatus::Succeeded => self.counters.finished() == self.counters.total(),
            EvaluationStatus::Failed | EvaluationStatus::Aborted => true,
        }
    }
}

/// How many jobs of an evaluation have a build with each status. The transaction that changes a build changes these
/// counters too, so pages need not count builds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Builds that wait for dependencies or for a free place.
    pub scheduled: i64,
    /// Builds that are running.
    pub started: i64,
    /// Builds that succeeded.
    pub succeeded: i64,
    /// Builds whose command failed.
    pub failed: i64,
    /// Builds that never started because a dependency failed.
    pub failed_dependency: i64,
    /// Builds that failed for another reason.
    pub failed_other: i64,
    /// Builds that were canceled.
    pub canceled: i64,
}

impl Counters {
    /// The number of all jobs.
    pub const fn total(&self) -> i64 {
        self.scheduled
            + self.started
            + self.succeeded
            + self.failed
            + self.failed_dependency
            + self.failed_other
            + self.canceled
    }

    /// The number of jobs whose builds have ended.
    pub const fn finished(&self) -> i64 {
        self.total() - self.scheduled - self.started
    }

    /// The number of jobs whose builds failed. Canceled builds are not included.
    pub const fn all_failed(&self) -> i64 {
        self.failed + self.failed_dependency + self.failed_other
    }
}

/// An evaluation with everything that its page shows, except the builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationDetails {
    /// The evaluation.
    pub evaluation: Evaluation,
    /// The checkouts, in the order of the specification's inputs.
    pub checkouts: Vec<Checkout>,
    /// The last successful evaluation of the same specification before this one; `None`: there is none.
    pub previous: Option<EvaluationId>,
    /// The next evaluation of the same specification; `None`: this is the newest.
    pub next: Option<EvaluationId>,
}

/// A job of an evaluation with its build, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobState {
    /// The job's name in this evaluation.
    pub job: String,
    /// The job's build, which an earlier evaluation may have registered.
    pub build: Build,
    /// Whether the build was already known when this evaluation was registered.
    pub reused: bool,
}
