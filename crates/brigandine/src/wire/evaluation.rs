//! An evaluation.

use serde::Serialize;

use crate::model::{Checkout, Evaluation, EvaluationStatus};

/// An evaluation as clients know it.
#[derive(Debug, Serialize)]
pub(crate) struct EvaluationJson {
    id: i64,
    specification: String,
    commits: Vec<String>,
    checkouts: Vec<CheckoutJson>,
    #[serde(rename = "in-progress")]
    in_progress: u8,
    status: EvaluationStatus,
    timestamp: i64,
    checkouttime: i64,
    evaltime: i64,
}

#[derive(Debug, Serialize)]
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
