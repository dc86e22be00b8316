//! The queue: one lock over all waiting calls. The states and invariants are in `mod.rs`.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::admission::Admission;
use super::call::{Interrupt, Interruptible, Receiver, Reply, reply};
use super::error::{CallError, Phase, Refused, RefusedReason};
use super::frames::{Domain, WorkerSet};
use super::lane::{LaneFigures, LaneId, MAIN, Position, Priority, Taken};
use super::lanes::{Lanes, Scope};
use super::lookout::{Look, Lookout};
use crate::sync::{Condvar, Mutex, MutexGuard, lock, now, wait, wait_until};

/// What the queue needs to know of a call.
pub(crate) trait Item: Send + 'static {
    /// The call's token, which the queue raises when a running call must stop.
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>>;
    /// Whether the call changes something, so that the queue refuses it while such calls are stopped (QUEUE10).
    fn changes_something(&self) -> bool {
        false
    }
    /// Answers a call that never ran.
    fn refuse(self, why: CallError);
    /// Whether two errands of the library are the same, so that one of them suffices (QUEUE9).
    fn is_same_errand(&self, _other: &Self) -> bool {
        false
    }
}

pub(crate) struct Queue<C> {
    state: Mutex<State<C>>,
    pub(crate) lookout: Lookout,
    pub(crate) domain: Domain,
    /// Set when the pool is made.
    worker_set: OnceLock<WorkerSet>,
    /// The process that made the queue and has its worker threads.
    pid: u32,
}

struct State<C> {
    lanes: Lanes<Waiting<C>>,
    /// Waiting errands (QUEUE9). Bound: one of each kind.
    errands: Vec<C>,
    /// Whether the last batch began with an errand.
    ran_errand: bool,
    /// `None`: the queue never sheds calls.
    admission: Option<Admission>,
    open: bool,
    /// The number of stops that have not been resumed (QUEUE10).
    stops: usize,
    /// A slot per worker. Each has a condition variable of its own, so that a push can wake one particular worker.
    workers: Vec<WorkerSlot>,
    /// Sleeping workers. The last entry fell asleep last and is woken first, because its caches are the warmest.
    sleeping: Vec<usize>,
    /// Workers that have not ended. Slots of ended workers stay in `workers` for the next ones.
    alive: usize,
    /// Calls taken so far. The stall check compares two readings.
    taken: u64,
    /// The replies of [`Queue::gone`], answered when `alive` becomes 0.
    exit: Vec<Reply<()>>,
    /// Whether a stall check is under way.
    checking: bool,
}

struct Waiting<C> {
    call: C,
    /// When the call was submitted; `None` in a queue that never sheds calls.
    since: Option<Instant>,
}

/// Calls that were shed under the lock. The drop of this value refuses them. Declare it before the lock's guard, so
/// that the lock is released first.
struct Shed<C: Item>(Vec<C>);

impl<C: Item> Drop for Shed<C> {
    fn drop(&mut self) {
        // QUEUE5, QUEUE7
        for call in self.0.drain(..) {
            call.refuse(CallError::Overloaded);
        }
    }
}

struct WorkerSlot {
    wakeup: Arc<Condvar>,
    /// The call that this worker runs, which `abort` asks to stop. Its last reference may be dropped under the lock,
    /// because it holds no value of a caller (CALL3).
    running: Option<Arc<dyn Interruptible>>,
    alive: bool,
}

/// The result of a push.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pushed {
    pub(crate) position: Position,
    /// Whether the pool should check for a stall: no worker sleeps, and no check is under way. If that lasts, the pool
    /// may need another worker.
    pub(crate) check_for_stall: bool,
}

impl<C: Item> Queue<C> {
    /// A queue with room for `capacity` calls of each lane. Under overload it sheds calls that have waited longer than
    /// `shed_after`.
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
        let worker_set = OnceLock::new();
        Self { state, lookout, domain, worker_set, pid: crate::process::id() }
    }

    /// Sets the largest number of threads that will serve the queue. Only the first call has an effect.
    pub(crate) fn set_workers_max(&self, workers_max: usize) {
        let _ = self.worker_set.set(WorkerSet::new(workers_max));
    }

    /// The workers that may run a call of this queue.
    pub(crate) fn worker_set(&self) -> WorkerSet {
        self.worker_set.get().copied().unwrap_or(WorkerSet::UNKNOWN)
    }

    pub(crate) fn open_lane(&self, name: &str) -> LaneId {
        lock(&self.state).lanes.open(name)
    }

    pub(crate) fn retire_lane(&self, lane: LaneId) {
        lock(&self.state).lanes.retire(lane);
    }

    /// How many calls each lane has run, and how many wait in it.
    pub(crate) fn lane_figures(&self) -> Vec<LaneFigures> {
        lock(&self.state).lanes.figures()
    }

    pub(crate) fn set_weight(&self, lane: LaneId, weight: u32) {
        lock(&self.state).lanes.set_weight(lane, weight);
    }

    pub(crate) fn set_priority(&self, lane: LaneId, priority: Priority) {
        lock(&self.state).lanes.set_priority(lane, priority);
    }

    /// Whether intake is open.
    pub(crate) fn is_open(&self) -> bool {
        lock(&self.state).open
    }

    /// Whether this process was forked from the one that made the queue. The child has no worker threads.
    pub(crate) fn is_forked(&self) -> bool {
        crate::process::id() != self.pid
    }

    /// Adds a call. If its lane is full, the call waits for room.
    pub(crate) fn push(&self, lane: LaneId, call: C) -> Result<Pushed, Refused<C>> {
        self.push_with(lane, call, Lanes::push, RefusedReason::Closed)
    }

    /// Adds a call if there is room; otherwise refuses it.
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

    /// Adds an errand of the library (QUEUE9). Returns it if intake is closed or the same errand waits already.
    pub(crate) fn push_errand(&self, errand: C) -> Result<(), C> {
        let mut state = lock(&self.state);
        if !state.open || state.errands.iter().any(|other| errand.is_same_errand(other)) {
            return Err(errand);
        }
        state.errands.push(errand);
        self.wake_worker(state);
        Ok(())
    }

    /// Releases the lock after a call or an errand was added, and wakes a worker if one sleeps (QUEUE4).
    fn wake_worker(&self, mut state: MutexGuard<'_, State<C>>) {
        let wakeup = state.sleeping.pop().map(|worker| Arc::clone(&state.workers[worker].wakeup));
        drop(state);
        self.lookout.announce();
        if let Some(wakeup) = wakeup {
            wakeup.notify_one();
        }
    }

    /// Refuses calls that change something until [`Queue::resume`] has been called once for each stop (QUEUE10). Calls
    /// with a smaller sequence number than the returned one entered before the stop.
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

    /// Whether a call with a smaller sequence number waits.
    pub(crate) fn has_older_than(&self, seq: u64) -> bool {
        lock(&self.state).lanes.has_older_than(seq)
    }

    /// Removes a waiting call. `None`: a worker has taken it (QUEUE1).
    pub(crate) fn remove(&self, position: Position) -> Option<C> {
        lock(&self.state).lanes.remove(position).map(|waiting| waiting.call)
    }

    /// Refuses a call whose deadline passed while it waited. `false`: a worker has taken it.
    pub(crate) fn expire(&self, position: Position) -> bool {
        let mut state = lock(&self.state);
        let room = state.lanes.waits_for_room(position);
        let call = state.lanes.remove(position);
        drop(state);
        let Some(Waiting { call, .. }) = call else { return false };
        call.refuse(CallError::Timeout(if room { Phase::Room } else { Phase::Queued }));
        true
    }

    /// Adds a worker, in the slot of an ended one if there is any; returns its index.
    pub(crate) fn add_worker(&self) -> usize {
        let mut state = lock(&self.state);
        state.alive += 1;
        let free = state.workers.iter().position(|slot| !slot.alive);
        let worker = free.unwrap_or(state.workers.len());
        let slot = WorkerSlot { wakeup: Arc::new(Condvar::new()), running: None, alive: true };
        match free {
            Some(free) => state.workers[free] = slot,
            None => state.workers.push(slot),
        }
        worker
    }

    /// Waits for a call and takes it as the first of a new batch.
    ///
    /// `None`: intake is closed and no call is left, or no call came for `idle_max`.
    pub(crate) fn take_first(
        &self,
        worker: usize,
        idle_max: Option<Duration>,
        look: Option<Look>,
    ) -> Option<First<C>> {
        let looked = look.map(|look| (self.lookout.look(look), look));
        let mut shed = Shed(Vec::new());
        let mut state = lock(&self.state);
        let give_up_at = idle_max.map(|idle_max| now() + idle_max);
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
            let wakeup = Arc::clone(&state.workers[worker].wakeup);
            state.sleeping.push(worker);
            state = match give_up_at {
                None => wait(&wakeup, state),
                Some(at) => wait_until(&wakeup, state, at),
            };
            let woken = !state.remove_sleeper(worker);
            let over = !woken && give_up_at.is_some_and(|at| now() >= at);
            if over && state.lanes.accepted() == 0 {
                return None;
            }
        }
    }

    /// Takes a call as the first of a new batch, if one waits.
    pub(crate) fn try_take_first(&self, worker: usize) -> Option<First<C>> {
        let mut shed = Shed(Vec::new());
        lock(&self.state).begin_batch(worker, &mut shed)
    }

    /// Takes the next call of the batch.
    pub(crate) fn take_next(&self, worker: usize, scope: Scope) -> Option<Taken<C>> {
        let mut shed = Shed(Vec::new());
        lock(&self.state).take(worker, scope, &mut shed)
    }

    /// Charges a lane for the running time of its call, then takes the next call of `scope`, if any, under the same
    /// lock.
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

    /// Closes intake. Workers serve the accepted calls; calls that wait for room are refused.
    pub(crate) fn close(&self) {
        self.close_or_abort(false);
    }

    /// Closes intake, refuses all waiting calls, and asks running ones to stop.
    pub(crate) fn abort(&self) {
        self.close_or_abort(true);
    }

    fn close_or_abort(&self, abort: bool) {
        let mut state = lock(&self.state);
        if abort {
            // Calls that run are asked to stop here; the waiting ones are refused below (QUEUE8).
            for running in state.workers.iter().filter_map(|slot| slot.running.as_ref()) {
                running.token().raise(Interrupt::Aborted);
            }
        }
        state.sleeping.clear();
        for slot in &state.workers {
            slot.wakeup.notify_one();
        }
        self.end_intake(state, !abort, CallError::Closed);
    }

    /// Frees the slot of a worker whose thread is about to end.
    pub(crate) fn leave(&self, worker: usize) {
        let mut state = lock(&self.state);
        let slot = &mut state.workers[worker];
        (slot.alive, slot.running) = (false, None);
        state.remove_sleeper(worker);
        state.alive -= 1;
        if state.alive == 0 {
            // QUEUE6
            self.end_intake(state, false, CallError::Faulted);
        }
    }

    /// Closes intake and releases the lock. Then refuses the calls that wait for room, and the accepted ones unless
    /// `drain`; if no worker is left, answers [`Queue::gone`].
    fn end_intake(&self, mut state: MutexGuard<'_, State<C>>, drain: bool, why: CallError) {
        state.open = false;
        let refused = state.lanes.clear(drain);
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

    /// The figures that two readings of the stall check compare.
    pub(crate) fn progress(&self) -> Progress {
        let state = lock(&self.state);
        Progress {
            taken: state.taken,
            starved: state.open && state.lanes.accepted() > 0 && state.sleeping.is_empty(),
            alive: state.alive,
        }
    }

    /// Claims the stall check. `false`: a check is under way already.
    pub(crate) fn claim_check(&self) -> bool {
        let mut state = lock(&self.state);
        !std::mem::replace(&mut state.checking, true)
    }

    pub(crate) fn release_check(&self) {
        lock(&self.state).checking = false;
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) taken: u64,
    pub(crate) starved: bool,
    pub(crate) alive: usize,
}

/// The first call of a batch.
pub(crate) struct First<C> {
    pub(crate) taken: Taken<C>,
    /// Calls with a smaller sequence number were submitted before the batch began.
    pub(crate) limit: u64,
}

impl<C: Item> State<C> {
    /// Removes `worker` from the list of sleepers. `false`: a push or a close has removed it already.
    fn remove_sleeper(&mut self, worker: usize) -> bool {
        let index = self.sleeping.iter().position(|&other| other == worker);
        index.map(|index| self.sleeping.remove(index)).is_some()
    }

    /// Begins a batch with a waiting errand or call, if there is one.
    fn begin_batch(&mut self, worker: usize, shed: &mut Shed<C>) -> Option<First<C>> {
        let calls_wait = self.lanes.accepted() > 0;
        let limit = self.lanes.next_seq();
        // QUEUE9
        let errand_next = !(self.errands.is_empty() || self.ran_errand && calls_wait);
        self.ran_errand = errand_next;
        if errand_next {
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
            // Calls that run are asked to stop here; the waiting ones are refused below (QUEUE8).
            self.workers[worker].running = call.interruptible();
            return Some(Taken { lane, call, behind });
        }
    }
}
