//! Which calls this thread is running: how re-entry is noticed and how a call learns that it
//! should stop.
//!
//! A call that submits to its own queue and waits would wait for itself. Every submission
//! therefore looks at the frames of its thread; a call submitted from inside another one also
//! carries the queues that the other one (and whoever waits for it) occupies, so that a circle
//! through a second queue is noticed as well.
//!
//! - X1: a frame is on the stack exactly while its call's code runs ([`Frame::enter`] and its drop).
//! - X2: frames are a thread's own; nothing here is shared, so nothing here is locked.

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

struct Running {
    domain: Domain,
    ancestry: Ancestry,
    stop: Option<Arc<dyn Interruptible>>,
    /// Progress ticks that are left before the call is stopped; `None`: no limit.
    ticks_left: Option<u32>,
    out_of_ticks: bool,
}

thread_local! {
    static FRAMES: RefCell<Vec<Running>> = const { RefCell::new(Vec::new()) };
}

/// Marks the time in which a call's code runs on this thread.
pub(crate) struct Frame(());

impl Frame {
    pub(crate) fn enter(
        domain: Domain,
        ancestry: Ancestry,
        stop: Option<Arc<dyn Interruptible>>,
    ) -> Self {
        Self::push(Running { domain, ancestry, stop, ticks_left: None, out_of_ticks: false })
    }

    /// A frame whose call is stopped after `ticks` progress ticks.
    pub(crate) fn enter_limited(domain: Domain, ticks: u32) -> Self {
        let ancestry = Ancestry::of_this_thread();
        let ticks_left = Some(ticks);
        Self::push(Running { domain, ancestry, stop: None, ticks_left, out_of_ticks: false })
    }

    fn push(running: Running) -> Self {
        FRAMES.with_borrow_mut(|frames| frames.push(running));
        Self(())
    }

    /// Whether the innermost call was stopped because its ticks were used up.
    pub(crate) fn out_of_ticks(&self) -> bool {
        FRAMES.with_borrow(|frames| frames.last().is_some_and(|frame| frame.out_of_ticks))
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        FRAMES.with_borrow_mut(|frames| frames.pop());
    }
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
