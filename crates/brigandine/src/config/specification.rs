//! Specification files: what to build, from which repositories, by which evaluator.
//!
//! ```toml
//! [[specification]]
//! name = "hello"                     # stands in addresses: /jobset/hello
//! description = "Prints a greeting"
//! interval = "5m"                    # between two looks; the server's default when absent
//! keep = { evaluations = 100, days = 90 }  # what is neither is deleted; the server's when absent
//! priority = 0                       # added to every job's own
//! network = false                    # whether evaluator and jobs may use it from the sandbox
//! enabled = true
//!
//! [[specification.input]]            # at least one
//! name = "source"
//! url = "https://example.org/hello.git"
//! branch = "main"                    # or tag, or revision; the remote's HEAD when absent
//! submodules = false
//! submodules-from = ["git@example.org:group/"]  # fetched with the server's credentials
//!
//! [specification.evaluator]          # may be absent: then it is the job list of the first input
//! kind = "jobs"
//! input = "source"
//! file = "brigandine.toml"
//!
//! [[specification.job]]              # or the job list itself, for repositories that hold none
//! name = "check"
//! command = "make check"
//! ```

use std::ops::Range;
use std::time::Duration;

use super::diagnostic::Diagnostics;
use super::document::Document;
use super::job_list;
use super::reader::Table;
use super::shared::{INTERVAL_RANGE, keep, unique};
use super::value;
use super::words::shown;
use crate::model::{Evaluator, Input, Reference, Specification};

/// Inputs of one specification at most: each is a repository to fetch at every look.
const INPUTS_MAX: usize = 64;

/// The job list that is read when a specification names none.
pub(crate) const JOB_LIST_FILE: &str = "brigandine.toml";

/// A specification and the line it starts in.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) specification: Specification,
    pub(crate) line: usize,
}

/// Reads the specifications of `file`, whose contents are `text`.
///
/// # Errors
/// Everything that is wrong in the file, by line; none of its specifications is then accepted.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Placed>, Diagnostics> {
    Document::read(file, text, "the file", |document, top| {
        let header = "[[specification]]";
        let found = top.tables("specification", header, |table| specification(document, table));
        if found.is_none() {
            top.missing("specification", "add a `[[specification]]` with a `name` and an input");
        }
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

fn specification(
    document: &Document<'_>,
    mut table: Table<'_, '_>,
) -> Option<(Specification, Range<usize>)> {
    let name = table
        .required_text("name", "hello")
        .and_then(|name| table.accept(name, |name| value::check_name("a specification", name)));
    if let Some(name) = &name {
        table.name_it(format!("specification `{}`", name.value));
    }
    let description = table.checked("description", "what it builds", value::check_description);
    let description = description.map(|text| text.value);
    let interval = table.duration("interval", INTERVAL_RANGE, "5m");
    let priority = table.integer("priority", -1_000_000..=1_000_000, 10).unwrap_or(0);
    let enabled = table.boolean("enabled").unwrap_or(true);
    let network = table.boolean("network").unwrap_or(false);
    let keep = keep(&table, format!("`keep` of {}", table.what()));
    let inputs = table.tables("input", "[[specification.input]]", |table| input(document, table));
    let inputs = inputs_of(document, &table, inputs);
    let jobs =
        table.tables("job", "[[specification.job]]", |table| Some(job_list::job(document, table)));
    let has_jobs = jobs.is_some();
    let jobs = jobs.map_or_else(Vec::new, |jobs| job_list::together(document, jobs));
    let names: Vec<_> = inputs.iter().map(|input| &*input.name).collect();
    let what = format!("the evaluator of {}", table.what());
    let evaluator = match (table.key_span("evaluator"), has_jobs) {
        (Some(span), true) => {
            document.problem(
                span,
                format!("{} has both an evaluator and jobs of its own", table.what()),
                "remove one: `[[specification.job]]` is the job list itself",
            );
            None
        }
        (Some(_), false) => {
            table.table("evaluator", what).and_then(|t| evaluator(document, t, &names))
        }
        (None, _) => Some(Evaluator::Jobs { input: None, file: JOB_LIST_FILE.to_owned(), jobs }),
    };
    table.finish();
    let name = name?;
    let specification = Specification {
        name: name.value,
        description: description.unwrap_or_default(),
        inputs,
        evaluator: evaluator?,
        interval_s: interval.map(|interval| interval.as_secs()),
        keep,
        priority,
        network,
        enabled,
    };
    Some((specification, name.span))
}

fn inputs_of(
    document: &Document<'_>,
    table: &Table<'_, '_>,
    inputs: Option<Vec<(Input, Range<usize>)>>,
) -> Vec<Input> {
    let Some(inputs) = inputs else {
        table.missing("input", "add a `[[specification.input]]` with a `url` and a `branch`");
        return Vec::new();
    };
    if inputs.len() > INPUTS_MAX {
        document.problem(
            inputs[INPUTS_MAX].1.clone(),
            format!("{} has {} inputs", table.what(), inputs.len()),
            format!("at most {INPUTS_MAX}; each is fetched at every look"),
        );
    }
    unique(document, "input", inputs.iter().map(|(input, span)| (&*input.name, span)));
    inputs.into_iter().map(|(input, _)| input).collect()
}

fn input(document: &Document<'_>, mut table: Table<'_, '_>) -> Option<(Input, Range<usize>)> {
    let name = table
        .text("name", "source")
        .and_then(|name| table.accept(name, |name| value::check_name("an input", name)));
    if let Some(name) = &name {
        table.name_it(format!("input `{}`", name.value));
    }
    let url = table
        .required_text("url", "https://example.org/project.git")
        .and_then(|url| table.accept(url, value::check_url));
    let branch = table.checked("branch", "main", |name| value::check_ref("branch", name));
    let tag = table.checked("tag", "v1.0", |name| value::check_ref("tag", name));
    let revision = table.checked("revision", "<40 hexadecimal digits>", value::check_revision);
    let said: Vec<_> = ["branch", "tag", "revision"]
        .into_iter()
        .filter_map(|key| table.key_span(key).map(|span| (key, span)))
        .collect();
    if let [(first, _), (second, span), ..] = &*said {
        document.problem(
            span.clone(),
            format!("{} has both `{first}` and `{second}`", table.what()),
            "keep one: a branch moves, a tag and a revision stand still",
        );
    }
    let submodules = table.boolean("submodules").unwrap_or(false);
    let submodules_from = submodules_from(document, &table, submodules);
    let (has_name, span) = (table.key_span("name").is_some(), table.span());
    table.finish();
    let reference = match (branch, tag, revision) {
        (Some(branch), ..) => Reference::Branch(branch.value),
        (_, Some(tag), _) => Reference::Tag(tag.value),
        (.., Some(revision)) => Reference::Revision(revision.value),
        _ if said.is_empty() => Reference::Head,
        _ => return None,
    };
    let (name, span) = match name {
        Some(name) => (name.value, name.span),
        None if has_name => return None,
        None => ("source".to_owned(), span),
    };
    Some((Input { name, url: url?.value, reference, submodules, submodules_from }, span))
}

/// The addresses that submodules may be fetched from with the server's credentials.
fn submodules_from(
    document: &Document<'_>,
    table: &Table<'_, '_>,
    submodules: bool,
) -> Vec<String> {
    let found = table.texts("submodules-from", "git@example.org:group/").unwrap_or_default();
    if let Some(last) = found.get(INPUTS_MAX) {
        document.problem(
            last.span.clone(),
            format!("`submodules-from` of {} has {} entries", table.what(), found.len()),
            format!("at most {INPUTS_MAX}; the beginning of an address names many repositories"),
        );
    }
    if let (Some(span), false) = (table.key_span("submodules-from"), submodules) {
        document.problem(
            span,
            format!("{} says where submodules are from, and has none", table.what()),
            "add `submodules = true`",
        );
    }
    found
        .into_iter()
        .filter_map(|from| table.accept(from, value::check_url))
        .map(|from| from.value)
        .collect()
}

/// What stands in `[specification.evaluator]`.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Jobs,
    Command,
}

fn evaluator(document: &Document<'_>, table: Table<'_, '_>, inputs: &[&str]) -> Option<Evaluator> {
    let said = table.key_span("kind").is_some();
    let kind = table.choice("kind", &[("jobs", Kind::Jobs), ("command", Kind::Command)]);
    let kind = match (kind, table.key_span("command")) {
        (None, _) if said => return None,
        (None, Some(_)) => Kind::Command,
        (None, None) => Kind::Jobs,
        (Some(kind), _) => kind,
    };
    let input = table.text("input", "source");
    if let Some(name) = input.as_ref().filter(|name| !inputs.contains(&&*name.value)) {
        let known = inputs.iter().map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ");
        document.problem(
            name.span.clone(),
            format!("{} reads input \"{}\", which is not there", table.what(), shown(&name.value)),
            format!("the inputs are {known}"),
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
                // A text is a script; programs get their arguments as a list.
                match <[String; 1]>::try_from(command) {
                    Ok([script]) if script.contains(char::is_whitespace) => {
                        ["/bin/sh", "-e", "-c", &script].map(str::to_owned).to_vec()
                    }
                    Ok([program]) => vec![program],
                    Err(command) => command,
                }
            });
            let arguments = table.json_map("arguments", "subset = \"core\"");
            let range = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
            let timeout_s = table.duration("timeout", range, "10m").map(|t| t.as_secs());
            command.map(|command| Evaluator::Command { input, command, arguments, timeout_s })
        }
    };
    table.finish();
    evaluator
}
