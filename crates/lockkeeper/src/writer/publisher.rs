//! How the writer feeds subscribers: it publishes the changes of a batch after its COMMIT (WRITE7). If other processes
//! have committed, or may have, it publishes that anything may have changed (WRITE8).

use std::sync::Arc;

use crate::changes::change::{CallChanges, Change, Commit};
use crate::changes::feed::Feed;
use crate::sqlite::link::Link;

/// The most changed rows of a batch that are listed. Of further rows only the tables are listed.
const BATCH_ROWS_MAX: usize = 1 << 16;

/// Collects the changes of the calls in a transaction and publishes them after its COMMIT.
#[derive(Debug)]
pub(super) struct Publisher {
    feed: Arc<Feed>,
    /// Changes of the calls that are in the transaction, in order (REC1 of `changes/recorder.rs`).
    pending: Vec<CallChanges>,
    pending_rows: usize,
    /// Whether one of these calls altered a table.
    altered: bool,
    /// Whether there was a subscriber before the first call of this transaction ran, so that all changes are recorded.
    complete: bool,
    /// The last value of `PRAGMA data_version` on the writer's connection; `None`: not read.
    data_version: Option<i64>,
}

impl Publisher {
    pub(super) fn new(feed: Arc<Feed>) -> Self {
        Self {
            feed,
            pending: Vec::new(),
            pending_rows: 0,
            altered: false,
            complete: false,
            data_version: None,
        }
    }

    /// Notes that `link` is the writer's connection from now on (WRITE8). `commit` is the number of the last commit.
    pub(super) fn connected(&mut self, link: &Link, commit: u64) {
        // The version is read before the publication: a subscriber that then reads sees what other processes have
        // committed before, and the next check finds what they commit afterwards.
        self.data_version = link.session.data_version();
        self.unknown(commit);
    }

    /// Notes that a transaction has begun. `commit` is the number of the last commit.
    pub(super) fn begin(&mut self, link: &Link, commit: u64) {
        self.pending.clear();
        self.pending_rows = 0;
        self.altered = false;
        self.complete = self.feed.is_watched();
        if self.complete {
            self.check_for_foreign_commits(link, commit);
            link.callbacks.recorder.begin_transaction();
        }
    }

    /// Checks for commits of other processes.
    pub(super) fn check_for_foreign_commits(&mut self, link: &Link, commit: u64) {
        let version = link.session.data_version();
        if version != self.data_version {
            self.data_version = version;
            link.callbacks.recorder.forget();
            self.feed.publish(&Change::Unknown { commit });
        }
    }

    pub(super) fn begin_call(&self, link: &Link) {
        let recorder = &link.callbacks.recorder;
        let watched = self.feed.is_watched();
        if watched || recorder.is_on() {
            recorder.begin_call(&link.session, watched);
        }
    }

    /// Keeps the changes of a call that succeeded.
    pub(super) fn keep(&mut self, link: &Link) {
        if !link.callbacks.recorder.is_on() {
            return;
        }
        let rows_max = BATCH_ROWS_MAX - self.pending_rows;
        let (changes, altered) = link.callbacks.recorder.take_call(rows_max);
        self.altered |= altered;
        if !changes.tables.is_empty() {
            self.pending_rows += changes.rows();
            self.pending.push(changes);
        }
    }

    /// Publishes the transaction, which is stored as commit `number`. `dirty`: a call has written.
    pub(super) fn committed(&mut self, number: u64, dirty: bool) {
        if !self.feed.is_watched() || !dirty {
            return;
        }
        if !self.complete {
            // Calls ran before there was a subscriber, and the subscriber may have read the state before this COMMIT.
            self.feed.publish(&Change::Unknown { commit: number });
            return;
        }
        let calls = std::mem::take(&mut self.pending);
        if !calls.is_empty() {
            self.feed.publish(&Change::Commit(Arc::new(Commit { number, calls })));
        }
        if self.altered {
            self.feed.publish(&Change::Unknown { commit: number });
        }
    }

    /// Publishes that unknown changes were committed.
    pub(super) fn unknown(&self, commit: u64) {
        self.feed.publish(&Change::Unknown { commit });
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // Runs however the writer's thread ends, because subscribers must not wait for further changes.
        self.feed.close();
    }
}
