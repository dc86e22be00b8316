//! A specification.

use schemars::JsonSchema;
use serde::Serialize;

use crate::model::{Evaluator, Input, Reference, Specification};

/// A specification as clients know it. `proc` is the specification's evaluator.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Specification")]
pub(crate) struct SpecificationJson {
    name: String,
    load_path_inputs: Vec<String>,
    package_path_inputs: Vec<String>,
    proc_input: String,
    proc_file: String,
    proc: &'static str,
    proc_args: serde_json::Map<String, serde_json::Value>,
    inputs: Vec<InputJson>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Input")]
struct InputJson {
    name: String,
    url: String,
    #[serde(rename = "load-path")]
    load_path: &'static str,
    branch: OrFalse,
    tag: OrFalse,
    commit: OrFalse,
    #[serde(rename = "no-compile?")]
    no_compile: bool,
}

/// A text, or `false` if there is none.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "TextOrFalse")]
enum OrFalse {
    Text(String),
    False(bool),
}

impl From<Option<&String>> for OrFalse {
    fn from(text: Option<&String>) -> Self {
        text.map_or(Self::False(false), |text| Self::Text(text.clone()))
    }
}

impl From<&Input> for InputJson {
    fn from(input: &Input) -> Self {
        let (mut branch, mut tag, mut commit) = (None, None, None);
        match &input.reference {
            Reference::Branch(name) => branch = Some(name),
            Reference::Tag(name) => tag = Some(name),
            Reference::Revision(revision) => commit = Some(revision),
            Reference::Head => {}
        }
        Self {
            name: input.name.clone(),
            url: input.shown(),
            load_path: ".",
            branch: branch.into(),
            tag: tag.into(),
            commit: commit.into(),
            no_compile: false,
        }
    }
}

/// The input that the evaluator reads, and the file in it that says how jobs are made.
pub(super) fn evaluated(specification: &Specification) -> (String, String) {
    let first = || specification.inputs.first().map(|input| input.name.clone());
    let input = specification.evaluator.input().map(str::to_owned).or_else(first);
    let file = match &specification.evaluator {
        Evaluator::Jobs { file, .. } => file.clone(),
        Evaluator::Command { command, .. } => command.first().cloned().unwrap_or_default(),
    };
    (input.unwrap_or_default(), file)
}

impl From<&Specification> for SpecificationJson {
    fn from(specification: &Specification) -> Self {
        let (proc_input, proc_file) = evaluated(specification);
        let (proc, proc_args) = match &specification.evaluator {
            Evaluator::Jobs { .. } => ("jobs", serde_json::Map::new()),
            Evaluator::Command { arguments, .. } => ("command", arguments.clone()),
        };
        Self {
            name: specification.name.clone(),
            load_path_inputs: Vec::new(),
            package_path_inputs: Vec::new(),
            proc_input,
            proc_file,
            proc,
            proc_args,
            inputs: specification.inputs.iter().map(InputJson::from).collect(),
        }
    }
}
