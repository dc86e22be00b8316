//! `brigandine spec`: specifications in a state directory, whether a server runs on it or not.

use std::path::Path;

use serde_json::json;

use super::{Failure, existing, named, print_json, say, table, trouble, with_evaluation};
use crate::app;
use crate::cli;
use crate::model::{self, Evaluation, Evaluator, Input, Reference, SpecificationState, Unused};
use crate::store::{self, Loaded};

/// Runs one of the subcommands.
///
/// # Errors
/// The file is wrong, the state directory cannot be used, or there is no such specification.
pub(crate) fn run(command: cli::Spec) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        match command {
            cli::Spec::Add { state, file, replace, json } => {
                add(&state.state, &file, replace, json).await
            }
            cli::Spec::List { state, json } => list(&state.state, json).await,
            cli::Spec::Show { state, name, json } => show(&state.state, name, json).await,
            cli::Spec::Remove { state, name } => remove(&state.state, name).await,
        }
    })
}

async fn add(state: &Path, file: &Path, replace: bool, as_json: bool) -> Result<(), Failure> {
    let specifications = super::serve::specifications(&[file.to_owned()])?;
    let failed = |error: app::AppError| Failure::failed(error.to_string());
    app::make_state(state).await.map_err(failed)?;
    let database = existing(state).await?;
    let specifications: Vec<_> = specifications.into_iter().map(|(_, found)| found).collect();
    let now = model::now();
    let loaded = database
        .write(move |tx| {
            specifications
                .iter()
                .map(|specification| {
                    let (_, loaded) = store::put_specification(tx, specification, replace, now)?;
                    Ok((specification.name.clone(), loaded))
                })
                .collect::<rusqlite::Result<Vec<_>>>()
        })
        .await
        .map_err(trouble)?;
    let heard = app::wake(state);
    let word = |loaded: &Loaded| match loaded {
        Loaded::New => "new",
        Loaded::Changed => "changed",
        Loaded::Unchanged => "unchanged",
        Loaded::Kept(_) => "kept",
    };
    if as_json {
        let list: Vec<_> = loaded
            .iter()
            .map(|(name, loaded)| {
                let differs: &[String] =
                    if let Loaded::Kept(keys) = loaded { keys } else { Default::default() };
                json!({ "name": name, "outcome": word(loaded), "differs": differs })
            })
            .collect();
        print_json(&json!({ "specifications": list, "server": heard }));
    } else {
        for (name, loaded) in &loaded {
            say(&format!("{name}: {}", word(loaded)));
        }
        if !heard {
            say(&format!(
                "no server runs on {}; it will be looked at when one starts",
                state.display()
            ));
        }
    }
    let kept: Vec<_> = loaded
        .iter()
        .filter_map(|(name, loaded)| match loaded {
            Loaded::Kept(keys) => Some(format!("`{name}` ({})", keys.join(", "))),
            _ => None,
        })
        .collect();
    if kept.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "stored already and otherwise: {}; --replace replaces what is stored",
        kept.join(", ")
    )))
}

/// A specification's state in a word.
fn word(evaluation: Option<&Evaluation>, state: &SpecificationState) -> String {
    if !state.specification.enabled {
        return "disabled".to_owned();
    }
    match evaluation {
        None if state.look.error.is_empty() => "not evaluated".to_owned(),
        None => "unreachable".to_owned(),
        Some(evaluation) => {
            let counters = &evaluation.counters;
            match evaluation.status {
                model::EvaluationStatus::Started => "evaluating".to_owned(),
                model::EvaluationStatus::Failed => "evaluation failed".to_owned(),
                model::EvaluationStatus::Aborted => "evaluation aborted".to_owned(),
                _ if counters.finished() < counters.total() => "building".to_owned(),
                _ if counters.all_failed() > 0 => "failing".to_owned(),
                _ => "succeeded".to_owned(),
            }
        }
    }
}

async fn list(directory: &Path, as_json: bool) -> Result<(), Failure> {
    let database = existing(directory).await?;
    let all = database
        .read(|s| {
            store::specifications(s)?
                .into_iter()
                .map(|state| {
                    let evaluation = match state.evaluation() {
                        Some(id) => store::evaluation(s, id)?,
                        None => None,
                    };
                    Ok((state, evaluation))
                })
                .collect::<rusqlite::Result<Vec<_>>>()
        })
        .await
        .map_err(trouble)?;
    if as_json {
        let list: Vec<_> = all.iter().map(|(state, e)| describe(state, e.as_ref())).collect();
        print_json(&list);
        return Ok(());
    }
    if all.is_empty() {
        eprintln!("there is no specification yet; `brigandine spec add FILE` adds those of a file");
    }
    let mut rows = vec![["NAME", "STATE", "EVALUATION", "JOBS", "INPUTS"].map(str::to_owned)];
    for (state, evaluation) in &all {
        let jobs = evaluation.as_ref().map(|e| {
            let counters = &e.counters;
            format!("{} of {} succeeded", counters.succeeded, counters.total())
        });
        let inputs: Vec<_> = state.specification.inputs.iter().map(input).collect();
        rows.push([
            state.specification.name.clone(),
            word(evaluation.as_ref(), state),
            evaluation.as_ref().map_or_else(|| "-".to_owned(), |e| format!("#{}", e.id)),
            jobs.unwrap_or_else(|| "-".to_owned()),
            inputs.join(", "),
        ]);
    }
    table(&rows);
    for unused in unused(directory) {
        eprintln!("brigandine: {}", unused.sentences());
    }
    Ok(())
}

/// What the files of the server that runs say and it does not do.
fn unused(state: &Path) -> Vec<Unused> {
    app::running_server(state).map(|server| server.unused).unwrap_or_default()
}

fn input(input: &Input) -> String {
    let reference = match &input.reference {
        Reference::Branch(name) => name.clone(),
        Reference::Tag(name) => format!("tag {name}"),
        Reference::Revision(revision) => revision.clone(),
        Reference::Head => "HEAD".to_owned(),
    };
    format!("{} {reference}", input.url)
}

fn describe(state: &SpecificationState, evaluation: Option<&Evaluation>) -> serde_json::Value {
    json!({
        "name": state.specification.name,
        "state": word(evaluation, state),
        "specification": state.specification,
        "looked_at": state.look.looked_at,
        "error": state.look.error,
        "failures": state.look.failures,
        "next_look_at": state.look.next_at,
        "evaluation": evaluation.map(|evaluation| json!({
            "id": evaluation.id,
            "status": evaluation.status,
            "message": evaluation.message,
            "jobs": evaluation.counters,
        })),
    })
}

async fn show(directory: &Path, name: String, as_json: bool) -> Result<(), Failure> {
    let database = existing(directory).await?;
    let found = database.read(move |s| {
        Ok(match with_evaluation(s, &name)? {
            Some(found) => Ok(found),
            None => named(s, &name)?.map(|state| (state, None)),
        })
    });
    let (state, evaluation) = found.await.map_err(trouble)??;
    if as_json {
        print_json(&describe(&state, evaluation.as_ref()));
        return Ok(());
    }
    let specification = &state.specification;
    say(&format!("{}: {}", specification.name, word(evaluation.as_ref(), &state)));
    if !specification.description.is_empty() {
        say(&format!("  {}", specification.description));
    }
    for one in &specification.inputs {
        say(&format!("  input {}: {}", one.name, input(one)));
    }
    match &specification.evaluator {
        Evaluator::Jobs { jobs, .. } if !jobs.is_empty() => {
            say(&format!("  jobs of the specification itself: {}", jobs.len()));
        }
        Evaluator::Jobs { file, .. } => println!("  job list: {file}"),
        Evaluator::Command { command, .. } => println!("  evaluator: {}", command.join(" ")),
    }
    for unused in unused(directory)
        .iter()
        .filter(|unused| unused.specification() == Some(&specification.name))
    {
        say(&format!("  {}", unused.sentences()));
    }
    if !state.look.error.is_empty() {
        say(&format!(
            "  the last look failed ({} in a row): {}",
            state.look.failures, state.look.error
        ));
    }
    if let Some(evaluation) = evaluation {
        let counters = &evaluation.counters;
        say(&format!(
            "  evaluation #{} {}: {} of {} jobs succeeded, {} failed, {} pending",
            evaluation.id,
            evaluation.status,
            counters.succeeded,
            counters.total(),
            counters.all_failed(),
            counters.total() - counters.finished()
        ));
        if !evaluation.message.is_empty() {
            say(&format!("  {}", evaluation.message));
        }
    }
    Ok(())
}

async fn remove(state: &Path, name: String) -> Result<(), Failure> {
    let database = existing(state).await?;
    let (wanted, now) = (name.clone(), model::now());
    let removed = database.write(move |tx| {
        let found = named(tx, &wanted)?;
        if found.is_ok() {
            store::remove_specification(tx, &wanted, now)?;
        }
        Ok(found)
    });
    removed.await.map_err(trouble)??;
    app::wake(state);
    say(&format!("{name}: removed; its evaluations and builds stay"));
    Ok(())
}
