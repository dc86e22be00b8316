//! Wake-ups of answered reads, in batches.
//!
//! Waking a task from outside its runtime wakes a sleeping thread of that runtime. On a busy machine that thread
//! immediately preempts the reader, finds one task, and sleeps again, so each answer costs two context switches. A
//! thread inside the runtime wakes the runtime's tasks for a fraction of that. So a reader puts the wakers of the
//! callers that it has answered into this batch, and wakes only one of them now and then. The woken caller is polled,
//! finds its answer, and wakes the other callers from inside the runtime.
//!
//! | waker | what may be trusted | left by |
//! |---|---|---|
//! | in the batch | its caller's answer is in its slot | [`Wakeups::wake_one`], [`Wakeups::wake_all`], overflow |
//! | taken out | the thread that took it calls it once, outside the lock | the call |
//!
//! - WAKE1: a reader wakes one caller before it sleeps, yields, or serves anything but a plain read. Between plain
//!   reads it wakes one caller when [`SHARE`] of the callers are in the batch, within the limits of [`GROUP`], or when
//!   the oldest waker has been there for [`WAIT_MAX`]. It wakes a second caller only after another [`WAIT_MAX`],
//!   because the first one is about to wake all. The batch holds at most [`BATCH_MAX`] wakers.
//! - WAKE2: no caller's wake-up depends on one other caller or on one closure alone. When a closure runs long in
//!   SQLite, its progress handler wakes all callers, once. When a closure runs long outside SQLite, or a woken caller
//!   is not polled, the clock wakes all callers: while wakers are in the batch, the clock checks every
//!   [`WATCH_INTERVAL`] for wakers that have been there for that long. So an answered caller is woken within twice that
//!   time. When a reader's thread ends, it wakes all callers.
//! - WAKE3: wakers are code of the callers and run outside the lock.
//!
//! Lock order: no other lock is taken while this one is held.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::shielded;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, lock, now};

/// A reader wakes one caller when this share of all callers is in the batch. A smaller share costs more context
/// switches; a larger share leaves the readers idle until the callers submit their next reads.
const SHARE: (usize, usize) = (5, 8);

/// The lower and the upper limit for the number of callers that [`SHARE`] amounts to.
const GROUP: (usize, usize) = (4, 42);

/// How long a waker stays in the batch while its reader goes on serving reads.
const WAIT_MAX: Duration = Duration::from_micros(100);

/// The most wakers in the batch. When one more is pushed, the reader wakes all callers.
const BATCH_MAX: usize = 64;

/// How often the clock checks for wakers that no caller has called.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_millis(2);

/// The wakers of callers that were answered.
#[derive(Default)]
pub(crate) struct Wakeups {
    batch: Mutex<Batch>,
    /// Whether the batch may hold wakers: written under the lock, read without it. A hint for callers; a reader always
    /// sees the wakers that it has pushed itself.
    any: Apart<AtomicBool>,
}

/// Keeps the flag, which every caller reads, on a pair of cache lines of its own, apart from the batch, which each answer
/// changes.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

#[derive(Default)]
struct Batch {
    wakers: VecDeque<Waker>,
    /// When the oldest waker was pushed.
    since: Option<Instant>,
    /// When the last caller was woken to wake the others.
    woken: Option<Instant>,
    /// An estimate of the number of callers: the most that were in the batch and in the queue together. It decays.
    callers: usize,
    /// The most callers in the batch and in the queue together since the last caller was woken.
    seen: usize,
}

impl std::fmt::Debug for Wakeups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wakeups").field("any", &self.any.0).finish_non_exhaustive()
    }
}

impl Wakeups {
    /// Whether wakers are in the batch. Wakers that this thread has pushed are always seen.
    pub(crate) fn has_any(&self) -> bool {
        self.any.0.load(Ordering::Relaxed)
    }

    /// Adds a waker. `behind`: how many reads wait in the queue.
    pub(crate) fn push(&self, waker: Waker, at: Instant, behind: usize) {
        let mut batch = lock(&self.batch);
        batch.wakers.push_back(waker);
        let count = batch.wakers.len();
        batch.seen = batch.seen.max(count + behind);
        if count == 1 {
            batch.since = Some(at);
            batch.woken = None;
            self.any.0.store(true, Ordering::Relaxed);
        } else if count > BATCH_MAX {
            drop(batch);
            self.call_all();
        } else if (count >= batch.group() && batch.woken.is_none()) || batch.is_due(at) {
            self.wake_one_now(batch, at);
        }
    }

    /// Wakes one caller, which wakes the others, unless one has just been woken (WAKE1).
    pub(crate) fn wake_one(&self) {
        if self.has_any() {
            self.wake_one_at(now());
        }
    }

    fn wake_one_at(&self, at: Instant) {
        let batch = lock(&self.batch);
        if batch.woken.is_none_or(|woken| at.saturating_duration_since(woken) >= WAIT_MAX) {
            self.wake_one_now(batch, at);
        }
    }

    fn wake_one_now(&self, mut batch: MutexGuard<'_, Batch>, at: Instant) {
        batch.woken = Some(at);
        batch.callers = batch.seen.max(batch.callers - batch.callers / 8);
        batch.seen = 0;
        let waker = batch.wakers.pop_front();
        if batch.wakers.is_empty() {
            self.any.0.store(false, Ordering::Relaxed);
        }
        drop(batch);
        // WAKE3
        if let Some(waker) = waker {
            shielded(|| waker.wake());
        }
    }

    /// Wakes all callers in the batch.
    pub(crate) fn wake_all(&self) {
        if self.has_any() {
            self.call_all();
        }
    }

    fn call_all(&self) {
        let mut batch = lock(&self.batch);
        let wakers = std::mem::take(&mut batch.wakers);
        self.any.0.store(false, Ordering::Relaxed);
        drop(batch);
        // WAKE3
        for waker in wakers {
            shielded(|| waker.wake());
        }
    }

    /// Wakes all callers if the oldest waker has been in the batch since `before`. `true`: wakers stay in the batch.
    pub(crate) fn wake_older(&self, before: Instant) -> bool {
        let batch = lock(&self.batch);
        match batch.since {
            _ if batch.wakers.is_empty() => false,
            Some(since) if since > before => true,
            _ => {
                drop(batch);
                self.call_all();
                false
            }
        }
    }
}

impl Batch {
    /// How many wakers in the batch make a reader wake one caller.
    fn group(&self) -> usize {
        (self.callers.max(self.seen) * SHARE.0 / SHARE.1).clamp(GROUP.0, GROUP.1)
    }

    fn is_due(&self, at: Instant) -> bool {
        let last = self.woken.max(self.since);
        last.is_some_and(|last| at.saturating_duration_since(last) >= WAIT_MAX)
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

    /// Pushes `n` wakers at `at`. The result counts how many of them were called.
    fn push(wakeups: &Wakeups, n: usize, at: Instant) -> Arc<Count> {
        push_of(wakeups, n, at, 64)
    }

    /// As `push`, for `n` of `callers` callers. The reads of the other callers wait in the queue.
    fn push_of(wakeups: &Wakeups, n: usize, at: Instant, callers: usize) -> Arc<Count> {
        let count = Arc::new(Count::default());
        for _ in 0..n {
            let here = lock(&wakeups.batch).wakers.len() + 1;
            wakeups.push(Arc::clone(&count).into(), at, callers.saturating_sub(here));
        }
        count
    }

    fn called(count: &Count) -> usize {
        count.0.load(Ordering::Relaxed)
    }

    #[test]
    fn one_caller_is_woken_and_wakes_the_rest() {
        let (wakeups, at) = (Wakeups::default(), now());
        let count = push(&wakeups, 5, at);
        assert_eq!((called(&count), wakeups.has_any()), (0, true));
        wakeups.wake_one_at(at);
        assert_eq!(called(&count), 1);
        // The woken caller is about to wake the others.
        wakeups.wake_one_at(at + WAIT_MAX / 2);
        assert_eq!(called(&count), 1);
        wakeups.wake_one_at(at + WAIT_MAX);
        assert_eq!(called(&count), 2);
        wakeups.wake_all();
        assert_eq!((called(&count), wakeups.has_any()), (5, false));
        wakeups.wake_one();
        wakeups.wake_all();
        assert_eq!(called(&count), 5);
    }

    #[test]
    fn wake1_enough_callers_wake_one_and_too_many_are_all_woken() {
        let (wakeups, at) = (Wakeups::default(), now());
        let count = push(&wakeups, 39, at);
        assert_eq!(called(&count), 0);
        let last = push(&wakeups, 1, at);
        assert_eq!((called(&count), called(&last)), (1, 0));
        let rest = push(&wakeups, BATCH_MAX + 1 - 39, at);
        assert_eq!(called(&count) + called(&last) + called(&rest), BATCH_MAX + 2);
        assert!(!wakeups.has_any());
    }

    #[test]
    fn wake1_a_group_is_a_part_of_the_callers_also_when_they_become_more_or_fewer() {
        let (wakeups, at) = (Wakeups::default(), now());
        for (callers, together) in [(3, 4), (16, 10), (64, 40), (5_000, 42)] {
            let count = push_of(&wakeups, together - 1, at, callers);
            assert_eq!(called(&count), 0, "{callers} callers");
            push_of(&wakeups, 1, at, callers);
            assert_eq!(called(&count), 1, "{callers} callers");
            wakeups.wake_all();
        }
        // From now on there are 16 callers instead of 5,000.
        let mut wakes = 0;
        while lock(&wakeups.batch).group() > 10 {
            push_of(&wakeups, 10, at, 16);
            wakeups.wake_one();
            wakeups.wake_all();
            wakes += 1;
        }
        assert!(wakes < 60, "{wakes}");
    }

    #[test]
    fn wake1_a_caller_that_waited_wakes_one_and_again_only_after_as_long() {
        let (wakeups, at) = (Wakeups::default(), now());
        let count = push(&wakeups, 2, at);
        let late = push(&wakeups, 1, at + WAIT_MAX);
        assert_eq!((called(&count), called(&late)), (1, 0));
        push(&wakeups, 1, at + WAIT_MAX + WAIT_MAX / 2);
        assert_eq!((called(&count), called(&late)), (1, 0));
        push(&wakeups, 1, at + 2 * WAIT_MAX);
        assert_eq!((called(&count), called(&late)), (2, 0));
    }

    #[test]
    fn wake2_the_clock_wakes_those_that_no_caller_has() {
        let (wakeups, at) = (Wakeups::default(), now());
        assert!(!wakeups.wake_older(at + WATCH_INTERVAL), "the batch is empty");
        let count = push(&wakeups, 3, at + WATCH_INTERVAL);
        assert!(wakeups.wake_older(at), "they are younger");
        assert_eq!(called(&count), 0);
        assert!(!wakeups.wake_older(at + WATCH_INTERVAL));
        assert_eq!((called(&count), wakeups.has_any()), (3, false));
    }
}
