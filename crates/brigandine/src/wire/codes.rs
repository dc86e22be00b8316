//! Status codes in schemas. The codes are plain numbers in JSON.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::model::{BuildStatus, EvaluationStatus, Weather};

macro_rules! code {
    ($name:ident, $of:ident, $title:literal) => {
        /// The schema of the code with this name.
        #[derive(Debug)]
        pub(super) enum $name {}

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $title.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let codes: Vec<i64> = $of::ALL.iter().map(|value| value.code()).collect();
                let names: Vec<String> =
                    $of::ALL.iter().map(|value| format!("{}: {value}", value.code())).collect();
                json_schema!({"type": "integer", "enum": codes, "description": names.join(", ")})
            }
        }
    };
}

code!(BuildCode, BuildStatus, "BuildStatus");
code!(EvaluationCode, EvaluationStatus, "EvaluationStatus");
code!(WeatherCode, Weather, "Weather");
