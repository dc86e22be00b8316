//! Runs one evaluation of new revisions, and stores its jobs or why it failed.

use super::fetch::met_full_disk;
use super::shared::Shared;
use super::superseded;
use crate::evaluate::{self, Checked, Context};
use crate::health::{self, Run};
use crate::input::{Form, Resolved, WantedRevision};
use crate::log::Announcement;
use crate::model::{
    self, Definition, EvaluationId, EvaluationStatus, Evaluator, Event, LogName, MAIN_PROJECT,
    MESSAGE_BYTES_MAX, STOP_DELAY, Specification, Supersede, Timestamp, lines, one_line,
};
use crate::os::digest::hex;
use crate::os::ffi;
use crate::os::folder::{RemovedInBackground, remove_all, unused};
use crate::store::{self, DatabaseError};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

/// After an evaluation with at least this many jobs, free memory is returned to the system.
const MANY_JOBS: usize = 10_000;

/// How many evaluations in a row may meet a full disk. The last of them fails; those before it are repeated.
const FULL_MAX: usize = 3;

/// The digest of everything on which an evaluation depends: the definition without the project and the settings of looks,
/// retention, superseding and privacy, the revisions, and what the server adds to the identity of each job.
pub(super) fn stamp(
    shared: &Shared,
    specification: &Specification,
    resolved: &[Resolved],
) -> String {
    let mut definition = specification.clone();
    definition.description.clear();
    definition.project = MAIN_PROJECT.to_owned();
    definition.interval_s = None;
    definition.keep = None;
    definition.supersede = Supersede::Nothing;
    definition.private = false;
    definition.enabled = true;
    let mut digest = Sha256::new();
    digest.update(Definition::VERSION.to_be_bytes());
    digest.update(shared.isolation.as_bytes());
    for system in &shared.systems {
        digest.update([0]);
        digest.update(system.as_bytes());
    }
    digest.update([0]);
    // A specification can always be written as JSON.
    digest.update(serde_json::to_vec(&definition).unwrap_or_default());
    for resolved in resolved {
        digest.update([0]);
        digest.update(resolved.revision.as_bytes());
    }
    hex(&digest.finalize())
}

/// The state with which an evaluation is started.
pub(super) struct Turn {
    pub(super) run: Run,
    /// How many evaluations directly before this one met a full disk.
    pub(super) full: usize,
    /// The look's result, which is stored if a repository cannot be fetched.
    pub(super) unreachable: store::Looked,
}

/// How an evaluation ended.
pub(super) struct Ended {
    pub(super) status: EvaluationStatus,
    /// `true`: the evaluation met a full disk.
    pub(super) met: bool,
    /// `true`: a repository could not be fetched.
    pub(super) unreachable: bool,
}

/// Runs one evaluation, and stores how it ended.
pub(super) async fn evaluate(
    shared: &Shared,
    specification: &Specification,
    resolved: &[Resolved],
    id: EvaluationId,
    Turn { run, full, unreachable: look }: Turn,
    (coming, stop): (Announcement, watch::Receiver<bool>),
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
    let began = Instant::now();
    let mut checkout_at = 0;
    let mut scratch = shared.work.join(format!("evaluation-{id}"));
    if let Err(error) = remove_all(&scratch) {
        tracing::warn!(%error, path = %scratch.display(), "cannot remove a leftover");
        scratch = unused(&shared.work, &format!("evaluation-{id}-"), "");
    }
    let scratch = RemovedInBackground(scratch);
    let files = &scratch.0;
    let work =
        evaluate_started(shared, specification, resolved, id, files, &mut log, &mut checkout_at);
    // The future is large. In a box, it does not take its room in each of the futures around it.
    let work = shared.evaluations.run(Box::pin(work));
    let mut done = end_of(work, shared, id, stop).await;
    let (run, met) = match &done {
        Err(Trouble::Failed(Reason::Full, _)) => {
            run.note_full();
            (Some(run), true)
        }
        Err(Trouble::Failed(..)) => met_full_disk(run).await,
        _ => (Some(run), false),
    };
    // The files are removed only now, because `met_full_disk` must see the room that they take on the disk.
    drop(scratch);
    if let Err(Trouble::Failed(reason, message)) = &mut done {
        *reason = match *reason {
            _ if met && full + 1 < FULL_MAX => Reason::Full,
            Reason::Full => Reason::Other,
            reason => reason,
        };
        let _ = log.write(format!("\n[brigandine: {message}]\n").as_bytes()).await;
    }
    let unreachable = matches!(done, Err(Trouble::Failed(Reason::Unreachable, _)));
    let log = log.finish().await;
    let status = match done {
        Ok(evaluated) => {
            register(shared, specification, id, evaluated, checkout_at, log.path).await?
        }
        Err(trouble) => {
            let look = unreachable.then_some(look);
            end(shared, id, trouble, checkout_at, log.path, look).await?
        }
    };
    drop(run);
    shared.logs.forget(name);
    shared.meters.evaluation_ended(status, began.elapsed());
    publish(status);
    if status == EvaluationStatus::Succeeded {
        tidy(shared, specification).await;
    }
    Ok(Ended { status, met, unreachable })
}

/// Waits for the end of the work, the stop of the server, or the cancellation of the evaluation, whichever comes first.
async fn end_of(
    work: impl Future<Output = Result<evaluate::Evaluated, Trouble>>,
    shared: &Shared,
    id: EvaluationId,
    mut stop: watch::Receiver<bool>,
) -> Result<evaluate::Evaluated, Trouble> {
    let mut done = tokio::select! {
        done = work => done,
        _ = stop.wait_for(|stop| *stop) => Err(Trouble::Stopped),
        () = canceled(shared, id) => Err(Trouble::Canceled),
    };
    if matches!(done, Err(Trouble::Failed(Reason::Process, _))) {
        let is_stop = stop.wait_for(|stop| *stop);
        if matches!(tokio::time::timeout(STOP_DELAY, is_stop).await, Ok(Ok(_))) {
            done = Err(Trouble::Stopped);
        }
    }
    done
}

/// Waits until somebody has canceled the evaluation.
async fn canceled(shared: &Shared, id: EvaluationId) {
    let mut events = shared.events.subscribe();
    loop {
        // Read before the first event is waited for, because the cancel may have come before this call.
        let read = shared.database.read(move |s| store::evaluation(s, id)).await;
        // If the database cannot be read, the end of the evaluation reports that.
        if read
            .is_ok_and(|found| found.is_none_or(|found| found.status != EvaluationStatus::Started))
        {
            return;
        }
        loop {
            match events.recv().await {
                Ok(Event::Notice) | Err(RecvError::Lagged(_)) => break,
                Ok(_) => {}
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    }
}

/// Registers the jobs of an evaluation.
async fn register(
    shared: &Shared,
    specification: &Specification,
    id: EvaluationId,
    evaluated: evaluate::Evaluated,
    checkout_at: Timestamp,
    log_path: String,
) -> Result<EvaluationStatus, DatabaseError> {
    let (jobs, message, now) = (Arc::new(evaluated.jobs), evaluated.message, model::now());
    let (log, cancels) = (log_path.clone(), specification.supersede == Supersede::Cancel);
    let register = move |tx: &store::Transaction| {
        store::note_checkouts(tx, id, checkout_at)?;
        let Some(done) = store::register(tx, id, &jobs, &message, &log, now)? else {
            return Ok(None);
        };
        let rest = if cancels { store::supersede(tx, id, now)? } else { Vec::new() };
        Ok(Some((done, rest)))
    };
    let registered = match shared.health.write(&shared.database, register).await {
        // Other evaluations may be stored, so this one fails by itself.
        Err(error) if health::is_refusal(&error) => {
            let message = format!(
                "its jobs could not be stored, because the database refuses them: {error}; look for what is \
                 wrong with their rows (SQLite's `integrity_check`)"
            );
            let trouble = Trouble::Failed(Reason::Other, one_line(&message, MESSAGE_BYTES_MAX));
            return end(shared, id, trouble, checkout_at, log_path, None).await;
        }
        registered => registered?,
    };
    let Some(registered) = registered else {
        tracing::warn!("the evaluation had ended already; its jobs are dropped");
        return Ok(EvaluationStatus::Aborted);
    };
    let (store::Registered { new, broken, reused }, rest) = registered;
    shared.meters.builds_broken(broken);
    tracing::info!(new, reused, "evaluation succeeded");
    if reused > 0 {
        make_again(shared, id).await?;
    }
    superseded::settle(shared, rest).await?;
    (shared.scheduled.0)();
    if new + reused >= MANY_JOBS {
        ffi::give_back().await;
    }
    Ok(EvaluationStatus::Succeeded)
}

/// Stores why an evaluation has no jobs. If a repository could not be fetched, also stores `look`.
async fn end(
    shared: &Shared,
    id: EvaluationId,
    trouble: Trouble,
    checkout_at: Timestamp,
    log_path: String,
    look: Option<store::Looked>,
) -> Result<EvaluationStatus, DatabaseError> {
    let (status, message) = match trouble {
        Trouble::Database(error) => return Err(error),
        Trouble::Failed(Reason::Full, message) => {
            let message =
                format!("the disk was full; it is evaluated again when there is room: {message}");
            (EvaluationStatus::Aborted, one_line(&message, MESSAGE_BYTES_MAX))
        }
        Trouble::Failed(_, message) => (EvaluationStatus::Failed, message),
        Trouble::Stopped => (EvaluationStatus::Aborted, "the server was stopped".to_owned()),
        Trouble::Canceled => (EvaluationStatus::Aborted, "canceled on request".to_owned()),
    };
    tracing::warn!(%status, why = message, "evaluation ended");
    let now = model::now();
    let end = move |tx: &store::Transaction| {
        if checkout_at > 0 {
            store::note_checkouts(tx, id, checkout_at)?;
        }
        if let Some(look) = look {
            // The next look finds this error and evaluates the same revisions again.
            store::note_look(tx, look, &message)?;
        }
        // A canceled evaluation has ended already, and has no log yet.
        Ok(store::end_evaluation(tx, id, status, &message, &log_path, now)?
            || store::note_log(tx, id, &log_path)?)
    };
    shared.health.write(&shared.database, end).await?;
    Ok(status)
}

/// Reschedules those builds of an evaluation whose outputs are missing.
pub(super) async fn make_again(shared: &Shared, id: EvaluationId) -> Result<(), DatabaseError> {
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
    let changed = match shared.health.write(&shared.database, rebuild).await {
        Err(error) if health::is_refusal(&error) => {
            // Each of these builds is scheduled again as soon as another build needs its output.
            tracing::error!(%error, "the database refuses to schedule these builds again");
            return Ok(());
        }
        changed => changed?,
    };
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

/// Why an evaluation has no jobs.
enum Trouble {
    Database(DatabaseError),
    /// The evaluation failed; the text says why, for people.
    Failed(Reason, String),
    Stopped,
    /// Somebody has canceled it.
    Canceled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// A disk was full.
    Full,
    /// A repository could not be fetched, such as a submodule's.
    Unreachable,
    /// A child process failed or was killed. Perhaps the signal that stops the server has ended it.
    Process,
    Other,
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
    // An evaluator command reads the directories of all inputs. The built-in evaluator gets only its list.
    let form = match specification.evaluator {
        Evaluator::Jobs { .. } => Form::Any,
        Evaluator::Command { .. } => Form::Directory,
    };
    let mut checkouts = Vec::with_capacity(resolved.len());
    for (input, resolved) in specification.inputs.iter().zip(resolved) {
        let failed = |error: crate::input::FetchError| {
            let message = format!("input `{}`: {error}", input.name);
            let message = one_line(&message, MESSAGE_BYTES_MAX);
            let reason = match &error {
                error if error.is_full() => Reason::Full,
                error if error.is_of_fetch() => Reason::Unreachable,
                // git exports the files.
                _ => Reason::Process,
            };
            Trouble::Failed(reason, message)
        };
        let revision = &resolved.revision;
        let pin = shared.repositories.pin(&input.url, revision);
        let wanted = WantedRevision {
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
        // For the built-in evaluator this write is not needed: it ends soon, and the write that stores its end stores
        // the time too.
        if form == Form::Directory {
            let note = move |tx: &store::Transaction| store::note_checkouts(tx, id, now);
            let noted = shared.health.write(&shared.database, note).await;
            noted.map_err(Trouble::Database)?;
        }
        Ok(())
    };
    let work = async {
        let settings = shared.evaluator.get();
        let done = evaluate::evaluate(specification, context, &settings, scratch, log).await;
        done.map_err(|error| {
            let message = lines(&error.to_string(), MESSAGE_BYTES_MAX);
            let reason = match specification.evaluator {
                _ if error.is_full() => Reason::Full,
                Evaluator::Command { .. } => Reason::Process,
                // Most job lists are read by the server itself.
                Evaluator::Jobs { .. } if error.is_of_process() => Reason::Process,
                Evaluator::Jobs { .. } => Reason::Other,
            };
            Trouble::Failed(reason, message)
        })
    };
    tokio::try_join!(note, work).map(|((), evaluated)| evaluated)
}
