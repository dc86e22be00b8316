//! Specification files: what to build, from which repositories, by which evaluator.
//!
//! ```toml
//! [[specification]]
//! name = "hello"                     # part of addresses: /jobset/hello
//! project = "main"                   # part of Hydra's addresses: /jobset/main/hello
//! description = "Prints a greeting"
//! interval = "5m"                    # between two looks; the server's default when absent
//! keep = { evaluations = 100, days = 90 }  # other evaluations are deleted; the server's rules when absent
//! supersede = "nothing"              # or "cancel": new revisions cancel what only older ones want
//! priority = 0                       # added to every job's own
//! network = false                    # whether evaluator and jobs may use the network from the sandbox
//! private = false                    # whether only those with a role in it may see it
//! enabled = true
//!
//! [[specification.input]]            # at least one
//! name = "source"
//! url = "https://example.org/hello.git"
//! branch = "main"                    # or tag, or revision; the remote's HEAD when absent
//! submodules = false
//! submodules-from = ["git@example.org:group/"]  # fetched with the server's credentials
//!
//! [specification.evaluator]          # when absent: the job list of the first input
//! kind = "jobs"
//! input = "source"
//! file = "brigandine.toml"
//!
//! [[specification.job]]              # or the jobs themselves, for repositories that have no job list
//! name = "check"
//! command = "make check"
//! ```

use std::ops::Range;

use super::diagnostic::Diagnostics;
use super::document::Document;
use super::job_list;
use super::reader::Table;
use super::shared::{INTERVAL_RANGE, PRIORITY_RANGE, TIME_RANGE, keep, named, unique};
use super::value;
use super::words::{list, shown};
use crate::model::{Evaluator, Input, MAIN_PROJECT, Reference, Specification, Supersede};

/// The most inputs of one specification. Each is a repository that every look fetches.
const INPUTS_MAX: usize = 64;

/// The default of `file`.
const JOB_LIST_FILE: &str = "brigandine.toml";

/// A specification, and the line in which it starts.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) specification: Specification,
    pub(crate) line: usize,
}

/// Reads the specifications of `file`, whose contents are `text`.
///
/// # Errors
/// Every problem in the file, in the order of the lines. None of the file's specifications is then accepted.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Placed>, Diagnostics> {
    Document::read(file, text, "the file", |top| {
        let found = top.tables("specification", "[[specification]]", specification);
        if found.is_none() {
            top.missing("specification", "add a `[[specification]]` with a `name` and an input");
        }
        let document = top.document;
        top.finish();
        let found = found?;
        unique(document, "specification", found.iter().map(|(s, span)| (&*s.name, span)));
        let place = |(specification, span): (Specification, Range<usize>)| Placed {
            line: document.line(&span),
            specification,
        };
        Some(found.into_iter().map(place).collect())
    })
}

fn specification(mut table: Table<'_, '_>) -> Option<(Specification, Range<usize>)> {
    let name = table.required_text("name", "hello");
    let name = name.and_then(|name| table.accept(name, value::check_not_reserved));
    let name = named(&mut table, "a specification", name);
    let project = table.checked("project", MAIN_PROJECT, value::check_project);
    let description = table.checked("description", "what it builds", value::check_description);
    let interval = table.duration("interval", INTERVAL_RANGE, "5m");
    let priority = table.integer("priority", PRIORITY_RANGE, 10).unwrap_or(0);
    let enabled = table.boolean("enabled").unwrap_or(true);
    let network = table.boolean("network").unwrap_or(false);
    let private = table.boolean("private").unwrap_or(false);
    let keep = keep(&table, format!("`keep` of {}", table.what));
    let supersede = [("cancel", Supersede::Cancel), ("nothing", Supersede::Nothing)];
    let supersede = table.choice("supersede", &supersede).unwrap_or_default();
    let inputs = inputs(&table);
    let jobs = table.tables("job", "[[specification.job]]", |table| Some(job_list::job(table)));
    let has_jobs = jobs.is_some();
    let jobs = jobs.map_or_else(Vec::new, |jobs| job_list::together(table.document, jobs));
    let evaluator = match (table.key_span("evaluator"), has_jobs) {
        (Some(span), true) => {
            table.problem(
                span,
                format!("{} has both an evaluator and jobs of its own", table.what),
                "remove one: `[[specification.job]]` is the job list itself",
            );
            None
        }
        (Some(_), false) => {
            let names: Vec<_> = inputs.iter().map(|input| &*input.name).collect();
            let what = format!("the evaluator of {}", table.what);
            table.table("evaluator", what).and_then(|table| evaluator(table, &names))
        }
        (None, _) => Some(Evaluator::Jobs { input: None, file: JOB_LIST_FILE.to_owned(), jobs }),
    };
    table.finish();
    let name = name?;
    let specification = Specification {
        name: name.value,
        project: project.map_or_else(|| MAIN_PROJECT.to_owned(), |project| project.value),
        description: description.map(|text| text.value).unwrap_or_default(),
        inputs,
        evaluator: evaluator?,
        interval_s: interval.map(|interval| interval.as_secs()),
        keep,
        priority,
        supersede,
        network,
        private,
        enabled,
    };
    Some((specification, name.span))
}

fn inputs(table: &Table<'_, '_>) -> Vec<Input> {
    let Some(inputs) = table.tables("input", "[[specification.input]]", input) else {
        table.missing("input", "add a `[[specification.input]]` with a `url` and a `branch`");
        return Vec::new();
    };
    let most = (INPUTS_MAX, "each is fetched at every look");
    table.bound("input", inputs.iter().map(|(_, span)| span), most);
    let names = inputs.iter().map(|(input, span)| (&*input.name, span));
    unique(table.document, "input", names);
    inputs.into_iter().map(|(input, _)| input).collect()
}

fn input(mut table: Table<'_, '_>) -> Option<(Input, Range<usize>)> {
    let name = table.text("name", "source");
    let name = named(&mut table, "an input", name);
    let url = table
        .required_text("url", "https://example.org/project.git")
        .and_then(|url| table.accept(url, value::check_url));
    let branch = table.checked("branch", "main", |name| value::check_ref("branch", name));
    let tag = table.checked("tag", "v1.0", |name| value::check_ref("tag", name));
    let revision = table.checked("revision", "<40 hexadecimal digits>", value::check_revision);
    let given: Vec<_> = ["branch", "tag", "revision"]
        .into_iter()
        .filter_map(|key| table.key_span(key).map(|span| (key, span)))
        .collect();
    if let [(first, _), (second, span), ..] = &*given {
        table.problem(
            span.clone(),
            format!("{} has both `{first}` and `{second}`", table.what),
            "keep one: a branch moves, a tag and a revision stand still",
        );
    }
    let submodules = table.boolean("submodules").unwrap_or(false);
    let submodules_from = submodules_from(&table, submodules);
    let (has_name, span) = (table.key_span("name").is_some(), table.span.clone());
    table.finish();
    let reference = match (branch, tag, revision) {
        (Some(branch), ..) => Reference::Branch(branch.value),
        (_, Some(tag), _) => Reference::Tag(tag.value),
        (.., Some(revision)) => Reference::Revision(revision.value),
        _ if given.is_empty() => Reference::Head,
        _ => return None,
    };
    let (name, span) = match name {
        Some(name) => (name.value, name.span),
        None if has_name => return None,
        None => ("source".to_owned(), span),
    };
    Some((Input { name, url: url?.value, reference, submodules, submodules_from }, span))
}

/// The addresses from which submodules may be fetched with the server's credentials.
fn submodules_from(table: &Table<'_, '_>, submodules: bool) -> Vec<String> {
    let (key, example) = ("submodules-from", "git@example.org:group/");
    if let (Some(span), false) = (table.key_span(key), submodules) {
        table.problem(
            span,
            format!("{} says where submodules are from, and has none", table.what),
            "add `submodules = true`",
        );
    }
    let most = (INPUTS_MAX, "the beginning of an address names many repositories");
    table.checked_texts(key, example, most, value::check_url)
}

/// The value of `kind`.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Jobs,
    Command,
}

fn evaluator(table: Table<'_, '_>, inputs: &[&str]) -> Option<Evaluator> {
    let has_kind = table.key_span("kind").is_some();
    let kind = table.choice("kind", &[("jobs", Kind::Jobs), ("command", Kind::Command)]);
    let kind = match (kind, table.key_span("command")) {
        (None, _) if has_kind => return None,
        (None, Some(_)) => Kind::Command,
        (None, None) => Kind::Jobs,
        (Some(kind), _) => kind,
    };
    let input = table.text("input", "source");
    if let Some(name) = input.as_ref().filter(|name| !inputs.contains(&&*name.value)) {
        table.problem(
            name.span.clone(),
            format!("{} reads input \"{}\", which is not there", table.what, shown(&name.value)),
            format!("the inputs are {}", list(inputs, '"')),
        );
    }
    let input = input.map(|input| input.value);
    let evaluator = match kind {
        Kind::Jobs => {
            let file = table.checked("file", JOB_LIST_FILE, value::check_pattern);
            let file = file.map_or_else(|| JOB_LIST_FILE.to_owned(), |file| file.value);
            Some(Evaluator::Jobs { input, file, jobs: Vec::new() })
        }
        Kind::Command => {
            let command = table.command("command", "./ci/evaluate").map(|command| {
                // A single text with blanks is a shell script.
                match <[String; 1]>::try_from(command) {
                    Ok([script]) if script.contains(char::is_whitespace) => {
                        ["/bin/sh", "-e", "-c", &script].map(str::to_owned).to_vec()
                    }
                    Ok([program]) => vec![program],
                    Err(command) => command,
                }
            });
            let arguments = table.json_map("arguments", "subset = \"core\"");
            let timeout_s = table.duration("timeout", TIME_RANGE, "10m").map(|t| t.as_secs());
            command.map(|command| Evaluator::Command { input, command, arguments, timeout_s })
        }
    };
    table.finish();
    evaluator
}
