//! `brigandine import`: imports a history, or the builds of another server.

use std::cell::Cell;
use std::path::Path;
use std::process::exit;
use std::time::Instant;

use super::serve::Signals;
use super::terminal::Reports;
use super::{FAILED, Failure, check_user, print_json, say};
use crate::cli::{self, ImportOf};
use crate::model;
use crate::store::{self, ImportedHistory, Kind, LeftOut, Step};

/// Imports, and prints what was imported. A signal ends the process at once, because a killed import loses nothing of
/// what it has stored: the same command goes on from there.
///
/// # Errors
/// The file is not understood, or cannot be read, or the new database cannot be written; the message says how to
/// continue.
pub(crate) async fn run(arguments: cli::Import) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let work = tokio::task::spawn_blocking(move || import(&arguments));
    tokio::select! {
        done = work => done.unwrap_or_else(|error| Err(Failure::failed(error.to_string()))),
        name = signals.next() => {
            Reports::new().clear();
            eprintln!("brigandine: {name}: stopped; give the same command again, and the import goes on from here");
            exit(i32::from(FAILED));
        }
    }
}

fn import(arguments: &cli::Import) -> Result<(), Failure> {
    let failed = |error: store::ImportError| Failure::failed(error.to_string());
    check_user(match &arguments.of {
        Some(ImportOf::Cuirass { state, .. }) => &state.state,
        None => &arguments.state.state,
    })?;
    match arguments {
        cli::Import { of: Some(ImportOf::Cuirass { state, file, json }), .. } => {
            cuirass(file, &state.state, *json)
        }
        cli::Import { state, file: Some(file), json, .. } => {
            match store::kind_of(file).map_err(failed)? {
                Kind::Cuirass => cuirass(file, &state.state, *json),
                Kind::History => history(file, &state.state, *json),
            }
        }
        cli::Import { file: None, .. } => Err(Failure::failed("a file is to be named")),
    }
}

/// Runs `work` with a function that prints its progress.
fn reported<T>(work: impl FnOnce(&dyn Fn(Step)) -> T) -> T {
    let (began, reports, first) = (Instant::now(), Reports::new(), Cell::new(None));
    let counted = |what: &str, done: i64, total: i64| {
        let from = first.get().unwrap_or(done);
        first.set(Some(from));
        reports.show(false, || {
            let seconds = began.elapsed().as_secs_f64();
            let rate = (done - from) as f64 / seconds.max(0.001);
            let percent = done * 100 / total.max(1);
            format!("{done} of {total} {what} ({percent} %), {rate:.0} per second")
        });
    };
    let done = work(&|step: Step| match step {
        Step::Builds(done, total) => counted("builds", done, total),
        Step::Rows(done, total) => counted("rows", done, total),
        Step::Other(what) => {
            reports.show(true, || format!("{what}, after {:.0} s", began.elapsed().as_secs_f64()));
        }
    });
    reports.clear();
    done
}

fn history(file: &Path, state: &Path, json: bool) -> Result<(), Failure> {
    let began = Instant::now();
    let done = reported(|progress| store::import_history(file, state, progress));
    let done = done.map_err(|error| Failure::failed(error.to_string()))?;
    if json {
        print_json(&done);
        return Ok(());
    }
    let ImportedHistory { rows, schema, resumed_at } = done;
    let of = |table: &str| rows.get(table).copied().unwrap_or(0);
    say(&format!(
        "{} specifications, {} evaluations, {} builds of schema {schema} in {:.1} s",
        of("specification"),
        of("evaluation"),
        of("build"),
        began.elapsed().as_secs_f64()
    ));
    if resumed_at > 0 {
        say(&format!("{resumed_at} rows were there from an interrupted import"));
    }
    Ok(())
}

fn cuirass(file: &Path, state: &Path, json: bool) -> Result<(), Failure> {
    let began = Instant::now();
    let done = reported(|progress| store::import_cuirass(file, state, model::now(), progress));
    let done = done.map_err(|error| Failure::failed(error.to_string()))?;
    if json {
        print_json(&done);
        return Ok(());
    }
    say(&format!(
        "{} specifications, {} evaluations, {} builds with {} outputs in {:.1} s",
        done.specifications,
        done.evaluations,
        done.builds,
        done.outputs,
        began.elapsed().as_secs_f64()
    ));
    if done.resumed_at > 0 {
        say(&format!("{} builds were there from an interrupted import", done.resumed_at));
    }
    if done.rescheduled > 0 {
        say(&format!("{} builds that were running wait again", done.rescheduled));
    }
    if done.logs > 0 {
        say(&format!("the logs of {} builds stay files of Cuirass's", done.logs));
    }
    for LeftOut { table, column, rows, what } in &done.left_out {
        let column = column.map(|column| format!(".{column}")).unwrap_or_default();
        say(&format!("not imported: {table}{column} ({what}), {rows} rows"));
    }
    Ok(())
}
