//! Callers of reads wake each other.
//!
//! To wake a task from outside its runtime rings a sleeping thread. On a busy machine that thread takes
//! the reader's processor at once, finds one task, and sleeps again, so that each answer costs two
//! switches. A runtime's own thread wakes its tasks for a fraction of that. So a reader leaves the wakers
//! of those whom it answered here and calls one of them now and then; whoever is polled and finds
//! its answer calls the rest, from inside the runtime.
//!
//! | waker | what may be trusted | left by |
//! |---|---|---|
//! | left here | its caller's answer is in its slot | [`Relay::pass_on`], [`Relay::ring`], [`Relay::call_all`] |
//! | taken out | it is called, once, outside the lock, by whoever took it | the call |
//!
//! - U1: a reader that sleeps, gives way, or turns to something that is no plain read rings before; one
//!   that goes on rings when [`TOGETHER`] of the callers are left here, as far as [`GROUP`] allows, or the
//!   oldest has waited for [`PATIENCE`]. Nobody rings again sooner than that: whoever was rung is on the way, and
//!   calls all. No more than [`LEFT_MAX`] are left here.
//! - U2: nobody depends on one caller or one closure. A closure that runs long is interrupted by the
//!   progress handler, which calls all, once. One that runs long outside SQLite, and a caller that was rung
//!   and is not polled, are overtaken by the clock: it looks every [`LOOK`] while wakers are left
//!   and calls all that have been here for as long. So an answered caller is woken within twice that.
//!   A reader whose thread ends calls all.
//! - U3: callers' code, the wakers, runs outside the lock.
//!
//! Lock order: no other lock is taken while this one is held.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::queue::shielded;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, lock, now};

/// A reader rings when five eighths of all callers are left here: those who are woken in small groups cost a switch each,
/// and those who come back late leave the readers idle.
const TOGETHER: (usize, usize) = (5, 8);

/// The least and the most that are woken together.
const GROUP: (usize, usize) = (4, 42);

/// How long wakers wait while their reader goes on answering.
const PATIENCE: Duration = Duration::from_micros(100);

/// How many may be left here; who leaves one more calls them all.
const LEFT_MAX: usize = 64;

/// How often the clock looks for wakers that nobody calls.
pub(crate) const LOOK: Duration = Duration::from_millis(2);

/// The wakers of callers that were answered.
#[derive(Default)]
pub(crate) struct Relay {
    left: Mutex<Left>,
    /// Whether there may be some: written under the lock, read without. A hint for those who pass on; a
    /// reader that left one sees its own.
    any: Apart<AtomicBool>,
}

/// Keeps what every caller looks at away from what each answer changes: they would share a line of the
/// processors' caches, or the pair of lines that is fetched at once.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

#[derive(Default)]
struct Left {
    wakers: VecDeque<Waker>,
    /// Since when the oldest has been here.
    since: Option<Instant>,
    /// When one was called for the rest.
    rung: Option<Instant>,
    /// How many callers there are: the most that were seen, here and in the queue, less what they have
    /// become fewer lately.
    callers: usize,
    /// The most that were seen since one was called.
    seen: usize,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("any", &self.any.0).finish_non_exhaustive()
    }
}

impl Relay {
    /// Whether wakers are left here; those of this thread are never missed.
    pub(crate) fn has_any(&self) -> bool {
        self.any.0.load(Ordering::Relaxed)
    }

    /// Leaves a waker here; `behind`: how many reads wait in the queue.
    pub(crate) fn leave(&self, waker: Waker, at: Instant, behind: usize) {
        let mut left = lock(&self.left);
        left.wakers.push_back(waker);
        let count = left.wakers.len();
        left.seen = left.seen.max(count + behind);
        if count == 1 {
            left.since = Some(at);
            left.rung = None;
            self.any.0.store(true, Ordering::Relaxed);
        } else if count > LEFT_MAX {
            drop(left);
            self.call_all();
        } else if (count >= left.group() && left.rung.is_none()) || left.is_due(at) {
            self.ring_now(left, at);
        }
    }

    /// Calls one, which passes the rest on, unless one has just been called (U1).
    pub(crate) fn ring(&self) {
        if !self.has_any() {
            return;
        }
        let (left, at) = (lock(&self.left), now());
        if left.rung.is_none_or(|rung| at.saturating_duration_since(rung) >= PATIENCE) {
            self.ring_now(left, at);
        }
    }

    fn ring_now(&self, mut left: MutexGuard<'_, Left>, at: Instant) {
        left.rung = Some(at);
        left.callers = left.seen.max(left.callers - left.callers / 8);
        left.seen = 0;
        let waker = left.wakers.pop_front();
        if left.wakers.is_empty() {
            self.any.0.store(false, Ordering::Relaxed);
        }
        drop(left);
        // U3
        if let Some(waker) = waker {
            shielded(|| waker.wake());
        }
    }

    /// Calls them all, on the thread of a caller that was answered.
    pub(crate) fn pass_on(&self) {
        if self.has_any() {
            self.call_all();
        }
    }

    fn call_all(&self) {
        let mut left = lock(&self.left);
        let wakers = std::mem::take(&mut left.wakers);
        self.any.0.store(false, Ordering::Relaxed);
        drop(left);
        // U3
        for waker in wakers {
            shielded(|| waker.wake());
        }
    }

    /// Calls them all if the oldest has been here since `before`; true: some are left.
    pub(crate) fn call_older(&self, before: Instant) -> bool {
        let left = lock(&self.left);
        match left.since {
            _ if left.wakers.is_empty() => false,
            Some(since) if since > before => true,
            _ => {
                drop(left);
                self.call_all();
                false
            }
        }
    }
}

impl Left {
    /// How many are woken together.
    fn group(&self) -> usize {
        (self.callers.max(self.seen) * TOGETHER.0 / TOGETHER.1).clamp(GROUP.0, GROUP.1)
    }

    fn is_due(&self, at: Instant) -> bool {
        let last = self.rung.max(self.since);
        last.is_some_and(|last| at.saturating_duration_since(last) >= PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Leaves `n` wakers at `at`, and counts how many were called.
    fn leave(relay: &Relay, n: usize, at: Instant) -> Arc<Count> {
        leave_of(relay, n, at, 64)
    }

    /// The same of `callers` callers; the others' reads wait in the queue.
    fn leave_of(relay: &Relay, n: usize, at: Instant, callers: usize) -> Arc<Count> {
        let count = Arc::new(Count::default());
        for _ in 0..n {
            let here = lock(&relay.left).wakers.len() + 1;
            relay.leave(Arc::clone(&count).into(), at, callers.saturating_sub(here));
        }
        count
    }

    fn called(count: &Count) -> usize {
        count.0.load(Ordering::Relaxed)
    }

    #[test]
    fn one_caller_is_called_and_passes_the_rest_on() {
        let (relay, at) = (Relay::default(), now());
        let count = leave(&relay, 5, at);
        assert_eq!((called(&count), relay.has_any()), (0, true));
        relay.ring();
        assert_eq!(called(&count), 1);
        // That one is on the way.
        relay.ring();
        assert_eq!(called(&count), 1);
        relay.pass_on();
        assert_eq!((called(&count), relay.has_any()), (5, false));
        relay.ring();
        relay.pass_on();
        assert_eq!(called(&count), 5);
    }

    #[test]
    fn u1_enough_callers_ring_and_too_many_are_all_called() {
        let (relay, at) = (Relay::default(), now());
        let count = leave(&relay, 39, at);
        assert_eq!(called(&count), 0);
        let last = leave(&relay, 1, at);
        assert_eq!((called(&count), called(&last)), (1, 0));
        let rest = leave(&relay, LEFT_MAX + 1 - 39, at);
        assert_eq!(called(&count) + called(&last) + called(&rest), LEFT_MAX + 2);
        assert!(!relay.has_any());
    }

    #[test]
    fn u1_a_group_is_a_part_of_the_callers_also_when_they_become_more_or_fewer() {
        let (relay, at) = (Relay::default(), now());
        for (callers, together) in [(3, 4), (16, 10), (64, 40), (5_000, 42)] {
            let count = leave_of(&relay, together - 1, at, callers);
            assert_eq!(called(&count), 0, "{callers} callers");
            leave_of(&relay, 1, at, callers);
            assert_eq!(called(&count), 1, "{callers} callers");
            relay.pass_on();
        }
        // Sixteen are left of five thousand.
        let mut rings = 0;
        while lock(&relay.left).group() > 10 {
            leave_of(&relay, 10, at, 16);
            relay.ring();
            relay.pass_on();
            rings += 1;
        }
        assert!(rings < 60, "{rings}");
    }

    #[test]
    fn u1_a_caller_that_waited_rings_and_does_so_again_only_after_as_long() {
        let (relay, at) = (Relay::default(), now());
        let count = leave(&relay, 2, at);
        let late = leave(&relay, 1, at + PATIENCE);
        assert_eq!((called(&count), called(&late)), (1, 0));
        leave(&relay, 1, at + PATIENCE + PATIENCE / 2);
        assert_eq!((called(&count), called(&late)), (1, 0));
        leave(&relay, 1, at + 2 * PATIENCE);
        assert_eq!((called(&count), called(&late)), (2, 0));
    }

    #[test]
    fn u2_the_look_of_the_clock_calls_those_that_nobody_else_has() {
        let (relay, at) = (Relay::default(), now());
        assert!(!relay.call_older(at + LOOK), "nobody is left here");
        let count = leave(&relay, 3, at + LOOK);
        assert!(relay.call_older(at), "they are younger");
        assert_eq!(called(&count), 0);
        assert!(!relay.call_older(at + LOOK));
        assert_eq!((called(&count), relay.has_any()), (3, false));
    }
}
