//! The history of a job, and how reliable the job is.

use schemars::JsonSchema;
use serde::Serialize;

use crate::model::{EvaluationId, JobPast, JobRates};

/// The history of a job of a specification.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "JobHistory")]
pub(crate) struct JobHistoryJson {
    specification: String,
    job: String,
    rates: JobRatesJson,
    /// The job's build in each evaluation that has the job, the latest first.
    builds: Vec<PastBuildJson>,
    /// The query of the request for the builds before these; null: no evaluation precedes.
    next: Option<String>,
}

/// How reliable a job is, over the latest evaluations of its specification.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "JobRates")]
struct JobRatesJson {
    /// How many evaluations were looked at.
    evaluations: i64,
    /// How many of the job's builds succeeded.
    succeeded: i64,
    /// How many of them failed. Canceled ones did not.
    failed: i64,
    /// How many derivations were tried to an end.
    derivations: i64,
    /// How many of these both succeeded and did not.
    flaky: usize,
    /// The latest success; null: there is none in these evaluations.
    last_success: Option<SuccessJson>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Success")]
struct SuccessJson {
    evaluation: i64,
    build: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PastBuild")]
struct PastBuildJson {
    evaluation: i64,
    build: i64,
    derivation: String,
    system: String,
    /// The name of the build's status.
    status: &'static str,
    /// Whether the build was known before this evaluation.
    reused: bool,
    /// Whether its derivation both succeeded and did not.
    flaky: bool,
    starttime: i64,
    stoptime: i64,
}

impl JobHistoryJson {
    /// A part of the history of a job. `next` makes a query of where the next part begins.
    pub(crate) fn new(
        (specification, job): (String, String),
        rates: &JobRates,
        (past, older): (Vec<JobPast>, Option<EvaluationId>),
        next: impl FnOnce(EvaluationId) -> String,
    ) -> Self {
        let one = |JobPast { build, evaluation, reused }: JobPast| PastBuildJson {
            evaluation: evaluation.get(),
            build: build.id.get(),
            flaky: rates.flaky.contains(&build.derivation),
            derivation: build.derivation,
            system: build.system,
            status: build.status.as_str(),
            reused,
            starttime: build.started_at,
            stoptime: build.stopped_at,
        };
        let success = rates.success.map(|(evaluation, build)| SuccessJson {
            evaluation: evaluation.get(),
            build: build.get(),
        });
        Self {
            specification,
            job,
            rates: JobRatesJson {
                evaluations: rates.evaluations,
                succeeded: rates.succeeded,
                failed: rates.failed,
                derivations: rates.derivations,
                flaky: rates.flaky.len(),
                last_success: success,
            },
            builds: past.into_iter().map(one).collect(),
            next: older.map(next),
        }
    }
}
