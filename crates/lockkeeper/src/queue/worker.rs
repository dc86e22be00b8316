//! The worker side: threads that build a service on themselves and serve batches of calls.
//!
//! | thread | what may be trusted | left by |
//! |---|---|---|
//! | building | the queue has a slot for it; it has taken no call | the factory's result |
//! | sleeping | its index is in `sleeping` (QUEUE4) | a wake-up, its idle time |
//! | serving | its slot names the running call | the end of the batch |
//! | leaving | its service is finished, its slot is free | the end of the thread |
//!
//! - WORK1: a thread finishes its service before it frees its slot. So when the last slot is free, every resource has
//!   been released.
//! - WORK2: the first `min` threads stay until the queue is closed. When calls wait and no worker has taken a call for
//!   [`STALL`], the pool starts an extra thread, up to `max` threads. An extra thread ends after [`EXTRA_IDLE_MAX`]
//!   without work.
//! - WORK3: a worker thread has its queue's frame from beginning to end. So code of a caller that runs on it outside a
//!   call (a destructor, a waker) and submits to the same queue gets `Nested` instead of waiting for itself.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::{
    Alarm, Clock, Frame, Item, Look, Queue, Receiver, Reply, Scope, StartError, Taken, call::reply,
    lane::LaneId,
};
use crate::sync::{Mutex, lock, now};

/// If calls wait and no worker takes a call for this long, the pool assumes that all workers are busy with long calls.
const STALL: Duration = Duration::from_millis(2);

/// How long a thread above the minimum stays when it finds no work.
const EXTRA_IDLE_MAX: Duration = Duration::from_secs(10);

/// Serves the calls on a worker thread. A service need not be `Send`.
pub(crate) trait Service: 'static {
    type Call: Item;

    /// Serves `first` and as many further calls of the batch as it chooses.
    fn serve(&mut self, first: Taken<Self::Call>, batch: &mut Batch<'_, Self::Call>);

    /// Releases the resource, on its own thread, when the worker ends.
    fn finish(self);
}

/// The calls that may be served together with the first one.
pub(crate) struct Batch<'q, C> {
    queue: &'q Queue<C>,
    worker: usize,
    limit: u64,
    /// Calls taken in this batch.
    calls: u64,
}

impl<C: Item> Batch<'_, C> {
    /// Charges `lane` for its call and takes the next call of this batch.
    pub(crate) fn charge_and_take(&mut self, lane: LaneId, run: Duration) -> Option<Taken<C>> {
        let taken = self.queue.charge_and_take(self.worker, lane, run, Some(Scope::Batch));
        self.count(taken)
    }

    /// Charges `lane` and takes the next call that was submitted before this batch began.
    pub(crate) fn charge_and_take_older(
        &mut self,
        lane: LaneId,
        run: Duration,
    ) -> Option<Taken<C>> {
        let scope = Some(Scope::OlderThan(self.limit));
        let taken = self.queue.charge_and_take(self.worker, lane, run, scope);
        self.count(taken)
    }

    /// Charges `lane` for its call without taking another.
    pub(crate) fn charge(&mut self, lane: LaneId, run: Duration) {
        self.queue.charge_and_take(self.worker, lane, run, None);
    }

    /// Ends the batch and begins another one, if calls wait.
    pub(crate) fn begin_again(&mut self) -> Option<Taken<C>> {
        let first = self.queue.try_take_first(self.worker)?;
        self.limit = first.limit;
        Some(first.taken)
    }

    /// Yields the processor once, when no call is left to take. `false`: it did not yield (`Lookout::give_way`).
    pub(crate) fn give_way(&self) -> bool {
        // The calls pushed so far have been taken.
        self.queue.lookout.clear_pushed();
        self.queue.lookout.give_way()
    }

    /// Takes another call of this batch without charging a lane.
    pub(crate) fn take(&mut self) -> Option<Taken<C>> {
        let taken = self.queue.take_next(self.worker, Scope::Batch);
        self.count(taken)
    }

    fn count(&mut self, taken: Option<Taken<C>>) -> Option<Taken<C>> {
        self.calls += u64::from(taken.is_some());
        taken
    }
}

/// How many threads a pool has, and their names.
#[derive(Clone)]
pub(crate) struct PoolConfig {
    pub(crate) name: String,
    pub(crate) min: usize,
    pub(crate) max: usize,
    /// How long a worker looks for the next call before it sleeps. `None`: it sleeps without looking.
    pub(crate) look: Option<Look>,
    /// Runs first on each thread.
    pub(crate) on_start: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The result of building a worker's service.
pub(crate) type Built<E> = Result<(), StartError<E>>;

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

type Factory<S, E> = Box<dyn Fn() -> Result<S, E> + Send + Sync>;

/// The threads that serve one queue.
pub(crate) struct Pool<S: Service, E> {
    pub(crate) queue: Arc<Queue<S::Call>>,
    config: PoolConfig,
    factory: Factory<S, E>,
    clock: Arc<Clock>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    check: Mutex<Option<Alarm>>,
}

impl<S: Service, E: Send + 'static> Pool<S, E> {
    /// Makes a pool without threads.
    pub(crate) fn new(
        queue: Arc<Queue<S::Call>>,
        config: PoolConfig,
        clock: Arc<Clock>,
        factory: impl Fn() -> Result<S, E> + Send + Sync + 'static,
    ) -> Arc<Self> {
        queue.set_workers_max(config.max);
        Arc::new(Self {
            queue,
            config,
            factory: Box::new(factory),
            clock,
            threads: Mutex::new(Vec::new()),
            check: Mutex::new(None),
        })
    }

    /// Starts the `min` workers. Each receiver is answered when that worker has built its service.
    pub(crate) fn start(self: &Arc<Self>) -> Result<Vec<Receiver<Built<E>>>, StartError<E>> {
        (0..self.config.min)
            .map(|_| {
                let (built, receiver) = reply();
                self.spawn(None, built).map_err(StartError::Thread)?;
                Ok(receiver)
            })
            .collect()
    }

    fn spawn(
        self: &Arc<Self>,
        idle_max: Option<Duration>,
        built: Reply<Built<E>>,
    ) -> std::io::Result<()> {
        let worker = self.queue.add_worker();
        let name = match self.config.max {
            1 => self.config.name.clone(),
            _ => format!("{}-{worker}", self.config.name),
        };
        let exit = WorkerExit { queue: Arc::clone(&self.queue), worker };
        let pool = Arc::clone(self);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            pool.run(exit, idle_max, built);
        })?;
        let mut threads = lock(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    fn run(
        self: Arc<Self>,
        exit: WorkerExit<S::Call>,
        idle_max: Option<Duration>,
        built: Reply<Built<E>>,
    ) {
        // WORK3. The frame is dropped after `guard`, because the drop of `guard` may refuse calls.
        let _frame = Frame::of_worker(self.queue.domain, self.queue.worker_set());
        let guard = exit;
        let started = catch_unwind(AssertUnwindSafe(|| {
            if let Some(on_start) = &self.config.on_start {
                on_start();
            }
            (self.factory)()
        }));
        let started = match started {
            Ok(result) => result.map_err(StartError::Build),
            Err(panic) => Err(StartError::Panicked(panic_text(&*panic).to_owned())),
        };
        let mut service = match started {
            Ok(service) => service,
            Err(error) => return built.answer(Err(error)),
        };
        built.answer(Ok(()));
        let look = self.config.look;
        // From here on the thread holds the queue but not the pool, so that a pool that nothing else uses is dropped.
        drop(self);
        while let Some(first) = guard.queue.take_first(guard.worker, idle_max, look) {
            let queue = &guard.queue;
            let mut batch = Batch { queue, worker: guard.worker, limit: first.limit, calls: 1 };
            let lone = look.and_then(|look| look.lone).map(|lone| (lone, now()));
            service.serve(first.taken, &mut batch);
            if let Some((lone, began)) = lone {
                queue.lookout.served(batch.calls == 1 && now() - began >= lone);
            }
        }
        // WORK1
        service.finish();
    }

    /// Checks for a stall: starts another worker unless one of the present workers soon takes a call (WORK2).
    pub(crate) fn check_for_stall(self: &Arc<Self>) {
        if self.config.max <= self.config.min || !self.queue.claim_check() {
            return;
        }
        self.check_again(self.queue.progress().taken);
    }

    fn check_again(self: &Arc<Self>, taken_before: u64) {
        let check = move |pool: &Arc<Self>| pool.check_now(taken_before);
        let alarm = self.clock.set_for(self, now() + STALL, check);
        let before = lock(&self.check).replace(alarm);
        drop(before);
    }

    fn check_now(self: &Arc<Self>, taken_before: u64) {
        let progress = self.queue.progress();
        if progress.starved {
            if progress.taken == taken_before && progress.alive < self.config.max {
                // If no thread can be started, the calls go on waiting for the present workers.
                let (built, _) = reply();
                let _ = self.spawn(Some(EXTRA_IDLE_MAX), built);
            }
            self.check_again(progress.taken);
        } else {
            self.queue.release_check();
            // A push before the release saw that a check was under way, and did not ask for another.
            if self.queue.progress().starved {
                self.check_for_stall();
            }
        }
    }

    /// Joins the threads. Call it when the last worker has freed its slot.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            if thread.thread().id() != std::thread::current().id() {
                // An error means that the thread panicked. The panic hook has reported it, and `WorkerExit` has done
                // the rest (QUEUE6).
                let _ = thread.join();
            }
        }
    }
}

/// Frees the worker's slot when the thread ends, also by a panic (QUEUE6).
struct WorkerExit<C: Item> {
    queue: Arc<Queue<C>>,
    worker: usize,
}

impl<C: Item> Drop for WorkerExit<C> {
    fn drop(&mut self) {
        self.queue.leave(self.worker);
    }
}
