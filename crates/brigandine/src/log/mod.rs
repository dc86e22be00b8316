//! Build logs and the logs of evaluations: files beside the database, written as they come,
//! compressed when finished, followed by any number of readers.
//!
//! | state of a log | file | who knows its length |
//! |---|---|---|
//! | no byte yet | none | the writer's channel says 0 |
//! | being written | `….log` | the writer's channel, changed after each write |
//! | finished | `….log.zst` | the channel, until [`Logs::forget`]; then the row in the database |
//!
//! L1: the channel changes after the bytes are in the file, so a reader that was told of bytes
//! finds them. L2: `….log` is removed only after `….log.zst` has its name, so one of the two is
//! always there. L3: a log is forgotten only after its row is committed, so a reader finds it in
//! one place or the other. L4: a row that says "started" is committed before its log is there, so whoever
//! commits it announces the log first ([`Logs::announce`]); a reader that has such a row and finds no log waits
//! until the announcements of that moment have ended, and looks again.
//!
//! Readers wait for the channel, never for time. Offsets are those of the plain text.

use crate::model::{Build, BuildId, BuildStatus, Evaluation, EvaluationStatus, LogName};
use crate::os::digest::hex;
use crate::os::file::open_regular;
use file::{Progress, blocking, compressed};
use reader::Source;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

mod file;
mod reader;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

pub(crate) use reader::LogReader;
pub(crate) use writer::LogWriter;

/// The logs of a state directory.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    state: Arc<PathBuf>,
    /// Guard: the mutex. One entry per running build or evaluation, and for a moment after.
    live: Arc<Mutex<HashMap<LogName, watch::Receiver<Progress>>>>,
    announced: Arc<watch::Sender<Announced>>,
    bytes_max: u64,
}

/// Writes under way that may begin builds or evaluations (L4). Bounded by the builder and the monitors.
#[derive(Debug, Default)]
struct Announced {
    /// The number of the last one.
    last: u64,
    open: BTreeSet<u64>,
}

/// Logs may be about to begin, until this is dropped.
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
            bytes_max,
        }
    }

    /// Says that logs may be about to begin: call it before the write that says so, and drop what it gives when
    /// they are there (L4).
    pub(crate) fn announce(&self) -> Announcement {
        let mut number = 0;
        self.announced.send_modify(|announced| {
            announced.last += 1;
            number = announced.last;
            announced.open.insert(number);
        });
        Announcement { announced: Arc::clone(&self.announced), number }
    }

    /// Waits until every log that was announced before this call is there.
    async fn settled(&self) {
        let last = self.announced.borrow().last;
        let over = |announced: &Announced| announced.open.first().is_none_or(|open| *open > last);
        // The sender lives in `self`, so this cannot fail.
        let _ = self.announced.subscribe().wait_for(over).await;
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<LogName, watch::Receiver<Progress>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a log. The file comes with its first byte.
    pub(crate) fn create(&self, name: LogName) -> LogWriter {
        let (progress, receiver) = watch::channel(Progress::default());
        self.live().insert(name, receiver);
        LogWriter {
            path: self.state.join(name.path()),
            name,
            file: None,
            progress,
            bytes_max: self.bytes_max,
            cut: false,
            broken: None,
        }
    }

    /// Forgets a finished log. Call it once the row that names the file is committed (L3).
    pub(crate) fn forget(&self, name: LogName) {
        self.live().remove(&name);
    }

    /// Removes a log that belongs to nothing any more. Blocks.
    pub(crate) fn remove(&self, name: LogName) {
        let path = self.state.join(name.path());
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_file(compressed(&path));
    }

    /// Removes a log by the path that [`LogName::path`] gives. Blocks.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub(crate) fn remove_at(&self, path: &str) -> io::Result<()> {
        let plain = self.state.join(path);
        for path in [compressed(&plain), plain.clone()] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if let Some(folder) = plain.parent() {
            // Where others are it stays.
            let _ = std::fs::remove_dir(folder);
        }
        Ok(())
    }

    /// A reader of a build's log from `offset` on. `None`: it has not been started, or not again.
    pub(crate) async fn open(&self, build: &Build, offset: u64) -> Option<LogReader> {
        if !build.has_run() {
            return None;
        }
        let name = LogName::Build(build.id, build.attempt);
        let bytes = u64::try_from(build.log.bytes).unwrap_or(0);
        let running = build.status == BuildStatus::Started;
        Some(self.open_named(name, &build.log.path, bytes, running, offset).await)
    }

    /// A reader of the log of one start of a build. `None`: there was no such start.
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

    /// Which of these starts of a build have a log. Blocks for a look at each.
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

    /// Looks whether a finished build's log is what was stored. Blocks.
    ///
    /// # Errors
    /// It is gone, cannot be read, or is another one.
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

    /// Bytes of a build's log so far, compressed or not.
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
        // Its row does not say how many bytes; where there are none there is no file.
        self.open_named(name, &evaluation.log_path, 1, running, offset).await
    }

    /// `stored` is where its row says that it is, and `bytes` how many it has, if the row says that.
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
            self.settled().await; // L4
            live = self.live().get(&name).cloned();
        }
        let source = if live.is_some() || stored.is_empty() {
            // A row read a moment ago may not name the file of a log that is finished by now.
            Source::Closed(plain)
        } else {
            Source::Closed(self.state.join(stored.trim_end_matches(".zst")))
        };
        let expected = (live.is_none() && !stored.is_empty()).then_some(bytes);
        LogReader { source, offset, live, missing: false, expected }
    }
}
