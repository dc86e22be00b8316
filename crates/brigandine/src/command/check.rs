//! `brigandine check`: reads files as the server would and tells everything that is wrong.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Failure, say};
use crate::cli;
use crate::config::{self, Diagnostic, Diagnostics};
use crate::model::{Evaluator, Input, Reference, Specification};

/// What was checked and what was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Files that were read.
    files: usize,
    specifications: usize,
    jobs: usize,
    problems: Diagnostics,
    /// What is no mistake for certain, and may be one.
    notes: Vec<String>,
}

/// Checks the files and prints the outcome.
///
/// # Errors
/// At least one file has a mistake; all of them were printed.
pub(crate) fn run(arguments: &cli::Check) -> Result<(), Failure> {
    let report = check(arguments);
    if arguments.json {
        super::print_json(&report);
    } else if report.problems.is_empty() {
        say(&summary(&report));
        for note in &report.notes {
            say(&format!("note: {note}"));
        }
    }
    if report.problems.is_empty() {
        return Ok(());
    }
    let mut message = String::new();
    if !arguments.json {
        let count = report.problems.count();
        let plural = if count == 1 { "" } else { "s" };
        let _ = write!(message, "{}\n{count} problem{plural} found", report.problems);
    }
    Err(Failure::failed(message))
}

fn summary(report: &Report) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut parts = vec![count(report.files, "file")];
    if report.specifications > 0 {
        parts.push(count(report.specifications, "specification"));
    }
    if report.jobs > 0 {
        parts.push(count(report.jobs, "job"));
    }
    format!("ok: {}", parts.join(", "))
}

fn check(arguments: &cli::Check) -> Report {
    let mut report = Report::default();
    let mut files: Vec<PathBuf> = arguments.specifications.clone();
    // One file may be named here and by the configuration, or twice.
    let mut seen = HashSet::new();
    if let Some(path) = &arguments.config {
        let parsed = read(&mut report, path, config::server::parse);
        files.extend(parsed.into_iter().flat_map(|config| config.specifications));
    }
    // One name in two files: whichever is loaded last would win.
    let mut names: HashMap<String, (PathBuf, usize)> = HashMap::new();
    for path in files.iter().filter(|path| seen.insert(identity(path))) {
        let file = path.display().to_string();
        let mut revisions = Vec::new();
        let parsed = read(&mut report, path, |file, text| {
            let placed = config::specification::parse(file, text)?;
            for placed in &placed {
                revisions.extend(check_revisions(file, text, &placed.specification));
            }
            Ok(placed)
        });
        for revision in revisions {
            match revision {
                Revision::Wrong(problem) => report.problems.push(*problem),
                Revision::Unknown(note) => report.notes.push(note),
            }
        }
        for placed in parsed.into_iter().flatten() {
            report.specifications += 1;
            if let Evaluator::Jobs { jobs, .. } = &placed.specification.evaluator {
                report.jobs += jobs.len();
            }
            let (name, line) = (placed.specification.name, placed.line);
            if let Some((first, first_line)) = names.get(&name) {
                let problem = Diagnostic::on_line(
                    &file,
                    line,
                    format!("specification `{name}` stands in two files"),
                );
                let help = format!("the other is {}:{first_line}; rename one", first.display());
                report.problems.push(problem.help(help));
            } else {
                names.insert(name, (path.clone(), line));
            }
        }
    }
    let mut seen = HashSet::new();
    for path in arguments.jobs.iter().filter(|path| seen.insert(identity(path))) {
        let jobs = read(&mut report, path, config::job_list::parse);
        report.jobs += jobs.map_or(0, |jobs| jobs.len());
    }
    report
}

fn read<T>(
    report: &mut Report,
    path: &Path,
    parse: impl FnOnce(&str, &str) -> Result<T, Diagnostics>,
) -> Option<T> {
    report.files += 1;
    let file = path.display().to_string();
    let parsed = config::load(path).and_then(|text| parse(&file, &text));
    parsed.map_err(|problems| report.problems.extend(problems)).ok()
}

/// What two names of one file have in common.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// What is to be said of a revision that could be one of another repository.
enum Revision {
    Wrong(Box<Diagnostic>),
    Unknown(String),
}

/// How many digits a revision of the repository has, if that can be seen here: of one on this machine.
fn digits(input: &Input) -> Option<usize> {
    let path = Path::new(input.url.strip_prefix("file://").unwrap_or(&input.url));
    if !path.is_absolute() {
        return None;
    }
    let config = ["config", ".git/config"].map(|name| path.join(name));
    let text = config.iter().find_map(|path| std::fs::read_to_string(path).ok())?;
    // As git writes it: `objectformat = sha256` in `[extensions]`.
    let long = text.lines().any(|line| {
        let line = line.to_lowercase();
        let said = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
        said == Some(("objectformat", "sha256"))
    });
    Some(if long { 64 } else { 40 })
}

/// Revisions with as many digits as those of another kind of repository have: 40 where objects are named
/// by SHA-1, 64 by SHA-256.
fn check_revisions(file: &str, text: &str, specification: &Specification) -> Vec<Revision> {
    let mut found = Vec::new();
    for input in &specification.inputs {
        let Reference::Revision(revision) = &input.reference else { continue };
        let name = format!("input `{}` of `{}`", input.name, specification.name);
        match digits(input) {
            Some(digits) if digits != revision.len() => {
                let at = text.find(revision.as_str()).unwrap_or(0);
                let message = format!("the revision of {name} has {} digits", revision.len());
                let help = format!(
                    "those of {} have {digits}; `git rev-parse HEAD` in it prints one",
                    input.url
                );
                let problem = Diagnostic::at(file, text, at..at + revision.len(), message);
                found.push(Revision::Wrong(Box::new(problem.help(help))));
            }
            None if revision.len() == 64 => found.push(Revision::Unknown(format!(
                "the revision of {name} has 64 digits, as in a repository whose objects are named by \
                 SHA-256; in any other it has 40"
            ))),
            _ => {}
        }
    }
    found
}
