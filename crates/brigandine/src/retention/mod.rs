//! Retention: evaluations that are not kept are deleted, with their builds, build logs and outputs.
//!
//! ```text
//! what is due (a read) → for each evaluation, oldest first:
//!     mark → its builds, in slices, highest first
//! and after some: those evaluations themselves → files
//! ```
//!
//! `store/pruning/` says what may go and why whatever is there fits together at each moment. Here it is
//! cut into writes that are short, in a lane that waits for everybody else's calls.
//!
//! - T1: a slice asks for at most the rows and the time of its [`Pace`], whichever is first. Beside a
//!   server's other writers it is short, and in a lane of low priority: it runs when nobody else waits, and
//!   otherwise once in nine batches, so that a busy writer gives it its time once per eight of theirs. Where
//!   nobody else can write much, it is as long as pays.
//! - T2: an output is a folder that several builds may share. It goes when no build has it, and no result
//!   that is not stored yet holds it: see [`Outputs::begin_removal`].
//! - T3: memory is bounded by one evaluation's jobs, eight bytes for each.
//! - T4: evaluations that are empty wait for one another, [`GROUP`] of them at most, because what deletes
//!   them is a fence between two batches, and a sync. So do files, until [`DUE_FILES`] builds are gone. What
//!   waits is in the database, where the next run finds it.

use crate::log::Logs;
use crate::model::{self, BuildId, EvaluationId, Event, Keep, SpecificationId};
use crate::os::folder::remove_all;
use crate::outputs::Outputs;
use crate::store::{self, Budget, Database, DatabaseError};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// How much a slice may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Rows that it may delete.
    pub(crate) rows: usize,
    /// Time that it may take, but for one build of it. The writer is held as long, and the commit.
    pub(crate) time: Duration,
}

impl Pace {
    /// Other writers should not notice.
    pub(crate) const SHARED: Self = Self { rows: 500, time: Duration::from_millis(5) };
    /// Nobody else writes, but for a command now and then: pages that many builds share are written
    /// and synced once.
    pub(crate) const ALONE: Self = Self { rows: 20_000, time: Duration::from_millis(100) };
}

/// Empty evaluations that are deleted at once.
const GROUP: usize = 32;
/// Builds that may go before their files do, but for those of one evaluation.
const DUE_FILES: usize = 10_000;
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
    pace: Pace,
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
    /// Deletes in a state directory that this process has locked.
    pub(crate) fn new(
        database: &Database,
        outputs: Arc<Outputs>,
        logs: Logs,
        keep: Keep,
        publish: broadcast::Sender<Event>,
    ) -> Self {
        let database = database.background("retention");
        Self { database, outputs, logs, pace: Pace::SHARED, keep, publish }
    }

    /// The same at another pace.
    pub(crate) fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
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
        let mut all: Vec<(EvaluationId, SpecificationId)> = Vec::new();
        for due in due {
            all.extend(due.evaluations.into_iter().map(|id| (id, due.specification)));
        }
        let (mut empty, mut before) = (Vec::new(), 0);
        for (id, specification) in all {
            if *stop.borrow() {
                break;
            }
            if self.empty(id, &mut pruned, stop).await? {
                empty.push((id, specification));
            }
            // T4
            if empty.len() >= GROUP || pruned.builds - before >= DUE_FILES {
                self.remove(&mut empty, &mut pruned).await?;
                self.remove_files(&mut pruned, stop).await?;
                before = pruned.builds;
            }
        }
        self.remove(&mut empty, &mut pruned).await?;
        self.remove_files(&mut pruned, stop).await?;
        Ok(pruned)
    }

    /// Takes all builds out of an evaluation. `false`: it must stay, or the run is to stop.
    async fn empty(
        &self,
        id: EvaluationId,
        pruned: &mut Pruned,
        stop: &watch::Receiver<bool>,
    ) -> Result<bool, DatabaseError> {
        let builds = self.builds(id).await?;
        if !self.slices(id, builds, pruned, stop).await? {
            return Ok(false);
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
                return Ok(false);
            }
            let left = self.database.read(move |s| store::strays(s, id, STRAYS)).await?;
            if left == first && pruned.builds == before {
                tracing::warn!(evaluation = %id, builds = found, "builds of an evaluation that is to \
                    be deleted are needed by one another; it stays");
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes evaluations that are empty.
    async fn remove(
        &self,
        empty: &mut Vec<(EvaluationId, SpecificationId)>,
        pruned: &mut Pruned,
    ) -> Result<(), DatabaseError> {
        if empty.is_empty() {
            return Ok(());
        }
        let ids = empty.iter().map(|(id, _)| *id).collect();
        let removed = store::remove_evaluations(&self.database, ids).await?;
        pruned.evaluations += removed.len();
        tracing::debug!(evaluations = ?removed, "evaluations were deleted");
        empty.dedup_by_key(|(_, specification)| *specification);
        for (_, id) in empty.drain(..) {
            let _ = self.publish.send(Event::Specification { id });
        }
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
            let is_last = page.len() < PAGE as usize;
            match page.into_iter().next_back() {
                Some(last) if !is_last => border = last,
                _ => break,
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
        let Pace { rows, time } = self.pace;
        let (mut done, mut marked) = (0, false);
        // Also when there is no build: the evaluation is marked.
        while done < builds.len() || !marked {
            if *stop.borrow() {
                return Ok(false);
            }
            let all = Arc::clone(&builds);
            let (slice, took) = self
                .database
                .write(move |tx| {
                    let began = std::time::Instant::now();
                    if !marked && !store::mark(tx, id)? {
                        return Ok((None, began.elapsed()));
                    }
                    // A build is a row at least.
                    let some = &all[done..all.len().min(done + rows)];
                    let budget = Budget::new(rows, time);
                    Ok((store::prune_builds(tx, id, some, budget)?, began.elapsed()))
                })
                .await?;
            marked = true;
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
                let removed = match model::output_digest(&path) {
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
        let path = model::output_path(digest);
        if self.database.read(move |s| store::has_output(s, &path)).await? {
            return Ok(Ok(true));
        }
        Ok(blocking(move || remove_all(&removal.finish()?)).await.map(|()| true))
    }
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(f).await.map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests;
