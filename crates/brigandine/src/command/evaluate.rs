//! `brigandine evaluate NAME`: a look at a specification's inputs now, by the server that runs.

use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::terminal::Progress;
use super::wait::{self, PAUSE, Wanted};
use super::{Failure, existing, named, print_json, say, trouble, with_evaluation};
use crate::app::{self, Presence, Served};
use crate::cli;
use crate::model::{self, Evaluation, EvaluationStatus, Look, SpecificationState};
use crate::store::{self, Database};

/// Asks for a look, waits for it and for the evaluation that came of it; with `--wait` for the builds too.
///
/// # Errors
/// There is no such specification, no server runs, the look, the evaluation or a build failed.
pub(crate) fn run(arguments: &cli::Evaluate) -> Result<(), Failure> {
    super::runtime()?.block_on(evaluate(arguments))
}

async fn evaluate(arguments: &cli::Evaluate) -> Result<(), Failure> {
    let state = &arguments.state.state;
    let database = existing(state).await?;
    let (name, now) = (arguments.name.clone(), model::now());
    let wanted = database
        .write(move |tx| {
            store::want_look(tx, &name, now)?;
            // A transaction reads what it has written.
            named(tx, &name)
        })
        .await
        .map_err(trouble)?;
    let before = wanted?;
    if !before.specification.enabled {
        return Err(Failure::failed(format!("`{}` is disabled", arguments.name)));
    }
    if !app::wake(state) && app::served(state) == Served::No {
        return Err(Failure::failed(format!(
            "no server runs on {}; it will look at `{}` when one starts",
            state.display(),
            arguments.name
        )));
    }
    let (look, evaluation) = looked(state, &database, &before, now).await?;
    let failed = !look.error.is_empty()
        || evaluation.as_ref().is_some_and(|e| e.status != EvaluationStatus::Succeeded);
    if arguments.wait && !failed {
        // With nothing new: those of the newest one.
        let Some(id) = evaluation.as_ref().map(|e| e.id).or(before.latest_evaluation) else {
            return Err(Failure::failed(format!("`{}` has no evaluation", arguments.name)));
        };
        if !arguments.json {
            told(evaluation.as_ref());
        }
        let wanted = Wanted::Evaluation(id);
        return wait::wait(state, &database, wanted, arguments.timeout, arguments.json).await;
    }
    if arguments.json {
        print_json(&json!({
            "specification": arguments.name,
            "error": look.error,
            "evaluation": evaluation.as_ref().map(|e| json!({
                "id": e.id, "status": e.status, "message": e.message, "jobs": e.counters,
            })),
        }));
    } else if !failed || evaluation.is_some() {
        told(evaluation.as_ref());
    }
    if failed {
        let why = evaluation.map(|e| e.message).filter(|why| !why.is_empty());
        return Err(Failure::failed(why.unwrap_or(look.error)));
    }
    Ok(())
}

fn told(evaluation: Option<&Evaluation>) {
    let Some(evaluation) = evaluation else { return say("nothing new") };
    let jobs = evaluation.counters.total();
    say(&format!("evaluation #{} {}: {jobs} jobs", evaluation.id, evaluation.status));
    if evaluation.status == EvaluationStatus::Succeeded && !evaluation.message.is_empty() {
        eprintln!("brigandine: {}", evaluation.message);
    }
}

/// Waits for the look that was asked for at `now`, and for the evaluation if there is a new one.
async fn looked(
    state: &Path,
    database: &Database,
    before: &SpecificationState,
    now: model::Timestamp,
) -> Result<(Look, Option<Evaluation>), Failure> {
    let (started, mut presence) = (Instant::now(), Presence::new(state));
    let mut progress = Progress::default();
    let wanted = &before.specification.name;
    loop {
        // Looked at first: what a server stored before it went is read below.
        let gone = presence.has_gone();
        let name = wanted.clone();
        let found = database.read(move |s| with_evaluation(s, &name)).await.map_err(trouble)?;
        let (after, evaluation) = found.ok_or_else(|| {
            Failure::not_found(format!("the specification `{wanted}` was removed meanwhile"))
        })?;
        let new = after.latest_evaluation != before.latest_evaluation;
        let running = evaluation.as_ref().is_some_and(|e| e.status == EvaluationStatus::Started);
        // A look that found nothing new leaves only its time, in whole seconds.
        let looked = after.look.looked_at >= now
            && (after.look.looked_at != before.look.looked_at || started.elapsed().as_secs() >= 2);
        if !running && (new || looked) {
            return Ok((after.look, evaluation.filter(|_| new)));
        }
        if gone {
            return Err(Failure::failed(format!(
                "the server of {} has gone before it looked at `{wanted}`; the next one does",
                state.display()
            )));
        }
        progress.show(&match evaluation.filter(|_| running) {
            Some(evaluation) => format!("{wanted}: evaluation {} is under way", evaluation.id),
            None => format!("{wanted}: its inputs are fetched"),
        });
        tokio::time::sleep(PAUSE).await;
    }
}
