//! The evaluator protocol: an evaluator reads one JSON object, and prints one JSON object per line.
//!
//! ```text
//! in:  {"protocol": 1, "specification": {…}, "checkouts": [{"input", "url", "directory",
//!       "revision"}], "arguments": {…}, "systems": ["x86_64-linux"]}
//! out: {"job": name, "derivation": …, "system": …, "nix_name": …, "outputs": {…},
//!       "needs": [job, …] or {alias: job, …}, "timeout": s, "max_silent": s, "priority": n}
//!      {"error": {"job": name?, "message": text}}
//! ```
//!
//! A derivation is the path of a file in a store, or an object of the `command` backend: `{"command": text or
//! [program, argument, …], "environment": {…}, "sources": {input: [pattern, …]}, "products": [pattern, …],
//! "network": true}`. If `sources` is missing, the build sees the whole tree of every input. Keys that are not
//! listed here are refused, because a misspelt `needs` would make a job without dependencies.

use crate::model::{Specification, one_line};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The most bytes of an unreadable line that the message shows.
const LINE_SHOWN_MAX: usize = 300;

/// The version of the protocol.
pub(crate) const VERSION: u32 = 1;

/// What an evaluator reads from its standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The version of the protocol, [`VERSION`].
    pub(crate) protocol: u32,
    /// The specification that is evaluated.
    pub(crate) specification: Specification,
    /// The specification's inputs at their revisions.
    pub(crate) checkouts: Vec<RequestCheckout>,
    /// The specification's arguments for the evaluator.
    pub(crate) arguments: Map<String, Value>,
    /// The systems for which the server builds; the first is the default.
    pub(crate) systems: Vec<String>,
}

/// An input at a revision.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RequestCheckout {
    /// The input's name.
    pub(crate) input: String,
    /// The address of the input's repository, without a password.
    pub(crate) url: String,
    /// The directory with the input's files; empty: they are not in a directory.
    pub(crate) directory: String,
    /// The input's full revision.
    pub(crate) revision: String,
}

/// A parsed line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    /// A job.
    Job(Box<Job>),
    /// A job, or the whole evaluation, that failed.
    Error {
        /// The job; `None`: the whole evaluation.
        job: Option<String>,
        /// Why it failed, for people.
        message: String,
    },
}

/// A job as an evaluator prints it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    /// The job's name.
    pub(crate) name: String,
    /// The derivation that is built.
    pub(crate) derivation: Derivation,
    /// The system for which the job is built; `None`: the server's first system.
    pub(crate) system: Option<String>,
    /// The package's name and version; `None`: the job's name.
    pub(crate) nix_name: Option<String>,
    /// The names of the jobs that this job needs, by the names under which the build sees their outputs.
    pub(crate) needs: BTreeMap<String, String>,
    /// The time limit in seconds; `None`: the server's.
    pub(crate) timeout: Option<u32>,
    /// The limit on the time without output in seconds; `None`: the server's.
    pub(crate) max_silent: Option<u32>,
    /// Jobs with a higher number are built earlier.
    pub(crate) priority: i32,
    /// A description of one line, for people.
    pub(crate) description: String,
}

/// The thing that is built.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Derivation {
    /// The path of a file in a store.
    Path(String),
    /// A command to run.
    Command(CommandDerivation),
}

/// A derivation of the `command` backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandDerivation {
    /// A text for `/bin/sh`, or a list of the program and its arguments.
    pub(crate) command: Value,
    /// Variables that are added to the clean environment.
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    /// Patterns by input; no pattern means all files of the input. `None`: all files of all inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sources: Option<BTreeMap<String, Vec<String>>>,
    /// Patterns of the files to keep.
    #[serde(default)]
    pub(crate) products: Vec<String>,
    /// `true`: the job may use the network from the sandbox.
    #[serde(default)]
    pub(crate) network: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    job: Option<String>,
    derivation: Option<Value>,
    system: Option<String>,
    nix_name: Option<String>,
    #[serde(rename = "outputs")]
    _outputs: Option<Map<String, Value>>,
    needs: Option<Value>,
    timeout: Option<u32>,
    max_silent: Option<u32>,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    description: String,
    error: Option<RawError>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawError {
    job: Option<String>,
    message: String,
}

/// Parses one line.
///
/// # Errors
/// What is wrong with the line, for people, without the line's number.
pub(crate) fn parse(line: &[u8]) -> Result<Line, String> {
    let raw: Raw = serde_json::from_slice(line).map_err(|error| {
        let shown = one_line(&String::from_utf8_lossy(line), LINE_SHOWN_MAX);
        format!("cannot be read: {}: `{shown}`", without_line(&error))
    })?;
    match (raw.job, raw.error) {
        (Some(_), Some(_)) => Err("has both `job` and `error`".to_owned()),
        (None, None) => Err("has neither `job` nor `error`".to_owned()),
        (None, Some(error)) => Ok(Line::Error { job: error.job, message: error.message }),
        (Some(name), None) => {
            let derivation = match raw.derivation {
                None => return Err(format!("job `{name}` has no `derivation`")),
                Some(Value::String(path)) => Derivation::Path(path),
                Some(object @ Value::Object(_)) => {
                    let command = serde_json::from_value(object)
                        .map_err(|error| format!("job `{name}`, `derivation`: {error}"))?;
                    Derivation::Command(command)
                }
                Some(_) => {
                    return Err(format!("job `{name}`: `derivation` is neither text nor object"));
                }
            };
            let needs = match raw.needs {
                None => BTreeMap::new(),
                Some(needs) => read_needs(needs).ok_or_else(|| {
                    format!(
                        "job `{name}`: `needs` is neither a list of names nor an object of them"
                    )
                })?,
            };
            Ok(Line::Job(Box::new(Job {
                name,
                derivation,
                system: raw.system,
                nix_name: raw.nix_name,
                needs,
                timeout: raw.timeout,
                max_silent: raw.max_silent,
                priority: raw.priority,
                description: raw.description,
            })))
        }
    }
}

fn read_needs(needs: Value) -> Option<BTreeMap<String, String>> {
    let text = |name| if let Value::String(name) = name { Some(name) } else { None };
    let same = |name: String| (name.clone(), name);
    match needs {
        Value::Array(names) => names.into_iter().map(|name| text(name).map(same)).collect(),
        Value::Object(names) => {
            names.into_iter().map(|(alias, name)| Some((alias, text(name)?))).collect()
        }
        _ => None,
    }
}

/// The text of an error, without serde's line number. serde counts lines within the text, so "line 1" would mislead.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line 1 column ") {
        Some(at) => {
            let column = &text[at + " at line 1 column ".len()..];
            format!("{} (column {column})", &text[..at])
        }
        None => text,
    }
}
