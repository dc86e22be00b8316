//! The logs of builds and evaluations: files beside the database, which are written as output comes, compressed when
//! finished, and followed by any number of readers.
//!
//! | state of a log | file | who knows its length |
//! |---|---|---|
//! | no byte yet | none | the writer's channel says 0 |
//! | being written | `….log` | the writer's channel, changed after each write |
//! | finished | `….log.zst` | the channel, until [`Logs::forget`]; then the row in the database |
//!
//! - LOG1: the channel changes after the bytes are in the file, so a reader finds all bytes that the channel announced.
//! - LOG2: `….log` is removed only after `….log.zst` has its name, so one of the two is always there.
//! - LOG3: [`Logs::forget`] is called only after the log's row is committed, so a reader finds the log in one place or
//!   the other.
//! - LOG4: the row of a build or evaluation says "started" before the log exists. So the caller announces the log
//!   before it writes the row ([`Logs::announce`]). A reader that has such a row and finds no log waits until all
//!   announcements of that moment have ended, and then looks again.
//!
//! Readers wait for the channel, never for a timer. Offsets count bytes of the plain text.

use crate::model::{Build, BuildId, BuildStatus, Evaluation, EvaluationStatus, Live, LogName};
use crate::os::digest::hex;
use crate::os::file::{blocking, open_regular};
use file::{Progress, compressed};
use reader::Source;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

mod file;
mod lines;
mod reader;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

pub(crate) use lines::{Line, LinePass};
pub(crate) use reader::LogReader;
pub(crate) use writer::LogWriter;

/// The logs of a state directory.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    state: Arc<PathBuf>,
    /// Guard: the mutex. One entry for each running build or evaluation, until shortly after its end.
    live: Arc<Mutex<HashMap<LogName, watch::Receiver<Progress>>>>,
    announced: Arc<watch::Sender<Announced>>,
    /// The most bytes of one log.
    bytes_max: Live<u64>,
    /// A permit for each pass over the lines of logs.
    passes: Arc<Semaphore>,
}

/// The most passes over the lines of logs at the same time. A pass reads a large log from its beginning, which takes a
/// processor for as long as that takes.
const PASSES_MAX: usize = 2;

/// The announcements of writes that may start builds or evaluations (LOG4). At most one of the builder and one of each
/// monitor is open.
#[derive(Debug, Default)]
struct Announced {
    /// The number of the last announcement.
    last: u64,
    /// The numbers of the announcements that have not ended.
    open: BTreeSet<u64>,
}

/// An announcement: while it exists, builds or evaluations may begin logs (LOG4).
#[derive(Debug)]
#[must_use = "dropped, it has ended"]
pub(crate) struct Announcement {
    announced: Arc<watch::Sender<Announced>>,
    number: u64,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.announced.send_modify(|announced| {
            announced.open.remove(&self.number);
        });
    }
}

impl Logs {
    /// Keeps logs below `state`; none grows beyond `bytes_max`.
    pub(crate) fn new(state: &Path, bytes_max: u64) -> Self {
        Self {
            state: Arc::new(state.to_owned()),
            live: Arc::default(),
            announced: Arc::default(),
            bytes_max: Live::new(bytes_max),
            passes: Arc::new(Semaphore::new(PASSES_MAX)),
        }
    }

    /// Waits until a pass over the lines of a log may begin. The pass ends before the permit is dropped.
    pub(crate) async fn may_pass(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes the semaphore.
        self.passes.acquire().await.ok()
    }

    /// Changes the bound for logs that begin from now on.
    pub(crate) fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.set(bytes_max);
    }

    /// Announces logs. The caller does this before the write that starts builds or evaluations, and drops the
    /// announcement when their logs exist (LOG4).
    pub(crate) fn announce(&self) -> Announcement {
        let mut number = 0;
        self.announced.send_modify(|announced| {
            announced.last += 1;
            number = announced.last;
            announced.open.insert(number);
        });
        Announcement { announced: Arc::clone(&self.announced), number }
    }

    /// Waits until the announcements made before this call have ended.
    async fn settled(&self) {
        let last = self.announced.borrow().last;
        let over = |announced: &Announced| announced.open.first().is_none_or(|open| *open > last);
        // The sender lives in `self`, so this cannot fail.
        let _ = self.announced.subscribe().wait_for(over).await;
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<LogName, watch::Receiver<Progress>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a log. The file is made when the first byte is written.
    pub(crate) fn create(&self, name: LogName) -> LogWriter {
        let (progress, receiver) = watch::channel(Progress::default());
        self.live().insert(name, receiver);
        LogWriter {
            path: self.state.join(name.path()),
            name,
            file: None,
            progress,
            bytes_max: self.bytes_max.get(),
            cut: false,
            broken: None,
        }
    }

    /// Forgets a finished log. Called after the commit of the row that names its file (LOG3).
    pub(crate) fn forget(&self, name: LogName) {
        self.live().remove(&name);
    }

    /// Ends a log that the last server was writing when it was killed. Blocks.
    ///
    /// # Errors
    /// The log stays as it is, and can be read.
    pub(crate) fn close(&self, name: LogName, why: &str) -> io::Result<()> {
        writer::close(&self.state.join(name.path()), why)
    }

    /// Removes a log, if it is there. Blocks.
    pub(crate) fn remove(&self, name: LogName) {
        let path = self.state.join(name.path());
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_file(compressed(&path));
    }

    /// Removes a log by its path, which [`LogName::path`] returned. Blocks.
    ///
    /// # Errors
    /// The log exists and cannot be removed.
    pub(crate) fn remove_at(&self, path: &str) -> io::Result<()> {
        let plain = self.state.join(path);
        for path in [compressed(&plain), plain.clone()] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if let Some(folder) = plain.parent() {
            // The folder stays if it holds other logs.
            let _ = std::fs::remove_dir(folder);
        }
        Ok(())
    }

    /// A reader of a build's log from `offset` on. `None`: the build has not started, or waits to run again.
    pub(crate) async fn open(&self, build: &Build, offset: u64) -> Option<LogReader> {
        if !build.has_run() {
            return None;
        }
        let name = LogName::Build(build.id, build.attempt);
        let bytes = u64::try_from(build.log.bytes).unwrap_or(0);
        let running = build.status == BuildStatus::Started;
        Some(self.open_named(name, &build.log.path, bytes, running, offset).await)
    }

    /// A reader of the log of one attempt of a build. `None`: there was no such attempt.
    pub(crate) async fn open_attempt(
        &self,
        build: &Build,
        attempt: i64,
        offset: u64,
    ) -> Option<LogReader> {
        if attempt == build.attempt && build.has_run() {
            return self.open(build, offset).await;
        }
        let past = (1..=build.attempt).contains(&attempt);
        let name = LogName::Build(build.id, attempt);
        if past { Some(self.open_named(name, "", 0, false, offset).await) } else { None }
    }

    /// Returns those of `attempts`, numbers of attempts of a build, that have a log.
    pub(crate) async fn kept(&self, id: BuildId, attempts: Vec<i64>) -> Vec<i64> {
        let logs = self.clone();
        let kept = move || {
            let there = |attempt: &i64| {
                let name = LogName::Build(id, *attempt);
                let plain = logs.state.join(name.path());
                logs.live().contains_key(&name) || plain.exists() || compressed(&plain).exists()
            };
            Ok(attempts.into_iter().filter(there).collect())
        };
        blocking(kept).await.unwrap_or_default()
    }

    /// Compares a finished build's log with the digest in its row. Blocks.
    ///
    /// # Errors
    /// The log is missing, cannot be read, or differs.
    pub(crate) fn check(&self, build: &Build) -> io::Result<()> {
        let log = &build.log;
        if log.digest.is_empty() || log.path.is_empty() {
            return Ok(());
        }
        let mut digest = Sha256::new();
        io::copy(&mut open_regular(&self.state.join(&log.path))?, &mut digest)?;
        if hex(&digest.finalize()) == log.digest {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged: its digest is another one"))
    }

    /// The number of bytes of the plain text of a build's log so far.
    pub(crate) fn bytes(&self, build: &Build) -> u64 {
        let live = self.live().get(&LogName::Build(build.id, build.attempt)).cloned();
        match live {
            Some(live) => live.borrow().bytes,
            None => u64::try_from(build.log.bytes).unwrap_or(0),
        }
    }

    /// A reader of an evaluation's log from `offset` on.
    pub(crate) async fn open_evaluation(&self, evaluation: &Evaluation, offset: u64) -> LogReader {
        let name = LogName::Evaluation(evaluation.id);
        let running = evaluation.status == EvaluationStatus::Started;
        // An evaluation's row does not say how many bytes its log has. A log that the row names has at least one byte.
        self.open_named(name, &evaluation.log_path, 1, running, offset).await
    }

    /// `stored` is the path in the row of the build or evaluation, empty if there is none. `bytes` is the least length
    /// of the log.
    async fn open_named(
        &self,
        name: LogName,
        stored: &str,
        bytes: u64,
        running: bool,
        offset: u64,
    ) -> LogReader {
        let plain = self.state.join(name.path());
        let mut live = self.live().get(&name).cloned();
        if live.is_none() && running {
            self.settled().await; // LOG4
            live = self.live().get(&name).cloned();
        }
        let source = if live.is_some() || stored.is_empty() {
            // The row may have been read before the log ended. Then it does not name the file yet.
            Source::Closed(plain)
        } else {
            Source::Closed(self.state.join(stored.trim_end_matches(".zst")))
        };
        let expected = (live.is_none() && !stored.is_empty()).then_some(bytes);
        LogReader { source, offset, live, missing: false, expected }
    }
}
