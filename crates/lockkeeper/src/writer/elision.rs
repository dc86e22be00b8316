//! Which calls may run without a savepoint: savepoint elision.
//!
//! A savepoint around a single INSERT costs about a seventh of it, because SQLite copies every page
//! that the call changes. Yet a call that executes one statement rarely needs it: if the statement
//! fails, SQLite undoes it by itself, and if it succeeds, the call usually returns `Ok`. Only a call
//! that fails *after* a statement succeeded has something to undo.
//!
//! So the writer remembers, for each closure type, whether its last runs were of that kind, and
//! runs it without a savepoint then. Should such a call fail after having written, the whole
//! transaction is rolled back and the calls before it are run again, exactly as after an interrupt
//! (WRITE3 in `mod.rs`); the closure is not trusted again for [`RUNS_AFTER_FAILURE`] runs. Neighbours
//! see nothing of this but a second run, which `write` allows; calls that may run once are never
//! put at risk.
//!
//! Bound: at most [`CLOSURES_MAX`] closure types are remembered.

use std::any::TypeId;
use std::collections::BTreeMap;

/// Runs of one kind after which a closure is trusted.
const RUNS_BEFORE_TRUST: i32 = 8;

/// Runs for which a closure is not trusted after it had to be undone.
const RUNS_AFTER_FAILURE: i32 = 1000;

/// Closure types remembered; a program has about as many as places that write.
const CLOSURES_MAX: usize = 1024;

/// Which closures may run without a savepoint.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Runs that are missing before the closure is trusted; 0: trusted.
    missing: BTreeMap<TypeId, i32>,
}

impl Trust {
    pub(super) fn allows(&self, closure: TypeId) -> bool {
        self.missing.get(&closure) == Some(&0)
    }

    /// Takes note of a run that left the traces of so many write statements.
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

    /// A run without a savepoint had to be undone.
    pub(super) fn revoke(&mut self, closure: TypeId) {
        self.missing.insert(closure, RUNS_AFTER_FAILURE);
    }
}
