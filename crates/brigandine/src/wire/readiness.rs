//! Whether the server does its work.

use schemars::JsonSchema;
use serde::Serialize;

/// Whether the server does its work, and if not, why.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Readiness")]
pub(crate) struct ReadinessJson {
    pub(crate) ready: bool,
    /// Why the server is not ready, in sentences for people.
    pub(crate) reasons: Vec<String>,
    /// What else people should know, such as that nothing is started while a disk has little room; usually empty.
    pub(crate) notice: String,
    /// The names of the tasks that run.
    pub(crate) tasks: Vec<String>,
}
