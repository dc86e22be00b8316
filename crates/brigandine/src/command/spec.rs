//! `brigandine spec`: manages the specifications of a state directory, with or without a running server.

use std::path::Path;

use serde_json::json;

use super::{
    Failure, change, check_user, evaluation_json, existing, named, print_json, say, table,
    with_evaluation,
};
use crate::app;
use crate::cli;
use crate::config::{self, specification::Placed};
use crate::model::{
    self, Asked, Change, Evaluation, EvaluationStatus, Evaluator, History, Input, Loaded,
    MAIN_PROJECT, Reference, SpecificationState, Specify, Unused,
};
use crate::os::state_dir::StateDir;
use crate::store;

/// Runs one of the subcommands.
///
/// # Errors
/// The file is wrong, the state directory cannot be used, or there is no such specification.
pub(crate) async fn run(command: cli::Spec) -> Result<(), Failure> {
    match command {
        cli::Spec::Add { state, file, replace, json } => {
            add(&state.state, &file, replace, json).await
        }
        cli::Spec::List { state, json } => list(&state.state, json).await,
        cli::Spec::Show { state, name, json } => show(&state.state, name, json).await,
        cli::Spec::Enable { state, names, asked } => {
            change::specifications(&state.state, Change::Enable, &names, &asked).await
        }
        cli::Spec::Disable { state, names, asked } => {
            change::specifications(&state.state, Change::Disable, &names, &asked).await
        }
        cli::Spec::Remove { state, name, delete_history } => {
            remove(&state.state, name, delete_history).await
        }
    }
}

async fn add(state: &Path, file: &Path, replace: bool, as_json: bool) -> Result<(), Failure> {
    let placed = config::read(file, config::specification::parse)?;
    if !StateDir::new(state).database().exists() {
        check_user(state)?;
    }
    app::make_state(state).await?;
    let database = existing(state).await?;
    let now = model::now();
    let stored = database.write(move |tx| {
        let put = |placed: &Placed| {
            let specification = &placed.specification;
            let (_, loaded) = store::put_specification(tx, specification, replace, now)?;
            Ok((specification.name.clone(), loaded))
        };
        placed.iter().map(put).collect::<rusqlite::Result<Vec<_>>>()
    });
    let loaded = stored.await?;
    let heard = app::wake(state);
    if as_json {
        let describe = |(name, loaded): &(String, Loaded)| {
            let differs: &[String] = if let Loaded::Kept(keys) = loaded { keys } else { &[] };
            json!({ "name": name, "outcome": loaded.as_str(), "differs": differs })
        };
        let list: Vec<_> = loaded.iter().map(describe).collect();
        print_json(&json!({ "specifications": list, "server": heard }));
    } else {
        for (name, loaded) in &loaded {
            say(&format!("{name}: {}", loaded.as_str()));
        }
        if !heard {
            say(&format!(
                "no server runs on {}; it will be looked at when one starts",
                state.display()
            ));
        }
    }
    let kept = loaded.iter().filter_map(|(name, loaded)| match loaded {
        Loaded::Kept(keys) => Some(format!("`{name}` ({})", keys.join(", "))),
        _ => None,
    });
    let kept: Vec<_> = kept.collect();
    if kept.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "stored already and otherwise: {}; --replace replaces what is stored",
        kept.join(", ")
    )))
}

/// A specification's state in one or two words.
fn state_word(state: &SpecificationState, evaluation: Option<&Evaluation>) -> &'static str {
    if !state.specification.enabled {
        return "disabled";
    }
    let Some(Evaluation { status, counters, .. }) = evaluation else {
        return if state.look.error.is_empty() { "not evaluated" } else { "unreachable" };
    };
    match status {
        EvaluationStatus::Started => "evaluating",
        EvaluationStatus::Failed => "evaluation failed",
        EvaluationStatus::Aborted => "evaluation aborted",
        _ if counters.finished() < counters.total() => "building",
        _ if counters.all_failed() > 0 => "failing",
        _ => "succeeded",
    }
}

async fn list(directory: &Path, as_json: bool) -> Result<(), Failure> {
    let database = existing(directory).await?;
    let read = database.read(|s| {
        let all = store::specifications(s)?.into_iter();
        all.map(|state| with_evaluation(s, state)).collect::<rusqlite::Result<Vec<_>>>()
    });
    let all = read.await?;
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
        let (id, jobs) = match evaluation {
            Some(Evaluation { id, counters, .. }) => {
                let (succeeded, total) = (counters.succeeded, counters.total());
                (format!("#{id}"), format!("{succeeded} of {total} succeeded"))
            }
            None => ("-".to_owned(), "-".to_owned()),
        };
        let inputs: Vec<_> = state.specification.inputs.iter().map(input).collect();
        rows.push([
            state.specification.name.clone(),
            state_word(state, evaluation.as_ref()).to_owned(),
            id,
            jobs,
            inputs.join(", "),
        ]);
    }
    table(&rows);
    for unused in unused(directory) {
        eprintln!("brigandine: {}", unused.sentences());
    }
    Ok(())
}

/// How the specification files of the running server differ from the stored specifications.
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
        "state": state_word(state, evaluation),
        "specification": state.specification,
        "looked_at": state.look.looked_at,
        "error": state.look.error,
        "failures": state.look.failures,
        "next_look_at": state.look.next_at,
        "evaluation": evaluation.map(evaluation_json),
    })
}

async fn show(directory: &Path, name: String, as_json: bool) -> Result<(), Failure> {
    let database = existing(directory).await?;
    let found = database.read(move |s| match named(s, &name)? {
        Ok(state) => with_evaluation(s, state).map(Ok),
        Err(failure) => Ok(Err(failure)),
    });
    let (state, evaluation) = found.await??;
    if as_json {
        print_json(&describe(&state, evaluation.as_ref()));
        return Ok(());
    }
    let specification = &state.specification;
    say(&format!("{}: {}", specification.name, state_word(&state, evaluation.as_ref())));
    if !specification.description.is_empty() {
        say(&format!("  {}", specification.description));
    }
    if specification.project != MAIN_PROJECT {
        say(&format!("  project {}", specification.project));
    }
    if specification.private {
        say("  private: only those who have a role in it see it");
    }
    for one in &specification.inputs {
        say(&format!("  input {}: {}", one.name, input(one)));
    }
    match &specification.evaluator {
        Evaluator::Jobs { jobs, .. } if !jobs.is_empty() => {
            say(&format!("  jobs of the specification itself: {}", jobs.len()));
        }
        Evaluator::Jobs { file, .. } => say(&format!("  job list: {file}")),
        Evaluator::Command { command, .. } => {
            say(&format!("  evaluator: {}", command.join(" ")));
        }
    }
    for unused in unused(directory) {
        if unused.specification() == Some(&specification.name) {
            say(&format!("  {}", unused.sentences()));
        }
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

async fn remove(state: &Path, name: String, delete_history: bool) -> Result<(), Failure> {
    let database = existing(state).await?;
    let (history, done) = match delete_history {
        false => (History::Kept, "removed; its evaluations and builds stay"),
        true => (History::Deleted, "removed; its evaluations and builds are deleted"),
    };
    let remove = Specify::Remove { names: vec![name.clone()], history };
    let (wanted, asked) = (name.clone(), Asked::new(change::actor(), model::now(), ""));
    let removed = database.write(move |tx| {
        let found = named(tx, &wanted)?;
        if found.is_ok() {
            store::specify(tx, &remove, &asked)?;
        }
        Ok(found)
    });
    removed.await??;
    app::wake(state);
    say(&format!("{name}: {done}"));
    if delete_history && app::tell(state, "prune now").is_err() {
        say("no server runs: `brigandine prune` deletes them");
    }
    Ok(())
}
