//! How the jobs of two evaluations differ.

use schemars::JsonSchema;
use serde::Serialize;

use crate::model::{ComparedJob, EvaluationId, JobChange};
use crate::store::Comparison;

/// The jobs of an evaluation that differ in one way from those of another.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Comparison")]
pub(crate) struct ComparisonJson {
    evaluation: i64,
    /// The evaluation with which it is compared.
    with: i64,
    counts: ComparisonCountsJson,
    /// The name of the way in which the listed jobs differ.
    change: &'static str,
    /// By name.
    jobs: Vec<ComparedJobJson>,
    /// The query of the request for the jobs that follow; null: none follow.
    next: Option<String>,
}

/// How many jobs differ in each way. A job may be counted several times: a new job that fails is also newly failing.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "ComparisonCounts")]
struct ComparisonCountsJson {
    newly_failing: i64,
    still_failing: i64,
    fixed: i64,
    new: i64,
    removed: i64,
    canceled: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ComparedJob")]
struct ComparedJobJson {
    name: String,
    build: i64,
    /// The name of the build's status.
    status: &'static str,
    /// The build in the other evaluation; null: only one of the evaluations has the job.
    build_before: Option<i64>,
    status_before: Option<&'static str>,
}

impl ComparisonJson {
    /// The jobs that differ in the way `change`. `next` makes a query of the last of them.
    pub(crate) fn new(
        (evaluation, with): (EvaluationId, EvaluationId),
        change: JobChange,
        mut comparison: Comparison,
        next: impl FnOnce(&ComparedJob) -> String,
    ) -> Self {
        let list = comparison.take(change);
        let next = list.jobs.back().filter(|_| list.has_after).map(next);
        let job = |job: ComparedJob| ComparedJobJson {
            name: job.name,
            build: job.build.get(),
            status: job.status.as_str(),
            build_before: job.before.map(|(build, _)| build.get()),
            status_before: job.before.map(|(_, status)| status.as_str()),
        };
        let [newly_failing, still_failing, fixed, new, removed, canceled] = comparison.counts;
        Self {
            evaluation: evaluation.get(),
            with: with.get(),
            counts: ComparisonCountsJson {
                newly_failing,
                still_failing,
                fixed,
                new,
                removed,
                canceled,
            },
            change: change.as_str(),
            jobs: list.jobs.into_iter().map(job).collect(),
            next,
        }
    }
}
