//! An evaluation in the history of jobs.

use schemars::JsonSchema;
use serde::Serialize;

use super::job::JobJson;
use crate::model::{Checkout, Evaluation, JobBuild};

/// An entry of `/api/jobs/history`: an evaluation with some of its jobs.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "History")]
pub(crate) struct HistoryJson {
    evaluation: i64,
    checkouts: Vec<RevisionJson>,
    jobs: Vec<JobJson>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Revision")]
struct RevisionJson {
    commit: String,
    channel: String,
}

impl HistoryJson {
    /// An evaluation with its checkouts and those of its jobs that the client named.
    pub(crate) fn new(
        evaluation: &Evaluation,
        checkouts: Vec<Checkout>,
        jobs: Vec<JobBuild>,
    ) -> Self {
        let revision = |checkout: Checkout| RevisionJson {
            commit: checkout.revision,
            channel: checkout.input,
        };
        Self {
            evaluation: evaluation.id.get(),
            checkouts: checkouts.into_iter().map(revision).collect(),
            jobs: jobs.into_iter().map(JobJson::from).collect(),
        }
    }
}
