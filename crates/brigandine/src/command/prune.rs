//! `brigandine prune`: deletes evaluations that retention does not keep, or lists them.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;

use super::serve::Signals;
use super::{Failure, existing, poll, print_json, say, table};
use crate::app::{self, AppError, RunningServer, Served};
use crate::cli;
use crate::config;
use crate::model::{self, EvaluationId, Keep};
use crate::retention::Pruned;
use crate::store::{self, Database, Due};

/// After this time without a deletion by the server, `prune` gives up.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// Deletes the evaluations, or lists those that would be deleted.
///
/// # Errors
/// There is no state directory, its database cannot be used, or the running server does not delete them.
pub(crate) async fn run(arguments: &cli::Prune) -> Result<(), Failure> {
    let file = match &arguments.config {
        None => None,
        Some(path) => Some(config::read(path, config::server::parse)?),
    };
    let named = file.as_ref().map(|file| file.keep);
    let state = arguments.state.clone().or_else(|| file.map(|file| file.state));
    let state = state.unwrap_or_else(cli::usual_state);
    let state = state.as_path();
    let database = existing(state).await?;
    let server = app::running_server(state);
    if arguments.dry_run {
        let keep = rule(state, named, server.as_ref());
        show(&due(&database, keep).await?, arguments.json);
        return Ok(());
    }
    if app::served(state) == Served::Yes {
        return by_server(state, &database, named, server, arguments.json).await;
    }
    // `app::prune` opens the database itself, under the lock of the state directory, so it is closed here.
    database.close().await?;
    drop(database);
    let mut signals = Signals::new()?;
    let (stop, stopped) = watch::channel(false);
    let pruned = app::prune(state, named.unwrap_or_default(), &stopped);
    tokio::pin!(pruned);
    let pruned = loop {
        tokio::select! {
            pruned = &mut pruned => break pruned,
            // `app::prune` deletes in many short writes, and stops after the current one.
            _ = signals.next() => drop(stop.send_replace(true)),
        }
    };
    match pruned {
        Ok(pruned) => {
            report(&pruned, arguments.json);
            if *stopped.borrow() {
                return Err(Failure::failed("interrupted; the next run deletes the rest"));
            }
            Ok(())
        }
        Err(AppError::Locked(_)) => {
            // The server has just started or is starting.
            let (database, server) = (existing(state).await?, app::running_server(state));
            by_server(state, &database, named, server, arguments.json).await
        }
        Err(error) => Err(error.into()),
    }
}

/// The rule for specifications without a rule of their own. Prints the rule and its origin on standard error.
fn rule(state: &Path, named: Option<Keep>, server: Option<&RunningServer>) -> Keep {
    let (keep, from) = match (named, server) {
        (Some(keep), Some(server)) if keep != server.keep => (
            keep,
            format!("the file that is named; the server that runs has: {}", rules(server.keep)),
        ),
        (Some(keep), _) => (keep, "the file that is named".to_owned()),
        (None, Some(RunningServer { keep, configuration: Some(path), .. })) => {
            (*keep, format!("the server that runs, from {}", path.display()))
        }
        (None, Some(server)) => (server.keep, "the server that runs, without a file".to_owned()),
        (None, None) => (
            Keep::default(),
            format!("no server runs on {}; name its file with --config", state.display()),
        ),
    };
    eprintln!("brigandine: where a specification has no `keep`: {} ({from})", rules(keep));
    keep
}

/// A retention rule in words.
fn rules(keep: Keep) -> String {
    let rules = [(keep.evaluations, "evaluations"), (keep.days, "days")];
    let rules = rules.map(|(number, what)| number.map(|number| format!("{number} {what}")));
    let rules: Vec<_> = rules.into_iter().flatten().collect();
    if rules.is_empty() { "everything".to_owned() } else { rules.join(", ") }
}

async fn due(database: &Database, keep: Keep) -> Result<Vec<Due>, Failure> {
    let now = model::now();
    Ok(database.read(move |s| store::due(s, keep, now)).await?)
}

fn show(due: &[Due], as_json: bool) {
    if as_json {
        let describe = |due: &Due| {
            json!({
                "specification": due.name,
                "keep": due.keep,
                "evaluations": due.evaluations.len(),
                "oldest": due.evaluations.first(),
                "newest": due.evaluations.last(),
                "jobs": due.jobs,
                "kept": due.kept,
            })
        };
        let all: Vec<_> = due.iter().map(describe).collect();
        print_json(&all);
        return;
    }
    if due.is_empty() {
        eprintln!("there is no specification, and nothing to delete");
    }
    let mut rows = vec![["NAME", "KEEPS", "GO", "JOBS OF THESE", "STAY"].map(str::to_owned)];
    for due in due {
        rows.push([
            due.name.clone(),
            rules(due.keep),
            due.evaluations.len().to_string(),
            due.jobs.to_string(),
            due.kept.to_string(),
        ]);
    }
    table(&rows);
}

fn report(pruned: &Pruned, as_json: bool) {
    if as_json {
        print_json(pruned);
        return;
    }
    say(&format!(
        "deleted {} evaluations, {} builds, {} files; no write took longer than {:.1} ms",
        pruned.evaluations, pruned.builds, pruned.files, pruned.slice_ms_max
    ));
}

/// Asks the running server to prune by its own configuration. Waits until all evaluations are deleted that were due
/// when the wait began. It does not wait for evaluations that become due later, because a busy server always has new
/// ones.
async fn by_server(
    state: &Path,
    database: &Database,
    named: Option<Keep>,
    server: Option<RunningServer>,
    as_json: bool,
) -> Result<(), Failure> {
    let keep = server.map_or(named.unwrap_or_default(), |server| server.keep);
    if named.is_some_and(|named| named != keep) {
        eprintln!(
            "brigandine: the server that runs deletes by its own [keep]: {}; that of the file is not \
             used",
            rules(keep)
        );
    }
    let wanted: HashSet<EvaluationId> =
        due(database, keep).await?.into_iter().flat_map(|due| due.evaluations).collect();
    app::tell(state, "prune now")
        .map_err(|error| Failure::failed(format!("the server cannot be told: {error}")))?;
    let (mut least, mut since) = ((usize::MAX, i64::MAX), Instant::now());
    let deleted = poll(state, async |gone| {
        let due = due(database, keep).await?;
        let jobs = due.iter().map(|due| due.jobs).sum();
        let left = due.iter().flat_map(|due| &due.evaluations).filter(|id| wanted.contains(id));
        let left = left.count();
        if left == 0 {
            return Ok(Some(()));
        }
        if gone {
            return Err(Failure::failed(format!(
                "the server of {} has gone; {left} evaluations are left for the next run",
                state.display()
            )));
        }
        if (left, jobs) < least {
            (least, since) = ((left, jobs), Instant::now());
        }
        if since.elapsed() > IDLE_MAX {
            return Err(Failure::failed(format!(
                "the server leaves {left} evaluations; its trace says why"
            )));
        }
        Ok(None)
    });
    deleted.await?;
    if as_json {
        print_json(&json!({ "evaluations": wanted.len(), "by": "server" }));
    } else {
        say(&format!("the server deleted {} evaluations; its trace says more", wanted.len()));
    }
    Ok(())
}
