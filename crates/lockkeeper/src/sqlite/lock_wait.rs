//! Waiting for a lock that another connection has: sleeps between attempts, and when to give up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::queue;
use crate::stats::holders::Slot;
use crate::sync::{Mutex, lock, now};

/// The longest sleep between two attempts to get a lock.
const NAP_MAX: Duration = Duration::from_millis(4);

/// How long a connection waits for locks, and the wait that is under way.
#[derive(Debug)]
pub(crate) struct LockWait {
    /// How long a wait may take, unless `end` is set.
    busy_timeout: Duration,
    end: Mutex<Option<Instant>>,
    /// The end of the wait that is under way.
    give_up_at: Mutex<Option<Instant>>,
    /// The state of the random numbers for the jitter.
    seed: AtomicU32,
    /// Shows to statistics and error messages that this connection waits.
    slot: Arc<Slot>,
    /// How many waits there were.
    waits: AtomicU64,
}

impl LockWait {
    pub(crate) fn new(busy_timeout: Duration, slot: Arc<Slot>) -> Self {
        Self {
            busy_timeout,
            end: Mutex::new(None),
            give_up_at: Mutex::new(None),
            seed: AtomicU32::new(std::process::id() | 1),
            slot,
            waits: AtomicU64::new(0),
        }
    }

    /// Sets when the next waits end; `None`: each ends after the busy timeout.
    pub(crate) fn set_end(&self, end: Option<Instant>) {
        *lock(&self.end) = end;
        if end.is_none() {
            self.slot.end_wait_for_lock();
        }
    }

    /// How many times this connection had to wait for a lock.
    pub(crate) fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
        let now = now();
        self.slot.wait_for_lock(now);
        let end = lock(&self.end).or_else(|| now.checked_add(self.busy_timeout));
        *lock(&self.give_up_at) = end;
    }

    /// Sleeps before the next attempt. False: give up.
    pub(super) fn nap(&self, attempt: i32) -> bool {
        let (now, give_up_at) = (now(), *lock(&self.give_up_at));
        if queue::interrupt().is_some() || give_up_at.is_some_and(|at| now >= at) {
            return false;
        }
        let mut seed = self.seed.load(Ordering::Relaxed);
        let nap = nap(attempt, &mut seed);
        self.seed.store(seed, Ordering::Relaxed);
        std::thread::sleep(give_up_at.map_or(nap, |at| nap.min(at - now)));
        true
    }
}

/// How long to sleep after the failed attempt number `attempt`, counted from 0. The back-off begins at 0.1 ms and
/// doubles up to [`NAP_MAX`]; jitter takes up to half of it off, so that two processes that wait for each other's locks
/// get out of step.
pub(super) fn nap(attempt: i32, seed: &mut u32) -> Duration {
    // xorshift32 (Marsaglia 2003); the quality of the random numbers does not matter.
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    let growing = Duration::from_micros(100) * 2_u32.saturating_pow(attempt.clamp(0, 6) as u32);
    let full = growing.min(NAP_MAX);
    full / 2 + full * (*seed % 1024) / 2048
}
