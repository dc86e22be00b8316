//! From an evaluator's lines to jobs that can be registered: every check there is, and the
//! identity of each derivation. Pure but for reading the listings of trees.

use super::protocol::{CommandDerivation, Derivation, Job, Line};
use crate::input::{ExportedTree, Pattern, hex};
use crate::model::{Definition, Input, Source};
use crate::store::NewJob;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// An input with the files of its revision.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    /// The input.
    pub(crate) input: Input,
    /// Its full revision.
    pub(crate) revision: String,
    /// Its files.
    pub(crate) tree: Arc<ExportedTree>,
}

/// What an evaluation is about.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// In the specification's order.
    pub(crate) checkouts: Vec<Checked>,
    /// The input whose files lie where commands run.
    pub(crate) main: String,
    /// What the server builds for; the first is the default.
    pub(crate) systems: Vec<String>,
    /// Added to every job's.
    pub(crate) priority: i64,
}

/// What is wrong with an evaluation's lines, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A line cannot be used.
    Line(String),
    /// The evaluator says that it failed.
    Reported(String),
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self::Line(message)
    }
}

/// The lines of an evaluator so far.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: Vec<(usize, Job)>,
    by_name: HashMap<String, usize>,
    errors: Vec<(String, String)>,
    error_count: usize,
}

const ERRORS_SHOWN: usize = 10;
const NAME_BYTES_MAX: usize = 200;

impl Jobs {
    /// Takes the line with this number, or says what is wrong with it.
    pub(super) fn take(&mut self, number: usize, text: &[u8]) -> Result<(), Refusal> {
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let at = |message: String| format!("line {number}: {message}");
        match super::protocol::parse(text).map_err(at)? {
            Line::Error { job: None, message } => Err(Refusal::Reported(message)),
            Line::Error { job: Some(job), message } => {
                self.error_count += 1;
                if self.errors.len() < ERRORS_SHOWN {
                    self.errors.push((job, message));
                }
                Ok(())
            }
            Line::Job(job) => {
                check_name(&job.name).map_err(at)?;
                if let Some(earlier) = self.by_name.insert(job.name.clone(), self.jobs.len()) {
                    let earlier = self.jobs[earlier].0;
                    let message = format!("job `{}` was given before, on line {earlier}", job.name);
                    return Err(at(message).into());
                }
                self.jobs.push((number, *job));
                Ok(())
            }
        }
    }

    /// How many jobs there are.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// What could not be evaluated, for people; empty when everything could.
    pub(super) fn message(&self) -> String {
        if self.error_count == 0 {
            return String::new();
        }
        let shown: Vec<String> =
            self.errors.iter().map(|(job, message)| format!("{job}: {message}")).collect();
        let more = match self.error_count - self.errors.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        format!("{} jobs could not be evaluated: {}{more}", self.error_count, shown.join("; "))
    }

    /// Checks the jobs against each other and gives them in an order in which whatever a job needs
    /// stands before it.
    pub(super) fn finish(self, context: &Context) -> Result<Vec<NewJob>, Refusal> {
        let order = self.order()?;
        let mut place = vec![usize::MAX; self.jobs.len()];
        let mut done: Vec<NewJob> = Vec::with_capacity(self.jobs.len());
        for index in order {
            let (number, job) = &self.jobs[index];
            place[index] = done.len();
            let needs: Vec<(String, usize)> = job
                .needs
                .iter()
                .map(|(alias, name)| (alias.clone(), place[self.by_name[name]]))
                .collect();
            let new = convert(job, needs, &done, context)
                .map_err(|message| format!("line {number}: job `{}`: {message}", job.name))?;
            done.push(new);
        }
        Ok(done)
    }

    /// Places of the jobs so that needs come first; the given order where nothing else is asked.
    fn order(&self) -> Result<Vec<usize>, Refusal> {
        let mut waiting = vec![0_usize; self.jobs.len()];
        let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); self.jobs.len()];
        for (index, (number, job)) in self.jobs.iter().enumerate() {
            for name in job.needs.values() {
                let Some(needed) = self.by_name.get(name) else {
                    let failed = match self.errors.iter().find(|(job, _)| job == name) {
                        Some((_, message)) => format!(", which could not be evaluated: {message}"),
                        None => ", which no line gives".to_owned(),
                    };
                    return Err(Refusal::Line(format!(
                        "line {number}: job `{}` needs `{name}`{failed}",
                        job.name
                    )));
                };
                waiting[index] += 1;
                needed_by[*needed].push(index);
            }
        }
        let mut order: Vec<usize> =
            (0..self.jobs.len()).filter(|index| waiting[*index] == 0).collect();
        let mut next = 0;
        while let Some(index) = order.get(next).copied() {
            next += 1;
            for dependant in &needed_by[index] {
                waiting[*dependant] -= 1;
                if waiting[*dependant] == 0 {
                    order.push(*dependant);
                }
            }
        }
        if order.len() == self.jobs.len() { Ok(order) } else { Err(self.cycle(&waiting)) }
    }

    /// Names a cycle among the jobs that still wait.
    fn cycle(&self, waiting: &[usize]) -> Refusal {
        let mut seen = vec![usize::MAX; self.jobs.len()];
        let mut path: Vec<usize> = Vec::new();
        let mut index = waiting.iter().position(|count| *count > 0).unwrap_or(0);
        // Each job that waits needs another one that waits, so this walk comes back to itself.
        while seen[index] == usize::MAX {
            seen[index] = path.len();
            path.push(index);
            let needed = self.jobs[index]
                .1
                .needs
                .values()
                .filter_map(|name| self.by_name.get(name))
                .find(|needed| waiting[**needed] > 0);
            index = needed.copied().unwrap_or(index);
        }
        let cycle = &path[seen[index]..];
        let number = self.jobs[index].0;
        let mut names: Vec<&str> =
            cycle.iter().take(20).map(|index| self.jobs[*index].1.name.as_str()).collect();
        if cycle.len() > names.len() {
            names.push("…");
        }
        names.push(&self.jobs[index].1.name);
        Refusal::Line(format!(
            "line {number}: jobs need each other in a circle: {}",
            names.join(" needs ")
        ))
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a job has an empty name".to_owned());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("a job's name has {} bytes; {NAME_BYTES_MAX} may be", name.len()));
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(format!("job `{}` has a blank in its name", name.escape_debug()));
    }
    Ok(())
}

fn convert(
    job: &Job,
    needs: Vec<(String, usize)>,
    done: &[NewJob],
    context: &Context,
) -> Result<NewJob, String> {
    let system = match (&job.system, context.systems.first()) {
        (Some(system), _) => system.clone(),
        (None, Some(system)) => system.clone(),
        (None, None) => return Err("no system is named, and the server has none".to_owned()),
    };
    let nix_name = job.nix_name.clone().unwrap_or_else(|| job.name.clone());
    let command = match &job.derivation {
        Derivation::Command(command) => command,
        Derivation::Path(path) => {
            return Err(format!(
                "this server has no backend that builds `{path}`; \
                 it builds commands (an object as `derivation`)"
            ));
        }
    };
    let definition = define(command, &needs, done, context, &system, &nix_name)?;
    let digest = Sha256::digest(definition.identity().as_bytes());
    let name: String = nix_name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "+-._".contains(c) { c } else { '-' })
        .collect();
    let text = serde_json::to_string(&definition).map_err(|error| error.to_string())?;
    Ok(NewJob {
        name: job.name.clone(),
        derivation: format!("{}-{name}.drv", hex(&digest[..16])),
        system,
        nix_name,
        priority: context.priority.saturating_add(i64::from(job.priority)),
        timeout_s: job.timeout.map_or(0, i64::from),
        max_silent_s: job.max_silent.map_or(0, i64::from),
        definition: Some(text),
        needs,
    })
}

fn define(
    command: &CommandDerivation,
    needs: &[(String, usize)],
    done: &[NewJob],
    context: &Context,
    system: &str,
    nix_name: &str,
) -> Result<Definition, String> {
    let argv = match &command.command {
        Value::String(text) if !text.trim().is_empty() => {
            vec!["/bin/sh".to_owned(), "-e".to_owned(), "-c".to_owned(), text.clone()]
        }
        Value::Array(words) => words
            .iter()
            .map(|word| word.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .filter(|words| words.first().is_some_and(|program| !program.is_empty()))
            .ok_or("`command` is a list of texts, the program first")?,
        _ => return Err("`command` is a text for the shell or a list of texts".to_owned()),
    };
    if argv.iter().any(|word| word.contains('\0')) {
        return Err("`command` has a zero byte".to_owned());
    }
    for (name, value) in &command.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("`{}` cannot be an environment variable", name.escape_debug()));
        }
        if name == "CI" || name.starts_with("BRIGANDINE_") {
            return Err(format!("the variable `{name}` is set by the server"));
        }
    }
    for (alias, _) in needs {
        if alias.is_empty() || alias == "." || alias == ".." || alias.contains(['/', '\0']) {
            return Err(format!(
                "`{}` cannot be a file name; give it another one: `\"needs\": {{name: job}}`",
                alias.escape_debug()
            ));
        }
    }
    for pattern in &command.products {
        Pattern::new(pattern)?;
    }
    let sources = match &command.sources {
        None => context.checkouts.iter().map(|c| (c.input.name.clone(), Vec::new())).collect(),
        Some(sources) => sources.clone(),
    };
    let mut found = Vec::with_capacity(sources.len());
    for (input, mut patterns) in sources {
        let checkout =
            context.checkouts.iter().find(|checkout| checkout.input.name == input).ok_or_else(
                || {
                    let known: Vec<&str> =
                        context.checkouts.iter().map(|c| c.input.name.as_str()).collect();
                    format!("`sources` names the input `{input}`; there are {}", known.join(", "))
                },
            )?;
        patterns.sort_unstable();
        patterns.dedup();
        for pattern in &patterns {
            if checkout.tree.tree.count(std::slice::from_ref(pattern))? == 0 {
                return Err(format!(
                    "source pattern `{pattern}` matches no file of input `{input}` at {}",
                    short(&checkout.revision)
                ));
            }
        }
        found.push(Source {
            main: input == context.main,
            digest: checkout.tree.tree.digest(&patterns)?,
            input,
            url: checkout.input.url.clone(),
            revision: checkout.revision.clone(),
            submodules: checkout.input.submodules,
            patterns,
        });
    }
    Ok(Definition {
        version: 1,
        name: nix_name.to_owned(),
        command: argv,
        environment: command.environment.clone(),
        system: system.to_owned(),
        sources: found,
        needs: needs
            .iter()
            .map(|(alias, place)| (alias.clone(), done[*place].derivation.clone()))
            .collect::<BTreeMap<_, _>>(),
        products: command.products.clone(),
    })
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}
