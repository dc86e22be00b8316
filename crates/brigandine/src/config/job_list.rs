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

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use super::diagnostic::Diagnostics;
use super::reader::{Document, Table, Text, nearest, shown};
use super::specification::unique;
use super::value;
use crate::model::{JobEntry, Needs};

/// Entries of one list of a job (sources, needs, products) at most.
const ENTRIES_MAX: usize = 10_000;

/// Systems of one job at most: each is a job with all that this one says.
const SYSTEMS_MAX: usize = 64;

/// Names that an unknown one is compared with; a longer list gets no "did you mean".
const COMPARED_MAX: usize = 2_000;

/// The longest a job may be allowed to take.
const TIMEOUT_MAX: Duration = Duration::from_secs(7 * 86_400);

/// A job and the places that messages about several jobs need.
pub(super) struct PlacedJob {
    entry: JobEntry,
    name: Range<usize>,
    needs: Vec<Need>,
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
        let jobs = top.tables("job", "[[job]]", |table| job(document, table));
        if jobs.is_none() {
            top.missing("job", "add a `[[job]]` with a `name` and a `command`");
        }
        top.finish();
        Some(together(document, jobs?))
    })
}

/// One job, as far as it can be judged alone.
pub(super) fn job(document: &Document<'_>, mut table: Table<'_, '_>) -> Option<PlacedJob> {
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
    let name = name?;
    let entry = JobEntry {
        name: name.value,
        description: description.unwrap_or_default(),
        command: command?,
        sources,
        needs: Needs(
            needs.iter().map(|need| (need.alias.clone(), need.job.value.clone())).collect(),
        ),
        env,
        systems,
        timeout_s: timeout.map(|timeout| timeout.as_secs()),
        max_silent_s: max_silent.map(|silent| silent.as_secs()),
        priority,
        products,
        network,
    };
    Some(PlacedJob { entry, name: name.span, needs })
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

/// The jobs, after what can only be seen from all of them: names twice, unknown needs, circles.
pub(super) fn together(document: &Document<'_>, jobs: Vec<PlacedJob>) -> Vec<JobEntry> {
    unique(document, "job", jobs.iter().map(|job| (&*job.entry.name, &job.name)));
    let index: HashMap<&str, usize> =
        jobs.iter().enumerate().map(|(at, job)| (&*job.entry.name, at)).collect();
    let mut names: Vec<&str> = Vec::new();
    for job in &jobs {
        let needed = job.needs.iter().map(|need| &need.job);
        for need in needed.filter(|need| !index.contains_key(&*need.value)) {
            if !document.is_full() && names.is_empty() && index.len() <= COMPARED_MAX {
                names = index.keys().copied().collect();
                names.sort_unstable();
            }
            let help = match nearest(&need.value, &names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "a job needs other jobs of the same list, by their names".to_owned(),
            };
            let name = shown(&need.value);
            let message = format!("job `{}` needs `{name}`, which is not there", job.entry.name);
            document.problem(need.span.clone(), message, help);
        }
    }
    if let Some(circle) = circle(&jobs, &index) {
        let names: Vec<_> = circle.iter().map(|&at| &*jobs[at].entry.name).collect();
        document.problem(
            jobs[circle[0]].name.clone(),
            format!("jobs need each other in a circle: {}", names.join(" → ")),
            "remove one of these from a `needs`",
        );
    }
    jobs.into_iter().map(|job| job.entry).collect()
}

/// A way from a job through its needs back to itself, the job at both ends. Walks with a stack of
/// its own: a chain of needs may be as long as the list.
fn circle(jobs: &[PlacedJob], index: &HashMap<&str, usize>) -> Option<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        OnPath,
        Done,
    }
    let mut marks = vec![Mark::New; jobs.len()];
    for start in 0..jobs.len() {
        if marks[start] != Mark::New {
            continue;
        }
        marks[start] = Mark::OnPath;
        let mut path = vec![(start, 0)];
        while let Some((at, next)) = path.last_mut() {
            let Some(need) = jobs[*at].needs.get(*next) else {
                marks[*at] = Mark::Done;
                path.pop();
                continue;
            };
            *next += 1;
            let Some(&need) = index.get(&*need.job.value) else { continue };
            match marks[need] {
                Mark::Done => {}
                Mark::New => {
                    marks[need] = Mark::OnPath;
                    path.push((need, 0));
                }
                Mark::OnPath => {
                    let from = path.iter().position(|(at, _)| *at == need)?;
                    let mut circle: Vec<_> = path[from..].iter().map(|(at, _)| *at).collect();
                    circle.push(need);
                    return Some(circle);
                }
            }
        }
    }
    None
}
