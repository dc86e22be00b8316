//! Threads that own a resource, and the bounded fair queue in front of them.
//!
//! This module knows nothing of SQLite. A [`Worker`] builds a resource on its own thread, so the
//! resource need not be `Send` (an OpenGL context, an `Rc` tree, another embedded store), and runs
//! calls on it one after another:
//!
//! ```
//! use lockkeeper::queue::Worker;
//! use std::{cell::Cell, rc::Rc};
//!
//! let worker = Worker::builder("counter")
//!     .capacity(64)
//!     .blocking_spawn(|| Ok::<_, std::convert::Infallible>(Rc::new(Cell::new(0))))?;
//! let n = worker.blocking_call(|counter| {
//!     counter.set(counter.get() + 1);
//!     counter.get()
//! })?;
//! assert_eq!(n, 1);
//! worker.blocking_close()?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # The algorithm
//!
//! One mutex guards everything that waits: the lanes (see `lanes.rs`), whether intake is open, and
//! the workers that sleep. A submission pushes under the lock and rings one sleeping worker. A
//! worker takes calls under the lock, one at a time, and runs them outside of it.
//!
//! | state of a call | what may be trusted | left by |
//! |---|---|---|
//! | waiting for room | in `overflow` of its lane; never began | promotion, `remove`, `close`, `abort` |
//! | queued | in `accepted` of its lane; never began | `take`, `remove`, `abort` |
//! | taken | in nobody's lane; one worker owns it | the worker's answer |
//! | answered | its reply holds the result | the caller |
//!
//! | intake | what may be trusted | left by |
//! |---|---|---|
//! | open | a push is accepted or waits for room | `close`, `abort`, the last worker's exit |
//! | closed | nothing enters; workers serve what was accepted, then exit | never |
//!
//! Invariants:
//!
//! - Q1: a call is taken by a worker or removed by its caller, never both: both happen under the
//!   lock. So a canceled call that was not taken never runs, and its place is free at once.
//! - Q2: a call that was taken is answered by its worker, also when it is skipped, panics or the
//!   thread dies (C1).
//! - Q3: once intake is closed nothing enters; `close` and `push` hold the same lock, so no call is
//!   forgotten. Calls that waited for room are refused by `close`, accepted ones are served.
//! - Q4: a worker sleeps only after it has seen, under the lock, that nothing is accepted; a push
//!   that finds a sleeping worker takes it off the list of sleepers before it rings, so that the
//!   next push rings another. No wake-up is lost and none is spent twice.
//! - Q5: calls are dropped and refused outside the lock: their captured values are the caller's
//!   code, which may call back.
//! - Q6: when the last worker exits, for whatever reason, intake is closed and what waits is
//!   refused. A dead worker is an error, not a hang.
//!
//! - Q7: a call that is shed (`admission.rs`) was taken and is answered like one, by the thread that
//!   took it, outside the lock, before it sleeps.
//!
//! - Q8: `abort` asks every call to stop that a worker runs: it is noted in the worker's seat by the same
//!   hold of the lock that took it from its lane.
//!
//! - Q9: the library's own errands wait apart from the calls, at most one of each kind, and are taken at the
//!   beginning of a batch ahead of every call; but not two in a row while calls wait. Once intake is closed
//!   none is left: who closes does what is left to do.
//!
//! - Q10: while it is stopped for calls that change something, those are refused and others enter. A call enters
//!   before a stop or after it, since both hold the lock; `has_older_than` says whether one that entered before waits.
//!
//! Lock order: the queue's lock, then a reply's slot; the clock's lock is never held while another
//! is taken, nor taken while another is held. Waiting for room is first in, first out per lane and
//! costs no wake-up: the call itself waits, and moves up when a place becomes free.

mod admission;
mod call;
mod clock;
mod close;
mod context;
mod error;
mod flight;
mod handle;
mod lanes;
mod lookout;
mod waits;
mod worker;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use call::Interrupt;
pub use close::{Close, Closed};
pub use error::{CallError, Phase, Refused, RefusedReason, StartError};
pub use handle::{Builder, Call, Client, Spawn, Verdict, Worker, should_stop};
pub use lanes::Priority;

pub(crate) use crate::sync::{
    AtomicBool, Condvar, Mutex, MutexGuard, Ordering, lock, now, wait, wait_until,
};
pub(crate) use call::{Interruptible, Receiver, Reply, block_on, reply, shielded};
pub(crate) use clock::{Alarm, Clock};
pub(crate) use close::Closing;
pub(crate) use context::{Ancestry, Domain, Frame, interrupt, this_thread, tick, unstoppable};
pub(crate) use flight::{Deadline, Flight, Lane, Room, ancestry_for, refused};
pub(crate) use handle::stopped;
pub(crate) use lanes::{LaneFigures, LaneId, MAIN, Position, Scope, Taken};
pub(crate) use lookout::Look;
pub(crate) use waits::{Awaited, Circle, Holder, Seats, Wait, behind};
pub(crate) use worker::{Batch, Built, Pool, PoolConfig, Service, panic_text};

use admission::Admission;
use lanes::Lanes;
use lookout::Lookout;

/// What the queue needs to know of the calls it carries.
pub(crate) trait Item: Send + 'static {
    /// The call's token, to be raised when a running call must stop.
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>>;
    /// Whether it is refused while the queue is stopped for such calls (Q10).
    fn changes_something(&self) -> bool {
        false
    }
    /// Answers a call that never ran.
    fn refuse(self, why: CallError);
    /// Of two errands of the library's own: whether they are the same, so that one is enough.
    fn is_same_errand(&self, _other: &Self) -> bool {
        false
    }
}

pub(crate) struct Queue<C> {
    state: Mutex<State<C>>,
    pub(crate) lookout: Lookout,
    pub(crate) domain: Domain,
    /// It, and how many threads serve it at most, once that is known.
    seats: OnceLock<Seats>,
    /// The process whose threads serve it.
    pid: u32,
}

struct State<C> {
    lanes: Lanes<Waiting<C>>,
    /// Q9. Bounded by the kinds of errands.
    errands: Vec<C>,
    /// The last batch began with an errand.
    ran_errand: bool,
    /// `None`: nothing is ever shed.
    admission: Option<Admission>,
    open: bool,
    /// Q10. Those who have stopped it and not resumed yet.
    stops: usize,
    /// A worker per index; each has its own bell so that the one that slept least is rung first.
    workers: Vec<Seat>,
    /// Sleeping workers, the most recent last (its caches are the warmest).
    sleeping: Vec<usize>,
    /// Workers that have not exited.
    alive: usize,
    /// Calls taken so far; tells a stalled pool from a busy one.
    taken: u64,
    /// Rung when `alive` becomes 0.
    exit: Vec<Reply<()>>,
    /// A stall check is on its way.
    checking: bool,
}

struct Waiting<C> {
    call: C,
    /// When it was submitted, where that may decide about it.
    since: Option<Instant>,
}

/// Calls that were shed under the lock, refused when this is dropped: declare it before the guard.
struct Shed<C: Item>(Vec<C>);

impl<C: Item> Drop for Shed<C> {
    fn drop(&mut self) {
        // Q5, Q7
        for call in self.0.drain(..) {
            call.refuse(CallError::Overloaded);
        }
    }
}

struct Seat {
    bell: Arc<Condvar>,
    /// The call that this worker runs, to be asked to stop by `abort`. The last hold on it may be dropped under
    /// the lock (C3).
    running: Option<Arc<dyn Interruptible>>,
    alive: bool,
}

/// What a push tells its caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pushed {
    pub(crate) position: Position,
    /// Nobody sleeps: should this last, the pool may need another worker.
    pub(crate) check_for_stall: bool,
}

impl<C: Item> Queue<C> {
    /// A queue with room for `capacity` calls of each lane; when it is overloaded it sheds those that
    /// have waited longer than `shed_after`.
    pub(crate) fn new(capacity: usize, domain: Domain, shed_after: Option<Duration>) -> Self {
        let state = State {
            lanes: Lanes::new(capacity),
            errands: Vec::new(),
            ran_errand: false,
            admission: shed_after.map(Admission::new),
            open: true,
            stops: 0,
            workers: Vec::new(),
            sleeping: Vec::new(),
            alive: 0,
            taken: 0,
            exit: Vec::new(),
            checking: false,
        };
        let (state, lookout) = (Mutex::new(state), Lookout::default());
        let seats = OnceLock::new();
        Self { state, lookout, domain, seats, pid: crate::process::id() }
    }

    /// `workers_max` threads will serve it, or fewer.
    pub(crate) fn served_by(&self, workers_max: usize) {
        let _ = self.seats.set(Seats::new(workers_max));
    }

    /// What is waited for by who waits for a call in this queue.
    pub(crate) fn seats(&self) -> Seats {
        self.seats.get().copied().unwrap_or(Seats::UNKNOWN)
    }

    pub(crate) fn open_lane(&self, name: &str) -> LaneId {
        lock(&self.state).lanes.open(name)
    }

    pub(crate) fn retire_lane(&self, lane: LaneId) {
        lock(&self.state).lanes.retire(lane);
    }

    /// What each lane has done, and what waits in it.
    pub(crate) fn lane_figures(&self) -> Vec<LaneFigures> {
        lock(&self.state).lanes.figures()
    }

    pub(crate) fn set_weight(&self, lane: LaneId, weight: u32) {
        lock(&self.state).lanes.set_weight(lane, weight);
    }

    pub(crate) fn set_priority(&self, lane: LaneId, priority: Priority) {
        lock(&self.state).lanes.set_priority(lane, priority);
    }

    /// Whether calls are taken in.
    pub(crate) fn is_open(&self) -> bool {
        lock(&self.state).open
    }

    /// Whether this process is another than that which made the queue: its threads are not here.
    pub(crate) fn is_forked(&self) -> bool {
        crate::process::id() != self.pid
    }

    /// Adds a call; it waits for room where its lane is full.
    pub(crate) fn push(&self, lane: LaneId, call: C) -> Result<Pushed, Refused<C>> {
        self.push_with(lane, call, Lanes::push, RefusedReason::Closed)
    }

    /// Adds a call if there is room.
    pub(crate) fn try_push(&self, lane: LaneId, call: C) -> Result<Pushed, Refused<C>> {
        self.push_with(lane, call, Lanes::try_push, RefusedReason::Full)
    }

    fn push_with(
        &self,
        lane: LaneId,
        call: C,
        push: impl FnOnce(&mut Lanes<Waiting<C>>, LaneId, Waiting<C>) -> Result<Position, Waiting<C>>,
        otherwise: RefusedReason,
    ) -> Result<Pushed, Refused<C>> {
        let mut state = lock(&self.state);
        // Q3
        if !state.open {
            return Err(Refused { reason: RefusedReason::Closed, call });
        }
        if state.stops > 0 && call.changes_something() {
            return Err(Refused { reason: RefusedReason::Stopped, call });
        }
        let since = state.admission.is_some().then(now);
        let position = match push(&mut state.lanes, lane, Waiting { call, since }) {
            Ok(position) => position,
            Err(Waiting { call, .. }) => return Err(Refused { reason: otherwise, call }),
        };
        // Q4
        let bell = state.sleeping.pop().map(|worker| Arc::clone(&state.workers[worker].bell));
        let check_for_stall = bell.is_none() && !state.checking;
        drop(state);
        self.lookout.announce();
        if let Some(bell) = bell {
            bell.notify_one();
        }
        Ok(Pushed { position, check_for_stall })
    }

    /// Adds an errand of the library's own (Q9); refused when the same one waits already.
    pub(crate) fn push_errand(&self, errand: C) -> Result<(), C> {
        let mut state = lock(&self.state);
        if !state.open || state.errands.iter().any(|other| errand.is_same_errand(other)) {
            return Err(errand);
        }
        state.errands.push(errand);
        // Q4
        let bell = state.sleeping.pop().map(|worker| Arc::clone(&state.workers[worker].bell));
        drop(state);
        self.lookout.announce();
        if let Some(bell) = bell {
            bell.notify_one();
        }
        Ok(())
    }

    /// Refuses calls that change something until [`Queue::resume`] is called as often as this (Q10); older ones than
    /// the sequence number that is returned have entered before.
    pub(crate) fn stop(&self) -> u64 {
        let mut state = lock(&self.state);
        state.stops += 1;
        state.lanes.next_seq()
    }

    pub(crate) fn resume(&self) {
        lock(&self.state).stops -= 1;
    }

    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.state).stops > 0
    }

    /// Whether a call waits that entered before this sequence number was given.
    pub(crate) fn has_older_than(&self, seq: u64) -> bool {
        lock(&self.state).lanes.has_older_than(seq)
    }

    /// Takes a waiting call out; `None`: it was taken by a worker before (Q1).
    pub(crate) fn remove(&self, position: Position) -> Option<C> {
        lock(&self.state).lanes.remove(position).map(|waiting| waiting.call)
    }

    /// Answers a call whose deadline passed while it waited; a taken one is left to its token.
    pub(crate) fn expire(&self, position: Position) -> bool {
        let mut state = lock(&self.state);
        let room = state.lanes.waits_for_room(position);
        let call = state.lanes.remove(position);
        drop(state);
        let Some(Waiting { call, .. }) = call else { return false };
        call.refuse(CallError::Timeout(if room { Phase::Room } else { Phase::Queued }));
        true
    }

    /// Sets up a seat for a new worker; returns its index.
    pub(crate) fn seat(&self) -> usize {
        let mut state = lock(&self.state);
        state.alive += 1;
        let free = state.workers.iter().position(|seat| !seat.alive);
        let worker = free.unwrap_or(state.workers.len());
        let seat = Seat { bell: Arc::new(Condvar::new()), running: None, alive: true };
        match free {
            Some(free) => state.workers[free] = seat,
            None => state.workers.push(seat),
        }
        worker
    }

    /// Waits for a call and takes it; a new batch begins with it.
    ///
    /// `None`: intake is closed and nothing is left, or nothing came for `patience`.
    pub(crate) fn take_first(
        &self,
        worker: usize,
        patience: Option<Duration>,
        look: Option<Look>,
    ) -> Option<First<C>> {
        let looked = look.map(|look| (self.lookout.look(look), look));
        let mut shed = Shed(Vec::new());
        let mut state = lock(&self.state);
        let give_up_at = patience.map(|patience| now() + patience);
        loop {
            if let Some(first) = state.begin_batch(worker, &mut shed) {
                drop(state);
                if let Some((since, look)) = looked {
                    self.lookout.found(since, look);
                }
                return Some(first);
            }
            if !shed.0.is_empty() {
                drop(state);
                drop(shed);
                shed = Shed(Vec::new());
                state = lock(&self.state);
                continue;
            }
            if !state.open && state.lanes.waiting() == 0 {
                return None;
            }
            // Q4
            let bell = Arc::clone(&state.workers[worker].bell);
            state.sleeping.push(worker);
            state = match give_up_at {
                None => wait(&bell, state),
                Some(at) => wait_until(&bell, state, at),
            };
            let rung = !state.strike(worker);
            let over = !rung && give_up_at.is_some_and(|at| now() >= at);
            if over && state.lanes.accepted() == 0 {
                return None;
            }
        }
    }

    /// Takes a call with which a new batch begins, if one waits.
    pub(crate) fn try_take_first(&self, worker: usize) -> Option<First<C>> {
        let mut shed = Shed(Vec::new());
        lock(&self.state).begin_batch(worker, &mut shed)
    }

    /// Takes the next call of the batch.
    pub(crate) fn take_next(&self, worker: usize, scope: Scope) -> Option<Taken<C>> {
        let mut shed = Shed(Vec::new());
        lock(&self.state).take(worker, scope, &mut shed)
    }

    /// Charges a lane for what its call used; then takes the next one, under the same lock.
    pub(crate) fn charge_and_take(
        &self,
        worker: usize,
        lane: LaneId,
        run: Duration,
        scope: Option<Scope>,
    ) -> Option<Taken<C>> {
        let mut shed = Shed(Vec::new());
        let mut state = lock(&self.state);
        state.lanes.charge(lane, run);
        state.workers[worker].running = None;
        scope.and_then(|scope| state.take(worker, scope, &mut shed))
    }

    /// Stops intake; what was accepted is served. Calls waiting for room are refused.
    pub(crate) fn close(&self) {
        self.shut(false);
    }

    /// Stops intake, refuses what waits, and asks running calls to stop.
    pub(crate) fn abort(&self) {
        self.shut(true);
    }

    fn shut(&self, abort: bool) {
        let mut state = lock(&self.state);
        state.open = false;
        let refused = state.lanes.clear(!abort);
        let errands = std::mem::take(&mut state.errands);
        if abort {
            // Q8
            for running in state.workers.iter().filter_map(|seat| seat.running.as_ref()) {
                running.token().raise(Interrupt::Aborted);
            }
        }
        state.sleeping.clear();
        for seat in &state.workers {
            seat.bell.notify_one();
        }
        let exit = if state.alive == 0 { std::mem::take(&mut state.exit) } else { Vec::new() };
        drop(state);
        // Q5, Q9
        drop(errands);
        for waiting in refused {
            waiting.call.refuse(CallError::Closed);
        }
        exit.into_iter().for_each(|reply| reply.answer(()));
    }

    /// The worker's thread is about to end.
    pub(crate) fn leave(&self, worker: usize) {
        let mut state = lock(&self.state);
        let seat = &mut state.workers[worker];
        (seat.alive, seat.running) = (false, None);
        state.strike(worker);
        state.alive -= 1;
        if state.alive > 0 {
            return;
        }
        // Q6
        state.open = false;
        let refused = state.lanes.clear(false);
        let errands = std::mem::take(&mut state.errands);
        let exit = std::mem::take(&mut state.exit);
        drop(state);
        drop(errands);
        for waiting in refused {
            waiting.call.refuse(CallError::Faulted);
        }
        exit.into_iter().for_each(|reply| reply.answer(()));
    }

    /// Resolves when no worker is left.
    pub(crate) fn gone(&self) -> Receiver<()> {
        let (reply, receiver) = reply();
        let mut state = lock(&self.state);
        if state.alive == 0 && !state.open {
            drop(state);
            reply.answer(());
        } else {
            state.exit.push(reply);
        }
        receiver
    }

    /// How the pool is doing, for the stall check.
    pub(crate) fn pulse(&self) -> Pulse {
        let state = lock(&self.state);
        Pulse {
            taken: state.taken,
            starved: state.open && state.lanes.accepted() > 0 && state.sleeping.is_empty(),
            alive: state.alive,
        }
    }

    /// Claims the stall check; false: somebody else has it.
    pub(crate) fn claim_check(&self) -> bool {
        let mut state = lock(&self.state);
        !std::mem::replace(&mut state.checking, true)
    }

    pub(crate) fn release_check(&self) {
        lock(&self.state).checking = false;
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulse {
    pub(crate) taken: u64,
    pub(crate) starved: bool,
    pub(crate) alive: usize,
}

/// The first call of a batch.
pub(crate) struct First<C> {
    pub(crate) taken: Taken<C>,
    /// Calls older than this were submitted before the batch began.
    pub(crate) limit: u64,
}

impl<C: Item> State<C> {
    /// Takes `worker` off the list of those who sleep; false: it was rung, and is not there.
    fn strike(&mut self, worker: usize) -> bool {
        let index = self.sleeping.iter().position(|&other| other == worker);
        index.map(|index| self.sleeping.remove(index)).is_some()
    }

    /// Begins a batch with an errand or a call that waits, if there is one.
    fn begin_batch(&mut self, worker: usize, shed: &mut Shed<C>) -> Option<First<C>> {
        let calls_wait = self.lanes.accepted() > 0;
        let limit = self.lanes.next_seq();
        // Q9
        let turn = !(self.errands.is_empty() || self.ran_errand && calls_wait);
        self.ran_errand = turn;
        if turn {
            let call = self.errands.remove(0);
            return Some(First { taken: Taken { lane: MAIN, call, behind: 0 }, limit });
        }
        if !calls_wait {
            return None;
        }
        self.lanes.begin_batch();
        self.take(worker, Scope::Batch, shed).map(|taken| First { taken, limit })
    }

    fn take(&mut self, worker: usize, scope: Scope, shed: &mut Shed<C>) -> Option<Taken<C>> {
        loop {
            let Taken { lane, call: Waiting { call, since }, behind } = self.lanes.pick(scope)?;
            self.taken += 1;
            if let (Some(admission), Some(since)) = (&mut self.admission, since)
                && admission.sheds(lane, since, now())
            {
                shed.0.push(call);
                continue;
            }
            // Q8
            self.workers[worker].running = call.interruptible();
            return Some(Taken { lane, call, behind });
        }
    }
}

/// The absolute form of a deadline.
pub(crate) fn after(patience: Duration) -> Instant {
    let now = now();
    // A deadline beyond what the clock can say is none that anybody will see.
    now.checked_add(patience).unwrap_or(now + Duration::from_secs(60 * 60 * 24 * 365))
}
