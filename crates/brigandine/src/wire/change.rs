//! What changes are answered with.

use schemars::JsonSchema;
use serde::Serialize;

use crate::model::BuildId;

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
