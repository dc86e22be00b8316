//! Refusals.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

/// A refusal.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(crate) struct ErrorJson<'a> {
    /// What is wrong, for people.
    pub(crate) error: &'a str,
}

/// The message for a required parameter that is missing or cannot be read.
pub(crate) const PARAMETER_MISSING: &str = "Parameter not defined!";
/// The message for a number of entries that is not from 1 to 1000.
pub(crate) const LIMIT_EXCEEDED: &str = "Maximum limit exceeded";

/// The two refusals that clients of Cuirass expect with status 500, for documents.
#[derive(Debug)]
pub(crate) enum ParameterErrorJson {}

impl JsonSchema for ParameterErrorJson {
    fn schema_name() -> Cow<'static, str> {
        "ParameterError".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": {"error": {"type": "string", "enum": [PARAMETER_MISSING, LIMIT_EXCEEDED]}},
            "required": ["error"],
        })
    }
}
