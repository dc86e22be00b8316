//! How a worker that has served a batch looks for the next call before it sleeps.
//!
//! Going to sleep and being woken costs some 30 microseconds each, a third of a durable write and several
//! point reads; a caller in a loop is back sooner than that. So a worker looks for a while, and yields
//! the processor to whoever needs it. All that is kept here are hints: a lost update costs a yield or a
//! moment, and that no wake-up is lost rests on the queue's lock alone (QUEUE4). Loom's workers do not look.

use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, AtomicU8, Ordering, now};

/// For how long a worker looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// As long as it takes its callers to come back.
    pub(crate) long: Duration,
    /// The same, after [`FRUITLESS`] looks in a row that brought nothing.
    pub(crate) short: Duration,
    /// A batch of one call that took as long has a lone caller, who waits for the disk each time: after
    /// [`LONE`] of them in a row the worker sleeps at once. `None`: it always looks.
    pub(crate) lone: Option<Duration>,
}

/// Looks in a row that brought nothing, after which a worker looks for a shorter time.
const FRUITLESS: u8 = 4;

/// Batches in a row that had a lone caller, after which a worker does not look.
const LONE: u8 = 4;

/// A yield that took longer gave the processor to somebody who keeps it.
const LONG_YIELD: Duration = Duration::from_micros(50);

/// Yields that are left out after one that took longer than [`LONG_YIELD`] and brought no call.
const CONTENDED: u8 = 32;

/// What the workers of one queue know of looking.
#[derive(Default)]
pub(crate) struct Lookout {
    /// Raised by a push, lowered by a worker that looks: what it watches instead of the lock.
    pushed: AtomicBool,
    /// How often the next yields are left out, because the last one gave the processor to somebody
    /// who kept it and submitted nothing.
    contended: AtomicU8,
    /// Looks in a row that brought no call in time.
    fruitless: AtomicU8,
    /// Batches in a row that had a lone caller.
    lone: AtomicU8,
}

impl Lookout {
    /// A call was pushed.
    pub(crate) fn announce(&self) {
        // A store takes the flag away from the processor that watches it. Whoever lowers it after this load looks
        // into the queue next, and finds the call there.
        if !self.pushed.load(Ordering::Relaxed) {
            self.pushed.store(true, Ordering::Release);
        }
    }

    /// Gives callers that were just answered the time to come back with their next call; returns when
    /// the look began.
    pub(crate) fn look(&self, look: Look) -> Instant {
        let since = now();
        let patience = self.patience(look);
        while !self.pushed.swap(false, Ordering::Acquire) && now() < since + patience {
            if !self.give_way() {
                break;
            }
        }
        since
    }

    fn patience(&self, look: Look) -> Duration {
        if self.lone.load(Ordering::Relaxed) >= LONE {
            return Duration::ZERO;
        }
        let fruitless = self.fruitless.load(Ordering::Relaxed);
        if fruitless < FRUITLESS { look.long } else { look.short }
    }

    /// A batch was served; `lone`: it had a lone caller.
    pub(crate) fn served(&self, lone: bool) {
        let before = self.lone.load(Ordering::Relaxed);
        let now = if lone { before.saturating_add(1) } else { 0 };
        if now != before {
            self.lone.store(now, Ordering::Relaxed);
        }
    }

    /// Takes note of whether the call came soon enough after `since` for a long look to be worth it.
    pub(crate) fn found(&self, since: Instant, look: Look) {
        let more = self.fruitless.load(Ordering::Relaxed).saturating_add(1);
        let fruitless = if now() - since < look.long { 0 } else { more };
        self.fruitless.store(fruitless, Ordering::Relaxed);
    }

    /// Lowers the flag after a look that found nothing; a push in between costs a moment.
    pub(crate) fn clear_pushed(&self) {
        self.pushed.store(false, Ordering::Relaxed);
    }

    /// Yields the processor once; false: not now, others want all of it.
    ///
    /// A thread that yields waits for the end of somebody's time slice, one that sleeps is run as soon
    /// as it is rung: beside busy readers a third of the writes was lost by yielding. Where those who
    /// got the processor come back with calls, it was well spent.
    pub(crate) fn give_way(&self) -> bool {
        let left_out = self.contended.load(Ordering::Relaxed);
        if left_out > 0 {
            self.contended.store(left_out - 1, Ordering::Relaxed);
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
    fn a_look_that_brings_nothing_becomes_short_until_a_call_comes_soon() {
        let lookout = Lookout::default();
        let nothing_is_soon = Look { long: Duration::ZERO, ..LOOK };
        for _ in 0..FRUITLESS {
            assert_eq!(lookout.patience(LOOK), LOOK.long);
            lookout.found(now(), nothing_is_soon);
        }
        assert_eq!(lookout.patience(LOOK), LOOK.short);
        lookout.found(now(), LOOK);
        assert_eq!(lookout.patience(LOOK), LOOK.long);
    }

    #[test]
    fn a_worker_does_not_look_for_a_lone_caller_until_another_one_joins() {
        let lookout = Lookout::default();
        for _ in 0..LONE {
            assert_eq!(lookout.patience(LOOK), LOOK.long);
            lookout.served(true);
        }
        assert_eq!(lookout.patience(LOOK), Duration::ZERO);
        lookout.served(false);
        assert_eq!(lookout.patience(LOOK), LOOK.long);
    }
}
