//! The built-in evaluator: turns a job list into the lines of the protocol.
//!
//! A child process, `brigandine evaluate-jobs`, reads a large list like any other evaluator, so that the same limits
//! apply to a hostile list as to a hostile program. The server reads a small list itself.

use super::protocol::{Request, VERSION};
use crate::config::job_list;
use crate::model::{Evaluator, JobEntry};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

const REQUEST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The most bytes of a job list.
pub(super) const LIST_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The first argument by which this program is told to evaluate.
pub(super) const EVALUATE: &str = "evaluate-jobs";

/// Whether this process was started to evaluate a job list.
pub(crate) fn is_evaluator() -> bool {
    std::env::args_os().nth(1).is_some_and(|word| word == EVALUATE)
}

/// Reads the request from standard input and prints the jobs. The status is 0 if it succeeds.
pub(crate) fn main() -> ExitCode {
    let mut text = String::new();
    let read = io::stdin().lock().take(REQUEST_BYTES_MAX).read_to_string(&mut text);
    let lines = match read {
        Ok(_) => request(&text).and_then(|request| lines(&request, None)),
        Err(error) => Err(format!("standard input: {error}")),
    };
    let (lines, status) = match lines {
        Ok(lines) => (lines, ExitCode::SUCCESS),
        // The server also writes this message to the log.
        Err(message) => (vec![json!({ "error": { "message": message } })], ExitCode::FAILURE),
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in lines {
        if writeln!(out, "{line}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    if out.flush().is_err() { ExitCode::FAILURE } else { status }
}

fn request(text: &str) -> Result<Request, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("standard input holds no evaluation request: {error}"))
}

/// The lines that answer a request. `list` is the text of the job list. `None`: the function reads the list from the
/// checkout's directory.
///
/// # Errors
/// What is wrong with the request or the list, for people.
pub(super) fn lines(request: &Request, list: Option<&[u8]>) -> Result<Vec<Value>, String> {
    if request.protocol != VERSION {
        return Err(format!(
            "the request has protocol version {}, and this evaluator speaks {VERSION}",
            request.protocol
        ));
    }
    let Evaluator::Jobs { input, file, jobs } = &request.specification.evaluator else {
        return Err("the specification has another evaluator".to_owned());
    };
    let checkout = match input {
        Some(name) => request.checkouts.iter().find(|checkout| checkout.input == *name),
        None => request.checkouts.first(),
    }
    .ok_or("the specification has no such input")?;
    let entries = if jobs.is_empty() {
        let text = match list {
            Some(list) => String::from_utf8(list.to_vec())
                .map_err(|_| io::Error::other("stream did not contain valid UTF-8")),
            None => read_list(Path::new(&checkout.directory), file),
        };
        let text = text.map_err(|error| format!("{file}: {error}"))?;
        job_list::parse(file, &text).map_err(|problems| problems.to_string())?
    } else {
        jobs.clone()
    };
    let inputs: Vec<&str> = request.checkouts.iter().map(|c| c.input.as_str()).collect();
    Ok(expand(&entries, &checkout.input, &inputs, &request.systems))
}

fn read_list(directory: &Path, file: &str) -> io::Result<String> {
    // A link in a repository may point anywhere.
    let path = directory.join(file).canonicalize()?;
    if !path.starts_with(directory.canonicalize()?) {
        return Err(io::Error::other("leads out of the repository"));
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(LIST_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LIST_BYTES_MAX {
        return Err(too_large());
    }
    Ok(text)
}

/// The error of a job list that is too large.
pub(super) fn too_large() -> io::Error {
    io::Error::other(format!("has more than {LIST_BYTES_MAX} bytes"))
}

/// Makes one line for each system of a job. A job for several systems is named `NAME.SYSTEM`, and needs the jobs for
/// the same system.
fn expand(entries: &[JobEntry], main: &str, inputs: &[&str], systems: &[String]) -> Vec<Value> {
    let by_name: HashMap<&str, &JobEntry> =
        entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let name_for = |entry: &JobEntry, system: &str| {
        if entry.systems.len() > 1 {
            format!("{}.{system}", entry.name)
        } else {
            entry.name.clone()
        }
    };
    let mut lines = Vec::new();
    for entry in entries {
        let wanted = if entry.systems.is_empty() {
            &systems[..systems.len().min(1)]
        } else {
            &entry.systems
        };
        for system in wanted {
            let needs: Map<String, Value> = entry
                .needs
                .0
                .iter()
                .map(|(alias, need)| {
                    let name = match by_name.get(need.as_str()) {
                        Some(needed) if needed.systems.contains(system) => name_for(needed, system),
                        _ => need.clone(),
                    };
                    (alias.clone(), Value::String(name))
                })
                .collect();
            let command = match entry.command.as_slice() {
                [script] => Value::String(script.clone()),
                words => json!(words),
            };
            let mut derivation = json!({
                "command": command,
                "environment": entry.env,
                "products": entry.products,
            });
            if entry.network {
                derivation["network"] = true.into();
            }
            if !entry.sources.is_empty() {
                derivation["sources"] = json!(sources(&entry.sources, main, inputs));
            }
            let mut line = json!({
                "job": name_for(entry, system),
                "derivation": derivation,
                "system": system,
                "nix_name": entry.name,
                "needs": needs,
                "priority": entry.priority,
            });
            if !entry.description.is_empty() {
                line["description"] = entry.description.as_str().into();
            }
            if let Some(timeout) = entry.timeout_s {
                line["timeout"] = json!(timeout);
            }
            if let Some(max_silent) = entry.max_silent_s {
                line["max_silent"] = json!(max_silent);
            }
            lines.push(line);
        }
    }
    lines
}

/// The patterns by input. A pattern `INPUT:PATTERN` belongs to that input, if there is such an input. All other
/// patterns belong to the main input.
fn sources(patterns: &[String], main: &str, inputs: &[&str]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pattern in patterns {
        let (input, pattern) = match pattern.split_once(':') {
            Some((input, rest)) if inputs.contains(&input) => (input, rest),
            _ => (main, pattern.as_str()),
        };
        found.entry(input.to_owned()).or_default().push(pattern.to_owned());
    }
    found
}
