//! From an evaluator's lines to jobs that can be registered: every check there is, and the
//! identity of each derivation. Pure but for reading the listings of trees.

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
    /// What a build sees of this machine: see [`Definition::isolation`].
    pub(crate) isolation: String,
    /// Whether every job may use the network.
    pub(crate) network: bool,
}

/// What is wrong with an evaluation's lines, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A line cannot be used.
    Line(String),
    /// The evaluator says that it failed.
    Reported(String),
    /// There was no time left to check them.
    Late,
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self::Line(one_line(&message, MESSAGE_BYTES_MAX))
    }
}

impl From<&str> for Refusal {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

impl Refusal {
    /// Says where it was.
    fn at(self, place: impl FnOnce() -> String) -> Self {
        match self {
            Self::Line(message) => format!("{}: {message}", place()).into(),
            other => other,
        }
    }
}

/// The lines of an evaluator so far.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: Vec<(usize, Job)>,
    by_name: HashMap<String, usize>,
    errors: Vec<(String, String)>,
    /// All jobs that could not be evaluated.
    failed: HashSet<String>,
    error_count: usize,
}

const ERRORS_SHOWN: usize = 10;
const ERROR_BYTES_MAX: usize = 400;
/// Circles that are told, and names of one that are.
const CIRCLES_MAX: usize = 10;
const CIRCLE_NAMES_MAX: usize = 20;

impl Jobs {
    /// Takes the line with this number, or says what is wrong with it.
    pub(super) fn take(&mut self, number: usize, text: &[u8]) -> Result<(), Refusal> {
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let at = |message: String| format!("line {number}: {message}");
        match super::protocol::parse(text).map_err(at)? {
            Line::Error { job: None, message } => {
                Err(Refusal::Reported(one_line(&message, MESSAGE_BYTES_MAX)))
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
        let shown = shown.join("; ");
        let shown = one_line(&shown, MESSAGE_BYTES_MAX);
        format!("{} jobs could not be evaluated: {shown}{more}", self.error_count)
    }

    /// Checks the jobs against each other and gives them in an order in which whatever a job needs
    /// stands before it.
    /// Ends with [`Refusal::Late`] once `deadline` is over.
    pub(super) fn finish(
        self,
        context: &Context,
        deadline: Instant,
    ) -> Result<Vec<NewJob>, Refusal> {
        let late = || Instant::now() >= deadline;
        let order = self.order()?;
        let mut place = vec![usize::MAX; self.jobs.len()];
        let mut done: Vec<NewJob> = Vec::with_capacity(self.jobs.len());
        for index in order {
            if late() {
                return Err(Refusal::Late);
            }
            let (number, job) = &self.jobs[index];
            place[index] = done.len();
            let needs: Vec<(String, usize)> = job
                .needs
                .iter()
                .map(|(alias, name)| (alias.clone(), place[self.by_name[name]]))
                .collect();
            let new = convert(job, needs, &done, context, &late)
                .map_err(|refusal| refusal.at(|| format!("line {number}: job `{}`", job.name)))?;
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

    /// Names the circles among the jobs, each once.
    fn circles(&self) -> Refusal {
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
) -> Result<NewJob, Refusal> {
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
    let mut definition = define(command, &needs, done, context, &system, &nix_name, late)?;
    definition.description = one_line(&job.description, NAME_BYTES_MAX);
    let digest = Sha256::digest(definition.identity().as_bytes());
    let name: String = nix_name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "+-._".contains(c) { c } else { '-' })
        .collect();
    let text =
        serde_json::to_string(&definition).map_err(|error| Refusal::from(error.to_string()))?;
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

fn define(
    command: &CommandDerivation,
    needs: &[(String, usize)],
    done: &[NewJob],
    context: &Context,
    system: &str,
    nix_name: &str,
    late: &dyn Fn() -> bool,
) -> Result<Definition, Refusal> {
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
        _ => return Err("`command` is a text for the shell or a list of texts".into()),
    };
    if argv.iter().any(|word| word.contains('\0')) {
        return Err("`command` has a zero byte".into());
    }
    for (name, value) in &command.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let name = one_line(name, NAME_BYTES_MAX);
            return Err(format!("`{name}` cannot be an environment variable").into());
        }
        if name == "CI" || name.starts_with("BRIGANDINE_") {
            let name = one_line(name, NAME_BYTES_MAX);
            return Err(format!("the variable `{name}` is set by the server").into());
        }
    }
    check_lengths(&argv, &command.environment)?;
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
    check_patterns("`products`", &command.products)?;
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
        check_patterns("`sources`", &patterns)?;
        patterns.sort_unstable();
        patterns.dedup();
        let (digest, idle) =
            checkout.tree.tree.digest(&patterns, late).map_err(|error| match error {
                SelectError::Pattern(message) => message.into(),
                SelectError::Late => Refusal::Late,
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
    let network = command.network || context.network;
    Ok(Definition {
        version: Definition::VERSION,
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
        isolation: match context.isolation.as_str() {
            "sandbox" if network => "sandbox-network".to_owned(),
            "sandbox-user" if network => "sandbox-network-user".to_owned(),
            other => other.to_owned(),
        },
        network,
        description: String::new(),
    })
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}
