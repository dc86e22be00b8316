//! A call in flight: what a caller's future holds between submission and answer.
//!
//! - FLT1: dropping an [`InFlight`] removes its call from the lane if it still waits there, so that it never runs.
//!   Otherwise the drop raises the call's token, and the worker stops or finishes it.
//! - FLT2: an [`InFlight`] keeps its client's lane alive.
//! - FLT3: while code inside another call waits for an [`InFlight`], that wait is in the list of `waits.rs`. The wait
//!   enters the list before the call is submitted, or when the future is polled inside a different call than before. A
//!   wait that would close a circle ends with `Nested`.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::{
    Alarm, Ancestry, CallError, Clock, Domain, Interrupt, Item, LaneId, MAIN, Position, Pushed,
    Queue, Receiver, Refused, RefusedReason, frames, waits::Awaited, waits::Circle, waits::Wait,
};

/// A client's handle of a lane. Clients of the same name share the lane. The drop of the handle gives the lane back.
pub(crate) struct Lane<C: Item> {
    pub(crate) queue: Arc<Queue<C>>,
    pub(crate) id: LaneId,
}

impl<C: Item> Lane<C> {
    pub(crate) fn main(queue: Arc<Queue<C>>) -> Arc<Self> {
        Arc::new(Self { queue, id: MAIN })
    }

    pub(crate) fn named(queue: &Arc<Queue<C>>, name: &str) -> Arc<Self> {
        let id = queue.open_lane(name);
        Arc::new(Self { queue: Arc::clone(queue), id })
    }
}

impl<C: Item> Drop for Lane<C> {
    fn drop(&mut self) {
        // In a forked child the lock may be held for ever by a thread that exists only in the parent.
        if !self.queue.is_forked() {
            self.queue.retire_lane(self.id);
        }
    }
}

pub(crate) struct InFlight<C: Item, V: Send + 'static> {
    lane: Arc<Lane<C>>,
    receiver: Receiver<V>,
    position: Position,
    /// Whether the call was answered, so that the drop need not cancel it.
    answered: bool,
    /// The wait of FLT3; `None`: no code inside another call waits for this call.
    wait: Option<Wait>,
    _alarm: Option<Alarm>,
}

/// When a call times out.
pub(crate) struct Deadline<'c> {
    pub(crate) at: Instant,
    pub(crate) clock: &'c Clock,
    /// Called at the deadline, before the call is refused or stopped. It notes what keeps the call waiting, which can
    /// be named only while that is still running.
    pub(crate) expiring: Option<Box<dyn FnOnce() + Send>>,
}

/// What a submission does when its lane is full: wait for room, or fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Wait,
    Need,
}

impl<C: Item, V: Send + 'static> InFlight<C, V> {
    /// Submits `call`. The second value tells whether to check the pool for a stall.
    pub(crate) fn submit(
        lane: &Arc<Lane<C>>,
        call: C,
        receiver: Receiver<V>,
        room: Room,
        deadline: Option<Deadline<'_>>,
    ) -> Result<(Self, bool), Refused<C>> {
        let queue = &lane.queue;
        // FLT3
        let awaited = || Awaited::Call(queue.worker_set(), receiver.interruptible());
        let wait = match Wait::enter(awaited, room == Room::Wait) {
            Ok(wait) => wait,
            Err(Circle) => return Err(Refused { reason: RefusedReason::Nested, call }),
        };
        let Pushed { position, check_for_stall } = match room {
            Room::Wait => queue.push(lane.id, call)?,
            Room::Need => queue.try_push(lane.id, call)?,
        };
        let alarm = deadline.map(|Deadline { at, clock, expiring }| {
            let queue = Arc::clone(queue);
            let running = receiver.interruptible();
            clock.set(at, move || {
                if let Some(expiring) = expiring {
                    expiring();
                }
                // If a worker has taken the call, the worker sees the token and reports the phase.
                if !queue.expire(position) {
                    running.token().raise(Interrupt::Deadline);
                }
            })
        });
        let lane = Arc::clone(lane);
        let in_flight = Self { lane, receiver, position, answered: false, wait, _alarm: alarm };
        Ok((in_flight, check_for_stall))
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<V, CallError>> {
        match self.receiver.poll(context) {
            Poll::Ready(answer) => {
                self.answered = true;
                self.wait = None;
                Poll::Ready(answer.map_err(|_| CallError::Faulted))
            }
            Poll::Pending => match self.wait_here() {
                Ok(()) => Poll::Pending,
                Err(Circle) => Poll::Ready(Err(CallError::Nested)),
            },
        }
    }

    /// Enters the wait of FLT3 when the future is polled. This may be the first poll, and it may happen inside a
    /// different call than the one that submitted this call.
    fn wait_here(&mut self) -> Result<(), Circle> {
        let Some(frame) = frames::frame_here() else { return Ok(()) };
        match &mut self.wait {
            Some(wait) if wait.is_of(frame) => wait.block(),
            wait => {
                *wait = None;
                let (queue, receiver) = (&self.lane.queue, &self.receiver);
                let awaited = || Awaited::Call(queue.worker_set(), receiver.interruptible());
                *wait = Wait::enter(awaited, true)?;
                Ok(())
            }
        }
    }
}

impl<C: Item, V: Send + 'static> Drop for InFlight<C, V> {
    fn drop(&mut self) {
        if self.answered || self.lane.queue.is_forked() {
            return;
        }
        // FLT1
        match self.lane.queue.remove(self.position) {
            Some(call) => drop(call),
            None => self.receiver.token().raise(Interrupt::Canceled),
        }
    }
}

/// The ancestry that a call to `domain` from this thread must carry; an error if the wait for that call would never
/// end.
pub(crate) fn ancestry_for(domain: Domain) -> Result<Ancestry, CallError> {
    let ancestry = Ancestry::of_this_thread();
    if ancestry.contains(domain) { Err(CallError::Nested) } else { Ok(ancestry) }
}

/// The error of an awaited submission that was refused.
pub(crate) fn refused<F>(refused: &Refused<F>) -> CallError {
    match refused.reason {
        RefusedReason::Closed
        | RefusedReason::Full
        | RefusedReason::ReadOnly
        | RefusedReason::Stopped => CallError::Closed,
        RefusedReason::Nested => CallError::Nested,
        RefusedReason::Forked => CallError::Forked,
    }
}
