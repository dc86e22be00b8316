//! `brigandine prune`: deletes what need not be kept, or says what that would be.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;

use super::serve::Signals;
use super::{Failure, existing, print_json, say, table, trouble};
use crate::app::{self, AppError};
use crate::cli;
use crate::config;
use crate::model::{self, Keep};
use crate::retention::Pruned;
use crate::store::{self, Database, Due};

/// Between two questions to the database: the server is another process and says nothing itself.
const PAUSE: Duration = Duration::from_millis(50);

/// A server that is told to prune has this long until less is left than before.
const TIME: Duration = Duration::from_secs(120);

/// Prunes, or says what would be pruned.
///
/// # Errors
/// There is no state directory, its database cannot be used, or the server that runs does not do it.
pub(crate) fn run(arguments: &cli::Prune) -> Result<(), Failure> {
    let keep = match &arguments.config {
        None => Keep::default(),
        Some(path) => {
            let parsed = config::load(path)
                .and_then(|text| config::server::parse(&path.display().to_string(), &text));
            parsed.map_err(|problems| Failure::failed(problems.to_string()))?.keep
        }
    };
    super::runtime()?.block_on(async {
        let state = &arguments.state.state;
        let database = existing(state).await?;
        let due = due(&database, keep).await?;
        if arguments.dry_run {
            show(&due, arguments.json);
            return Ok(());
        }
        // The lock's holder opens it anew.
        database.close().await.map_err(trouble)?;
        drop(database);
        let mut signals = Signals::new()?;
        let (stop, stopped) = watch::channel(false);
        let pruned = app::prune(state, keep, &stopped);
        tokio::pin!(pruned);
        let pruned = loop {
            tokio::select! {
                pruned = &mut pruned => break pruned,
                // Between two slices.
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
            Err(AppError::Locked(_)) => by_server(arguments, keep, &due).await,
            Err(error) => Err(Failure::failed(error.to_string())),
        }
    })
}

async fn due(database: &Database, keep: Keep) -> Result<Vec<Due>, Failure> {
    let now = model::now();
    database.read(move |s| store::due(s, keep, now)).await.map_err(trouble)
}

fn show(due: &[Due], as_json: bool) {
    if as_json {
        let all: Vec<_> = due
            .iter()
            .map(|due| {
                json!({
                    "specification": due.name,
                    "keep": due.keep,
                    "evaluations": due.evaluations.len(),
                    "oldest": due.evaluations.first(),
                    "newest": due.evaluations.last(),
                    "jobs": due.jobs,
                    "kept": due.kept,
                })
            })
            .collect();
        print_json(&all);
        return;
    }
    let mut rows = vec![["NAME", "KEEPS", "GO", "JOBS OF THESE", "STAY"].map(str::to_owned)];
    for due in due {
        let rules = [(due.keep.evaluations, "evaluations"), (due.keep.days, "days")];
        let rules: Vec<_> = rules
            .into_iter()
            .filter_map(|(number, what)| number.map(|number| format!("{number} {what}")))
            .collect();
        rows.push([
            due.name.clone(),
            if rules.is_empty() { "everything".to_owned() } else { rules.join(", ") },
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

/// The server that runs does it, by its own configuration.
async fn by_server(arguments: &cli::Prune, keep: Keep, before: &[Due]) -> Result<(), Failure> {
    let count = |due: &[Due]| due.iter().map(|due| due.evaluations.len()).sum::<usize>();
    let state = &arguments.state.state;
    app::tell(state, "prune now")
        .map_err(|error| Failure::failed(format!("the server cannot be told: {error}")))?;
    let database = existing(state).await?;
    let (first, mut last, mut since) = (count(before), usize::MAX, Instant::now());
    loop {
        let left = due(&database, keep).await?;
        let (evaluations, jobs) = (count(&left), left.iter().map(|due| due.jobs).sum::<i64>());
        if evaluations == 0 {
            break;
        }
        let progress = usize::try_from(jobs).unwrap_or(usize::MAX).saturating_add(evaluations);
        if progress < last {
            (last, since) = (progress, Instant::now());
        }
        if since.elapsed() > TIME {
            return Err(Failure::failed(format!(
                "the server leaves {evaluations} evaluations; has it another [keep] in its \
                 configuration? its trace says more"
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
    if arguments.json {
        print_json(&json!({ "evaluations": first, "by": "server" }));
    } else {
        say(&format!("the server deleted {first} evaluations; its trace says more"));
    }
    Ok(())
}
