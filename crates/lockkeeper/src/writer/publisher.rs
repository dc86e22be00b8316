//! The writer's side of the change feed: what the calls of a batch changed is published after its COMMIT (WRITE7).

use std::sync::Arc;

use crate::changes::change::{CallChanges, Change, Commit};
use crate::changes::feed::Feed;
use crate::sqlite::link::Link;

/// Rows of one batch that are named one by one.
const BATCH_ROWS_MAX: usize = 1 << 16;

/// Collects what calls changed and hands it on after the COMMIT.
#[derive(Debug)]
pub(super) struct Publisher {
    feed: Arc<Feed>,
    /// Changes of the calls that are in the transaction, in order (D1 of `changes/recorder.rs`).
    pending: Vec<CallChanges>,
    pending_rows: usize,
    /// One of them altered a table.
    altered: bool,
    /// There was a subscriber before the first call of this transaction ran.
    complete: bool,
    /// `PRAGMA data_version` when it was last looked at.
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

    /// A connection was opened: what others commit from now on is noticed.
    pub(super) fn connected(&mut self, link: &Link) {
        self.data_version = link.session.data_version();
    }

    /// A transaction has begun; `commit` is the number of the last one.
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

    /// Looks whether another process has committed something.
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

    /// The call is in the transaction.
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

    /// The transaction is stored, as commit `number`; `dirty`: it wrote something.
    pub(super) fn committed(&mut self, number: u64, dirty: bool) {
        if !self.feed.is_watched() || !dirty {
            return;
        }
        if !self.complete {
            // Calls ran before there was a subscriber, who may have looked before the COMMIT.
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

    /// Something changed, and it is not known what.
    pub(super) fn unknown(&self, commit: u64) {
        self.feed.publish(&Change::Unknown { commit });
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // However the writer's thread ends, subscribers must not wait for changes that cannot come.
        self.feed.close();
    }
}
