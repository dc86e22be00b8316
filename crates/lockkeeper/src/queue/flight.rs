//! A call on its way: what a caller's future holds between submission and answer.
//!
//! - FLT1: dropping a flight takes the call out of its lane if it still waits there (it never runs);
//!   otherwise it raises the call's token, and the worker stops or finishes it.
//! - FLT2: a flight keeps its client's lane alive.
//! - FLT3: a flight that is waited for inside a call is in the list of `waits.rs`, from before it is submitted; the
//!   wait that would close a circle is answered `Nested`.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::{
    Alarm, Ancestry, CallError, Clock, Domain, Interrupt, Item, LaneId, MAIN, Position, Pushed,
    Queue, Receiver, Refused, RefusedReason, frames, waits::Awaited, waits::Circle, waits::Wait,
};

/// A client's hold on a lane, which other clients of that name may share; given back when dropped.
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
        // After a fork the lock may be held by a thread that is not here.
        if !self.queue.is_forked() {
            self.queue.retire_lane(self.id);
        }
    }
}

pub(crate) struct Flight<C: Item, V: Send + 'static> {
    lane: Arc<Lane<C>>,
    receiver: Receiver<V>,
    position: Position,
    /// The call has been answered: there is nothing to take back.
    landed: bool,
    /// FLT3
    wait: Option<Wait>,
    _alarm: Option<Alarm>,
}

/// When a call is given up, by which clock, and what is to be done first.
pub(crate) struct Deadline<'c> {
    pub(crate) at: Instant,
    pub(crate) clock: &'c Clock,
    /// Runs before the call is given up, while what held it up is still there to be seen.
    pub(crate) expiring: Option<Box<dyn FnOnce() + Send>>,
}

/// How a submission deals with a full lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Wait,
    Need,
}

impl<C: Item, V: Send + 'static> Flight<C, V> {
    /// Submits `call`; the second value asks for a stall check.
    pub(crate) fn take_off(
        lane: &Arc<Lane<C>>,
        call: C,
        receiver: Receiver<V>,
        room: Room,
        deadline: Option<Deadline<'_>>,
    ) -> Result<(Self, bool), Refused<C>> {
        let queue = &lane.queue;
        // FLT3
        let awaited = || Awaited::Call(queue.seats(), receiver.interruptible());
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
                // Taken meanwhile: the worker notices the token, and says in which phase.
                if !queue.expire(position) {
                    running.token().raise(Interrupt::Deadline);
                }
            })
        });
        let lane = Arc::clone(lane);
        let flight = Self { lane, receiver, position, landed: false, wait, _alarm: alarm };
        Ok((flight, check_for_stall))
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<V, CallError>> {
        match self.receiver.poll(context) {
            Poll::Ready(answer) => {
                self.landed = true;
                self.wait = None;
                Poll::Ready(answer.map_err(|_| CallError::Faulted))
            }
            Poll::Pending => match self.wait_here() {
                Ok(()) => Poll::Pending,
                Err(Circle) => Poll::Ready(Err(CallError::Nested)),
            },
        }
    }

    /// FLT3, for a call that was submitted elsewhere, or was not waited for before.
    fn wait_here(&mut self) -> Result<(), Circle> {
        let Some(frame) = frames::frame_here() else { return Ok(()) };
        match &mut self.wait {
            Some(wait) if wait.is_of(frame) => wait.block(),
            wait => {
                *wait = None;
                let (queue, receiver) = (&self.lane.queue, &self.receiver);
                let awaited = || Awaited::Call(queue.seats(), receiver.interruptible());
                *wait = Wait::enter(awaited, true)?;
                Ok(())
            }
        }
    }
}

impl<C: Item, V: Send + 'static> Drop for Flight<C, V> {
    fn drop(&mut self) {
        if self.landed || self.lane.queue.is_forked() {
            return;
        }
        // FLT1
        match self.lane.queue.remove(self.position) {
            Some(call) => drop(call),
            None => self.receiver.token().raise(Interrupt::Canceled),
        }
    }
}

/// What a submission from this thread must carry, or why it would never end.
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
