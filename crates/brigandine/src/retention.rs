//! Retention: evaluations that are not kept are deleted, with their builds, build logs and outputs.
//!
//! ```text
//! what is due (a read) → for each evaluation, oldest first:
//!     mark → its builds, in slices, highest first → the evaluation itself → files
//! ```
//!
//! `store/pruning.rs` says what may go and why whatever is there fits together at each moment. Here it is
//! cut into writes that are short, in a lane that waits for everybody else's calls.
//!
//! - T1: a slice asks for at most [`SLICE_ROWS`] rows and [`SLICE_TIME`], whichever is first.
//! - T2: an output is a folder that several builds may share. It goes when no build has it, and no result
//!   that is not stored yet holds it: see [`Outputs::begin_removal`].
//! - T3: memory is bounded by one evaluation's jobs, eight bytes for each.

use crate::build::{Outputs, remove_all};
use crate::log::Logs;
use crate::model::{self, BuildId, EvaluationId, Event, Keep, SpecificationId};
use crate::store::{self, Budget, Database, DatabaseError};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// Rows that a slice may delete.
pub(crate) const SLICE_ROWS: usize = 500;
/// Time that a slice may take, but for one build of it. The writer is held as long, and the commit.
pub(crate) const SLICE_TIME: Duration = Duration::from_millis(5);
/// Jobs that one read asks for.
const PAGE: u32 = 2_000;
/// Files of one turn.
const FILES: u32 = 200;
/// Builds that one look for strays finds.
const STRAYS: u32 = 1_000;

/// Deletes what is not kept.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    database: Database,
    outputs: Arc<Outputs>,
    logs: Logs,
    state: PathBuf,
    /// For specifications that do not say it.
    keep: Keep,
    publish: broadcast::Sender<Event>,
}

/// What one run came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Pruned {
    /// Evaluations that are gone.
    pub(crate) evaluations: usize,
    /// Builds that are gone.
    pub(crate) builds: usize,
    /// Build logs and outputs that are gone.
    pub(crate) files: usize,
    /// The longest time that a slice took in the writer, its commit not included.
    pub(crate) slice_ms_max: f64,
    /// Slices.
    pub(crate) slices: usize,
}

impl Retention {
    /// Deletes below `state`, which this process has locked.
    pub(crate) fn new(
        database: &Database,
        outputs: Arc<Outputs>,
        logs: Logs,
        state: &Path,
        keep: Keep,
        publish: broadcast::Sender<Event>,
    ) -> Self {
        let database = database.background("retention");
        Self { database, outputs, logs, state: state.to_owned(), keep, publish }
    }

    /// Deletes what need not be kept as of now, until `stop` turns true.
    ///
    /// # Errors
    /// The database is closed or cannot be read or written. What was deleted is, and the next run goes on.
    ///
    /// # Cancel safety
    /// Dropped at any time, everything that is there fits together, and the next run goes on.
    pub(crate) async fn run(&self, stop: &watch::Receiver<bool>) -> Result<Pruned, DatabaseError> {
        let mut pruned = Pruned::default();
        // Those of a server that was killed.
        self.remove_files(&mut pruned, stop).await?;
        let (keep, now) = (self.keep, model::now());
        let due = self.database.read(move |s| store::due(s, keep, now)).await?;
        for due in due {
            for id in due.evaluations {
                if *stop.borrow() {
                    return Ok(pruned);
                }
                self.evaluation(id, due.specification, &mut pruned, stop).await?;
                self.remove_files(&mut pruned, stop).await?;
            }
        }
        Ok(pruned)
    }

    async fn evaluation(
        &self,
        id: EvaluationId,
        specification: SpecificationId,
        pruned: &mut Pruned,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), DatabaseError> {
        if !self.database.write(move |tx| store::mark(tx, id)).await? {
            return Ok(());
        }
        let builds = self.builds(id).await?;
        if !self.slices(id, builds, pruned, stop).await? {
            return Ok(());
        }
        // Builds without a job of their own that moved here.
        loop {
            let strays = self.database.read(move |s| store::strays(s, id, STRAYS)).await?;
            let (before, found) = (pruned.builds, strays.len());
            if found == 0 {
                break;
            }
            let first = strays.clone();
            if !self.slices(id, strays, pruned, stop).await? {
                return Ok(());
            }
            let left = self.database.read(move |s| store::strays(s, id, STRAYS)).await?;
            if left == first && pruned.builds == before {
                tracing::warn!(evaluation = %id, builds = found, "builds of an evaluation that is to \
                    be deleted are needed by one another; it stays");
                return Ok(());
            }
        }
        if store::remove_evaluation(&self.database, id).await? {
            pruned.evaluations += 1;
            tracing::debug!(evaluation = %id, "an evaluation was deleted");
        }
        let _ = self.publish.send(Event::Specification { id: specification });
        Ok(())
    }

    /// The builds of an evaluation's jobs, highest first.
    async fn builds(&self, id: EvaluationId) -> Result<Vec<BuildId>, DatabaseError> {
        let mut builds: Vec<BuildId> = Vec::new();
        let mut border = (String::new(), BuildId::new(i64::MIN));
        loop {
            let after = border.clone();
            let page = self.database.read(move |s| store::jobs_after(s, id, &after, PAGE)).await?;
            builds.extend(page.iter().map(|(_, build)| *build));
            match page.into_iter().next_back() {
                Some(last) => border = last,
                None => break,
            }
        }
        builds.sort_unstable_by(|a, b| b.cmp(a));
        builds.dedup();
        Ok(builds)
    }

    /// Takes these builds out of an evaluation. `false`: stopped, or it must stay.
    async fn slices(
        &self,
        id: EvaluationId,
        builds: Vec<BuildId>,
        pruned: &mut Pruned,
        stop: &watch::Receiver<bool>,
    ) -> Result<bool, DatabaseError> {
        let builds: Arc<[BuildId]> = builds.into();
        let mut done = 0;
        while done < builds.len() {
            if *stop.borrow() {
                return Ok(false);
            }
            let all = Arc::clone(&builds);
            let (slice, took) = self
                .database
                .write(move |tx| {
                    let began = std::time::Instant::now();
                    // A build is a row at least.
                    let some = &all[done..all.len().min(done + SLICE_ROWS)];
                    let budget = Budget::new(SLICE_ROWS, SLICE_TIME);
                    Ok((store::prune_builds(tx, id, some, budget)?, began.elapsed()))
                })
                .await?;
            pruned.slices += 1;
            pruned.slice_ms_max = pruned.slice_ms_max.max(took.as_secs_f64() * 1000.0);
            let Some(slice) = slice else { return Ok(false) };
            done += slice.settled;
            pruned.builds += slice.deleted;
        }
        Ok(true)
    }

    /// Deletes the files whose rows are gone.
    async fn remove_files(
        &self,
        pruned: &mut Pruned,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), DatabaseError> {
        let mut after = String::new();
        while !*stop.borrow() {
            let border = after.clone();
            let paths = self.database.read(move |s| store::leftovers(s, &border, FILES)).await?;
            let Some(last) = paths.last() else { break };
            after.clone_from(last);
            let mut gone = Vec::new();
            for path in paths {
                let removed = match path.strip_prefix("outputs/") {
                    Some(digest) => self.remove_output(digest).await?,
                    None => self.remove_log(&path).await,
                };
                match removed {
                    Ok(true) => gone.push(path),
                    // Held by a result on its way: a later run looks again.
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, path, "a file cannot be deleted"),
                }
            }
            pruned.files += gone.len();
            self.database.write(move |tx| store::forget_leftovers(tx, &gone)).await?;
        }
        Ok(())
    }

    async fn remove_log(&self, path: &str) -> std::io::Result<bool> {
        let (logs, path) = (self.logs.clone(), path.to_owned());
        blocking(move || logs.remove_at(&path)).await.map(|()| true)
    }

    /// T2. `false`: a result that is not stored yet holds it.
    async fn remove_output(&self, digest: &str) -> Result<std::io::Result<bool>, DatabaseError> {
        if !self.outputs.may_go(digest) {
            return Ok(Ok(true));
        }
        let Some(removal) = self.outputs.begin_removal(digest) else { return Ok(Ok(false)) };
        let path = format!("outputs/{digest}");
        if self.database.read(move |s| store::has_output(s, &path)).await? {
            return Ok(Ok(true));
        }
        let aside = self.state.join("work").join(format!("gone-{digest}"));
        Ok(blocking(move || {
            removal.finish(&aside)?;
            remove_all(&aside)
        })
        .await
        .map(|()| true))
    }
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(f).await.map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests;
