//! How a worker that has served a batch looks for the next call before it sleeps.
//!
//! Going to sleep and waking up each cost some 30 microseconds, a third of a durable write or several point reads. A
//! caller in a loop submits its next call sooner than that. So a worker first yields the processor repeatedly and
//! checks for a new call after each yield. The fields here are hints: a lost update costs a yield or some microseconds,
//! and only the queue's lock makes sure that no wake-up is lost (QUEUE4). In loom's models, workers sleep without
//! looking.

use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, AtomicU8, Ordering, now};

/// How long a worker looks for the next call before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// About as long as callers take to submit their next call.
    pub(crate) long: Duration,
    /// Used instead of `long` after [`FRUITLESS`] looks in a row that found no call.
    pub(crate) short: Duration,
    /// A batch of one call that takes at least this long is assumed to come from a lone caller, whose calls each wait
    /// for the disk. After [`LONE`] such batches in a row the worker sleeps without looking. `None`: the worker always
    /// looks.
    pub(crate) lone: Option<Duration>,
}

/// After this many looks in a row that found no call, a worker looks for [`Look::short`].
const FRUITLESS: u8 = 4;

/// After this many batches in a row with a lone caller, a worker sleeps without looking.
const LONE: u8 = 4;

/// A yield that takes longer than this has given the processor to a thread that keeps it.
const LONG_YIELD: Duration = Duration::from_micros(50);

/// How many yields are skipped after a yield that took longer than [`LONG_YIELD`] and found no call.
const CONTENDED: u8 = 32;

/// What the workers of one queue remember of their looks.
#[derive(Default)]
pub(crate) struct Lookout {
    /// Set by a push, cleared by a worker that looks. The worker reads it instead of taking the lock.
    pushed: AtomicBool,
    /// How many of the next yields to skip, because the last one gave the processor to a thread that kept it and
    /// submitted no call.
    contended: AtomicU8,
    /// Looks in a row that found no call in time.
    fruitless: AtomicU8,
    /// Batches in a row with a lone caller.
    lone: AtomicU8,
}

impl Lookout {
    /// Notes that a call was pushed.
    pub(crate) fn announce(&self) {
        // Loaded first, because a store takes the cache line from the processor that reads it. A worker that clears the
        // flag after this load checks the queue next and finds the call there.
        if !self.pushed.load(Ordering::Relaxed) {
            self.pushed.store(true, Ordering::Release);
        }
    }

    /// Looks for the next calls of callers that were just answered, for a limited time. Returns the time when the look
    /// began.
    pub(crate) fn look(&self, look: Look) -> Instant {
        let since = now();
        let duration = self.duration(look);
        while !self.pushed.swap(false, Ordering::Acquire) && now() < since + duration {
            if !self.give_way() {
                break;
            }
        }
        since
    }

    fn duration(&self, look: Look) -> Duration {
        if self.lone.load(Ordering::Relaxed) >= LONE {
            return Duration::ZERO;
        }
        let fruitless = self.fruitless.load(Ordering::Relaxed);
        if fruitless < FRUITLESS { look.long } else { look.short }
    }

    /// Notes that a batch was served. `lone`: the batch had a lone caller.
    pub(crate) fn served(&self, lone: bool) {
        let before = self.lone.load(Ordering::Relaxed);
        let now = if lone { before.saturating_add(1) } else { 0 };
        if now != before {
            self.lone.store(now, Ordering::Relaxed);
        }
    }

    /// Notes that a call was found after the look that began at `since`. If it came later than `look.long`, the look
    /// counts as one that found no call.
    pub(crate) fn found(&self, since: Instant, look: Look) {
        let more = self.fruitless.load(Ordering::Relaxed).saturating_add(1);
        let fruitless = if now() - since < look.long { 0 } else { more };
        self.fruitless.store(fruitless, Ordering::Relaxed);
    }

    /// Clears the flag after the queue was found empty. A call that was pushed between these two steps is not lost: the
    /// worker looks into the queue again after the yield or, if the yield is skipped, after the batch.
    pub(crate) fn clear_pushed(&self) {
        self.pushed.store(false, Ordering::Relaxed);
    }

    /// Yields the processor once. `false`: it did not yield, because a recent yield gave the processor to a thread that
    /// kept it.
    ///
    /// A thread that yields may have to wait until another thread's time slice ends, whereas a sleeping thread runs as
    /// soon as it is woken. Beside busy readers, yielding cost the writer a third of its writes. So after a long yield
    /// that found no call, the next yields are skipped.
    pub(crate) fn give_way(&self) -> bool {
        let skipped = self.contended.load(Ordering::Relaxed);
        if skipped > 0 {
            self.contended.store(skipped - 1, Ordering::Relaxed);
            return false;
        }
        let began = now();
        std::thread::yield_now();
        if now() - began > LONG_YIELD && !self.pushed.load(Ordering::Acquire) {
            self.contended.store(CONTENDED, Ordering::Relaxed);
        }
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const LOOK: Look = Look {
        long: Duration::from_secs(3600),
        short: Duration::from_micros(5),
        lone: Some(Duration::from_micros(50)),
    };

    #[test]
    fn a_look_that_finds_nothing_becomes_short_until_a_call_comes_soon() {
        let lookout = Lookout::default();
        let nothing_is_soon = Look { long: Duration::ZERO, ..LOOK };
        for _ in 0..FRUITLESS {
            assert_eq!(lookout.duration(LOOK), LOOK.long);
            lookout.found(now(), nothing_is_soon);
        }
        assert_eq!(lookout.duration(LOOK), LOOK.short);
        lookout.found(now(), LOOK);
        assert_eq!(lookout.duration(LOOK), LOOK.long);
    }

    #[test]
    fn a_worker_does_not_look_for_a_lone_caller_until_another_one_joins() {
        let lookout = Lookout::default();
        for _ in 0..LONE {
            assert_eq!(lookout.duration(LOOK), LOOK.long);
            lookout.served(true);
        }
        assert_eq!(lookout.duration(LOOK), Duration::ZERO);
        lookout.served(false);
        assert_eq!(lookout.duration(LOOK), LOOK.long);
    }
}
