//! `brigandine check`: reads files like the server, and reports every mistake.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Failure, say};
use crate::cli;
use crate::config::{self, Diagnostic, Diagnostics};
use crate::model::{Evaluator, Input, Reference, Specification};

/// How much was checked, and the mistakes that were found.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// The number of files that were read.
    files: usize,
    specifications: usize,
    jobs: usize,
    problems: Diagnostics,
    /// Messages about what may be a mistake.
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
    if arguments.json {
        return Err(Failure::failed(""));
    }
    let count = plural(report.problems.count(), "problem");
    Err(Failure::failed(format!("{}\n{count} found", report.problems)))
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn summary(report: &Report) -> String {
    let mut parts = vec![plural(report.files, "file")];
    if report.specifications > 0 {
        parts.push(plural(report.specifications, "specification"));
    }
    if report.jobs > 0 {
        parts.push(plural(report.jobs, "job"));
    }
    format!("ok: {}", parts.join(", "))
}

fn check(arguments: &cli::Check) -> Report {
    let mut report = Report::default();
    let mut files: Vec<PathBuf> = arguments.specifications.clone();
    if let Some(path) = &arguments.config {
        let parsed = read(&mut report, path, config::server::parse);
        files.extend(parsed.into_iter().flat_map(|config| config.specifications));
    }
    // The same file may be named twice, for example here and in the configuration.
    let mut seen = HashSet::new();
    // If two specifications have the same name, the server uses the one that it loads last.
    let mut names: HashMap<String, (PathBuf, usize)> = HashMap::new();
    for path in files.iter().filter(|path| seen.insert(identity(path))) {
        let file = path.display().to_string();
        let parsed = read(&mut report, path, |file, text| {
            let placed = config::specification::parse(file, text)?;
            let found = placed.iter().map(|one| check_revisions(file, text, &one.specification));
            let (problems, notes): (Vec<_>, Vec<_>) = found.unzip();
            Ok((placed, problems.concat(), notes.concat()))
        });
        let Some((parsed, problems, notes)) = parsed else { continue };
        for problem in problems {
            report.problems.push(problem);
        }
        report.notes.extend(notes);
        for placed in parsed {
            report.specifications += 1;
            if let Evaluator::Jobs { jobs, .. } = &placed.specification.evaluator {
                report.jobs += jobs.len();
            }
            let (name, line) = (placed.specification.name, placed.line);
            if let Some((first, first_line)) = names.get(&name) {
                let message = format!("specification `{name}` stands in two files");
                let help = format!("the other is {}:{first_line}; rename one", first.display());
                report.problems.push(Diagnostic::on_line(&file, line, message).help(help));
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

/// Reads and parses a file, and adds its problems to the report. `None`: the file has problems.
fn read<T>(
    report: &mut Report,
    path: &Path,
    parse: impl FnOnce(&str, &str) -> Result<T, Diagnostics>,
) -> Option<T> {
    report.files += 1;
    config::read(path, parse).map_err(|problems| report.problems.extend(problems)).ok()
}

/// A path that is the same for all names of a file.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// How many digits the revisions of the input's repository have: 40 if the repository uses SHA-1, 64 if it uses
/// SHA-256. `None`: the repository is not on this machine.
fn digits(input: &Input) -> Option<usize> {
    let path = Path::new(input.url.strip_prefix("file://").unwrap_or(&input.url));
    if !path.is_absolute() {
        return None;
    }
    let config = ["config", ".git/config"].map(|name| path.join(name));
    let text = config.iter().find_map(|path| std::fs::read_to_string(path).ok())?;
    // git writes `objectformat = sha256` in the section `[extensions]`.
    let long = text.lines().any(|line| {
        let line = line.to_lowercase();
        let said = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
        said == Some(("objectformat", "sha256"))
    });
    Some(if long { 64 } else { 40 })
}

/// Problems and notes about revisions whose number of digits is not that of the repository.
fn check_revisions(
    file: &str,
    text: &str,
    specification: &Specification,
) -> (Vec<Diagnostic>, Vec<String>) {
    let (mut problems, mut notes) = (Vec::new(), Vec::new());
    for input in &specification.inputs {
        let Reference::Revision(revision) = &input.reference else { continue };
        let name = format!("input `{}` of `{}`", input.name, specification.name);
        match digits(input) {
            Some(digits) if digits != revision.len() => {
                let at = text.find(revision.as_str()).unwrap_or(0);
                let message = format!("the revision of {name} has {} digits", revision.len());
                let problem = Diagnostic::at(file, text, at..at + revision.len(), message);
                problems.push(problem.help(format!(
                    "those of {} have {digits}; `git rev-parse HEAD` in it prints one",
                    input.url
                )));
            }
            None if revision.len() == 64 => notes.push(format!(
                "the revision of {name} has 64 digits, as in a repository whose objects are named by \
                 SHA-256; in any other it has 40"
            )),
            _ => {}
        }
    }
    (problems, notes)
}
