//! JSON as clients of Cuirass and Hydra know it, with a file per resource, and the schemas of the OpenAPI document.
//! The fields have Cuirass's order.
//!
//! This module decides the names of the fields; `api/` decides the addresses. `command/` prints the same JSON.

mod build;
mod change;
mod codes;
mod comparison;
mod definition;
mod error;
mod evaluation;
mod history;
mod job;
mod jobset;
mod past;
mod project;
mod readiness;
mod search;
mod specification;
mod user;
mod whole;

pub(crate) use build::{BuildJson, NamedOutputJson, builds_json, whole_builds_json};
pub(crate) use change::{
    AuditJson, ChangedBuildJson, ChangesJson, DoneJson, EndingBuildJson, EvaluationChangeJson,
    OutcomeJson, OutcomesJson, ReasonJson, WantedLookJson,
};
pub(crate) use comparison::ComparisonJson;
pub(crate) use definition::{
    JobsetConfigJson, ProblemJson, ProblemsJson, ProjectConfigJson, RemovedJson,
    SpecificationFileJson, StoredJson, StoredOneJson, StoredResourceJson, TriggeredJson,
};
pub(crate) use error::{ErrorJson, LIMIT_EXCEEDED, PARAMETER_MISSING, ParameterErrorJson};
pub(crate) use evaluation::{EvaluationJson, EvaluationPageJson, HydraEvaluationJson};
pub(crate) use history::HistoryJson;
pub(crate) use job::{JobJson, ShieldJson};
pub(crate) use jobset::{HydraJobsetJson, JobsetJson};
pub(crate) use past::JobHistoryJson;
pub(crate) use project::ProjectJson;
pub(crate) use readiness::ReadinessJson;
pub(crate) use search::SearchJson;
pub(crate) use user::{LoginJson, UserJson};
