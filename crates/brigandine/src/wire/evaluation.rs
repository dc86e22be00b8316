//! An evaluation.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::codes::EvaluationCode;
use super::specification::evaluated;
use crate::model::{BuildId, Checkout, Evaluation, EvaluationStatus, Input, Specification};

/// An evaluation as clients know it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Evaluation")]
pub(crate) struct EvaluationJson {
    id: i64,
    specification: String,
    commits: Vec<String>,
    checkouts: Vec<CheckoutJson>,
    #[serde(rename = "in-progress")]
    #[schemars(range(max = 1))]
    in_progress: u8,
    #[schemars(with = "EvaluationCode")]
    status: EvaluationStatus,
    timestamp: i64,
    checkouttime: i64,
    evaltime: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Checkout")]
struct CheckoutJson {
    commit: String,
    input: String,
    channel: String,
}

impl EvaluationJson {
    /// An evaluation with its checkouts.
    pub(crate) fn new(evaluation: Evaluation, checkouts: Vec<Checkout>) -> Self {
        Self {
            id: evaluation.id.get(),
            specification: evaluation.specification,
            commits: checkouts.iter().map(|checkout| checkout.revision.clone()).collect(),
            checkouts: checkouts
                .into_iter()
                .map(|checkout| CheckoutJson {
                    commit: checkout.revision,
                    channel: checkout.input.clone(),
                    input: checkout.input,
                })
                .collect(),
            in_progress: u8::from(evaluation.status == EvaluationStatus::Started),
            status: evaluation.status,
            timestamp: evaluation.created_at,
            checkouttime: evaluation.checkout_at,
            evaltime: evaluation.finished_at,
        }
    }
}

/// An evaluation with the fields that clients of Cuirass know and those that clients of Hydra know.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HydraEvaluation")]
pub(crate) struct HydraEvaluationJson {
    #[serde(flatten)]
    evaluation: EvaluationJson,
    project: String,
    jobset: String,
    #[schemars(range(max = 1))]
    hasnewbuilds: u8,
    flake: Option<String>,
    nixexprinput: String,
    nixexprpath: String,
    jobsetevalinputs: BTreeMap<String, EvaluationInputJson>,
    #[schemars(with = "Vec<i64>")]
    builds: Vec<BuildId>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "EvaluationInput")]
struct EvaluationInputJson {
    r#type: &'static str,
    /// The address that the specification has now; null: it has no such input any more.
    uri: Option<String>,
    revision: String,
    value: Option<String>,
    dependency: Option<i64>,
}

impl HydraEvaluationJson {
    /// An evaluation of `specification` with its checkouts and builds.
    pub(crate) fn new(
        evaluation: Evaluation,
        specification: &Specification,
        checkouts: Vec<Checkout>,
        builds: Vec<BuildId>,
    ) -> Self {
        let input = |checkout: &Checkout| {
            let input = specification.inputs.iter().find(|input| input.name == checkout.input);
            let json = EvaluationInputJson {
                r#type: "git",
                uri: input.map(Input::shown),
                revision: checkout.revision.clone(),
                value: None,
                dependency: None,
            };
            (checkout.input.clone(), json)
        };
        let (nixexprinput, nixexprpath) = evaluated(specification);
        Self {
            project: specification.project.clone(),
            jobset: specification.name.clone(),
            hasnewbuilds: 1,
            flake: None,
            nixexprinput,
            nixexprpath,
            jobsetevalinputs: checkouts.iter().map(input).collect(),
            builds,
            evaluation: EvaluationJson::new(evaluation, checkouts),
        }
    }
}

/// A page of a specification's evaluations, newest first. The other pages are named by their queries.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "EvaluationPage")]
pub(crate) struct EvaluationPageJson {
    pub(crate) first: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(crate) previous: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(crate) next: Option<String>,
    pub(crate) last: String,
    pub(crate) evals: Vec<HydraEvaluationJson>,
}
