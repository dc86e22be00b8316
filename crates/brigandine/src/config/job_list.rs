//! Job lists: `brigandine.toml` in a repository, or `[[specification.job]]` in a specification.
//!
//! ```toml
//! [[job]]
//! name = "unit"                      # what comes before a dot groups jobs on pages: `lib.unit`
//! description = "Unit tests"
//! command = "make test"              # a shell script (`sh -e`), or ["program", "argument"]
//! sources = ["src/**", "Makefile"]   # all it reads; the whole tree when absent
//! needs = ["compile"]                # their outputs lie in $BRIGANDINE_NEEDS/NAME; { NAME = "compile" }
//! env = { CFLAGS = "-O2" }
//! systems = ["x86_64-linux"]         # the server's own when absent
//! timeout = "20m"                    # wall clock
//! max-silent = "5m"                  # without a line of output
//! priority = 5
//! products = ["*.tar.gz"]            # files to keep and offer
//! network = false                    # whether it may use the network from the sandbox
//! ```

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::circles::circles;
use super::diagnostic::Diagnostics;
use super::document::{Document, Text};
use super::reader::Table;
use super::shared::unique;
use super::value;
use super::words::{nearest, shown};
use crate::model::{JobEntry, Needs};

/// Entries of one list of a job (sources, needs, products) at most.
const ENTRIES_MAX: usize = 10_000;

/// Systems of one job at most: each is a job with all that this one says.
const SYSTEMS_MAX: usize = 64;

/// Names that an unknown one is compared with; a longer list gets no "did you mean".
const COMPARED_MAX: usize = 2_000;

/// The longest a job may be allowed to take.
const TIMEOUT_MAX: Duration = Duration::from_secs(7 * 86_400);

/// A job and what messages about several jobs need. One with a mistake is there as well, so that no other
/// job is blamed for it.
pub(super) struct PlacedJob {
    /// `None`: it has a mistake, which was told.
    entry: Option<JobEntry>,
    /// Its name and where that stands, if it has one.
    name: Option<Text>,
    /// Without a name: what may have been meant as one.
    meant: Vec<String>,
    needs: Vec<Need>,
}

impl PlacedJob {
    /// What the job is called, if that is known.
    fn called(&self) -> Option<&str> {
        self.name.as_ref().map(|name| &*name.value)
    }
}

/// A job that another one needs, and the name by which that one knows it.
struct Need {
    alias: String,
    job: Text,
}

/// Reads the job list `file`, whose contents are `text`.
///
/// # Errors
/// Everything that is wrong in the file, by line.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<JobEntry>, Diagnostics> {
    Document::read(file, text, "the job list", |document, top| {
        let jobs = top.tables("job", "[[job]]", |table| Some(job(document, table)));
        if jobs.is_none() {
            top.missing("job", "add a `[[job]]` with a `name` and a `command`");
        }
        top.finish();
        Some(together(document, jobs?))
    })
}

/// One job, as far as it can be judged alone.
pub(super) fn job(document: &Document<'_>, mut table: Table<'_, '_>) -> PlacedJob {
    let meant = table.all_texts();
    let name = table
        .required_text("name", "check")
        .and_then(|name| table.accept(name, |name| value::check_name("a job", name)));
    if let Some(name) = &name {
        table.name_it(format!("job `{}`", name.value));
    }
    let description = table.checked("description", "what it does", value::check_description);
    let description = description.map(|text| text.value);
    let command = table.command("command", "make check");
    let sources = patterns(document, &table, "sources", "src/**");
    let needs = needs(document, &table);
    let env = table.text_map("env", "CFLAGS = \"-O2\"", value::check_variable);
    let systems = table.texts("systems", "x86_64-linux").unwrap_or_default();
    if let Some(last) = systems.get(SYSTEMS_MAX) {
        document.problem(
            last.span.clone(),
            format!("{} is for {} systems", table.what(), systems.len()),
            format!("at most {SYSTEMS_MAX}; each is a job of its own"),
        );
    }
    let systems = systems
        .into_iter()
        .filter_map(|system| table.accept(system, value::check_system))
        .map(|system| system.value)
        .collect();
    let range = || Duration::from_secs(1)..=TIMEOUT_MAX;
    let timeout = table.duration("timeout", range(), "20m");
    let max_silent = table.duration("max-silent", range(), "5m");
    let priority = table.integer("priority", -1_000_000..=1_000_000, 10).unwrap_or(0);
    let products = patterns(document, &table, "products", "*.tar.gz");
    let network = table.boolean("network").unwrap_or(false);
    table.finish();
    let listed = needs.iter().map(|need| (need.alias.clone(), need.job.value.clone()));
    let entry = name.as_ref().zip(command).map(|(name, command)| JobEntry {
        name: name.value.clone(),
        description: description.unwrap_or_default(),
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

/// A list of jobs, or a map of names to jobs.
fn needs(document: &Document<'_>, table: &Table<'_, '_>) -> Vec<Need> {
    let needs: Vec<Need> = if table.is_table("needs") {
        let named = table.text_entries("needs", "lib = \"compile\"", |alias| {
            value::check_name("a needed job", alias)
        });
        named.into_iter().map(|(alias, job)| Need { alias, job }).collect()
    } else {
        let listed = table.texts("needs", "compile").unwrap_or_default();
        listed.into_iter().map(|job| Need { alias: job.value.clone(), job }).collect()
    };
    if let Some(last) = needs.get(ENTRIES_MAX) {
        document.problem(
            last.job.span.clone(),
            format!("`needs` of {} has {} entries", table.what(), needs.len()),
            format!("at most {ENTRIES_MAX}; let one job gather what others made"),
        );
    }
    needs
}

fn patterns(
    document: &Document<'_>,
    table: &Table<'_, '_>,
    key: &'static str,
    example: &str,
) -> Vec<String> {
    let patterns = table.texts(key, example).unwrap_or_default();
    if key == "sources" && table.is_empty_list(key) {
        document.problem(
            table.key_span(key).unwrap_or_default(),
            format!("{} reads no sources at all", table.what()),
            "remove the key to read the whole tree, or name what it reads",
        );
    }
    if let Some(last) = patterns.get(ENTRIES_MAX) {
        document.problem(
            last.span.clone(),
            format!("`{key}` of {} has {} entries", table.what(), patterns.len()),
            format!("at most {ENTRIES_MAX}; a pattern such as \"{example}\" names many files"),
        );
    }
    patterns
        .into_iter()
        .filter_map(|pattern| table.accept(pattern, value::check_pattern))
        .map(|pattern| pattern.value)
        .collect()
}

/// Circles that are told, and names of one that are.
const CIRCLES_MAX: usize = 10;
const CIRCLE_NAMES_MAX: usize = 20;

/// The jobs, after what can only be seen from all of them: names twice, unknown needs, circles.
pub(super) fn together(document: &Document<'_>, jobs: Vec<PlacedJob>) -> Vec<JobEntry> {
    let named = jobs.iter().filter_map(|job| job.name.as_ref());
    unique(document, "job", named.map(|name| (&*name.value, &name.span)));
    let index: HashMap<&str, usize> =
        jobs.iter().enumerate().filter_map(|(at, job)| Some((job.called()?, at))).collect();
    // What a job with a mistake in its name may be called: whoever needs that made no mistake.
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
            let name = shown(&need.value);
            let who =
                job.called().map_or_else(|| "this job".to_owned(), |name| format!("job `{name}`"));
            document.problem(
                need.span.clone(),
                format!("{who} needs `{name}`, which is not there"),
                help,
            );
        }
    }
    tell_circles(document, &jobs, &index);
    jobs.into_iter().filter_map(|job| job.entry).collect()
}

/// Tells each circle once, at the job of it that stands first.
fn tell_circles(document: &Document<'_>, jobs: &[PlacedJob], index: &HashMap<&str, usize>) {
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
                let names = circle.iter().filter_map(|at| jobs[*at].called());
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
