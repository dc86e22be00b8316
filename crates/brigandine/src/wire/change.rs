//! Requested changes and what became of them, and the audit: the JSON of `/api/v1/`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::whole::Whole;
use crate::model::{
    Audited, BuildId, BuildStatus, Change, Counts, EvaluationId, Outcome, TARGETS_MAX, Target,
};

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
    /// Why, for the audit; the text of a comment.
    #[serde(alias = "comment")]
    pub(crate) reason: String,
}

/// The body of a request for a change of an evaluation.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EvaluationChange")]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EvaluationChangeJson {
    /// Why, for the audit; the text of a comment.
    #[serde(alias = "comment")]
    pub(crate) reason: String,
    /// Only builds of these statuses, by their names; empty: what the change is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "statuses")]
    status: Vec<String>,
}

impl EvaluationChangeJson {
    /// A request for a change of builds of these statuses; none: of the whole. It may be sent for other things too.
    pub(crate) fn new(reason: &str, statuses: &[BuildStatus]) -> Self {
        let status = statuses.iter().map(ToString::to_string).collect();
        Self { reason: reason.to_owned(), status }
    }

    /// What the request is for.
    ///
    /// # Errors
    /// There is no such status; the text lists those that there are.
    pub(crate) fn target(&self, id: EvaluationId) -> Result<Target, String> {
        jobs(id, &self.status)
    }
}

/// The builds of an evaluation with these statuses, or the evaluation itself if there are none.
fn jobs(id: EvaluationId, statuses: &[String]) -> Result<Target, String> {
    if statuses.is_empty() {
        return Ok(Target::Evaluation(id));
    }
    let statuses: Vec<BuildStatus> =
        statuses.iter().map(|status| status.parse()).collect::<Result<_, _>>()?;
    let wanted = |status: &&BuildStatus| statuses.contains(status);
    Ok(Target::Jobs(id, BuildStatus::ALL.iter().filter(wanted).copied().collect()))
}

/// The schema of the names of statuses.
fn statuses(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<&str> = BuildStatus::ALL.iter().map(|status| status.as_str()).collect();
    json_schema!({"type": "array", "items": {"type": "string", "enum": names}})
}

/// The schema of the name of a change.
fn change_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": Change::ALL.map(Change::as_str)})
}

/// Notes in the schema of [`ChangesJson`] that a request names a change and at least one target.
fn needs_targets(schema: &mut Schema) {
    let lists = ["builds", "evaluations", "jobs", "specifications"];
    let some = lists.map(|list| json!({"required": [list], "properties": {list: {"minItems": 1}}}));
    schema.insert("anyOf".to_owned(), json!(some));
    schema.insert("required".to_owned(), json!(["change"]));
    // The empty text is the default of the field alone.
    if let Some(change) = schema.pointer_mut("/properties/change").and_then(Value::as_object_mut) {
        change.remove("default");
    }
}

/// The body of a request for a change of 1 to 1000 targets.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Changes", transform = needs_targets)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ChangesJson {
    /// The name of the change, such as `restart`.
    #[schemars(schema_with = "change_name")]
    change: String,
    #[schemars(with = "Vec<i64>")]
    builds: Vec<Whole>,
    #[schemars(with = "Vec<i64>")]
    evaluations: Vec<Whole>,
    /// Builds of evaluations, by their statuses.
    jobs: Vec<JobsJson>,
    specifications: Vec<String>,
    /// Why, for the audit; the text of a comment.
    #[serde(alias = "comment")]
    pub(crate) reason: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ChangedJobs")]
#[serde(deny_unknown_fields)]
struct JobsJson {
    #[schemars(with = "i64")]
    evaluation: Whole,
    /// The names of the statuses; empty: the evaluation itself.
    #[schemars(schema_with = "statuses")]
    status: Vec<String>,
}

impl ChangesJson {
    /// A request for a change of these targets.
    pub(crate) fn new(change: Change, targets: &[Target], reason: &str) -> Self {
        let (change, reason) = (change.as_str().to_owned(), reason.to_owned());
        let mut all = Self { change, reason, ..Self::default() };
        for target in targets {
            match target {
                Target::Build(id) => all.builds.push(Whole(id.get())),
                Target::Evaluation(id) => all.evaluations.push(Whole(id.get())),
                Target::Jobs(id, statuses) => {
                    let status = statuses.iter().map(ToString::to_string).collect();
                    all.jobs.push(JobsJson { evaluation: Whole(id.get()), status });
                }
                Target::Specification(name) => all.specifications.push(name.clone()),
            }
        }
        all
    }

    /// What is asked for, and of what, each once.
    ///
    /// # Errors
    /// Why the request cannot be understood, for people.
    pub(crate) fn read(&self) -> Result<(Change, Vec<Target>), String> {
        let change = self.change.parse()?;
        let number = self.builds.len()
            + self.evaluations.len()
            + self.jobs.len()
            + self.specifications.len();
        if !(1..=TARGETS_MAX).contains(&number) {
            return Err(format!(
                "a change is of 1 to {TARGETS_MAX} `builds`, `evaluations`, `jobs` and `specifications`"
            ));
        }
        let mut all: Vec<Target> = Vec::with_capacity(number);
        let evaluation = |id: Whole| EvaluationId::new(id.0);
        let of_jobs = self.jobs.iter().map(|of| jobs(evaluation(of.evaluation), &of.status));
        let of_jobs = of_jobs.collect::<Result<Vec<_>, _>>()?;
        let targets = self.builds.iter().map(|id| Target::Build(BuildId::new(id.0)));
        let evaluations = self.evaluations.iter().map(|id| Target::Evaluation(evaluation(*id)));
        let targets = targets.chain(evaluations);
        let targets = targets.chain(of_jobs);
        let names = self.specifications.iter().cloned().map(Target::Specification);
        for target in targets.chain(names) {
            if !all.contains(&target) {
                all.push(target);
            }
        }
        Ok((change, all))
    }
}

/// What became of a request for several targets.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Outcomes")]
pub(crate) struct OutcomesJson {
    change: String,
    /// How many targets were changed, or are asked to end.
    done: usize,
    /// How many were not.
    refused: usize,
    results: Vec<OutcomeJson>,
}

/// What became of a request for one target.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Outcome")]
#[serde(default)]
pub(crate) struct OutcomeJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>")]
    build: Option<BuildId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>")]
    evaluation: Option<EvaluationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    specification: Option<String>,
    /// `done`, `ending`, `missing`, `refused`
    result: String,
    /// Of an evaluation, the statuses of the builds that were meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Vec<String>>,
    /// How many builds were changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<usize>,
    /// How many running builds are asked to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    ending: Option<usize>,
    /// How many builds stay as they are, because another evaluation wants them or they cannot be restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<usize>,
    /// The attempt that is asked to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<i64>,
    /// Why nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl OutcomesJson {
    pub(crate) fn new(change: Change, outcomes: Vec<(Target, Outcome)>) -> Self {
        let results: Vec<_> = outcomes
            .into_iter()
            .map(|(target, outcome)| OutcomeJson::new(target, outcome))
            .collect();
        let refused = results.iter().filter(|result| result.error.is_some()).count();
        let change = change.as_str().to_owned();
        Self { change, done: results.len() - refused, refused, results }
    }
}

impl OutcomeJson {
    pub(crate) fn new(target: Target, outcome: Outcome) -> Self {
        let missing = format!("there is no {}", target.thing());
        let mut json = Self { result: "done".to_owned(), ..Self::default() };
        match target {
            Target::Build(id) => json.build = Some(id),
            Target::Evaluation(id) => json.evaluation = Some(id),
            Target::Jobs(id, statuses) => {
                json.evaluation = Some(id);
                json.status = Some(statuses.iter().map(ToString::to_string).collect());
            }
            Target::Specification(name) => json.specification = Some(name),
        }
        match outcome {
            Outcome::Done(changed) => json.changed = Some(changed),
            Outcome::Ending(attempt) => {
                (json.result, json.attempt) = ("ending".to_owned(), Some(attempt));
            }
            Outcome::Many(counts) => {
                json.changed = Some(counts.changed);
                json.ending = Some(counts.ending);
                json.left = Some(counts.left);
            }
            Outcome::Missing => {
                (json.result, json.error) = ("missing".to_owned(), Some(missing));
            }
            Outcome::Refused(why) => {
                (json.result, json.error) = ("refused".to_owned(), Some(why));
            }
        }
        json
    }
}

impl OutcomesJson {
    /// What became of each target, as another server says it.
    pub(crate) fn into_outcomes(self) -> Vec<(Target, Outcome)> {
        self.results.into_iter().filter_map(OutcomeJson::into_outcome).collect()
    }
}

impl OutcomeJson {
    /// `None`: the result is of a newer server, and this program does not know what it is about.
    fn into_outcome(self) -> Option<(Target, Outcome)> {
        let target = match (self.build, self.evaluation, self.specification) {
            (Some(id), ..) => Target::Build(id),
            (None, Some(id), _) => jobs(id, &self.status.unwrap_or_default()).ok()?,
            (None, None, Some(name)) => Target::Specification(name),
            (None, None, None) => return None,
        };
        let Self { changed, ending, left, attempt, .. } = self;
        let outcome = match (&*self.result, self.error) {
            ("missing", _) => Outcome::Missing,
            (_, Some(why)) => Outcome::Refused(why),
            (_, None) => DoneJson { changed, ending, left, attempt }.into_outcome(),
        };
        Some((target, outcome))
    }
}

/// What the answer of a change of one target says, whatever the target was.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DoneJson {
    changed: Option<usize>,
    ending: Option<usize>,
    left: Option<usize>,
    attempt: Option<i64>,
}

impl DoneJson {
    /// What became of the target.
    pub(crate) fn into_outcome(self) -> Outcome {
        let changed = self.changed.unwrap_or(0);
        match (self.attempt, self.ending, self.left) {
            (Some(attempt), ..) => Outcome::Ending(attempt),
            (None, None, None) => Outcome::Done(changed),
            (None, ending, left) => Outcome::Many(Counts {
                changed,
                ending: ending.unwrap_or(0),
                left: left.unwrap_or(0),
            }),
        }
    }
}

/// A change that was made.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
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

impl From<AuditJson> for Audited {
    fn from(row: AuditJson) -> Self {
        let AuditJson {
            id,
            timestamp,
            actor,
            change,
            build,
            evaluation,
            specification,
            result,
            reason,
        } = row;
        Self { id, at: timestamp, actor, change, build, evaluation, specification, result, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_outcomes_are_the_same_after_their_way_as_json() {
        let (build, evaluation) = (BuildId::new(7), EvaluationId::new(3));
        let targets = [
            Target::Build(build),
            Target::Evaluation(evaluation),
            Target::Jobs(evaluation, vec![BuildStatus::Failed, BuildStatus::Canceled]),
            Target::Specification("hello".to_owned()),
        ];
        for change in Change::ALL {
            let sent =
                serde_json::to_vec(&ChangesJson::new(change, &targets, "why")).expect("JSON");
            let read: ChangesJson = serde_json::from_slice(&sent).expect("JSON");
            assert_eq!(read.read(), Ok((change, targets.to_vec())));
            assert_eq!(read.reason, "why");
        }
        let all = Counts { changed: 1, ending: 2, left: 3 };
        let outcomes = vec![
            (targets[0].clone(), Outcome::Done(2)),
            (targets[0].clone(), Outcome::Ending(4)),
            (targets[0].clone(), Outcome::Missing),
            (targets[1].clone(), Outcome::Many(all)),
            (targets[2].clone(), Outcome::Many(all)),
            (targets[3].clone(), Outcome::Refused("because".to_owned())),
        ];
        let sent = OutcomesJson::new(Change::Cancel, outcomes.clone());
        let sent = serde_json::to_vec(&sent).expect("JSON");
        let read: OutcomesJson = serde_json::from_slice(&sent).expect("JSON");
        assert_eq!((read.done, read.refused), (4, 2));
        assert_eq!(read.into_outcomes(), outcomes);
    }

    #[test]
    fn a_request_that_cannot_be_understood_is_refused_with_what_there_is() {
        for (body, wanted) in [
            (r#"{"change":"cancle","builds":[1]}"#, "known are cancel, restart, bump"),
            (r#"{"change":"supersede","evaluations":[1]}"#, "unknown change"),
            (r#"{"change":"cancel"}"#, "a change is of 1 to 1000"),
            (
                r#"{"change":"restart","jobs":[{"evaluation":1,"status":["broken"]}]}"#,
                "known are scheduled",
            ),
        ] {
            let read: ChangesJson = serde_json::from_str(body).expect("JSON");
            let why = read.read().expect_err(body);
            assert!(why.contains(wanted), "{body}: {why}");
        }
        for body in [r#"{"change":"cancel","build":[1]}"#, r#"{"builds":["x"]}"#] {
            assert!(serde_json::from_str::<ChangesJson>(body).is_err(), "{body}");
        }
    }
}
