//! JSON as clients of Cuirass and Hydra know it, a file per resource. The order of fields is Cuirass's.
//!
//! The names of fields are decided here, their addresses in `api/`; `command/` prints the same JSON.

mod build;
mod evaluation;
mod specification;

pub(crate) use build::{BuildJson, builds_json};
pub(crate) use evaluation::EvaluationJson;
pub(crate) use specification::SpecificationJson;
