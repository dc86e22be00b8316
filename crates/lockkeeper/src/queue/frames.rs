//! The calls that this thread runs, innermost last.
//!
//! - FRAME1: the stack is thread-local, so it needs no lock. `waits.rs` holds the data about other threads (WAIT1,
//!   WAIT2), and only calls made inside calls use it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::call::{Interrupt, Interruptible};

/// One queue, or several whose calls must not wait for each other (a database's writer and readers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Domain(u64);

impl Domain {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The domains that wait for a call: the domain of the call that submitted it, and the domains that wait for that call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ancestry(Option<Arc<[Domain]>>);

pub(super) struct Running {
    pub(super) domain: Domain,
    pub(super) ancestry: Ancestry,
    pub(super) stop: Option<Arc<dyn Interruptible>>,
    /// The workers that this thread belongs to. `Some` only in the first frame of a worker's thread (WORK3).
    pub(super) worker_of: Option<WorkerSet>,
    /// Identifies the frame. It is assigned when code in the frame waits for the first time; 0 before.
    pub(super) number: u64,
    /// Progress ticks that are left before the call is stopped; `None`: no limit.
    pub(super) ticks_left: Option<u32>,
    pub(super) out_of_ticks: bool,
}

thread_local! {
    pub(super) static FRAMES: RefCell<Vec<Running>> = const { RefCell::new(Vec::new()) };
}

/// The workers of one queue: a number that identifies the queue, and how many threads may serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerSet {
    pub(crate) queue: u64,
    pub(crate) workers_max: usize,
}

impl WorkerSet {
    /// For a queue that has no pool yet: waits can never occupy all of its workers.
    pub(crate) const UNKNOWN: Self = Self { queue: 0, workers_max: usize::MAX };

    /// The workers of a new queue, at most `workers_max` threads.
    pub(crate) fn new(workers_max: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { queue: NEXT.fetch_add(1, Ordering::Relaxed), workers_max }
    }
}

impl Running {
    pub(super) fn new(
        domain: Domain,
        ancestry: Ancestry,
        stop: Option<Arc<dyn Interruptible>>,
    ) -> Self {
        let (worker_of, number, ticks_left, out_of_ticks) = (None, 0, None, false);
        Self { domain, ancestry, stop, worker_of, number, ticks_left, out_of_ticks }
    }
}

/// A thread that waits inside a call, and the workers and domains that it occupies meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) thread: u64,
    /// The number of the innermost call's frame.
    pub(crate) frame: u64,
    /// The workers that the thread belongs to; `None`: the thread is no worker.
    pub(crate) worker_of: Option<WorkerSet>,
    /// The domains of the calls that the thread runs.
    pub(crate) domains: Vec<Domain>,
}

/// Describes this thread as a waiter; `None`: this thread runs no call.
pub(super) fn waiter_here() -> Option<Waiter> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    FRAMES.with_borrow_mut(|frames| {
        let last = frames.last_mut()?;
        let thread = this_thread();
        if last.number == 0 {
            last.number = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        let frame = last.number;
        let worker_of = frames.iter().find_map(|running| running.worker_of);
        let domains = frames.iter().map(|running| running.domain).collect();
        Some(Waiter { thread, frame, worker_of, domains })
    })
}

/// The number of the innermost call's frame, 0 if no code in it has waited; `None`: this thread runs no call.
pub(super) fn frame_here() -> Option<u64> {
    FRAMES.with_borrow(|frames| frames.last().map(|running| running.number))
}

/// A number that identifies this thread.
pub(crate) fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

impl Ancestry {
    /// The ancestry of a call that is submitted from this thread now.
    pub(crate) fn of_this_thread() -> Self {
        FRAMES.with_borrow(|frames| {
            if frames.is_empty() {
                return Self(None);
            }
            let mut domains: Vec<Domain> = Vec::new();
            for frame in frames {
                domains.push(frame.domain);
                domains.extend(frame.ancestry.0.iter().flat_map(|above| above.iter()));
            }
            Self(Some(domains.into()))
        })
    }

    /// Whether the call was submitted outside of any other call.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether `domain` waits for the call, so that the call must not wait for `domain`.
    pub(crate) fn contains(&self, domain: Domain) -> bool {
        self.0.as_ref().is_some_and(|domains| domains.contains(&domain))
    }
}

/// Why the innermost running call should stop; `None`: it need not.
pub(crate) fn interrupt() -> Option<Interrupt> {
    FRAMES.with_borrow(|frames| {
        frames.last().and_then(|frame| frame.stop.as_ref()).and_then(|stop| stop.token().raised())
    })
}

/// Counts one progress tick of the innermost call. `true`: the call should stop.
pub(crate) fn tick() -> bool {
    FRAMES.with_borrow_mut(|frames| {
        let Some(frame) = frames.last_mut() else { return false };
        if let Some(left) = &mut frame.ticks_left {
            *left = left.saturating_sub(1);
            frame.out_of_ticks |= *left == 0;
        }
        frame.out_of_ticks
            || frame.stop.as_ref().is_some_and(|stop| stop.token().raised().is_some())
    })
}
