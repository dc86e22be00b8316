//! Specifications as requests define them: in the form of specification files, and as clients of Hydra send them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The tables of a specification file as JSON, for documents.
#[derive(Debug)]
pub(crate) enum SpecificationFileJson {}

impl JsonSchema for SpecificationFileJson {
    fn schema_name() -> Cow<'static, str> {
        "SpecificationFile".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let text = json!({"type": "string"});
        let name = json!({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$"});
        let duration = json!({
            "description": "Seconds, or a text with units such as `5m`.",
            "anyOf": [{"type": "string"}, {"type": "integer"}],
        });
        let input = table(
            json!({
                "name": name, "url": text, "branch": text, "tag": text, "revision": text,
                "submodules": {"type": "boolean"},
                "submodules-from": {"type": "array", "items": text},
            }),
            &["url"],
        );
        let evaluator = table(
            json!({
                "kind": {"enum": ["jobs", "command"]}, "input": text, "file": text,
                "command": {"anyOf": [text, {"type": "array", "items": text}]},
                "arguments": {"type": "object"}, "timeout": duration,
            }),
            &[],
        );
        let many = json!({"type": "integer", "minimum": 1});
        let specification = table(
            json!({
                "name": name, "project": name, "description": text, "interval": duration,
                "priority": {"type": "integer"},
                "enabled": {"type": "boolean"}, "network": {"type": "boolean"},
                "private": {"type": "boolean"},
                "keep": table(json!({"evaluations": many, "days": many}), &[]),
                "supersede": {"enum": ["cancel", "nothing"]},
                "input": {"type": "array", "items": input, "minItems": 1},
                "evaluator": evaluator,
                "job": {"type": "array", "items": {"type": "object"}},
            }),
            &["name", "input"],
        );
        json_schema!({
            "description": "The tables of a specification file, with the same keys; docs/specifications.md says what they mean.",
            "type": "object",
            "properties": {"specification": {"type": "array", "items": specification, "minItems": 1}},
            "required": ["specification"],
            "additionalProperties": false,
        })
    }
}

/// The schema of a table. Unknown keys are refused.
fn table(properties: Value, required: &[&str]) -> Value {
    let mut schema = json!({"type": "object", "required": required, "additionalProperties": false});
    schema["properties"] = properties;
    schema
}

/// What is wrong with a definition.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct ProblemJson {
    /// Where, as a JSON pointer into the body; empty: the whole.
    pub(crate) pointer: String,
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) help: String,
}

/// A refusal of a body.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problems")]
pub(crate) struct ProblemsJson {
    /// The first problem as a sentence.
    pub(crate) error: String,
    /// All problems of the body; absent: the request was refused before the body was read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<ProblemJson>,
}

/// What became of specifications that were to be stored.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StoredSpecifications")]
pub(crate) struct StoredJson {
    pub(crate) specifications: Vec<StoredOneJson>,
}

/// What became of a specification that was to be stored.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StoredSpecification")]
pub(crate) struct StoredOneJson {
    pub(crate) name: String,
    /// `new`, `changed`, `unchanged` or `removed`.
    pub(crate) outcome: &'static str,
}

/// A jobset as clients of Hydra send it. Other fields are ignored, such as `visible`, since a hidden jobset of Hydra may
/// be read by everybody who knows its address, and a private specification by nobody without a role; and `keepnr`, which
/// says for how many evaluations Hydra keeps outputs: `keep` here deletes whole evaluations. Whether a specification is
/// private stays as it is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "JobsetConfig")]
pub(crate) struct JobsetConfigJson {
    description: String,
    /// Seconds between two looks at the inputs; 0: 30 days, the longest.
    checkinterval: Option<u64>,
    /// 0 or false: disabled; 1 or true: enabled.
    enabled: Option<Switch>,
    /// The input that has the job list.
    nixexprinput: String,
    /// The path of the job list in that input.
    nixexprpath: String,
    /// 0: the jobs come from a job list. Others are refused.
    #[serde(rename = "type")]
    #[schemars(range(min = 0, max = 0))]
    kind: Option<i64>,
    /// Must be empty: there are no flakes.
    #[schemars(length(max = 0))]
    flake: Option<String>,
    inputs: BTreeMap<String, InputConfigJson>,
}

/// An input as clients of Hydra send it.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "InputConfig")]
struct InputConfigJson {
    /// `git`. Others are refused.
    #[serde(rename = "type")]
    #[schemars(extend("const" = "git"))]
    kind: String,
    /// The address and, behind a blank, a branch or a revision.
    value: Option<String>,
}

/// A yes or no, which some clients send as a number.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Switch")]
enum Switch {
    Boolean(bool),
    Number(#[schemars(range(min = 0, max = 1))] u8),
}

impl Switch {
    /// Whether it is on; `None`: it is neither on nor off.
    const fn is_on(self) -> Option<bool> {
        match self {
            Self::Boolean(on) => Some(on),
            Self::Number(0) => Some(false),
            Self::Number(1) => Some(true),
            Self::Number(_) => None,
        }
    }
}

impl JobsetConfigJson {
    /// The jobset in the form of a specification file.
    ///
    /// # Errors
    /// It wants what this server does not have.
    pub(crate) fn definition(&self, project: &str, name: &str) -> Result<Value, ProblemJson> {
        let refuse = |pointer: String, message: &str, help: &str| {
            Err(ProblemJson { pointer, message: message.to_owned(), help: help.to_owned() })
        };
        if self.kind.unwrap_or(0) != 0 || self.flake.as_deref().is_some_and(|it| !it.is_empty()) {
            return refuse(
                "/flake".to_owned(),
                "there are no flakes here",
                "name a job list: `nixexprinput` and `nixexprpath`",
            );
        }
        let Some(enabled) = self.enabled.unwrap_or(Switch::Boolean(true)).is_on() else {
            return refuse("/enabled".to_owned(), "a jobset is enabled or not", "write 0 or 1");
        };
        let mut inputs = Vec::new();
        for (input, InputConfigJson { kind, value }) in &self.inputs {
            if kind != "git" {
                let message = "the inputs of this server are git repositories";
                return refuse(place_of(input, "/type"), message, "write `git`");
            }
            let value = value.as_deref().unwrap_or_default();
            let mut words = value.split_whitespace();
            let mut table = Map::new();
            table.insert("name".to_owned(), input.clone().into());
            table.insert("url".to_owned(), words.next().unwrap_or_default().into());
            if let Some(reference) = words.next() {
                let (key, name) = reference_of(reference);
                table.insert(key.to_owned(), name.into());
            }
            inputs.push(Value::Object(table));
        }
        let mut specification = json!({
            "name": name,
            "project": project,
            "description": self.description,
            "enabled": enabled,
            "input": inputs,
            "evaluator": {"input": self.nixexprinput, "file": self.nixexprpath},
        });
        match self.checkinterval {
            Some(0) => specification["interval"] = "30d".into(),
            Some(seconds) => specification["interval"] = seconds.into(),
            None => {}
        }
        Ok(json!({"specification": [specification]}))
    }

    /// The place in the jobset that a place in [`JobsetConfigJson::definition`] comes from, as JSON pointers. Empty: it
    /// comes from the path of the request, or from the jobset as a whole.
    pub(crate) fn place(&self, pointer: &str) -> String {
        let mut parts = pointer.strip_prefix("/specification/0/").unwrap_or_default().split('/');
        match (parts.next().unwrap_or_default(), parts.next(), parts.next()) {
            ("description", ..) => "/description".to_owned(),
            ("interval", ..) => "/checkinterval".to_owned(),
            ("enabled", ..) => "/enabled".to_owned(),
            ("evaluator", Some("input"), _) => "/nixexprinput".to_owned(),
            ("evaluator", ..) => "/nixexprpath".to_owned(),
            ("input", number, key) => {
                let number = number.and_then(|number| number.parse().ok());
                let input = number.and_then(|number: usize| self.inputs.keys().nth(number));
                let below = if key == Some("name") { "" } else { "/value" };
                input.map_or_else(|| "/inputs".to_owned(), |input| place_of(input, below))
            }
            _ => String::new(),
        }
    }
}

/// The JSON pointer to an input, or to what is at `below` in it.
fn place_of(input: &str, below: &str) -> String {
    format!("/inputs/{}{below}", input.replace('~', "~0").replace('/', "~1"))
}

/// The key of a specification file for a reference of Hydra, and its value.
fn reference_of(reference: &str) -> (&'static str, &str) {
    let is_revision = [40, 64].contains(&reference.len())
        && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_revision {
        ("revision", reference)
    } else if let Some(tag) = reference.strip_prefix("refs/tags/") {
        ("tag", tag)
    } else {
        ("branch", reference.strip_prefix("refs/heads/").unwrap_or(reference))
    }
}

/// A project as clients of Hydra send it. Its other fields are read and ignored.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "ProjectConfig")]
pub(crate) struct ProjectConfigJson {
    /// False: all specifications of the project are disabled.
    enabled: Option<Switch>,
}

impl ProjectConfigJson {
    /// Whether the project is to be enabled; `None`: it stays as it is.
    ///
    /// # Errors
    /// It is neither to be enabled nor to be disabled.
    pub(crate) fn enabled(&self) -> Result<Option<bool>, ProblemJson> {
        let Some(switch) = self.enabled else { return Ok(None) };
        switch.is_on().map(Some).ok_or_else(|| ProblemJson {
            pointer: "/enabled".to_owned(),
            message: "a project is enabled or not".to_owned(),
            help: "write true or false".to_owned(),
        })
    }
}

/// A project or jobset that was stored, in the words of Hydra.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StoredResource")]
pub(crate) struct StoredResourceJson {
    pub(crate) name: String,
    /// `project` or `jobset`.
    pub(crate) r#type: &'static str,
    /// Its path.
    pub(crate) uri: String,
}

/// Where to go after something was removed, in the words of Hydra.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Removed")]
pub(crate) struct RemovedJson {
    pub(crate) redirect: String,
}

/// The jobsets whose inputs are looked at now, in the words of Hydra.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Triggered")]
pub(crate) struct TriggeredJson {
    /// Each as `PROJECT:JOBSET`.
    #[serde(rename = "jobsetsTriggered")]
    pub(crate) triggered: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(json: Value) -> Result<Value, ProblemJson> {
        let config: JobsetConfigJson = serde_json::from_value(json).expect("a jobset");
        config.definition("p", "j")
    }

    #[test]
    fn a_jobset_of_hydra_is_a_specification() {
        let revision = "a".repeat(40);
        let found = definition(json!({
            "description": "d", "checkinterval": 60, "enabled": 1, "visible": true, "keepnr": 3,
            "nixexprinput": "src", "nixexprpath": "ci.toml",
            "inputs": {
                "src": {"type": "git", "value": "https://example.org/x.git main", "revision": null, "uri": null},
                "tag": {"type": "git", "value": "/srv/y refs/tags/v1"},
                "rev": {"type": "git", "value": format!("/srv/z {revision} deepClone")},
            },
        }));
        let wanted = json!({"specification": [{
            "name": "j", "project": "p", "description": "d", "enabled": true, "interval": 60,
            "evaluator": {"input": "src", "file": "ci.toml"},
            "input": [
                {"name": "rev", "url": "/srv/z", "revision": revision},
                {"name": "src", "url": "https://example.org/x.git", "branch": "main"},
                {"name": "tag", "url": "/srv/y", "tag": "v1"},
            ],
        }]});
        assert_eq!(found.expect("a definition"), wanted);
    }

    #[test]
    fn places_of_a_definition_are_those_of_the_jobset() {
        let config: JobsetConfigJson = serde_json::from_value(json!({
            "inputs": {"a": {"type": "git"}, "b/c": {"type": "git"}},
        }))
        .expect("a jobset");
        for (of, wanted) in [
            ("name", ""),
            ("project", ""),
            ("interval", "/checkinterval"),
            ("evaluator", "/nixexprpath"),
            ("evaluator/input", "/nixexprinput"),
            ("evaluator/file", "/nixexprpath"),
            ("input", "/inputs"),
            ("input/0/url", "/inputs/a/value"),
            ("input/1/name", "/inputs/b~1c"),
            ("input/1/branch", "/inputs/b~1c/value"),
            ("input/7/url", "/inputs"),
        ] {
            assert_eq!(config.place(&format!("/specification/0/{of}")), wanted, "{of}");
        }
        assert_eq!(config.place(""), "");
    }

    #[test]
    fn what_this_server_does_not_have_is_refused_with_its_place() {
        for (json, pointer) in [
            (json!({"enabled": 2}), "/enabled"),
            (json!({"type": 1, "flake": "github:x/y"}), "/flake"),
            (json!({"inputs": {"n": {"type": "string", "value": "x"}}}), "/inputs/n/type"),
        ] {
            assert_eq!(definition(json).expect_err("a refusal").pointer, pointer);
        }
        assert_eq!(
            definition(json!({"checkinterval": 0})).expect("it")["specification"][0]["interval"],
            "30d"
        );
    }
}
