//! JSON as clients of Cuirass and Hydra know it, a file per resource. The order of fields is that of the ancestor.
//!
//! What a field is called is decided here; `api/` says at which address it is, `command/` prints it.

mod build;
mod evaluation;
mod specification;

pub(crate) use build::{BuildJson, builds_json};
pub(crate) use evaluation::EvaluationJson;
pub(crate) use specification::SpecificationJson;
