//! Which calls this thread is running, to detect re-entry and to tell a call that it should stop.
//!
//! A call that submits to its own queue and waits would wait for itself. So every submission checks the frames of its
//! thread. A call submitted from inside another call also carries that call's domain and the domains that wait for it
//! ([`Ancestry`]), so that a circle through a second queue is detected as well.
//!
//! - CTX1: a frame is on the stack exactly while its call's code runs ([`Frame::enter`] and its drop).
//!   The stack is in `frames.rs` (FRAME1).

use std::sync::Arc;

use super::frames::{Ancestry, Domain, FRAMES, Running, WorkerSet, this_thread};
use super::{call::Interruptible, waits};

/// Marks the time in which a call's code runs on this thread.
pub(crate) struct Frame(());

impl Frame {
    pub(crate) fn enter(
        domain: Domain,
        ancestry: Ancestry,
        stop: Option<Arc<dyn Interruptible>>,
    ) -> Self {
        if let (false, Some(stop)) = (ancestry.is_empty(), &stop) {
            waits::runs(stop, this_thread());
        }
        Self::push(Running::new(domain, ancestry, stop))
    }

    /// Enters the frame of a worker thread (WORK3). It covers code of callers that runs on the thread outside of calls,
    /// such as a destructor.
    pub(crate) fn of_worker(domain: Domain, workers: WorkerSet) -> Self {
        let running = Running::new(domain, Ancestry::default(), None);
        Self::push(Running { worker_of: Some(workers), ..running })
    }

    /// A frame whose call is stopped after `ticks` progress ticks.
    pub(crate) fn enter_limited(domain: Domain, ticks: u32) -> Self {
        let running = Running::new(domain, Ancestry::of_this_thread(), None);
        Self::push(Running { ticks_left: Some(ticks), ..running })
    }

    fn push(running: Running) -> Self {
        FRAMES.with_borrow_mut(|frames| frames.push(running));
        Self(())
    }

    /// Whether the innermost call was stopped because it used up its ticks.
    pub(crate) fn out_of_ticks(&self) -> bool {
        FRAMES.with_borrow(|frames| frames.last().is_some_and(|frame| frame.out_of_ticks))
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let ended = FRAMES.with_borrow_mut(Vec::pop);
        if let Some(Running { number: number @ 1.., .. }) = ended {
            waits::frame_ended(number);
        }
    }
}

/// Runs `f` as a part of the innermost call, but without that call's token, so that nothing stops `f`.
pub(crate) fn unstoppable<T>(f: impl FnOnce() -> T) -> T {
    let domain = FRAMES.with_borrow(|frames| frames.last().map(|frame| frame.domain));
    let _frame = domain.map(|domain| Frame::push(Running::new(domain, Ancestry::default(), None)));
    f()
}
