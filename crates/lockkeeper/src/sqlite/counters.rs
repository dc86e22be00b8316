//! The row counts of one call. SQLite counts `last_insert_rowid`, `changes` and `total_changes` for the connection, so a
//! call would see the counts of earlier calls.
//!
//! The row id is set to 0 when a call begins. The two numbers of changes cannot be set, so their values at the beginning
//! of the call are kept here, and the SQL functions `changes` and `total_changes` are replaced by functions that subtract
//! them (`ffi/counts.rs`).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ffi::RowCounts;

/// The connection's `total_changes` at certain moments. Only the connection's thread uses them, so all accesses are
/// relaxed; the atomics are here because the SQL functions must be `Send`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// The value when a call last began or resumed. While the connection's value is still the same, `changes` is 0.
    mark: AtomicU64,
    /// The part of the connection's value that the running call did not cause.
    before: AtomicU64,
}

/// The counts of a call while another call is nested in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outer {
    at: u64,
    before: u64,
}

impl Counters {
    /// Begins a call on a connection whose `total_changes` is `total`. Returns the counts of the outer call, if there
    /// is one.
    pub(crate) fn begin(&self, total: u64) -> Outer {
        self.mark.store(total, Ordering::Relaxed);
        Outer { at: total, before: self.before.swap(total, Ordering::Relaxed) }
    }

    /// Resumes `outer` after the nested call.
    pub(crate) fn resume(&self, outer: Outer, total: u64) {
        self.mark.store(total, Ordering::Relaxed);
        self.before.store(outer.before + (total - outer.at), Ordering::Relaxed);
    }
}

impl RowCounts for Counters {
    /// `last`, if this call has changed something since it began or resumed; otherwise 0.
    fn changes(&self, total: u64, last: u64) -> u64 {
        if total == self.mark.load(Ordering::Relaxed) { 0 } else { last }
    }

    fn total(&self, total: u64) -> u64 {
        total.saturating_sub(self.before.load(Ordering::Relaxed))
    }
}
