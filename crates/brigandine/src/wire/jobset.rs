//! A specification with its state.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::specification::{SpecificationJson, evaluated};
use crate::model::{Evaluation, EvaluationStatus, Input, Reference, SpecificationState, Timestamp};
use crate::store::{Visible, visible};

/// A specification as clients of Cuirass know it, with its state as clients of Hydra know it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Jobset")]
pub(crate) struct JobsetJson {
    #[serde(flatten)]
    specification: SpecificationJson,
    #[serde(flatten)]
    state: StateJson,
}

impl JobsetJson {
    /// The specification, and its state in `s`.
    pub(crate) fn read(s: &Visible<'_>, state: &SpecificationState) -> rusqlite::Result<Self> {
        Ok(Self {
            specification: SpecificationJson::from(&state.specification),
            state: StateJson::new(state, &Evaluations::read(s, state)?),
        })
    }
}

/// The evaluations that tell the state of a specification.
struct Evaluations {
    /// That of the revisions that the inputs have now.
    current: Option<Evaluation>,
    /// The latest, if it is another one.
    latest: Option<Evaluation>,
}

impl Evaluations {
    fn read(s: &Visible<'_>, state: &SpecificationState) -> rusqlite::Result<Self> {
        let read = |id| visible::evaluation(s, id);
        let (current, latest) = (state.evaluation(), state.latest_evaluation);
        Ok(Self {
            current: current.map(read).transpose()?.flatten(),
            latest: latest.filter(|_| latest != current).map(read).transpose()?.flatten(),
        })
    }

    /// The evaluation that runs.
    fn running(&self) -> Option<&Evaluation> {
        let mut all = self.current.iter().chain(&self.latest);
        all.find(|evaluation| evaluation.status == EvaluationStatus::Started)
    }

    /// The current evaluation, if it failed.
    fn failed(&self) -> Option<&Evaluation> {
        let failed = [EvaluationStatus::Failed, EvaluationStatus::Aborted];
        self.current.as_ref().filter(|evaluation| failed.contains(&evaluation.status))
    }
}

/// The state of a specification as clients of Hydra know it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "JobsetState")]
struct StateJson {
    project: String,
    /// The jobs of the evaluation of the revisions that the inputs have now.
    nrtotal: i64,
    /// The jobs whose builds wait or run.
    nrscheduled: i64,
    nrsucceeded: i64,
    /// The jobs whose builds ended otherwise, also the canceled ones: clients take the jobs for built when
    /// `nrsucceeded` is `nrtotal`, and give up when this is not 0.
    nrfailed: i64,
    /// When the running evaluation began; null: none runs.
    starttime: Option<Timestamp>,
    /// When the inputs were last looked at. Null while an evaluation runs, because clients take a later time for the
    /// end of an evaluation.
    lastcheckedtime: Option<Timestamp>,
    /// The last request for a look; null: there was none.
    triggertime: Option<Timestamp>,
    /// Why the inputs could not be fetched; null: they could.
    fetcherrormsg: Option<String>,
    haserrormsg: bool,
}

impl StateJson {
    fn new(state: &SpecificationState, evaluations: &Evaluations) -> Self {
        let counters = evaluations.current.as_ref().map(|e| e.counters).unwrap_or_default();
        let running = evaluations.running();
        let known = |at: Timestamp| (at > 0).then_some(at);
        Self {
            project: state.specification.project.clone(),
            nrtotal: counters.total(),
            nrscheduled: counters.scheduled + counters.started,
            nrsucceeded: counters.succeeded,
            nrfailed: counters.finished() - counters.succeeded,
            starttime: running.map(|evaluation| evaluation.created_at),
            lastcheckedtime: known(state.look.looked_at).filter(|_| running.is_none()),
            triggertime: known(state.look.wanted_at),
            fetcherrormsg: some(&state.look.error),
            haserrormsg: evaluations.failed().is_some(),
        }
    }
}

/// A text; `None`: it is empty.
fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A specification as clients of Hydra know it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HydraJobset")]
pub(crate) struct HydraJobsetJson {
    name: String,
    description: String,
    #[serde(flatten)]
    state: StateJson,
    #[schemars(range(max = 1))]
    enabled: u8,
    /// Whether everybody may see it: it is not private.
    visible: bool,
    r#type: u8,
    flake: Option<String>,
    nixexprinput: String,
    nixexprpath: String,
    /// Why the evaluation failed; empty: it did not.
    errormsg: String,
    /// When the evaluation failed; null: it did not.
    errortime: Option<Timestamp>,
    /// Seconds between two looks; null: the server's default.
    checkinterval: Option<u64>,
    enableemail: bool,
    emailoverride: &'static str,
    inputs: BTreeMap<String, JobsetInputJson>,
    /// The inputs as older versions of Hydra have them.
    jobsetinputs: BTreeMap<String, InputAltsJson>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "JobsetInput")]
struct JobsetInputJson {
    name: String,
    r#type: &'static str,
    value: String,
    emailresponsible: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "InputAlternatives")]
struct InputAltsJson {
    jobsetinputalts: [String; 1],
}

/// The address of an input and what is fetched from there, divided by a blank.
fn value(input: &Input) -> String {
    match &input.reference {
        Reference::Branch(name) | Reference::Tag(name) => format!("{} {name}", input.shown()),
        Reference::Revision(revision) => format!("{} {revision}", input.shown()),
        Reference::Head => input.shown(),
    }
}

impl HydraJobsetJson {
    /// The specification, and its state in `s`.
    pub(crate) fn read(s: &Visible<'_>, state: &SpecificationState) -> rusqlite::Result<Self> {
        let evaluations = Evaluations::read(s, state)?;
        let failed = evaluations.failed();
        let specification = &state.specification;
        let (nixexprinput, nixexprpath) = evaluated(specification);
        let inputs = || specification.inputs.iter();
        let input = |input: &Input| JobsetInputJson {
            name: input.name.clone(),
            r#type: "git",
            value: value(input),
            emailresponsible: false,
        };
        let alts = |input: &Input| InputAltsJson { jobsetinputalts: [value(input)] };
        Ok(Self {
            name: specification.name.clone(),
            description: specification.description.clone(),
            state: StateJson::new(state, &evaluations),
            enabled: u8::from(specification.enabled),
            visible: !specification.private,
            r#type: 0,
            flake: None,
            nixexprinput,
            nixexprpath,
            errormsg: failed.map(|evaluation| evaluation.message.clone()).unwrap_or_default(),
            errortime: failed.map(|evaluation| evaluation.finished_at),
            checkinterval: specification.interval_s,
            enableemail: false,
            emailoverride: "",
            inputs: inputs().map(|one| (one.name.clone(), input(one))).collect(),
            jobsetinputs: inputs().map(|one| (one.name.clone(), alts(one))).collect(),
        })
    }
}
