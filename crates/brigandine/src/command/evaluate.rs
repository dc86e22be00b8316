//! `brigandine evaluate NAME`: a look at a specification's inputs now, by the server that runs.

use std::path::Path;

use serde_json::json;

use super::terminal::Progress;
use super::wait::{self, Wanted};
use super::{
    Failure, PAUSE, existing, named, no_specification, print_json, say, trouble, with_evaluation,
};
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
            match named(tx, &name)? {
                Ok(found) if found.specification.enabled => {}
                Ok(found) => return Ok(Ok((found, None))),
                Err(failure) => return Ok(Err(failure)),
            }
            store::want_look(tx, &name, now)?;
            // A transaction reads what it has written.
            let found = with_evaluation(tx, &name)?;
            Ok(found.ok_or_else(|| no_specification(&name, &[])))
        })
        .await
        .map_err(trouble)?;
    let (before, evaluation_before) = wanted?;
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
    let (look, current) = looked(state, &database, &before).await?;
    // Else the inputs are, or are again, what an earlier evaluation was made of.
    let had_ended =
        |e: &Evaluation| matches!(e.status, EvaluationStatus::Succeeded | EvaluationStatus::Failed);
    let is_new = |e: &&Evaluation| {
        let before_it = evaluation_before.as_ref().filter(|before| before.id == e.id);
        Some(e.id) > before.latest_evaluation || before_it.is_some_and(|before| !had_ended(before))
    };
    let evaluation = current.as_ref().filter(is_new);
    let failed = !look.error.is_empty()
        || evaluation.is_some_and(|e| e.status != EvaluationStatus::Succeeded);
    if arguments.wait && !failed {
        let Some(current) = &current else {
            return Err(Failure::failed(format!("`{}` has no evaluation", arguments.name)));
        };
        if !arguments.json {
            told(evaluation, Some(current));
        }
        let wanted = Wanted::Evaluation(current.id);
        return wait::wait(state, &database, wanted, arguments.timeout, arguments.json).await;
    }
    if arguments.json {
        print_json(&json!({
            "specification": arguments.name,
            "error": look.error,
            "evaluation": evaluation.map(|e| json!({
                "id": e.id, "status": e.status, "message": e.message, "jobs": e.counters,
            })),
        }));
    } else if !failed || evaluation.is_some() {
        told(evaluation, current.as_ref());
    }
    if failed {
        let why = evaluation.map(|e| e.message.clone()).filter(|why| !why.is_empty());
        return Err(Failure::failed(why.unwrap_or(look.error)));
    }
    Ok(())
}

/// Says what is new, or which evaluation the inputs are at.
fn told(new: Option<&Evaluation>, current: Option<&Evaluation>) {
    let Some(evaluation) = new else {
        return say(&match current {
            Some(current) => {
                let failed = current.status != EvaluationStatus::Succeeded;
                let how =
                    if failed { format!(", which {}", current.status) } else { String::new() };
                format!("nothing new: the inputs are those of evaluation #{}{how}", current.id)
            }
            None => "nothing new".to_owned(),
        });
    };
    let jobs = evaluation.counters.total();
    say(&format!("evaluation #{} {}: {jobs} jobs", evaluation.id, evaluation.status));
    if evaluation.status == EvaluationStatus::Succeeded && !evaluation.message.is_empty() {
        eprintln!("brigandine: {}", evaluation.message);
    }
}

/// Waits for a look that began after it was asked for, and for the evaluation of what it found.
async fn looked(
    state: &Path,
    database: &Database,
    wanted: &SpecificationState,
) -> Result<(Look, Option<Evaluation>), Failure> {
    let mut presence = Presence::new(state);
    let mut progress = Progress::default();
    let (wanted, wanted_at) = (&wanted.specification.name, wanted.look.wanted_at);
    loop {
        // Looked at first: what a server stored before it went is read below.
        let gone = presence.has_gone();
        let name = wanted.clone();
        let found = database.read(move |s| with_evaluation(s, &name)).await.map_err(trouble)?;
        let (after, evaluation) = found.ok_or_else(|| {
            Failure::not_found(format!("the specification `{wanted}` was removed meanwhile"))
        })?;
        if !after.specification.enabled {
            return Err(Failure::failed(format!("`{wanted}` was disabled meanwhile")));
        }
        let running = evaluation.as_ref().filter(|e| e.status == EvaluationStatus::Started);
        if running.is_none() && after.look.answered_at >= wanted_at {
            return Ok((after.look, evaluation));
        }
        if gone {
            return Err(Failure::failed(format!(
                "the server of {} has gone before it had looked at `{wanted}`; the next one does",
                state.display()
            )));
        }
        progress.show(&match running {
            Some(evaluation) => format!("{wanted}: evaluation {} is under way", evaluation.id),
            None => format!("{wanted}: its inputs are fetched"),
        });
        tokio::time::sleep(PAUSE).await;
    }
}
