//! What the demo prints about each evaluation and its jobs, and whether they ended as expected.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::command::builds::seconds;
use crate::model::{BuildStatus, Evaluation, EvaluationStatus};
use crate::store::{self, JobFilter, Snapshot};

/// How every job must end.
const EXPECTED: &[(&str, BuildStatus)] = &[
    ("app.link", BuildStatus::Succeeded),
    ("app.package", BuildStatus::FailedDependency),
    ("app.run", BuildStatus::Succeeded),
    ("app.strict", BuildStatus::Failed),
    ("docs.check", BuildStatus::Succeeded),
    ("docs.page", BuildStatus::Succeeded),
    ("lib.compile", BuildStatus::Succeeded),
    ("lib.soak", BuildStatus::Succeeded),
    ("lib.test", BuildStatus::Succeeded),
];

/// The only job whose sources the second revision changes.
pub(super) const CHANGED: &str = "docs.check";

/// The most jobs of an evaluation that are read; the sample has far fewer.
const JOBS_MAX: u32 = 1000;

/// An evaluation and its jobs.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    pub(super) id: i64,
    pub(super) status: &'static str,
    pub(super) message: String,
    pub(super) subject: String,
    /// Whether the evaluation and the builds of all its jobs have ended.
    pub(super) finished: bool,
    pub(super) jobs: BTreeMap<String, Job>,
}

/// A job of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Job {
    pub(super) build: i64,
    pub(super) status: &'static str,
    /// Whether an earlier evaluation had built the job already.
    pub(super) reused: bool,
    pub(super) seconds: i64,
    /// Why the job did not succeed.
    pub(super) reason: String,
    /// The last line of the build log; empty unless the job failed.
    pub(super) last_words: String,
}

impl Job {
    /// Why the job did not succeed, as a text that follows the status.
    pub(super) fn why(&self) -> String {
        match (self.reason.as_str(), self.last_words.as_str()) {
            ("", _) => String::new(),
            (reason, "") => format!(": {reason}"),
            (reason, last) => format!(": {reason}: {last}"),
        }
    }
}

impl Summary {
    pub(super) fn read(s: &Snapshot, evaluation: &Evaluation) -> rusqlite::Result<Self> {
        let page = store::job_page(s, evaluation.id, &JobFilter::default(), JOBS_MAX)?;
        let checkouts = store::checkouts(s, evaluation.id)?;
        let jobs = page.jobs.into_iter().map(|job| {
            let build = job.build;
            let summary = Job {
                build: build.id.get(),
                status: build.status.as_str(),
                reused: job.reused,
                seconds: seconds(&build).unwrap_or(0),
                reason: build.message,
                last_words: String::new(),
            };
            (job.job, summary)
        });
        Ok(Self {
            id: evaluation.id.get(),
            status: evaluation.status.as_str(),
            message: evaluation.message.clone(),
            subject: checkouts.first().map(|c| c.subject.clone()).unwrap_or_default(),
            finished: evaluation.has_ended(),
            jobs: jobs.collect(),
        })
    }

    /// The counts in words: `6 succeeded, 1 failed, 2 started`.
    pub(super) fn words(&self) -> String {
        if self.jobs.is_empty() {
            return format!("evaluation {}", self.status);
        }
        let mut parts = Vec::new();
        let mut count = |what: &str, counts: &dyn Fn(&Job) -> bool| {
            let count = self.jobs.values().filter(|job| counts(job)).count();
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        };
        // Builds that have ended come first.
        let (pending, ended) = BuildStatus::ALL.split_at(2);
        for status in ended.iter().chain(pending.iter().rev()) {
            count(status.as_str(), &|job: &Job| job.status == status.as_str());
        }
        count("re-used", &|job: &Job| job.reused);
        parts.join(", ")
    }

    /// Appends each difference from what is expected to `surprises`. `second`: the second revision was evaluated.
    fn compare(&self, second: bool, surprises: &mut Vec<String>) {
        let id = self.id;
        if self.status != EvaluationStatus::Succeeded.as_str() {
            surprises.push(format!("evaluation #{id} {}: {}", self.status, self.message));
            return;
        }
        for (name, wanted) in EXPECTED {
            let Some(job) = self.jobs.get(*name) else {
                surprises.push(format!("#{id} has no job {name}"));
                continue;
            };
            if job.status != wanted.as_str() {
                surprises.push(format!("#{id} {name} is {}, not {wanted}", job.status));
            }
            let reused = second && *name != CHANGED;
            if job.reused != reused {
                let how = if reused { "was built again" } else { "was not built" };
                surprises.push(format!("#{id} {name} {how}"));
            }
        }
        for name in self.jobs.keys().filter(|name| EXPECTED.iter().all(|(job, _)| job != name)) {
            surprises.push(format!("#{id} has an unknown job {name}"));
        }
    }
}

/// The outcome of the demo.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) expected: bool,
    pub(super) surprises: Vec<String>,
    pub(super) seconds: f64,
    address: String,
    pub(super) evaluations: Vec<Summary>,
}

impl Outcome {
    pub(super) fn new(evaluations: Vec<Summary>, seconds: f64, address: String) -> Self {
        let mut surprises = Vec::new();
        for (at, evaluation) in evaluations.iter().enumerate() {
            evaluation.compare(at > 0, &mut surprises);
        }
        let seconds = (seconds * 1000.0).round() / 1000.0;
        Self { expected: surprises.is_empty(), surprises, seconds, address, evaluations }
    }
}
