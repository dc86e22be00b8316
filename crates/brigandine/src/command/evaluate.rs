//! `brigandine evaluate NAME`: a look at a specification's inputs now, by the server that runs.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Failure, existing, no_specification, print_json, trouble, with_evaluation};
use crate::app;
use crate::cli;
use crate::model::{self, EvaluationStatus};
use crate::store;

/// Between two questions to the database: the server is another process and says nothing itself.
const PAUSE: Duration = Duration::from_millis(100);

/// The server has this long to begin the look.
const BEGIN_TIME: Duration = Duration::from_secs(1800);

/// Asks for a look, waits for it and for the evaluation that came of it.
///
/// # Errors
/// There is no such specification, no server runs, the look or the evaluation failed.
pub(crate) fn run(arguments: &cli::Evaluate) -> Result<(), Failure> {
    super::runtime()?.block_on(evaluate(arguments))
}

async fn evaluate(arguments: &cli::Evaluate) -> Result<(), Failure> {
    let state = &arguments.state.state;
    let database = existing(state).await?;
    let (name, now) = (arguments.name.clone(), model::now());
    let wanted = database
        .write(move |tx| {
            let Some(_) = store::want_look(tx, &name, now)? else { return Ok(None) };
            // A transaction reads what it has written.
            store::specification(tx, &name)
        })
        .await
        .map_err(trouble)?;
    let before = wanted.ok_or_else(|| no_specification(&arguments.name))?;
    if !before.specification.enabled {
        return Err(Failure::failed(format!("`{}` is disabled", arguments.name)));
    }
    if !app::wake(state) {
        return Err(Failure::failed(format!(
            "no server runs on {}; it will look at `{}` when one starts",
            state.display(),
            arguments.name
        )));
    }
    let started = Instant::now();
    let (look, evaluation) = loop {
        let name = arguments.name.clone();
        let found = database.read(move |s| with_evaluation(s, &name)).await.map_err(trouble)?;
        let (after, evaluation) = found.ok_or_else(|| no_specification(&arguments.name))?;
        let new = after.latest_evaluation != before.latest_evaluation;
        let running = evaluation.as_ref().is_some_and(|e| e.status == EvaluationStatus::Started);
        // A look that found nothing new leaves only its time, in whole seconds.
        let looked = after.look.looked_at >= now
            && (after.look.looked_at != before.look.looked_at || started.elapsed().as_secs() >= 2);
        if !running && (new || looked) {
            break (after.look, evaluation.filter(|_| new));
        }
        if started.elapsed() > BEGIN_TIME {
            return Err(Failure::failed("the server did not look in time; see its trace"));
        }
        tokio::time::sleep(PAUSE).await;
    };
    let failed = !look.error.is_empty()
        || evaluation.as_ref().is_some_and(|e| e.status != EvaluationStatus::Succeeded);
    if arguments.json {
        print_json(&json!({
            "specification": arguments.name,
            "error": look.error,
            "evaluation": evaluation.as_ref().map(|e| json!({
                "id": e.id, "status": e.status, "message": e.message, "jobs": e.counters,
            })),
        }));
    } else if let Some(evaluation) = &evaluation {
        let jobs = evaluation.counters.total();
        println!("evaluation #{} {}: {jobs} jobs", evaluation.id, evaluation.status);
    } else if !failed {
        println!("nothing new");
    }
    if failed {
        let why = evaluation.map(|e| e.message).filter(|why| !why.is_empty());
        return Err(Failure::failed(why.unwrap_or(look.error)));
    }
    Ok(())
}
