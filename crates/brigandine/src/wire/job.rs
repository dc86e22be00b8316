//! A job of an evaluation, and how the latest build of a job did.

use schemars::JsonSchema;
use serde::Serialize;

use super::codes::BuildCode;
use crate::model::{BuildId, BuildStatus, JobBuild};

/// A job with its build.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Job")]
pub(crate) struct JobJson {
    #[schemars(with = "i64")]
    build: BuildId,
    #[schemars(with = "BuildCode")]
    status: BuildStatus,
    name: String,
}

impl From<JobBuild> for JobJson {
    fn from(JobBuild { build, status, name }: JobBuild) -> Self {
        Self { build, status, name }
    }
}

/// How the latest ended build of a job ended, as shields.io reads it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Shield")]
pub(crate) struct ShieldJson {
    color: &'static str,
    label: &'static str,
    message: &'static str,
    schema_version: u8,
}

impl From<BuildStatus> for ShieldJson {
    fn from(status: BuildStatus) -> Self {
        let (color, message) = match status {
            BuildStatus::Succeeded => ("green", "passing"),
            BuildStatus::Canceled => ("yellow", "cancelled"),
            _ => ("red", "failing"),
        };
        Self { color, label: "build", message, schema_version: 1 }
    }
}
