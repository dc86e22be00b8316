//! Job lists: `brigandine.toml` in a repository, or `[[specification.job]]` in a specification.
//!
//! ```toml
//! [[job]]
//! name = "unit"                      # pages group jobs by the part before a dot: `lib.unit`
//! description = "Unit tests"
//! command = "make test"              # a shell script (`sh -e`), or ["program", "argument"]
//! sources = ["src/**", "Makefile"]   # all files that the job reads; the whole tree when absent
//! needs = ["compile"]                # jobs whose outputs are in $BRIGANDINE_NEEDS/NAME; or { NAME = "compile" }
//! env = { CFLAGS = "-O2" }
//! systems = ["x86_64-linux"]         # the server's own when absent
//! timeout = "20m"                    # wall clock
//! max-silent = "5m"                  # without a line of output
//! priority = 5
//! products = ["*.tar.gz"]            # files to keep and to offer for download
//! network = false                    # whether the job may use the network from the sandbox
//! ```

use std::collections::{HashMap, HashSet};

use super::circles::circles;
use super::diagnostic::Diagnostics;
use super::document::{Document, Text};
use super::reader::Table;
use super::shared::{PRIORITY_RANGE, TIME_RANGE, named, unique};
use super::value;
use super::words::{nearest, shown};
use crate::model::{JobEntry, Needs};

/// The most entries in one list of a job (sources, needs, products).
const ENTRIES_MAX: usize = 10_000;

/// The most systems of one job. Each system makes a job of its own.
const SYSTEMS_MAX: usize = 64;

/// The most jobs among which a similar name is searched for, when a need is unknown.
const COMPARED_MAX: usize = 2_000;

/// A job, and what the checks of the whole list need. Jobs with mistakes are included, so that needing one of them is
/// not reported as a second mistake.
pub(super) struct PlacedJob {
    /// `None`: the job has a mistake, which is reported.
    entry: Option<JobEntry>,
    /// The name and its place, if the job has a valid one.
    name: Option<Text>,
    /// If the job has no valid name: all texts of the job, because one of them may be meant as its name.
    meant: Vec<String>,
    needs: Vec<Need>,
}

impl PlacedJob {
    fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| &*name.value)
    }
}

/// A needed job, and the name that its outputs have in the job that needs it.
struct Need {
    alias: String,
    job: Text,
}

/// Reads the job list `file`, whose contents are `text`.
///
/// # Errors
/// Every problem in the file, in the order of the lines.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<JobEntry>, Diagnostics> {
    Document::read(file, text, "the job list", |top| {
        let jobs = top.tables("job", "[[job]]", |table| Some(job(table)));
        if jobs.is_none() {
            top.missing("job", "add a `[[job]]` with a `name` and a `command`");
        }
        let document = top.document;
        top.finish();
        Some(together(document, jobs?))
    })
}

/// Reads one job. [`together`] makes the checks that depend on other jobs.
pub(super) fn job(mut table: Table<'_, '_>) -> PlacedJob {
    let meant = table.all_texts();
    let name = table.required_text("name", "check");
    let name = named(&mut table, "a job", name);
    let description = table.checked("description", "what it does", value::check_description);
    let command = table.command("command", "make check");
    if table.is_empty_list("sources") {
        table.problem(
            table.key_span("sources").unwrap_or_default(),
            format!("{} reads no sources at all", table.what),
            "remove the key to read the whole tree, or name what it reads",
        );
    }
    let sources = patterns(&table, "sources", "src/**");
    let needs = needs(&table);
    let env = table.text_map("env", "CFLAGS = \"-O2\"", value::check_variable);
    let most = (SYSTEMS_MAX, "each is a job of its own");
    let systems = table.checked_texts("systems", "x86_64-linux", most, value::check_system);
    let timeout = table.duration("timeout", TIME_RANGE, "20m");
    let max_silent = table.duration("max-silent", TIME_RANGE, "5m");
    let priority = table.integer("priority", PRIORITY_RANGE, 10).unwrap_or(0);
    let products = patterns(&table, "products", "*.tar.gz");
    let network = table.boolean("network").unwrap_or(false);
    table.finish();
    let listed = needs.iter().map(|need| (need.alias.clone(), need.job.value.clone()));
    let entry = name.as_ref().zip(command).map(|(name, command)| JobEntry {
        name: name.value.clone(),
        description: description.map(|text| text.value).unwrap_or_default(),
        command,
        sources,
        needs: Needs(listed.collect()),
        env,
        systems,
        timeout_s: timeout.map(|timeout| timeout.as_secs()),
        max_silent_s: max_silent.map(|silent| silent.as_secs()),
        priority,
        products,
        network,
    });
    PlacedJob { entry, meant: if name.is_some() { Vec::new() } else { meant }, name, needs }
}

/// Reads `needs`: a list of jobs, or a table of names and jobs.
fn needs(table: &Table<'_, '_>) -> Vec<Need> {
    let needs: Vec<Need> = if table.is_table("needs") {
        let check = |alias: &str| value::check_name("a needed job", alias);
        let named = table.text_entries("needs", "lib = \"compile\"", check);
        named.into_iter().map(|(alias, job)| Need { alias, job }).collect()
    } else {
        let listed = table.texts("needs", "compile").unwrap_or_default();
        listed.into_iter().map(|job| Need { alias: job.value.clone(), job }).collect()
    };
    let most = (ENTRIES_MAX, "let one job gather what others made");
    table.bound("needs", needs.iter().map(|need| &need.job.span), most);
    needs
}

fn patterns(table: &Table<'_, '_>, key: &'static str, example: &str) -> Vec<String> {
    let help = format!("a pattern such as \"{example}\" names many files");
    table.checked_texts(key, example, (ENTRIES_MAX, &help), value::check_pattern)
}

/// The most circles that are reported.
const CIRCLES_MAX: usize = 10;
/// The most jobs of a circle that a message names.
const CIRCLE_NAMES_MAX: usize = 20;

/// The jobs of a list, after the checks that compare jobs: duplicate names, unknown needs, circles.
pub(super) fn together(document: &Document<'_>, jobs: Vec<PlacedJob>) -> Vec<JobEntry> {
    let names = jobs.iter().filter_map(|job| job.name.as_ref());
    unique(document, "job", names.map(|name| (&*name.value, &name.span)));
    let index: HashMap<&str, usize> =
        jobs.iter().enumerate().filter_map(|(at, job)| Some((job.name()?, at))).collect();
    // Any text of a job without a valid name may be its name. So a job that needs one of these texts is not reported as
    // a second mistake.
    let meant: HashSet<&str> = jobs.iter().flat_map(|job| &job.meant).map(String::as_str).collect();
    let there = |name: &str| index.contains_key(name) || meant.contains(name);
    let mut names: Vec<&str> = Vec::new();
    for job in &jobs {
        let needed = job.needs.iter().map(|need| &need.job);
        for need in needed.filter(|need| !there(&need.value)) {
            if !document.is_full() && names.is_empty() && index.len() <= COMPARED_MAX {
                names = index.keys().copied().collect();
                names.sort_unstable();
            }
            let help = match nearest(&need.value, &names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "a job needs other jobs of the same list, by their names".to_owned(),
            };
            let who =
                job.name().map_or_else(|| "this job".to_owned(), |name| format!("job `{name}`"));
            let message = format!("{who} needs `{}`, which is not there", shown(&need.value));
            document.problem(need.span.clone(), message, help);
        }
    }
    report_circles(document, &jobs, &index);
    jobs.into_iter().filter_map(|job| job.entry).collect()
}

/// Reports each circle once, at the circle's first job in the file.
fn report_circles(document: &Document<'_>, jobs: &[PlacedJob], index: &HashMap<&str, usize>) {
    let needs = |job: &PlacedJob| {
        let needs = job.needs.iter().filter_map(|need| index.get(&*need.job.value).copied());
        needs.collect::<Vec<usize>>()
    };
    let leads: Vec<Vec<usize>> = jobs.iter().map(needs).collect();
    let circles = circles(&leads, CIRCLES_MAX);
    let last = circles.found.len().saturating_sub(1);
    for (number, circle) in circles.found.iter().enumerate() {
        let Some(first) = circle.first().and_then(|first| jobs[*first].name.as_ref()) else {
            continue;
        };
        let more = if number == last && circles.more { "; there are more circles" } else { "" };
        let message = match &**circle {
            [_] => format!("job `{}` needs itself{more}", first.value),
            _ => {
                let names = circle.iter().filter_map(|at| jobs[*at].name());
                let mut names: Vec<&str> = names.take(CIRCLE_NAMES_MAX).collect();
                if circle.len() > names.len() {
                    names.push("…");
                }
                names.push(&first.value);
                format!("jobs need each other in a circle: {}{more}", names.join(" → "))
            }
        };
        document.problem(first.span.clone(), message, "remove one of these from a `needs`");
    }
}
