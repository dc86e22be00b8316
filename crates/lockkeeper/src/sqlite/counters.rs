//! Row counts of one call: SQLite keeps `last_insert_rowid`, `changes` and `total_changes` for the
//! connection, and so tells a call of rows that another has changed.
//!
//! The row id is set to 0 when a call begins. The two numbers of changes cannot be set; so the numbers at
//! the beginning are kept here, and the SQL functions `changes` and `total_changes` are replaced by ones
//! that go by them (`ffi/counts.rs`).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ffi::RowCounts;

/// The connection's `total_changes` when the running call began. All on the connection's thread, so
/// relaxed: the atomics satisfy the bounds of what the functions share.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Nothing was changed since: `changes` is 0.
    mark: AtomicU64,
    /// Not counted by `total_changes`.
    before: AtomicU64,
}

/// The counts of a call that waits for one inside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outer {
    at: u64,
    before: u64,
}

impl Counters {
    /// A call begins when the connection has counted `total` changes; what the call around it, if there
    /// is one, has counted so far.
    pub(crate) fn begin(&self, total: u64) -> Outer {
        self.mark.store(total, Ordering::Relaxed);
        Outer { at: total, before: self.before.swap(total, Ordering::Relaxed) }
    }

    /// The call inside `outer` has ended.
    pub(crate) fn resume(&self, outer: Outer, total: u64) {
        self.mark.store(total, Ordering::Relaxed);
        self.before.store(outer.before + (total - outer.at), Ordering::Relaxed);
    }
}

impl RowCounts for Counters {
    /// `last`, if this call ran a statement that changed something.
    fn changes(&self, total: u64, last: u64) -> u64 {
        if total == self.mark.load(Ordering::Relaxed) { 0 } else { last }
    }

    fn total(&self, total: u64) -> u64 {
        total.saturating_sub(self.before.load(Ordering::Relaxed))
    }
}
