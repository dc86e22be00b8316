//! `brigandine backup` and `brigandine restore`.

use std::path::absolute;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::serve::Signals;
use super::terminal::Reports;
use super::{Failure, check_user, existing, file_failed, print_json, say};
use crate::app::{self, AppError};
use crate::backup::{self, BackupError, Control, Files, Manifest, Parts, Step};
use crate::cli;
use crate::model;
use crate::os::folder::make_private;

/// Makes a backup, and prints what it has.
///
/// # Errors
/// There is no state directory, something has the name of the backup, or a file cannot be read or written.
pub(crate) async fn create(arguments: &cli::Backup) -> Result<(), Failure> {
    let cli::Backup { state, target, no_logs, no_outputs, json } = arguments;
    let database = existing(&state.state).await?;
    let parts = Parts { logs: !no_logs, outputs: !no_outputs };
    let (reports, control) = reported();
    let work = backup::create(&database, &state.state, target, parts, &control);
    let done = stoppable(work, &control).await;
    reports.clear();
    let manifest = done?;
    database.close().await?;
    let missing = [manifest.logs, manifest.outputs].into_iter().flatten();
    let missing: u64 = missing.map(|files| files.missing).sum();
    if missing > 0 {
        eprintln!(
            "brigandine: {missing} logs and outputs that the database names were not there; they may have been deleted \
             meanwhile (`keep`)"
        );
    }
    tell(&format!("backed up to {}", target.display()), &manifest, *json);
    Ok(())
}

/// Restores a backup, and prints what it had.
///
/// # Errors
/// The backup is damaged, the directory is not empty, or a file cannot be read or written.
pub(crate) async fn restore(arguments: &cli::Restore) -> Result<(), Failure> {
    let cli::Restore { state: cli::State { state }, backup, json } = arguments;
    let backup = absolute(backup).unwrap_or_else(|_| backup.clone());
    let manifest = Manifest::read(&backup)?;
    backup::check_target(state)?;
    check_user(state)?;
    make_private(state).map_err(|error| AppError::State(state.clone(), error))?;
    let lock = app::lock_state(state)?;
    // Checked again, because a server may have used the directory before it was locked.
    backup::check_target(state)?;
    let new_id = "/proc/sys/kernel/random/uuid";
    let new_id = std::fs::read_to_string(new_id)
        .map_err(|error| file_failed(std::path::Path::new(new_id), &error))?;
    let (reports, control) = reported();
    let (state, own) = (state.clone(), control.clone());
    let work = tokio::task::spawn_blocking(move || {
        backup::restore(&backup, &manifest, &state, new_id.trim(), &own).map(|()| (manifest, state))
    });
    let work = async { work.await.map_err(std::io::Error::other)? };
    let done = stoppable(work, &control).await;
    reports.clear();
    let (manifest, state) = done?;
    drop(lock);
    let from = format!("the backup of {}", model::iso(manifest.made_at));
    tell(&format!("restored {from} to {}", state.display()), &manifest, *json);
    Ok(())
}

/// Runs work to its end. A signal tells the work to stop.
async fn stoppable<T>(
    work: impl Future<Output = Result<T, BackupError>>,
    control: &Control,
) -> Result<T, Failure> {
    let mut signals = Signals::new()?;
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done.map_err(Failure::from),
            _ = signals.next() => control.stop.store(true, Ordering::Relaxed),
        }
    }
}

/// What the work is controlled by, and the reports that it makes.
fn reported() -> (Arc<Reports>, Control) {
    let reports = Arc::new(Reports::new());
    let own = Arc::clone(&reports);
    let report = move |step| own.show(step == Step::Sync, || describe(step));
    (reports, Control { stop: Arc::default(), report: Arc::new(report) })
}

fn describe(step: Step) -> String {
    let files =
        |what, files: Files| format!("{what}: {} files, {}", files.files, model::size(files.bytes));
    match step {
        Step::Database(done, all) => {
            format!("database: {done} of {all} pages ({} %)", done * 100 / all.max(1))
        }
        Step::Check => "the database is checked".to_owned(),
        Step::Logs(copied) => files("logs", copied),
        Step::Outputs(copied) => files("outputs", copied),
        Step::Sync => "everything is written to the disk".to_owned(),
    }
}

fn tell(done: &str, manifest: &Manifest, as_json: bool) {
    if as_json {
        print_json(manifest);
        return;
    }
    let rows = |table: &str| manifest.rows.get(table).copied().unwrap_or(0);
    say(&format!(
        "{done}: {} specifications, {} evaluations, {} builds; database {}",
        rows("specification"),
        rows("evaluation"),
        rows("build"),
        model::size(manifest.database.bytes)
    ));
    for (what, files) in [("logs", manifest.logs), ("outputs", manifest.outputs)] {
        say(&match files {
            None => format!("no {what}"),
            Some(files) => {
                format!("{what}: {} files, {}", files.files, model::size(files.bytes))
            }
        });
    }
}
