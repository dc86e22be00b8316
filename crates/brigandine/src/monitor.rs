//! Monitors: one task per specification, which looks at the inputs when it is time or when asked,
//! and evaluates what is new.
//!
//! A look fetches all inputs in parallel; their revisions and the specification's definition are
//! the stamp. A known stamp ends the look. A new one is stored as a started evaluation before
//! anything runs, so that the same revisions are never evaluated twice and a failure is seen.
//!
//! | what goes wrong | who is told | what happens next |
//! |---|---|---|
//! | a fetch | the specification's row | another look, later each time |
//! | a fetch of a submodule | both rows | evaluated again by another look, later each time |
//! | the evaluator | the evaluation's row and its log | nothing until something is pushed |
//! | the disk is full | the evaluation's row: aborted | evaluated again when there is room, some times |
//! | the server stops | the evaluation's row: aborted | evaluated again at the next start |

mod turns;

pub(crate) use turns::Turns;

use crate::evaluate::{self, Checked, Context, EvaluatorSettings};
use crate::health::{Health, Run};
use crate::input::{Checkouts, Form, Repositories, Resolved, Wanted};
use crate::log::{Announcement, Logs};
use crate::model::{
    self, Checkout, Definition, EvaluationId, EvaluationStatus, Evaluator, Event, LogName,
    MESSAGE_BYTES_MAX, Specification, SpecificationId, SpecificationState, Timestamp, lines,
    one_line,
};
use crate::os::digest::hex;
use crate::os::ffi;
use crate::os::folder::remove_all;
use crate::outputs::Outputs;
use crate::store::{self, Begun, Database, DatabaseError};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

/// Jobs of an evaluation whose memory is worth giving back.
const MANY_JOBS: usize = 10_000;
/// The first pause after a failed look; doubled with every further one.
const BACK_OFF: Duration = Duration::from_secs(10);
/// The longest pause after failed looks, unless the interval is longer.
const BACK_OFF_MAX: Duration = Duration::from_secs(30 * 60);

/// Evaluations in a row that may meet a full disk and are begun again; the next one fails.
const FULL_MAX: usize = 3;

/// Fetches at once of one specification.
const FETCHES_OF_ONE: usize = 4;

/// What all monitors share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The lane for evaluations.
    pub(crate) database: Database,
    /// What is waited for before anything is begun.
    pub(crate) health: Health,
    /// The clones.
    pub(crate) repositories: Arc<Repositories>,
    /// The exports.
    pub(crate) checkouts: Arc<Checkouts>,
    /// The evaluators' logs.
    pub(crate) logs: Logs,
    /// What evaluators may take.
    pub(crate) evaluator: EvaluatorSettings,
    /// What the server builds for.
    pub(crate) systems: Vec<String>,
    /// What builds see of this machine.
    pub(crate) isolation: &'static str,
    /// Between two looks, unless the specification says otherwise.
    pub(crate) interval: Duration,
    /// Below this, evaluators get a directory of their own.
    pub(crate) work: PathBuf,
    /// Looked at when jobs are linked to builds that have some.
    pub(crate) outputs: Arc<Outputs>,
    /// Called when builds may have been scheduled.
    pub(crate) scheduled: Scheduled,
    /// For watchers.
    pub(crate) events: broadcast::Sender<Event>,
    /// Of fetches.
    pub(crate) fetches: Arc<Turns>,
    /// Of evaluations.
    pub(crate) evaluations: Turns,
}

/// Tells whoever starts builds that there may be some.
pub(crate) struct Scheduled(pub(crate) Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Scheduled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scheduled")
    }
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// Nothing is new; the evaluation of this state of the inputs ended like this.
    Known(EvaluationId, EvaluationStatus),
    /// There was an evaluation, and it ended like this.
    Evaluated(EvaluationId, EvaluationStatus),
    /// The inputs could not be fetched.
    Failed,
    /// The specification is gone.
    Gone,
}

/// Looks at a specification whenever it is time or `wanted` says so, until `stop` turns true.
///
/// # Errors
/// The database failed: the server cannot go on.
pub(crate) async fn run(
    shared: Arc<Shared>,
    id: SpecificationId,
    wanted: Arc<Notify>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), DatabaseError> {
    let (mut first, mut full) = (true, 0);
    loop {
        if *stop.borrow_and_update() {
            return Ok(());
        }
        let first = std::mem::replace(&mut first, false);
        let (looked, pause) = look(&shared, id, first, &mut full, stop.clone()).await?;
        if looked == Looked::Gone {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wanted.notified() => {}
            _ = stop.changed() => {}
        }
    }
}

fn pause_after(interval: Duration, failures: i64) -> Duration {
    if failures == 0 {
        return interval;
    }
    let doublings = u32::try_from(failures - 1).unwrap_or(u32::MAX).min(16);
    BACK_OFF.min(interval).saturating_mul(1 << doublings).min(BACK_OFF_MAX.max(interval))
}

/// Looks once, when there is room. Says what came of it, and how long to wait before the next look. The `first` look
/// of a server also sees whether the outputs of the last evaluation are there. `full` counts the evaluations in a
/// row that met a full disk.
///
/// # Errors
/// The database failed.
///
/// # Cancel safety
/// Dropped: child processes are killed; an evaluation that was running stays started until the
/// next start of the server. Use `stop` instead, which notes it as aborted.
pub(crate) async fn look(
    shared: &Shared,
    id: SpecificationId,
    first: bool,
    full: &mut usize,
    mut stop: watch::Receiver<bool>,
) -> Result<(Looked, Duration), DatabaseError> {
    tokio::select! {
        () = shared.health.room() => {}
        _ = stop.wait_for(|stop| *stop) => return Ok((Looked::Gone, shared.interval)),
    }
    let read = move |s: &store::Snapshot| store::specification_by_id(s, id);
    let state = shared.health.read(&shared.database, read).await?;
    let Some(state) = state else { return Ok((Looked::Gone, shared.interval)) };
    let span = tracing::info_span!("look", specification = state.specification.name);
    look_at(shared, state, first, full, stop).instrument(span).await
}

async fn look_at(
    shared: &Shared,
    state: SpecificationState,
    first: bool,
    full: &mut usize,
    mut stop: watch::Receiver<bool>,
) -> Result<(Looked, Duration), DatabaseError> {
    let (id, wanted_at, error) = (state.id, state.look.wanted_at, state.look.error);
    let failures = state.look.failures + 1;
    let run = shared.health.begin();
    let specification = Arc::new(state.specification);
    let interval = specification.interval_s.map_or(shared.interval, Duration::from_secs);
    let fetched = tokio::select! {
        fetched = fetch(shared, &specification) => fetched,
        _ = stop.wait_for(|stop| *stop) => return Ok((Looked::Gone, interval)),
    };
    let now = model::now();
    let resolved = match fetched {
        Ok(resolved) => resolved,
        Err(error) => {
            let (run, met) = met_full_disk(run).await;
            drop(run);
            // That there was no room is no reason to come back later and later.
            let pause = pause_after(interval, if met { 1 } else { failures });
            tracing::warn!(error, retry_s = pause.as_secs(), "cannot fetch the inputs");
            let next_at = now.saturating_add(seconds(pause));
            let look = store::Looked { specification: id, wanted_at, at: now, next_at, failures };
            let note = move |tx: &store::Transaction| store::note_look(tx, look, &error);
            shared.health.write(&shared.database, note).await?;
            let _ = shared.events.send(Event::Looked { specification: id, failed: true });
            return Ok((Looked::Failed, pause));
        }
    };
    let stamp = stamp(shared, &specification, &resolved);
    let checkouts: Vec<Checkout> = specification
        .inputs
        .iter()
        .zip(&resolved)
        .map(|(input, resolved)| Checkout {
            input: input.name.clone(),
            revision: resolved.revision.clone(),
            subject: resolved.subject.clone(),
            author: resolved.author.clone(),
            revision_at: resolved.revision_at,
        })
        .collect();
    let next_at = now.saturating_add(seconds(interval));
    let look = store::Looked { specification: id, wanted_at, at: now, next_at, failures };
    // Dropped when an evaluation that begins has its log (`log`, L4).
    let coming = shared.logs.announce();
    let begin = move |tx: &store::Transaction| {
        store::note_look(tx, look, "")?;
        store::begin_evaluation(tx, id, &stamp, &checkouts, &error, now)
    };
    let begun = shared.health.write(&shared.database, begin).await?;
    let _ = shared.events.send(Event::Looked { specification: id, failed: false });
    let evaluation = match begun {
        Begun::Known(known, status) => {
            drop(coming);
            tracing::debug!(evaluation = %known, "nothing is new");
            if first && status == EvaluationStatus::Succeeded {
                make_again(shared, known).await?;
            }
            return Ok((Looked::Known(known, status), interval));
        }
        Begun::New(evaluation) | Begun::Again(evaluation) => evaluation,
    };
    let span = tracing::info_span!("evaluation", id = %evaluation);
    let later = pause_after(interval, failures);
    let next_at = now.saturating_add(seconds(later));
    let turn = Turn { run, full: *full, unreachable: store::Looked { next_at, ..look } };
    let evaluated = evaluate(shared, &specification, &resolved, evaluation, turn, (coming, stop));
    let Ended { status, met, unreachable } = evaluated.instrument(span).await?;
    *full = if met { *full + 1 } else { 0 };
    if unreachable {
        let _ = shared.events.send(Event::Looked { specification: id, failed: true });
        return Ok((Looked::Evaluated(evaluation, status), later));
    }
    // It is evaluated again as soon as there is room, for which the next look waits.
    let pause = if met && status == EvaluationStatus::Aborted { BACK_OFF } else { interval };
    Ok((Looked::Evaluated(evaluation, status), pause.min(interval)))
}

/// Whether what ran met a full disk.
async fn met_full_disk(run: Run) -> (Option<Run>, bool) {
    let looked = tokio::task::spawn_blocking(move || {
        let met = run.met_full_disk();
        (Some(run), met)
    });
    looked.await.unwrap_or((None, false))
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Fetches all inputs at once. Errors of all of them, for people.
async fn fetch(shared: &Shared, specification: &Specification) -> Result<Vec<Resolved>, String> {
    let mut fetches = JoinSet::new();
    let own = Arc::new(Semaphore::new(FETCHES_OF_ONE));
    for (place, input) in specification.inputs.iter().cloned().enumerate() {
        let (repositories, turns) = (Arc::clone(&shared.repositories), Arc::clone(&shared.fetches));
        let own = Arc::clone(&own);
        let work = async move {
            // Never closed, so it always comes.
            let _own = own.acquire_owned().await;
            let resolved = turns.run(repositories.fetch(&input.url, &input.reference)).await;
            (place, resolved.map_err(|error| format!("input `{}`: {error}", input.name)))
        };
        fetches.spawn(work.in_current_span());
    }
    let mut resolved: Vec<Option<Resolved>> = vec![None; specification.inputs.len()];
    let mut errors = Vec::new();
    while let Some(done) = fetches.join_next().await {
        match done {
            Ok((place, Ok(found))) => resolved[place] = Some(found),
            Ok((_, Err(error))) => errors.push(error),
            Err(error) => errors.push(format!("a fetch failed: {error}")),
        }
    }
    errors.sort_unstable();
    let resolved: Option<Vec<Resolved>> = resolved.into_iter().collect();
    resolved
        .filter(|_| errors.is_empty())
        .ok_or_else(|| one_line(&errors.join("; "), MESSAGE_BYTES_MAX))
}

/// Covers what an evaluation depends on: the definition without what only steers the looks, the
/// revisions, and what the server puts into the identity of each job.
fn stamp(shared: &Shared, specification: &Specification, resolved: &[Resolved]) -> String {
    let mut definition = specification.clone();
    definition.description.clear();
    definition.interval_s = None;
    definition.keep = None;
    definition.enabled = true;
    let mut digest = Sha256::new();
    digest.update(Definition::VERSION.to_be_bytes());
    digest.update(shared.isolation.as_bytes());
    for system in &shared.systems {
        digest.update([0]);
        digest.update(system.as_bytes());
    }
    digest.update([0]);
    // A specification came from JSON or goes to it at once: it has nothing that JSON has not.
    digest.update(serde_json::to_vec(&definition).unwrap_or_default());
    for resolved in resolved {
        digest.update([0]);
        digest.update(resolved.revision.as_bytes());
    }
    hex(&digest.finalize())
}

/// What an evaluation is begun with.
struct Turn {
    run: Run,
    /// Evaluations in a row before it that met a full disk.
    full: usize,
    /// What the look came to if something cannot be fetched.
    unreachable: store::Looked,
}

/// How an evaluation ended.
struct Ended {
    status: EvaluationStatus,
    /// Whether it met a full disk.
    met: bool,
    /// Whether something could not be fetched.
    unreachable: bool,
}

/// Evaluates.
async fn evaluate(
    shared: &Shared,
    specification: &Specification,
    resolved: &[Resolved],
    id: EvaluationId,
    Turn { run, full, unreachable: look }: Turn,
    (coming, mut stop): (Announcement, watch::Receiver<bool>),
) -> Result<Ended, DatabaseError> {
    let specification_id = look.specification;
    let publish = |status| {
        let specification = specification_id;
        let _ = shared.events.send(Event::Evaluation { id, specification, status });
    };
    let name = LogName::Evaluation(id);
    shared.logs.remove(name);
    let mut log = shared.logs.create(name);
    drop(coming);
    publish(EvaluationStatus::Started);
    tracing::info!("evaluation started");
    let mut checkout_at = 0;
    let scratch = Scratch(shared.work.join(format!("evaluation-{id}")));
    let _ = remove_all(&scratch.0);
    let files = &scratch.0;
    let work =
        evaluate_started(shared, specification, resolved, id, files, &mut log, &mut checkout_at);
    let work = shared.evaluations.run(work);
    let done = tokio::select! {
        done = work => done,
        _ = stop.wait_for(|stop| *stop) => Err(Trouble::Stopped),
    };
    let (run, met) = match &done {
        Err(Trouble::Evaluation(_) | Trouble::Unreachable(_)) => met_full_disk(run).await,
        Err(Trouble::Full(_)) => {
            run.note_full();
            (Some(run), true)
        }
        _ => (Some(run), false),
    };
    // Until then it took its room on the disk.
    drop(scratch);
    let again = met && full + 1 < FULL_MAX;
    let done = done.map_err(|trouble| match trouble {
        Trouble::Evaluation(message) | Trouble::Full(message) | Trouble::Unreachable(message)
            if again =>
        {
            Trouble::Full(message)
        }
        Trouble::Full(message) => Trouble::Evaluation(message),
        trouble => trouble,
    });
    if let Err(
        Trouble::Evaluation(message) | Trouble::Full(message) | Trouble::Unreachable(message),
    ) = &done
    {
        let _ = log.write(format!("\n[brigandine: {message}]\n").as_bytes()).await;
    }
    let unreachable = matches!(done, Err(Trouble::Unreachable(_)));
    let log = log.finish().await;
    let now = model::now();
    let status = match done {
        Ok(evaluated) => {
            let message = evaluated.message;
            let jobs = Arc::new(evaluated.jobs);
            let register = move |tx: &store::Transaction| {
                store::note_checkouts(tx, id, checkout_at)?;
                store::register(tx, id, &jobs, &message, &log.path, now)
            };
            let written = shared.health.write(&shared.database, register).await?;
            match written {
                Some(registered) => {
                    tracing::info!(
                        new = registered.new,
                        reused = registered.reused,
                        "evaluation succeeded"
                    );
                    if registered.reused > 0 {
                        make_again(shared, id).await?;
                    }
                    (shared.scheduled.0)();
                    if registered.new + registered.reused >= MANY_JOBS {
                        ffi::give_back().await;
                    }
                    EvaluationStatus::Succeeded
                }
                None => {
                    tracing::warn!("the evaluation had ended already; its jobs are dropped");
                    EvaluationStatus::Aborted
                }
            }
        }
        Err(trouble) => {
            let (status, message) = match trouble {
                Trouble::Database(error) => return Err(error),
                Trouble::Evaluation(message) | Trouble::Unreachable(message) => {
                    (EvaluationStatus::Failed, message)
                }
                Trouble::Full(message) => {
                    let message = format!(
                        "the disk was full; it is evaluated again when there is room: {message}"
                    );
                    (EvaluationStatus::Aborted, one_line(&message, MESSAGE_BYTES_MAX))
                }
                Trouble::Stopped => {
                    (EvaluationStatus::Aborted, "the server was stopped".to_owned())
                }
            };
            tracing::warn!(%status, why = message, "evaluation ended");
            let end = move |tx: &store::Transaction| {
                if checkout_at > 0 {
                    store::note_checkouts(tx, id, checkout_at)?;
                }
                if unreachable {
                    // By this error the next look knows that it may go better.
                    store::note_look(tx, look, &message)?;
                }
                store::end_evaluation(tx, id, status, &message, &log.path, now)
            };
            shared.health.write(&shared.database, end).await?;
            status
        }
    };
    drop(run);
    shared.logs.forget(name);
    publish(status);
    if status == EvaluationStatus::Succeeded {
        tidy(shared, specification).await;
    }
    Ok(Ended { status, met, unreachable })
}

/// Has outputs of an evaluation made again that are not there any more.
async fn make_again(shared: &Shared, id: EvaluationId) -> Result<(), DatabaseError> {
    let read = move |s: &store::Snapshot| store::outputs_of(s, id);
    let paths = shared.health.read(&shared.database, read).await?;
    let outputs = Arc::clone(&shared.outputs);
    let looked = tokio::task::spawn_blocking(move || -> Vec<String> {
        paths.into_iter().filter(|path| !outputs.has(path)).collect()
    });
    let gone: Arc<[String]> = looked.await.unwrap_or_default().into();
    if gone.is_empty() {
        return Ok(());
    }
    tracing::warn!(outputs = gone.len(), "outputs are gone: their builds are scheduled again");
    let rebuild = move |tx: &store::Transaction| {
        let mut changed = Vec::new();
        for path in gone.iter() {
            changed.extend(store::rebuild(tx, path)?);
        }
        Ok(changed)
    };
    let changed = shared.health.write(&shared.database, rebuild).await?;
    model::publish(&shared.events, &changed);
    (shared.scheduled.0)();
    Ok(())
}

/// Tidies the clones. A failure is logged and ignored.
async fn tidy(shared: &Shared, specification: &Specification) {
    for input in &specification.inputs {
        let needed = || async {
            let found = shared.database.read(store::revisions_in_use).await;
            found.map_err(|error| tracing::warn!(%error, "cannot list the revisions in use")).ok()
        };
        if let Err(error) = shared.repositories.tidy(&input.url, needed).await {
            tracing::warn!(%error, "cannot tidy a clone");
        }
    }
}

enum Trouble {
    Database(DatabaseError),
    Evaluation(String),
    /// As `Evaluation`, on a full disk.
    Full(String),
    /// As `Evaluation`, by a repository that did not give what a submodule names.
    Unreachable(String),
    Stopped,
}

async fn evaluate_started(
    shared: &Shared,
    specification: &Specification,
    resolved: &[Resolved],
    id: EvaluationId,
    scratch: &Path,
    log: &mut crate::log::LogWriter,
    checkout_at: &mut Timestamp,
) -> Result<evaluate::Evaluated, Trouble> {
    // A foreign evaluator is given directories; the built-in one is given its list.
    let form = match specification.evaluator {
        Evaluator::Jobs { .. } => Form::Any,
        Evaluator::Command { .. } => Form::Directory,
    };
    let mut checkouts = Vec::with_capacity(resolved.len());
    for (input, resolved) in specification.inputs.iter().zip(resolved) {
        let failed = |error: crate::input::FetchError| {
            let message = format!("input `{}`: {error}", input.name);
            let message = one_line(&message, MESSAGE_BYTES_MAX);
            match &error {
                error if error.is_full() => Trouble::Full(message),
                error if error.is_of_fetch() => Trouble::Unreachable(message),
                _ => Trouble::Evaluation(message),
            }
        };
        let revision = &resolved.revision;
        let pin = shared.repositories.pin(&input.url, revision);
        let wanted = Wanted {
            url: &input.url,
            revision,
            submodules: input.submodules,
            submodules_from: &input.submodules_from,
        };
        let tree = shared.checkouts.export(wanted, form, true);
        let ((), tree) = tokio::try_join!(pin, tree).map_err(failed)?;
        checkouts.push(Checked { input: input.clone(), revision: revision.clone(), tree });
    }
    let main = specification
        .evaluator
        .input()
        .or_else(|| specification.inputs.first().map(|input| input.name.as_str()))
        .unwrap_or_default()
        .to_owned();
    let context = Context {
        checkouts,
        main,
        systems: shared.systems.clone(),
        priority: specification.priority,
        isolation: shared.isolation.to_owned(),
        network: specification.network,
    };
    *checkout_at = model::now();
    let now = *checkout_at;
    let note = async {
        // The built-in evaluator has ended before anybody could see it: its end says it as well.
        if form == Form::Directory {
            let note = move |tx: &store::Transaction| store::note_checkouts(tx, id, now);
            let noted = shared.health.write(&shared.database, note).await;
            noted.map_err(Trouble::Database)?;
        }
        Ok(())
    };
    let work = async {
        let done =
            evaluate::evaluate(specification, context, &shared.evaluator, scratch, log).await;
        done.map_err(|error| {
            let message = lines(&error.to_string(), MESSAGE_BYTES_MAX);
            if error.is_full() { Trouble::Full(message) } else { Trouble::Evaluation(message) }
        })
    };
    tokio::try_join!(note, work).map(|((), evaluated)| evaluated)
}

/// An evaluator's own directory, removed when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.exists() {
            let path = std::mem::take(&mut self.0);
            // It may be large, and this may be a thread that must not block.
            let removal = std::thread::Builder::new()
                .name("scratch-removal".to_owned())
                .spawn(move || remove_all(&path).map(drop));
            drop(removal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_looks_are_repeated_soon_at_first_and_seldom_later() {
        let interval = Duration::from_secs(300);
        let pauses: Vec<u64> =
            (0..10).map(|failures| pause_after(interval, failures).as_secs()).collect();
        assert_eq!(pauses, [300, 10, 20, 40, 80, 160, 320, 640, 1280, 1800]);
        assert_eq!(pause_after(Duration::from_secs(7200), 99), Duration::from_secs(7200));
        assert_eq!(pause_after(Duration::from_millis(10), 1), Duration::from_millis(10));
    }
}
