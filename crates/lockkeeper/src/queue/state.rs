//! The queue: one lock over everything that waits. Its states and invariants are those of the module above.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::admission::Admission;
use super::call::{Interrupt, Interruptible, Receiver, Reply, reply};
use super::error::{CallError, Phase, Refused, RefusedReason};
use super::frames::{Domain, Seats};
use super::lane::{LaneFigures, LaneId, MAIN, Position, Priority, Taken};
use super::lanes::{Lanes, Scope};
use super::lookout::{Look, Lookout};
use crate::sync::{Condvar, Mutex, MutexGuard, lock, now, wait, wait_until};

/// What the queue needs to know of the calls it carries.
pub(crate) trait Item: Send + 'static {
    /// The call's token, to be raised when a running call must stop.
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>>;
    /// Whether it is refused while the queue is stopped for such calls (QUEUE10).
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
    /// QUEUE9. Bounded by the kinds of errands.
    errands: Vec<C>,
    /// The last batch began with an errand.
    ran_errand: bool,
    /// `None`: nothing is ever shed.
    admission: Option<Admission>,
    open: bool,
    /// QUEUE10. Those who have stopped it and not resumed yet.
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
        // QUEUE5, QUEUE7
        for call in self.0.drain(..) {
            call.refuse(CallError::Overloaded);
        }
    }
}

struct Seat {
    bell: Arc<Condvar>,
    /// The call that this worker runs, to be asked to stop by `abort`. The last hold on it may be dropped under
    /// the lock (CALL3).
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
        // QUEUE3
        if !state.open {
            return Err(Refused { reason: RefusedReason::Closed, call });
        }
        if state.stops > 0 && call.changes_something() {
            return Err(Refused { reason: RefusedReason::Stopped, call });
        }
        let since = state.admission.is_some().then(now);
        let position = push(&mut state.lanes, lane, Waiting { call, since })
            .map_err(|Waiting { call, .. }| Refused { reason: otherwise, call })?;
        let check_for_stall = state.sleeping.is_empty() && !state.checking;
        self.wake_worker(state);
        Ok(Pushed { position, check_for_stall })
    }

    /// Adds an errand of the library's own (QUEUE9); refused when the same one waits already.
    pub(crate) fn push_errand(&self, errand: C) -> Result<(), C> {
        let mut state = lock(&self.state);
        if !state.open || state.errands.iter().any(|other| errand.is_same_errand(other)) {
            return Err(errand);
        }
        state.errands.push(errand);
        self.wake_worker(state);
        Ok(())
    }

    /// Something was added: releases the lock and wakes a worker, if one sleeps (QUEUE4).
    fn wake_worker(&self, mut state: MutexGuard<'_, State<C>>) {
        let bell = state.sleeping.pop().map(|worker| Arc::clone(&state.workers[worker].bell));
        drop(state);
        self.lookout.announce();
        if let Some(bell) = bell {
            bell.notify_one();
        }
    }

    /// Refuses calls that change something until [`Queue::resume`] is called as often as this (QUEUE10); older ones than
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

    /// Takes a waiting call out; `None`: it was taken by a worker before (QUEUE1).
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
            // QUEUE4
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
        if abort {
            // QUEUE8
            for running in state.workers.iter().filter_map(|seat| seat.running.as_ref()) {
                running.token().raise(Interrupt::Aborted);
            }
        }
        state.sleeping.clear();
        for seat in &state.workers {
            seat.bell.notify_one();
        }
        self.end_intake(state, !abort, CallError::Closed);
    }

    /// The worker's thread is about to end.
    pub(crate) fn leave(&self, worker: usize) {
        let mut state = lock(&self.state);
        let seat = &mut state.workers[worker];
        (seat.alive, seat.running) = (false, None);
        state.strike(worker);
        state.alive -= 1;
        if state.alive == 0 {
            // QUEUE6
            self.end_intake(state, false, CallError::Faulted);
        }
    }

    /// Closes intake and releases the lock, then refuses the calls that wait for room, and those that were accepted
    /// unless `serve_accepted`. Tells those who wait for the last worker's exit if there is none.
    fn end_intake(&self, mut state: MutexGuard<'_, State<C>>, serve_accepted: bool, why: CallError) {
        state.open = false;
        let refused = state.lanes.clear(serve_accepted);
        let errands = std::mem::take(&mut state.errands);
        let exit = if state.alive == 0 { std::mem::take(&mut state.exit) } else { Vec::new() };
        drop(state);
        // QUEUE5, QUEUE9
        drop(errands);
        for waiting in refused {
            waiting.call.refuse(why);
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
        // QUEUE9
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
            // QUEUE8
            self.workers[worker].running = call.interruptible();
            return Some(Taken { lane, call, behind });
        }
    }
}
