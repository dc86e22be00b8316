//! Requested changes and what became of them, and the audit: the JSON of `/api/v1/`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Audited, BuildId, Change, EvaluationId, Outcome, Target};

/// A build whose status has changed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChangedBuild")]
pub(crate) struct ChangedBuildJson {
    #[schemars(with = "i64")]
    pub(crate) build: BuildId,
    /// How many builds have changed, this one included.
    pub(crate) changed: usize,
    /// The name of its status now.
    pub(crate) status: &'static str,
}

/// A running build that is asked to end.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "EndingBuild")]
pub(crate) struct EndingBuildJson {
    pub(crate) attempt: i64,
    #[schemars(with = "i64")]
    pub(crate) build: BuildId,
    pub(crate) message: &'static str,
    pub(crate) status: &'static str,
}

/// A specification whose inputs are looked at now.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WantedLook")]
pub(crate) struct WantedLookJson {
    pub(crate) jobset: String,
    pub(crate) message: &'static str,
}

/// The body of a request for a change of one target. An empty body is an empty object.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "Reason")]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ReasonJson {
    /// Why, for the audit.
    pub(crate) reason: String,
}

/// What became of a request for several targets.
#[derive(Debug, Serialize)]
pub(crate) struct OutcomesJson {
    change: &'static str,
    /// How many targets were changed, or are asked to end.
    done: usize,
    /// How many were not.
    refused: usize,
    results: Vec<OutcomeJson>,
}

#[derive(Debug, Serialize)]
struct OutcomeJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<BuildId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluation: Option<EvaluationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    specification: Option<String>,
    /// `done`, `ending`, `missing`, `refused`
    result: &'static str,
    /// How many builds have a new status.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<usize>,
    /// The attempt that is asked to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<i64>,
    /// Why nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl OutcomesJson {
    pub(crate) fn new(change: Change, outcomes: Vec<(Target, Outcome)>) -> Self {
        let results: Vec<_> =
            outcomes.into_iter().map(|(target, outcome)| result(target, outcome)).collect();
        let refused = results.iter().filter(|result| result.error.is_some()).count();
        Self { change: change.as_str(), done: results.len() - refused, refused, results }
    }
}

fn result(target: Target, outcome: Outcome) -> OutcomeJson {
    let missing = format!("there is no {target}");
    let (mut build, mut evaluation, mut specification) = (None, None, None);
    match target {
        Target::Build(id) => build = Some(id),
        Target::Evaluation(id) => evaluation = Some(id),
        Target::Specification(name) => specification = Some(name),
    }
    let (result, changed, attempt, error) = match outcome {
        Outcome::Done(changed) => ("done", Some(changed), None, None),
        Outcome::Ending(attempt) => ("ending", None, Some(attempt), None),
        Outcome::Missing => ("missing", None, None, Some(missing)),
        Outcome::Refused(why) => ("refused", None, None, Some(why)),
    };
    OutcomeJson { build, evaluation, specification, result, changed, attempt, error }
}

/// A change that was made.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AuditRow")]
pub(crate) struct AuditJson {
    id: i64,
    /// When it was asked for.
    timestamp: i64,
    /// Who asked.
    actor: String,
    /// The name of the change.
    change: String,
    #[schemars(with = "Option<i64>")]
    build: Option<BuildId>,
    #[schemars(with = "Option<i64>")]
    evaluation: Option<EvaluationId>,
    specification: Option<String>,
    result: String,
    reason: String,
}

impl From<Audited> for AuditJson {
    fn from(row: Audited) -> Self {
        let Audited { id, at, actor, change, build, evaluation, specification, result, reason } =
            row;
        Self { id, timestamp: at, actor, change, build, evaluation, specification, result, reason }
    }
}
