//! The calls that this thread runs, innermost last, and what can be told from them.
//!
//! - FRAME1: frames are a thread's own; nothing here is shared, so nothing here is locked. What must be known of
//!   other threads is in `waits.rs` (WAIT1, WAIT2), to which only calls that are made inside calls come.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::call::{Interrupt, Interruptible};

/// One queue, or several that must not wait for each other (a database's writer and readers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Domain(u64);

impl Domain {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The domains that wait for a call: the one that submitted it, and whoever waits for that one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ancestry(Option<Arc<[Domain]>>);

pub(super) struct Running {
    pub(super) domain: Domain,
    pub(super) ancestry: Ancestry,
    pub(super) stop: Option<Arc<dyn Interruptible>>,
    /// Of a worker's thread, from its beginning to its end: which queue it serves.
    pub(super) seat: Option<Seats>,
    /// 0: nothing has been waited for in it.
    pub(super) number: u64,
    /// Progress ticks that are left before the call is stopped; `None`: no limit.
    pub(super) ticks_left: Option<u32>,
    pub(super) out_of_ticks: bool,
}

thread_local! {
    pub(super) static FRAMES: RefCell<Vec<Running>> = const { RefCell::new(Vec::new()) };
}

/// A queue, and how many threads serve it at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seats {
    pub(crate) queue: u64,
    pub(crate) workers_max: usize,
}

impl Seats {
    /// Of a queue without threads yet: nobody keeps them all.
    pub(crate) const UNKNOWN: Self = Self { queue: 0, workers_max: usize::MAX };

    /// Of a queue of its own.
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
        let (seat, number, ticks_left, out_of_ticks) = (None, 0, None, false);
        Self { domain, ancestry, stop, seat, number, ticks_left, out_of_ticks }
    }
}

/// What a thread keeps while it waits inside a call.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) thread: u64,
    /// The innermost call.
    pub(crate) frame: u64,
    /// Its place among the workers of a queue.
    pub(crate) seat: Option<Seats>,
    /// Whose calls it runs.
    pub(crate) domains: Vec<Domain>,
}

/// What this thread keeps; `None`: it runs no call.
pub(super) fn kept_here() -> Option<Kept> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    FRAMES.with_borrow_mut(|frames| {
        let last = frames.last_mut()?;
        let thread = this_thread();
        if last.number == 0 {
            last.number = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        let frame = last.number;
        let seat = frames.iter().find_map(|running| running.seat);
        let domains = frames.iter().map(|running| running.domain).collect();
        Some(Kept { thread, frame, seat, domains })
    })
}

/// The number of the innermost call; `None`: this thread runs none.
pub(super) fn frame_here() -> Option<u64> {
    FRAMES.with_borrow(|frames| frames.last().map(|running| running.number))
}

/// This thread, by a number that no other has.
pub(crate) fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

impl Ancestry {
    /// What a call carries that is submitted from this thread now.
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

    /// Whether it was made outside of any call.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether `domain` would wait for itself.
    pub(crate) fn contains(&self, domain: Domain) -> bool {
        self.0.as_ref().is_some_and(|domains| domains.contains(&domain))
    }
}

/// Why the innermost running call should stop, if it should.
pub(crate) fn interrupt() -> Option<Interrupt> {
    FRAMES.with_borrow(|frames| {
        frames.last().and_then(|frame| frame.stop.as_ref()).and_then(|stop| stop.token().raised())
    })
}

/// Counts one progress tick of the innermost call; true: it should stop.
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
