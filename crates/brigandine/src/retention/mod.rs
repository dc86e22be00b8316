//! Retention: deletes evaluations that are not kept, with their builds, build logs and outputs.
//!
//! ```text
//! find what is due (a read) → for each evaluation, oldest first:
//!     mark it → delete its builds, in slices, highest first
//! and after some evaluations: delete these evaluations themselves → delete files
//! ```
//!
//! `store/pruning/` decides what may be deleted, and explains why the rest is consistent at each moment. This file cuts
//! the work into short writes, in a lane of low priority.
//!
//! - RET1: the [`Pace`] of a slice bounds the rows that it deletes and the time that it takes. In a server, slices are
//!   short and in a lane of low priority: a slice runs when no other call waits, and otherwise once in nine batches. A
//!   command that writes alone makes longer slices.
//! - RET2: an output is a folder that several builds may share. It is deleted when no build names it, and when no hold
//!   keeps it for a result that is still to be stored: see [`Outputs::begin_removal`].
//! - RET3: memory is bounded by the jobs of one evaluation, at eight bytes for each job.
//! - RET4: empty evaluations are deleted in groups of at most [`GROUP`], because each such write is an exclusive call
//!   between two batches, with a sync of its own. Files are deleted once [`DUE_FILES`] builds are gone. The database
//!   has the lists of both, so the next run finds what is left.

use crate::log::Logs;
use crate::model::{self, BuildId, EvaluationId, Event, Keep, Live, SpecificationId};
use crate::os::file::blocking;
use crate::os::folder::remove_all;
use crate::outputs::Outputs;
use crate::store::{self, Budget, Database, DatabaseError};
use serde::Serialize;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// How much a slice may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// The most rows that a slice deletes.
    pub(crate) rows: usize,
    /// The most time that a slice takes, not counting its last build. It holds the writer for this time, and for its
    /// commit.
    pub(crate) time: Duration,
}

impl Pace {
    /// For a server: other writers should not notice the slices.
    pub(crate) const SHARED: Self = Self { rows: 500, time: Duration::from_millis(5) };
    /// For a command. Few other writes wait meanwhile, so slices may be long. A long slice writes and syncs a page of
    /// the database only once, even if the page has rows of many builds.
    pub(crate) const ALONE: Self = Self { rows: 20_000, time: Duration::from_millis(100) };
}

/// The most empty evaluations that one write deletes.
const GROUP: usize = 32;
/// After this many deleted builds their files are deleted, once the current evaluation is empty.
const DUE_FILES: usize = 10_000;
/// The most jobs that one read returns.
const PAGE: u32 = 2_000;
/// The most files that one read returns.
const FILES: u32 = 200;
/// The most strays (builds without a job) that one read returns.
const STRAYS: u32 = 1_000;
/// The most rows of the audit that one write deletes.
const AUDIT: u32 = 500;

/// Deletes evaluations that are not kept.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    database: Database,
    outputs: Arc<Outputs>,
    logs: Logs,
    pace: Pace,
    /// The settings for specifications that name none.
    keep: Live<Keep>,
    publish: broadcast::Sender<Event>,
}

/// The result of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Pruned {
    /// The number of deleted evaluations.
    pub(crate) evaluations: usize,
    /// The number of deleted builds.
    pub(crate) builds: usize,
    /// The number of deleted build logs and outputs.
    pub(crate) files: usize,
    /// The longest time of a slice in the writer, in milliseconds, without its commit.
    pub(crate) slice_ms_max: f64,
    /// The number of slices.
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
        let keep = Live::new(keep);
        Self { database, outputs, logs, pace: Pace::SHARED, keep, publish }
    }

    /// Changes the settings for specifications that name none, from the next run on.
    pub(crate) fn set_keep(&self, keep: Keep) {
        self.keep.set(keep);
    }

    /// The same retention at another pace.
    pub(crate) fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Deletes everything that need not be kept now, until `stop` turns true.
    ///
    /// # Errors
    /// The database is closed, or cannot be read or written. The next run continues.
    ///
    /// # Cancel safety
    /// The future can be dropped at any time: the rest is consistent, and the next run continues.
    pub(crate) async fn run(&self, stop: &watch::Receiver<bool>) -> Result<Pruned, DatabaseError> {
        let mut pruned = Pruned::default();
        // First the files that a killed server left.
        self.remove_files(&mut pruned, stop).await?;
        let (keep, now) = (self.keep.get(), model::now());
        let prune_audit = move |tx: &store::Transaction| store::prune_audit(tx, now, AUDIT);
        loop {
            if *stop.borrow() {
                break;
            }
            if !self.database.write(prune_audit).await? {
                break;
            }
        }
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
            // RET4
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

    /// Deletes the builds of an evaluation. `false`: it must stay, or the run is to stop.
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
        // Strays: builds without a job that have moved to this evaluation.
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

    /// The builds of an evaluation's jobs, highest ids first.
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

    /// Deletes these builds of an evaluation, in slices. `false`: the run is to stop, or the evaluation must stay.
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
        // The loop runs at least once, to mark the evaluation.
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
                    // Each build is at least one row, so a slice needs no more builds than rows.
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

    /// Deletes the files whose rows have been deleted.
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
                    // A result holds the output, so a later run tries again.
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, path, "a file cannot be deleted"),
                }
            }
            pruned.files += gone.len();
            self.database.write(move |tx| store::forget_leftovers(tx, &gone)).await?;
        }
        Ok(())
    }

    async fn remove_log(&self, path: &str) -> io::Result<bool> {
        let (logs, path) = (self.logs.clone(), path.to_owned());
        blocking(move || logs.remove_at(&path)).await.map(|()| true)
    }

    /// Deletes an output, unless a build names it (RET2). `false`: a result that is not stored yet holds it.
    async fn remove_output(&self, digest: &str) -> Result<io::Result<bool>, DatabaseError> {
        if !self.outputs.may_go(digest) {
            return Ok(Ok(true));
        }
        let Some(removal) = self.outputs.begin_removal(digest) else { return Ok(Ok(false)) };
        let path = model::output_path(digest);
        if self.database.read(move |s| store::has_output(s, &path)).await? {
            return Ok(Ok(true));
        }
        let remove = move || {
            let gone = removal.finish()?;
            // Each is tried, and the first error is returned.
            gone.iter().map(|folder| remove_all(folder)).fold(Ok(()), io::Result::and)
        };
        Ok(blocking(remove).await.map(|()| true))
    }
}

#[cfg(test)]
mod tests;
