//! One evaluation of new revisions: begun, run, registered or ended with the reason why not.

use super::fetch::met_full_disk;
use super::shared::Shared;
use crate::evaluate::{self, Checked, Context};
use crate::health::Run;
use crate::input::{Form, Resolved, Wanted};
use crate::log::Announcement;
use crate::model::{
    self, Definition, EvaluationId, EvaluationStatus, Evaluator, Event, LogName, MESSAGE_BYTES_MAX,
    Specification, Timestamp, lines, one_line,
};
use crate::os::digest::hex;
use crate::os::ffi;
use crate::os::folder::remove_all;
use crate::store::{self, DatabaseError};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Jobs of an evaluation whose memory is worth giving back.
const MANY_JOBS: usize = 10_000;

/// Evaluations in a row that may meet a full disk and are begun again; the next one fails.
const FULL_MAX: usize = 3;

/// Covers what an evaluation depends on: the definition without what only steers the looks, the
/// revisions, and what the server puts into the identity of each job.
pub(super) fn stamp(
    shared: &Shared,
    specification: &Specification,
    resolved: &[Resolved],
) -> String {
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
pub(super) struct Turn {
    pub(super) run: Run,
    /// Evaluations in a row before it that met a full disk.
    pub(super) full: usize,
    /// What the look came to if something cannot be fetched.
    pub(super) unreachable: store::Looked,
}

/// How an evaluation ended.
pub(super) struct Ended {
    pub(super) status: EvaluationStatus,
    /// Whether it met a full disk.
    pub(super) met: bool,
    /// Whether something could not be fetched.
    pub(super) unreachable: bool,
}

/// Evaluates.
pub(super) async fn evaluate(
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
