//! `brigandine check`: reads files as the server would and tells everything that is wrong.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Failure;
use crate::cli;
use crate::config::{self, Diagnostic, Diagnostics};

/// What was checked and what was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Files that were read.
    files: usize,
    specifications: usize,
    jobs: usize,
    problems: Diagnostics,
}

/// Checks the files and prints the outcome.
///
/// # Errors
/// At least one file has a mistake; all of them were printed.
pub(crate) fn run(arguments: &cli::Check) -> Result<(), Failure> {
    let report = check(arguments);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
    } else if report.problems.is_empty() {
        println!("{}", summary(&report));
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
    if let Some(path) = &arguments.config {
        let parsed = read(&mut report, path, config::server::parse);
        files.extend(parsed.into_iter().flat_map(|config| config.specifications));
    }
    // One name in two files: whichever is loaded last would win.
    let mut names: HashMap<String, (PathBuf, usize)> = HashMap::new();
    for path in &files {
        for placed in read(&mut report, path, config::specification::parse).into_iter().flatten() {
            report.specifications += 1;
            if let crate::model::Evaluator::Jobs { jobs, .. } = &placed.specification.evaluator {
                report.jobs += jobs.len();
            }
            let (name, line) = (placed.specification.name, placed.line);
            if let Some((first, first_line)) = names.get(&name) {
                let file = path.display().to_string();
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
    for path in &arguments.jobs {
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
