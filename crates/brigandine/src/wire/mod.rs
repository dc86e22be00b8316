//! JSON as clients of Cuirass and Hydra know it, with a file per resource. The fields have Cuirass's order.
//!
//! This module decides the names of the fields; `api/` decides the addresses. `command/` prints the same JSON.

mod build;
mod evaluation;
mod history;
mod jobset;
mod project;
mod specification;

pub(crate) use build::{BuildJson, builds_json, whole_builds_json};
pub(crate) use evaluation::{EvaluationJson, HydraEvaluationJson};
pub(crate) use history::HistoryJson;
pub(crate) use jobset::{HydraJobsetJson, JobsetJson};
pub(crate) use project::ProjectJson;
