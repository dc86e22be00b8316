//! The public API for resources of any kind: [`Worker`], [`Client`] and their calls.

use std::any::Any;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::close::Closing;
use super::flight::{InFlight, Lane, Room, ancestry_for, refused};
use super::owner::{Closer, Job, Owner, Recycle, Verdict, stopped};
use super::{
    Ancestry, Awaited, Built, CallError, Circle, Clock, Close, Closed, Deadline, Domain, Frame,
    Interrupt, Interruptible, Phase, Pool, PoolConfig, Priority, Queue, Receiver, Refused,
    RefusedReason, Reply, StartError, Wait, after, block_on, frames, reply, shielded,
};
use crate::sync::{Mutex, lock};

/// Settings of a [`Worker`]; see [`Worker::builder`].
pub struct Builder<R> {
    name: String,
    capacity: usize,
    recycle: Recycle<R>,
    on_start: Option<Arc<dyn Fn() + Send + Sync>>,
    shed_after: Option<Duration>,
}

impl<R: 'static> Builder<R> {
    /// The number of accepted calls of each client that may wait at the same time. Default: 1,024.
    pub fn capacity(mut self, calls: usize) -> Self {
        self.capacity = calls;
        self
    }

    /// Sheds calls under overload. If for ten times `target` every call of a client waits longer than `target`, the
    /// worker begins to refuse, with [`CallError::Overloaded`], the client's calls that have waited longer than
    /// `target`. It stops when ten times `target` pass in which no call of the client waited so long. Default: no call
    /// is shed.
    pub fn shed_after(mut self, target: Duration) -> Self {
        self.shed_after = Some(target);
        self
    }

    /// Sets the function that decides after each call whether the resource may serve the next one. Its second argument
    /// tells whether the call panicked. Default: the resource is replaced after a panic, and reused otherwise.
    pub fn recycle(mut self, f: impl FnMut(&mut R, bool) -> Verdict + Send + 'static) -> Self {
        self.recycle = Box::new(f);
        self
    }

    /// Calls `f` first on the worker's thread, for example to pin it to a CPU or to set its priority.
    pub fn on_thread_start(mut self, f: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_start = Some(Arc::new(f));
        self
    }

    /// Pins the worker's thread to the processor `cpu`, counted from 0. Has no effect if the system does not allow it.
    #[cfg(feature = "affinity")]
    pub fn pin_to_cpu(self, cpu: usize) -> Self {
        self.on_thread_start(move || {
            core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
        })
    }

    /// Starts the thread and builds the resource on it. `build` runs again for each replacement.
    ///
    /// # Errors
    /// The capacity is 0, no thread could be started, `build` failed, or [`StartError::Nested`].
    ///
    /// # Cancel safety
    /// Dropping the future lets the thread end as soon as the resource is built.
    pub fn spawn<E: Send + 'static>(
        self,
        build: impl FnMut() -> Result<R, E> + Send + 'static,
    ) -> Spawn<R, E> {
        Spawn { state: Some(self.start(build)) }
    }

    /// As [`Builder::spawn`], but blocks this thread until the resource is built.
    ///
    /// # Errors
    /// As [`Builder::spawn`].
    pub fn blocking_spawn<E: Send + 'static>(
        self,
        build: impl FnMut() -> Result<R, E> + Send + 'static,
    ) -> Result<Worker<R>, StartError<E>> {
        block_on(self.spawn(build))
    }

    fn start<E: Send + 'static>(
        self,
        build: impl FnMut() -> Result<R, E> + Send + 'static,
    ) -> Result<Starting<R, E>, StartError<E>> {
        if self.capacity == 0 {
            return Err(StartError::ZeroCapacity);
        }
        let queue = Arc::new(Queue::new(self.capacity, Domain::new(), self.shed_after));
        let clock = Arc::new(Clock::new());
        let config =
            PoolConfig { name: self.name, min: 1, max: 1, look: None, on_start: self.on_start };
        // The factory takes `build` and `recycle` out of the mutex once, because there is only one worker. The mutex
        // makes the factory `Sync`.
        let parts = Mutex::new(Some((build, self.recycle)));
        let domain = queue.domain;
        let pool = Pool::new(Arc::clone(&queue), config, Arc::clone(&clock), move || {
            let (mut build, recycle) = lock(&parts).take().expect("one worker, one factory");
            let resource = Some(build()?);
            Ok(Owner { build: Box::new(build), recycle, resource, domain })
        });
        let mut built = pool.start()?;
        let built = built.pop().ok_or(StartError::Faulted)?;
        let closing: Arc<dyn Closing> = Arc::new(Closer { pool, clock: Arc::clone(&clock) });
        let client = Client { lane: Lane::main(queue), clock };
        let worker = Worker { client, shutdown: Arc::new(Shutdown(closing)) };
        Ok(Starting { worker, built, domain, wait: None })
    }
}

struct Starting<R: 'static, E> {
    worker: Worker<R>,
    built: Receiver<Built<E>>,
    domain: Domain,
    /// `Some` if the future was polled inside a call, because the build function may wait for that call.
    wait: Option<Wait>,
}

/// A future that starts a worker; see [`Builder::spawn`].
#[must_use = "futures do nothing unless polled"]
pub struct Spawn<R: 'static, E> {
    state: Option<Result<Starting<R, E>, StartError<E>>>,
}

impl<R, E> Unpin for Spawn<R, E> {}

impl<R, E> Future for Spawn<R, E> {
    type Output = Result<Worker<R>, StartError<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.state.take() {
            None => Poll::Ready(Err(StartError::Faulted)),
            Some(Err(error)) => Poll::Ready(Err(error)),
            Some(Ok(mut starting)) => match starting.built.poll(context) {
                Poll::Pending => {
                    if starting.wait.is_none() {
                        match Wait::enter(|| Awaited::All(starting.domain), true) {
                            Ok(wait) => starting.wait = wait,
                            Err(Circle) => return Poll::Ready(Err(StartError::Nested)),
                        }
                    }
                    self.state = Some(Ok(starting));
                    Poll::Pending
                }
                Poll::Ready(built) => {
                    let built = built.unwrap_or(Err(StartError::Faulted));
                    Poll::Ready(built.map(|()| starting.worker))
                }
            },
        }
    }
}

/// A thread that owns an `R`, and the handle to it. Cheap to clone; derefs to its main [`Client`].
///
/// The drop of the last handle closes intake and does not block. The thread serves the accepted calls, then ends. Use
/// [`Worker::close`] to wait for it.
pub struct Worker<R: 'static> {
    client: Client<R>,
    shutdown: Arc<Shutdown>,
}

struct Shutdown(Arc<dyn Closing>);

impl Drop for Shutdown {
    fn drop(&mut self) {
        if !self.0.is_forked() {
            self.0.close();
        }
    }
}

impl<R> Clone for Worker<R> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), shutdown: Arc::clone(&self.shutdown) }
    }
}

impl<R> Deref for Worker<R> {
    type Target = Client<R>;

    fn deref(&self) -> &Client<R> {
        &self.client
    }
}

impl<R: 'static> Worker<R> {
    /// A builder for a worker whose thread is called `name`.
    pub fn builder(name: &str) -> Builder<R> {
        Builder {
            name: name.to_owned(),
            capacity: 1024,
            recycle: Box::new(|_, panicked| match panicked {
                true => Verdict::Replace,
                false => Verdict::Reuse,
            }),
            on_start: None,
            shed_after: None,
        }
    }

    /// Closes intake, serves the accepted calls, drops the resource on its thread and joins the thread.
    ///
    /// Calls that wait for room are refused. [`Close::deadline`] aborts the calls that remain after that time.
    pub fn close(&self) -> Close {
        Close::new(Arc::clone(&self.shutdown.0), false)
    }

    /// As [`Worker::close`], but refuses the waiting calls and asks the running one to stop.
    pub fn abort(&self) -> Close {
        Close::new(Arc::clone(&self.shutdown.0), true)
    }

    /// Closes and blocks this thread until the worker's thread has ended.
    ///
    /// # Errors
    /// [`CallError::Nested`] on the worker's own thread; [`CallError::Forked`] in a forked child.
    pub fn blocking_close(&self) -> Result<Closed, CallError> {
        match self.close().blocking_wait() {
            Closed::Forked => Err(CallError::Forked),
            Closed::Nested => Err(CallError::Nested),
            closed => Ok(closed),
        }
    }
}

/// A client of a worker: a lane of its own in the queue, which gets a fair share of the worker.
pub struct Client<R: 'static> {
    lane: Arc<Lane<Box<dyn Job<R>>>>,
    clock: Arc<Clock>,
}

impl<R> Clone for Client<R> {
    fn clone(&self) -> Self {
        Self { lane: Arc::clone(&self.lane), clock: Arc::clone(&self.clock) }
    }
}

impl<R: 'static> Client<R> {
    /// The client called `name`. Clients of one name share a lane.
    pub fn client(&self, name: &str) -> Self {
        Self { lane: Lane::named(&self.lane.queue, name), clock: Arc::clone(&self.clock) }
    }

    /// Sets this client's share of the running time, relative to the others', for all handles of its name. Default: 1.
    pub fn set_weight(&self, weight: u32) {
        self.lane.queue.set_weight(self.lane.id, weight);
    }

    /// Sets whether this client is served first or last, for all handles of its name.
    pub fn set_priority(&self, priority: Priority) {
        self.lane.queue.set_priority(self.lane.id, priority);
    }

    /// Runs `f` on the resource, on its thread, in this client's turn.
    ///
    /// The first poll submits the call. If this client's part of the queue is full, the call waits for room.
    ///
    /// # Errors
    /// [`CallError`]: closed, timed out, nested or forked. `f` did not run, or was asked to stop.
    ///
    /// # Panics
    /// Resumes a panic of `f` on the caller; the worker lives on.
    ///
    /// # Cancel safety
    /// Dropped while waiting: `f` never runs, and its place becomes free immediately. Dropped while running: `f` goes
    /// on until it returns; `f` can check [`should_stop`].
    pub fn call<T, F>(&self, f: F) -> Call<R, F, T>
    where
        F: FnOnce(&mut R) -> T + Send + 'static,
        T: Send + 'static,
    {
        Call { client: self.clone(), state: State::New(f), deadline: None }
    }

    /// Submits `f` now if there is room; otherwise returns `f`.
    ///
    /// # Errors
    /// [`Refused`] holds `f` and the reason.
    pub fn try_call<T, F>(&self, f: F) -> Result<Call<R, F, T>, Refused<F>>
    where
        F: FnOnce(&mut R) -> T + Send + 'static,
        T: Send + 'static,
    {
        let mut call = Call { client: self.clone(), state: State::Over, deadline: None };
        if self.lane.queue.is_forked() {
            return Err(Refused { reason: RefusedReason::Forked, call: f });
        }
        let ancestry = match ancestry_for(self.lane.queue.domain) {
            Ok(ancestry) => ancestry,
            Err(_) => return Err(Refused { reason: RefusedReason::Nested, call: f }),
        };
        call.state = State::InFlight(call.submit(f, ancestry, Room::Need)?);
        Ok(call)
    }

    /// Runs `f` and blocks this thread until it has run.
    ///
    /// # Errors
    /// As [`Client::call`].
    ///
    /// # Panics
    /// As [`Client::call`].
    pub fn blocking_call<T, F>(&self, f: F) -> Result<T, CallError>
    where
        F: FnOnce(&mut R) -> T + Send + 'static,
        T: Send + 'static,
    {
        block_on(self.call(f))
    }
}

/// Why the call that runs on this thread should stop: it was canceled, timed out or aborted. `None`: it need not stop,
/// or no call runs here. Long calls can ask between two steps.
pub fn should_stop() -> Option<Interrupt> {
    frames::interrupt()
}

/// A call: first a builder, then a future.
#[must_use = "a call is submitted when it is polled"]
pub struct Call<R: 'static, F, T: Send + 'static> {
    client: Client<R>,
    state: State<R, F, T>,
    deadline: Option<Duration>,
}

enum State<R: 'static, F, T: Send + 'static> {
    New(F),
    InFlight(Sent<R, T>),
    Over,
}

impl<R, F, T: Send + 'static> Unpin for Call<R, F, T> {}

type Sent<R, T> = InFlight<Box<dyn Job<R>>, Outcome<T>>;

enum Outcome<T> {
    Done(T),
    Panicked(Box<dyn Any + Send>),
    Refused(CallError),
}

impl<R, F, T> Call<R, F, T>
where
    F: FnOnce(&mut R) -> T + Send + 'static,
    T: Send + 'static,
{
    /// Sets a deadline: if `f` has not begun `patience` after the submission, the call times out. A running `f` is not
    /// ended, but [`should_stop`] tells it to stop; what it then returns is the result of the call.
    pub fn deadline(mut self, patience: Duration) -> Self {
        self.deadline = Some(patience);
        self
    }

    fn submit(&self, f: F, ancestry: Ancestry, room: Room) -> Result<Sent<R, T>, Refused<F>> {
        let (reply, receiver) = reply();
        // If the submission is refused, `f` is taken back out of this slot.
        let slot = Arc::new(Mutex::new(Some(f)));
        let job = Closure { f: Arc::clone(&slot), reply, ancestry, resource: PhantomData };
        let deadline = self.deadline.map(|patience| {
            let at = after(patience);
            Deadline { at, clock: &self.client.clock, expiring: None }
        });
        match InFlight::submit(&self.client.lane, Box::new(job) as Box<_>, receiver, room, deadline)
        {
            Ok((in_flight, _)) => Ok(in_flight),
            Err(Refused { reason, call }) => {
                drop(call);
                let call = lock(&slot).take().expect("a refused call has not run");
                Err(Refused { reason, call })
            }
        }
    }
}

impl<R, F, T> Future for Call<R, F, T>
where
    F: FnOnce(&mut R) -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = Result<T, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut in_flight = match std::mem::replace(&mut self.state, State::Over) {
            State::New(_) if self.client.lane.queue.is_forked() => {
                return Poll::Ready(Err(CallError::Forked));
            }
            State::New(f) => {
                let ancestry = ancestry_for(self.client.lane.queue.domain)?;
                self.submit(f, ancestry, Room::Wait).map_err(|error| refused(&error))?
            }
            State::InFlight(in_flight) => in_flight,
            State::Over => return Poll::Ready(Err(CallError::Faulted)),
        };
        let Poll::Ready(outcome) = in_flight.poll(context) else {
            self.state = State::InFlight(in_flight);
            return Poll::Pending;
        };
        Poll::Ready(match outcome {
            Ok(Outcome::Done(value)) => Ok(value),
            Ok(Outcome::Panicked(payload)) => resume_unwind(payload),
            Ok(Outcome::Refused(error)) | Err(error) => Err(error),
        })
    }
}

struct Closure<R, F, T> {
    f: Arc<Mutex<Option<F>>>,
    reply: Reply<Outcome<T>>,
    ancestry: Ancestry,
    resource: PhantomData<fn(R)>,
}

impl<R, F, T> Job<R> for Closure<R, F, T>
where
    F: FnOnce(&mut R) -> T + Send + 'static,
    T: Send + 'static,
{
    fn run(self: Box<Self>, domain: Domain, resource: &mut R) -> bool {
        let Self { f, reply, ancestry, .. } = *self;
        let Some(f) = lock(&f).take() else { return false };
        if let Some(why) = reply.token() {
            shielded(|| drop(f));
            reply.answer(Outcome::Refused(stopped(why, Phase::Queued)));
            return false;
        }
        let ran = {
            let _frame = Frame::enter(domain, ancestry, reply.interruptible());
            catch_unwind(AssertUnwindSafe(|| f(resource)))
        };
        let panicked = ran.is_err();
        reply.answer(ran.map_or_else(Outcome::Panicked, Outcome::Done));
        panicked
    }

    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        self.reply.interruptible()
    }

    fn refuse(self: Box<Self>, why: CallError) {
        let Self { f, reply, .. } = *self;
        reply.answer(Outcome::Refused(why));
        shielded(|| drop(f));
    }
}
