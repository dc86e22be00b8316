//! `brigandine evaluate NAME`: asks the running server to fetch a specification's inputs now.

use std::path::Path;

use serde_json::json;

use super::change::{actor, ask};
use super::remote::Remote;
use super::terminal::Progress;
use super::wait::{self, Wanted};
use super::{
    Failure, evaluation_json, existing, named, poll, print_json, say, with_evaluation, written,
};
use crate::app::{self, Served};
use crate::cli;
use crate::model::{
    self, Asked, Change, Evaluation, EvaluationStatus, Look, Outcome, SpecificationState, Target,
};
use crate::store::{self, Database};

/// Requests a look, and waits for the look and for the evaluation of the revisions that it finds. With `--wait`, waits
/// for the builds too. The look of another server is not waited for.
///
/// # Errors
/// There is no such specification, no server runs, or the look, the evaluation or a build failed.
pub(crate) async fn run(arguments: &cli::Evaluate) -> Result<(), Failure> {
    if let Some(remote) = Remote::new(&arguments.server)? {
        let target = Target::Specification(arguments.name.clone());
        let reason = &arguments.reason;
        return ask(remote, Change::Evaluate, vec![target], reason, arguments.json).await;
    }
    let state = &arguments.state.state;
    let database = existing(state).await?;
    let name = arguments.name.clone();
    let asked = Asked::new(actor(), model::now(), &arguments.reason);
    let wanted = database.write(move |tx| {
        let target = Target::Specification(name.clone());
        let done = store::request(tx, Change::Evaluate, &[target], &asked)?;
        if let Some((_, Outcome::Refused(why))) = done.outcomes.into_iter().next() {
            return Ok(Err(Failure::failed(why)));
        }
        // Read again, because the state now has the time of the request.
        match named(tx, &name)? {
            Ok(found) => with_evaluation(tx, found).map(Ok),
            Err(failure) => Ok(Err(failure)),
        }
    });
    let (before, evaluation_before) = written(wanted).await??;
    if !app::wake(state) && app::served(state) == Served::No {
        return Err(Failure::failed(format!(
            "no server runs on {}; it will look at `{}` when one starts",
            state.display(),
            arguments.name
        )));
    }
    let (look, current) = looked(state, &database, &before).await?;
    // If there is no new evaluation, the inputs have the revisions of an earlier one.
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
            report(evaluation, Some(current));
        }
        let wanted = Wanted::Evaluation(current.id);
        return wait::wait(state, &database, wanted, arguments.timeout, arguments.json).await;
    }
    if arguments.json {
        print_json(&json!({
            "specification": arguments.name,
            "error": look.error,
            "evaluation": evaluation.map(evaluation_json),
        }));
    } else if !failed || evaluation.is_some() {
        report(evaluation, current.as_ref());
    }
    if failed {
        let why = evaluation.map(|e| e.message.clone()).filter(|why| !why.is_empty());
        return Err(Failure::failed(why.unwrap_or(look.error)));
    }
    Ok(())
}

/// Prints the new evaluation, or which older evaluation has the revisions that the inputs have now.
fn report(new: Option<&Evaluation>, current: Option<&Evaluation>) {
    let Some(evaluation) = new else {
        return say(&match current {
            Some(current) if current.status == EvaluationStatus::Succeeded => {
                format!("nothing new: the inputs are those of evaluation #{}", current.id)
            }
            Some(Evaluation { id, status, .. }) => {
                format!("nothing new: the inputs are those of evaluation #{id}, which {status}")
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

/// Waits for a look that began after the request, and for the evaluation of the revisions that it found.
async fn looked(
    state: &Path,
    database: &Database,
    wanted: &SpecificationState,
) -> Result<(Look, Option<Evaluation>), Failure> {
    let mut progress = Progress::default();
    let (wanted, wanted_at) = (&wanted.specification.name, wanted.look.wanted_at);
    let looked = poll(state, async |gone| {
        let name = wanted.clone();
        let read = database.read(move |s| {
            let found = store::specification(s, &name)?;
            found.map(|state| with_evaluation(s, state)).transpose()
        });
        let (after, evaluation) = read.await?.ok_or_else(|| {
            Failure::not_found(format!("the specification `{wanted}` was removed meanwhile"))
        })?;
        if !after.specification.enabled {
            return Err(Failure::failed(format!("`{wanted}` was disabled meanwhile")));
        }
        let running = evaluation.as_ref().filter(|e| e.status == EvaluationStatus::Started);
        if running.is_none() && after.look.answered_at >= wanted_at {
            return Ok(Some((after.look, evaluation)));
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
        Ok(None)
    });
    looked.await
}
