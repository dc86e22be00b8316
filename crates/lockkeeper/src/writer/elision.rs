//! Savepoint elision: which calls may run without a savepoint.
//!
//! A savepoint around a single INSERT costs about a seventh of its time, because SQLite copies every page that the call
//! changes. Yet a call with one statement rarely needs a savepoint: if the statement fails, SQLite undoes it by itself,
//! and if it succeeds, the call usually returns `Ok`. A savepoint is needed only for a call that fails *after* a
//! statement has succeeded.
//!
//! So the writer counts, for each closure type, how many of its last runs would have needed no savepoint. After enough
//! such runs, the writer runs the closure without a savepoint. If such a call then fails after it has written, the
//! writer rolls back the whole transaction and runs the calls before it again, as after an interrupt (WRITE3 in
//! `mod.rs`). It does not trust the closure again for [`RUNS_AFTER_FAILURE`] runs. The other calls only run a second
//! time, which `write` allows. While the batch holds a call that may run only once, every call has its savepoint.
//!
//! Bound: at most [`CLOSURES_MAX`] closure types are remembered.

use std::any::TypeId;
use std::collections::BTreeMap;

/// A closure is trusted after this many runs that would have needed no savepoint.
const RUNS_BEFORE_TRUST: i32 = 8;

/// After a run that needed a savepoint, a closure is not trusted for this many runs.
const RUNS_AFTER_FAILURE: i32 = 1000;

/// The most closure types that are remembered. A program has about one for each place that writes.
const CLOSURES_MAX: usize = 1024;

/// Which closures may run without a savepoint.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Runs until the closure is trusted; 0: it is trusted.
    missing: BTreeMap<TypeId, i32>,
}

impl Trust {
    pub(super) fn allows(&self, closure: TypeId) -> bool {
        self.missing.get(&closure) == Some(&0)
    }

    /// Records a run with `writes` write statements; `good`: the closure returned `Ok`.
    pub(super) fn record(&mut self, closure: TypeId, writes: u32, good: bool) {
        if self.missing.len() >= CLOSURES_MAX && !self.missing.contains_key(&closure) {
            self.missing.clear();
        }
        let missing = self.missing.entry(closure).or_insert(RUNS_BEFORE_TRUST);
        let would_need_savepoint = writes > 1 || (writes == 1 && !good);
        *missing = match would_need_savepoint {
            true => (*missing).max(RUNS_AFTER_FAILURE),
            false => (*missing - 1).max(0),
        };
    }

    /// Records that a run without a savepoint had to be undone.
    pub(super) fn revoke(&mut self, closure: TypeId) {
        self.missing.insert(closure, RUNS_AFTER_FAILURE);
    }
}
