//! Turns an evaluator's lines into jobs that can be registered: makes all checks, and computes the identity of each
//! derivation. Does no I/O, because the listings of trees are in memory.

use super::error::EvaluateError;
use super::names::{
    ENTRIES_MAX, NAME_BYTES_MAX, check_lengths, check_name, check_nix_name, check_patterns,
    check_system,
};
use super::protocol::{CommandDerivation, Derivation, Job, Line};
use crate::config::circles;
use crate::input::{ExportedTree, Pattern, SelectError};
use crate::model::{Definition, Input, MESSAGE_BYTES_MAX, Source, is_steering, one_line};
use crate::os::digest::hex;
use crate::store::NewJob;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// An input with the files of its revision.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    /// The input's definition.
    pub(crate) input: Input,
    /// The input's full revision.
    pub(crate) revision: String,
    /// The files of that revision.
    pub(crate) tree: Arc<ExportedTree>,
}

/// The inputs and settings of an evaluation.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The inputs, in the specification's order.
    pub(crate) checkouts: Vec<Checked>,
    /// The input in whose files commands run.
    pub(crate) main: String,
    /// The systems for which the server builds; the first is the default.
    pub(crate) systems: Vec<String>,
    /// This number is added to the priority of every job.
    pub(crate) priority: i64,
    /// How builds are isolated: see [`Definition::isolation`].
    pub(crate) isolation: String,
    /// `true`: every job may use the network.
    pub(crate) network: bool,
}

impl Context {
    /// The input in whose files commands run; `None`: there is no such input.
    pub(super) fn main_checkout(&self) -> Option<&Checked> {
        self.checkouts.iter().find(|checkout| checkout.input.name == self.main)
    }
}

/// The jobs and errors of an evaluator's lines so far. Bounded by the limits on its output and on its jobs.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    /// The number of each job's line, and the job.
    jobs: Vec<(usize, Job)>,
    /// The indexes in `jobs`, by name.
    by_name: HashMap<String, usize>,
    /// The first jobs that could not be evaluated, at most [`ERRORS_SHOWN`], and why.
    errors: Vec<(String, String)>,
    /// The names of all jobs that could not be evaluated.
    failed: HashSet<String>,
    /// The number of all errors, also of those that are not shown.
    error_count: usize,
}

const ERRORS_SHOWN: usize = 10;
const ERROR_BYTES_MAX: usize = 400;
/// The most circles that a message shows.
const CIRCLES_MAX: usize = 10;
/// The most names of a circle that a message shows.
const CIRCLE_NAMES_MAX: usize = 20;

impl Jobs {
    /// Adds the line with this number. The error says what is wrong with the line.
    pub(super) fn take(&mut self, number: usize, text: &[u8]) -> Result<(), EvaluateError> {
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let at = |message: String| format!("line {number}: {message}");
        match super::protocol::parse(text).map_err(at)? {
            Line::Error { job: None, message } => {
                Err(EvaluateError::Reported(one_line(&message, MESSAGE_BYTES_MAX)))
            }
            Line::Error { job: Some(job), message } => {
                self.error_count += 1;
                self.failed.insert(job.clone());
                if self.errors.len() < ERRORS_SHOWN {
                    let job = one_line(&job, NAME_BYTES_MAX);
                    self.errors.push((job, one_line(&message, ERROR_BYTES_MAX)));
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

    /// A message for people about the jobs that could not be evaluated; empty: there are none.
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
        let shown = shown.join("; ");
        let shown = one_line(&shown, MESSAGE_BYTES_MAX);
        format!("{} jobs could not be evaluated: {shown}{more}", self.error_count)
    }

    /// Checks the jobs against each other, and orders them so that a job comes after the jobs that it needs.
    ///
    /// # Errors
    /// What is wrong with the jobs; [`EvaluateError::Late`] after `deadline`.
    pub(super) fn finish(
        self,
        context: &Context,
        deadline: Instant,
    ) -> Result<Vec<NewJob>, EvaluateError> {
        let late = || Instant::now() >= deadline;
        let order = self.order()?;
        let mut place = vec![usize::MAX; self.jobs.len()];
        let mut done: Vec<NewJob> = Vec::with_capacity(self.jobs.len());
        for index in order {
            if late() {
                return Err(EvaluateError::Late);
            }
            let (number, job) = &self.jobs[index];
            place[index] = done.len();
            let needs: Vec<(String, usize)> = job
                .needs
                .iter()
                .map(|(alias, name)| (alias.clone(), place[self.by_name[name]]))
                .collect();
            let new = convert(job, needs, &done, context, &late)
                .map_err(|error| error.at(|| format!("line {number}: job `{}`", job.name)))?;
            done.push(new);
        }
        Ok(done)
    }

    /// The indexes of the jobs, ordered so that a job comes after the jobs that it needs.
    fn order(&self) -> Result<Vec<usize>, EvaluateError> {
        let mut waiting = vec![0_usize; self.jobs.len()];
        let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); self.jobs.len()];
        for (index, (number, job)) in self.jobs.iter().enumerate() {
            for name in job.needs.values() {
                let Some(needed) = self.by_name.get(name) else {
                    let failed = match self.errors.iter().find(|(job, _)| job == name) {
                        Some((_, message)) => format!(", which could not be evaluated: {message}"),
                        None if self.failed.contains(name) => {
                            ", which could not be evaluated".to_owned()
                        }
                        None => ", which no line gives".to_owned(),
                    };
                    let message =
                        format!("line {number}: job `{}` needs `{name}`{failed}", job.name);
                    return Err(message.into());
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
        if order.len() == self.jobs.len() { Ok(order) } else { Err(self.circles()) }
    }

    /// Names the circles among the jobs.
    fn circles(&self) -> EvaluateError {
        let needs = |(_, job): &(usize, Job)| {
            job.needs.values().filter_map(|name| self.by_name.get(name).copied()).collect()
        };
        let leads: Vec<Vec<usize>> = self.jobs.iter().map(needs).collect();
        let circles = circles(&leads, CIRCLES_MAX);
        let mut told = Vec::new();
        for circle in &circles.found {
            let names = circle.iter().map(|index| self.jobs[*index].1.name.as_str());
            let mut names: Vec<&str> = names.take(CIRCLE_NAMES_MAX).collect();
            if circle.len() > names.len() {
                names.push("…");
            }
            let Some((number, first)) = circle.first().map(|first| &self.jobs[*first]) else {
                continue;
            };
            names.push(&first.name);
            let names = names.join(" needs ");
            told.push(format!("line {number}: jobs need each other in a circle: {names}"));
        }
        if circles.more {
            told.push("there are more circles".to_owned());
        }
        told.join("; ").into()
    }
}

fn convert(
    job: &Job,
    needs: Vec<(String, usize)>,
    done: &[NewJob],
    context: &Context,
    late: &dyn Fn() -> bool,
) -> Result<NewJob, EvaluateError> {
    let system = match (&job.system, context.systems.first()) {
        (Some(system), _) => system.clone(),
        (None, Some(system)) => system.clone(),
        (None, None) => return Err("no system is named, and the server has none".into()),
    };
    check_system(&system)?;
    let nix_name = job.nix_name.clone().unwrap_or_else(|| job.name.clone());
    check_nix_name(&nix_name)?;
    let command = match &job.derivation {
        Derivation::Command(command) => command,
        Derivation::Path(path) => {
            return Err(format!(
                "this server has no backend that builds `{}`; \
                 it builds commands (an object as `derivation`)",
                one_line(path, NAME_BYTES_MAX)
            )
            .into());
        }
    };
    let argv = argv(&command.command)?;
    check_environment(&command.environment)?;
    check_lengths(&argv, &command.environment)?;
    check_needs(&needs)?;
    check_patterns("`products`", &command.products)?;
    for pattern in &command.products {
        Pattern::new(pattern)?;
    }
    let network = command.network || context.network;
    let definition = Definition {
        version: Definition::VERSION,
        name: nix_name.clone(),
        command: argv,
        environment: command.environment.clone(),
        system: system.clone(),
        sources: sources(command, context, late)?,
        needs: needs
            .iter()
            .map(|(alias, place)| (alias.clone(), done[*place].derivation.clone()))
            .collect(),
        products: command.products.clone(),
        isolation: match context.isolation.as_str() {
            "sandbox" if network => "sandbox-network".to_owned(),
            "sandbox-user" if network => "sandbox-network-user".to_owned(),
            other => other.to_owned(),
        },
        network,
        description: one_line(&job.description, NAME_BYTES_MAX),
    };
    let digest = Sha256::digest(definition.identity().as_bytes());
    let name: String = nix_name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "+-._".contains(c) { c } else { '-' })
        .collect();
    let text = serde_json::to_string(&definition)
        .map_err(|error| EvaluateError::from(error.to_string()))?;
    Ok(NewJob {
        name: job.name.clone(),
        derivation: format!("{}-{name}.drv", hex(&digest)),
        system,
        nix_name,
        priority: context.priority.saturating_add(i64::from(job.priority)),
        timeout_s: job.timeout.map_or(0, i64::from),
        max_silent_s: job.max_silent.map_or(0, i64::from),
        definition: Some(text),
        needs,
    })
}

/// The program and arguments of a command.
fn argv(command: &Value) -> Result<Vec<String>, EvaluateError> {
    let argv = match command {
        Value::String(text) if !text.trim().is_empty() => {
            vec!["/bin/sh".to_owned(), "-e".to_owned(), "-c".to_owned(), text.clone()]
        }
        Value::Array(words) => words
            .iter()
            .map(|word| word.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .filter(|words| words.first().is_some_and(|program| !program.is_empty()))
            .ok_or("`command` is a list of texts, the program first")?,
        _ => return Err("`command` is a text for the shell or a list of texts".into()),
    };
    if argv.iter().any(|word| word.contains('\0')) {
        return Err("`command` has a zero byte".into());
    }
    Ok(argv)
}

fn check_environment(environment: &BTreeMap<String, String>) -> Result<(), EvaluateError> {
    for (name, value) in environment {
        let shown = || one_line(name, NAME_BYTES_MAX);
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("`{}` cannot be an environment variable", shown()).into());
        }
        if name == "CI" || name.starts_with("BRIGANDINE_") {
            return Err(format!("the variable `{}` is set by the server", shown()).into());
        }
    }
    Ok(())
}

fn check_needs(needs: &[(String, usize)]) -> Result<(), EvaluateError> {
    if needs.len() > ENTRIES_MAX {
        return Err(format!("it needs {} jobs; {ENTRIES_MAX} may be", needs.len()).into());
    }
    for (alias, _) in needs {
        let unsound = alias.is_empty() || alias == "." || alias == ".." || alias.contains('/');
        if unsound || alias.len() > NAME_BYTES_MAX || alias.chars().any(is_steering) {
            return Err(format!(
                "`{}` cannot be a file name; give it another one: `\"needs\": {{name: job}}`",
                one_line(alias, NAME_BYTES_MAX)
            )
            .into());
        }
    }
    Ok(())
}

/// The files that the job reads, by input.
fn sources(
    command: &CommandDerivation,
    context: &Context,
    late: &dyn Fn() -> bool,
) -> Result<Vec<Source>, EvaluateError> {
    let names = || context.checkouts.iter().map(|checkout| checkout.input.name.clone());
    let sources = match &command.sources {
        None => names().map(|name| (name, Vec::new())).collect(),
        Some(sources) => sources.clone(),
    };
    let mut found = Vec::with_capacity(sources.len());
    for (input, mut patterns) in sources {
        let mut checkouts = context.checkouts.iter();
        let checkout = checkouts.find(|it| it.input.name == input).ok_or_else(|| {
            let known = names().collect::<Vec<_>>().join(", ");
            format!("`sources` names the input `{input}`; there are {known}")
        })?;
        check_patterns("`sources`", &patterns)?;
        patterns.sort_unstable();
        patterns.dedup();
        let selected = checkout.tree.tree.digest(&patterns, late);
        let (digest, idle) = selected.map_err(|error| match error {
            SelectError::Pattern(message) => message.into(),
            SelectError::Late => EvaluateError::Late,
        })?;
        if let Some(pattern) = idle {
            return Err(format!(
                "source pattern `{pattern}` matches no file of input `{input}` at {}",
                short(&checkout.revision)
            )
            .into());
        }
        found.push(Source {
            main: input == context.main,
            digest,
            input,
            url: checkout.input.url.clone(),
            revision: checkout.revision.clone(),
            submodules: checkout.input.submodules,
            submodules_from: checkout.input.submodules_from.clone(),
            patterns,
        });
    }
    Ok(found)
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}
