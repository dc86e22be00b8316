//! A flag that a connection's callbacks share with its owner.

use std::sync::atomic::{AtomicBool, Ordering};

/// A flag for one thread. It is atomic because callbacks must be `Send`, so every access is relaxed.
#[derive(Debug, Default)]
pub(super) struct Flag(AtomicBool);

impl Flag {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }

    /// Resets the flag and returns whether it was set. If it was not, which is the usual case, the flag is only read.
    pub(super) fn take(&self) -> bool {
        self.get() && self.0.swap(false, Ordering::Relaxed)
    }
}
