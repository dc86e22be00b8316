//! A write transaction that stays open across awaits, for a limited time.
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | waiting | it is a call in the writer's queue | its turn, drop, deadline |
//! | idle | the writer's thread waits in [`Shared::next`], the transaction is open | a command, `end`, the idle time |
//! | running | the writer runs a command; `running` is its token | its end, `end` |
//! | over | `over` says why; the transaction is committed or rolled back soon | never |
//!
//! - J1: only the writer's thread touches the connection; everybody else sets `over` and rings.
//! - J2: whatever ends a lease without a commit rolls it back: drop, expiry, abort, a command that
//!   lost the transaction, a dropped command.
//! - J3: the writer waits for the caller only in `next`, for the idle time at most, and the hold time
//!   ends a running command too. So the next writer waits for a known time.
//!
//! Bound: one command waits at most, because the handle is borrowed until it is answered.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::database::Client;
use crate::error::{Error, ErrorKind};
use crate::ffi::lend;
use crate::holders::HolderKind;
use crate::job::{LeaseRequest, Once, WriteCall, WriteJob, WriteOutcome, WriterItem};
use crate::queue::{
    Awaited, CallError, Circle, Condvar, Flight, Holder, Interrupt, Interruptible, Mutex, Wait,
    after, block_on, lock, reply, wait_until,
};
use crate::submission::Submission;
use crate::transaction::Transaction;

/// How long a lease may last in all.
const HOLD_MAX: Duration = Duration::from_secs(5);

/// How long its holder may let the writer wait between two calls.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// What the holder and the writer share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Rung when there is a command or the lease is over; the writer waits for it.
    bell: Condvar,
    pub(crate) hold_max: Duration,
    idle_max: Duration,
    /// The call in which it was asked for; `None`: it was outside of any.
    holder: Option<Holder>,
}

#[derive(Default)]
struct State {
    command: Option<Command>,
    running: Option<Arc<dyn Interruptible>>,
    over: Option<ErrorKind>,
    /// The writer's wait for the call that holds the lease, while there is no command.
    wait: Option<Wait>,
}

/// What the holder asks of the writer.
pub(crate) enum Command {
    Run(Box<dyn WriteJob>),
    /// Its closure does nothing; its answer is that of the commit.
    Commit(Box<dyn WriteJob>),
}

impl Shared {
    /// The next command; `None`: the lease is over.
    pub(crate) fn next(&self) -> Option<Command> {
        let idle_until = after(self.idle_max);
        let mut state = lock(&self.state);
        loop {
            if state.over.is_some() {
                return None;
            }
            if let Some(command) = state.command.take() {
                state.running = match &command {
                    Command::Run(job) => job.interruptible(),
                    Command::Commit(_) => None,
                };
                return Some(command);
            }
            if let (Some(holder), None) = (self.holder, &state.wait) {
                match Wait::enter(|| Awaited::Holder(holder), true) {
                    Ok(wait) => state.wait = wait,
                    // Whoever asked for this writer meanwhile goes on, and the holder is told.
                    Err(Circle) => {
                        state.over = Some(ErrorKind::Nested);
                        return None;
                    }
                }
            }
            if crate::queue::now() >= idle_until {
                state.over = Some(ErrorKind::LeaseExpired);
                state.wait = None;
                return None;
            }
            state = wait_until(&self.bell, state, idle_until);
        }
    }

    /// A command has been run; false: the lease has ended meanwhile.
    pub(crate) fn rest(&self) -> bool {
        let mut state = lock(&self.state);
        let running = state.running.take();
        let goes_on = state.over.is_none();
        drop(state);
        drop(running);
        goes_on
    }

    /// Ends the lease (J2); the first reason stays. A running command is asked to stop.
    pub(crate) fn end(&self, why: ErrorKind) {
        let mut state = lock(&self.state);
        let why = *state.over.get_or_insert(why);
        let forgotten = state.command.take();
        state.wait = None;
        if let Some(running) = &state.running {
            running.token().raise(match why {
                ErrorKind::LeaseExpired => Interrupt::LeaseExpired,
                ErrorKind::Canceled => Interrupt::Aborted,
                _ => Interrupt::Canceled,
            });
        }
        self.bell.notify_one();
        drop(state);
        if let Some(Command::Run(job) | Command::Commit(job)) = forgotten {
            job.finish(crate::job::Fate::kind(why));
        }
    }

    /// Gives the writer a command, and enters the caller's wait for `awaited` instead of the writer's.
    fn submit(
        &self,
        command: Command,
        awaited: impl FnOnce() -> Awaited,
    ) -> Result<Option<Wait>, ErrorKind> {
        let mut state = lock(&self.state);
        let refused = match state.over {
            Some(why) => why,
            None => match Wait::enter_for(Some(&mut state.wait), awaited, true) {
                Ok(wait) => {
                    state.command = Some(command);
                    self.bell.notify_one();
                    return Ok(wait);
                }
                Err(Circle) => ErrorKind::Nested,
            },
        };
        drop(state);
        drop(command);
        Err(refused)
    }
}

/// On its way to the writer, with what will be shared.
type Asked<E> = (Flight<WriterItem, WriteOutcome<(), E>>, Arc<Shared>);

/// A lease being waited for; see [`Client::lease`].
#[must_use = "a lease is asked for when it is polled"]
pub struct AcquireLease<E: Send + 'static> {
    submission: Submission<E>,
    hold_max: Duration,
    idle_max: Duration,
    flight: Option<Asked<E>>,
    error: PhantomData<fn() -> E>,
}

impl<E: Send + 'static> Unpin for AcquireLease<E> {}

impl<E: Send + 'static> fmt::Debug for AcquireLease<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireLease")
            .field("hold_max", &self.hold_max)
            .field("idle_max", &self.idle_max)
            .field("deadline", &self.submission.deadline)
            .finish_non_exhaustive()
    }
}

impl<E: Send + 'static> AcquireLease<E> {
    #[track_caller]
    pub(crate) fn new(client: Client<E>) -> Self {
        Self {
            submission: Submission::new(HolderKind::Lease, client),
            hold_max: HOLD_MAX,
            idle_max: IDLE_MAX,
            flight: None,
            error: PhantomData,
        }
    }

    /// How long the lease may last in all, from its turn on. Default: 5 seconds.
    pub fn hold_max(mut self, time: Duration) -> Self {
        self.hold_max = time;
        self
    }

    /// How long the holder may do something else between two calls. Default: 1 second.
    pub fn idle_max(mut self, time: Duration) -> Self {
        self.idle_max = time;
        self
    }

    /// Gives up waiting for the turn after `patience`, counted from the first poll.
    pub fn deadline(mut self, patience: Duration) -> Self {
        self.submission.deadline = Some(patience);
        self
    }

    fn submit(&mut self) -> Result<(), Error<E>> {
        let ancestry = self.submission.admit()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            bell: Condvar::new(),
            hold_max: self.hold_max,
            idle_max: self.idle_max,
            holder: Holder::here(),
        });
        let flight = self.submission.submit_to_writer(|reply, meta| {
            let opening = WriteCall::new(Once(Some(nothing::<E>)), reply, ancestry, meta, false);
            let shared = Arc::clone(&shared);
            WriterItem::Lease(Box::new(LeaseRequest { opening: Box::new(opening), shared }))
        })?;
        self.flight = Some((flight, shared));
        Ok(())
    }
}

/// What the calls do that open and commit a lease.
fn nothing<E>(_: &Transaction) -> Result<(), E> {
    Ok(())
}

impl<E: Send + 'static> Future for AcquireLease<E> {
    type Output = Result<Lease<E>, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.flight.is_none() {
            self.submit()?;
        }
        let Some((flight, _)) = &mut self.flight else {
            return Poll::Ready(Err(Error::new(ErrorKind::Faulted)));
        };
        let landed = ready!(flight.poll(context));
        let Some((_, shared)) = self.flight.take() else {
            return Poll::Ready(Err(Error::new(ErrorKind::Faulted)));
        };
        let submission = self.submission.follow_up();
        Poll::Ready(match self.submission.settle(landed) {
            Ok(_) => Ok(Lease { submission, shared }),
            Err(error) => {
                // If it was opened all the same, nobody has it.
                shared.end(ErrorKind::LeaseEnded);
                Err(error)
            }
        })
    }
}

impl<E: Send + 'static> Drop for AcquireLease<E> {
    fn drop(&mut self) {
        // Opened a moment ago, and nobody has it: the writer must not wait for it.
        if let Some((_, shared)) = &self.flight {
            shared.end(ErrorKind::LeaseEnded);
        }
    }
}

/// The writer, lent for a transaction that stays open across awaits; see [`Client::lease`].
///
/// Dropping it rolls the transaction back.
#[must_use = "dropping it rolls the transaction back"]
pub struct Lease<E: Send + 'static = rusqlite::Error> {
    submission: Submission<E>,
    shared: Arc<Shared>,
}

impl<E: Send + 'static> fmt::Debug for Lease<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("over", &lock(&self.shared.state).over).finish()
    }
}

impl<E: Send + 'static> Lease<E> {
    /// Runs `f` inside the transaction, on the writer's thread.
    ///
    /// `Err` undoes what `f` wrote and leaves the rest of the transaction; so does a panic. A statement
    /// that SQLite answers by rolling everything back (a full disk, `OR ROLLBACK`) ends the lease, and
    /// so does a call that fails after it made a virtual table, which SQLite cannot undo alone.
    /// Nothing is stored before [`Lease::commit`].
    ///
    /// # Errors
    /// `f`'s own error. [`ErrorKind::LeaseExpired`] when the lease was held or left idle for too long,
    /// [`ErrorKind::LeaseEnded`] when something else ended it: everything is rolled back then.
    ///
    /// # Panics
    /// Resumes a panic of `f` on the caller.
    ///
    /// # Cancel safety
    /// Dropped before it was answered: the lease is over, everything is rolled back.
    pub fn run<T, F>(&mut self, f: F) -> LeaseCall<'_, T, E>
    where
        F: FnOnce(&Transaction) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        LeaseCall(Box::pin(self.send(f, Command::Run)))
    }

    /// Commits the transaction, as durably as any write.
    ///
    /// # Errors
    /// [`ErrorKind::LeaseExpired`], [`ErrorKind::LeaseEnded`], or why the commit failed: nothing is
    /// stored, but for [`ErrorKind::Unknown`].
    ///
    /// # Cancel safety
    /// Dropped before it was answered: the transaction is stored as a whole or not at all.
    pub fn commit(mut self) -> LeaseCall<'static, (), E> {
        LeaseCall(Box::pin(async move { self.send(nothing::<E>, Command::Commit).await }))
    }

    /// Rolls the transaction back; the same as dropping it. The next writer need not wait for this.
    pub fn rollback(self) {
        drop(self);
    }

    /// As [`Lease::run`], blocking this thread; `f` and what it returns may borrow, as for
    /// [`Client::blocking_write`].
    ///
    /// # Errors
    /// As [`Lease::run`].
    ///
    /// # Panics
    /// As [`Lease::run`].
    pub fn blocking_run<T, F>(&mut self, f: F) -> Result<T, Error<E>>
    where
        F: FnOnce(&Transaction) -> Result<T, E> + Send,
        T: Send,
    {
        let mut f = Some(f);
        let f = move |tx: &Transaction| (f.take().expect("a command of a lease runs once"))(tx);
        lend::<Transaction, _, _, _>(f, |lent| block_on(self.run(move |tx| lent.run(tx))))
    }

    /// As [`Lease::commit`], blocking this thread.
    ///
    /// # Errors
    /// As [`Lease::commit`].
    pub fn blocking_commit(self) -> Result<(), Error<E>> {
        block_on(self.commit())
    }

    async fn send<T, F>(
        &mut self,
        f: F,
        command: fn(Box<dyn WriteJob>) -> Command,
    ) -> Result<T, Error<E>>
    where
        F: FnOnce(&Transaction) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        let ancestry = self.submission.admit()?;
        let meta = self.submission.meta();
        let (reply, receiver) = reply();
        let job = WriteCall::new(Once(Some(f)), reply, ancestry, meta, false);
        let writer = &self.submission.client.inner.core().writer;
        let awaited = || Awaited::Call(writer.seats(), receiver.interruptible());
        let _wait = self.shared.submit(command(Box::new(job)), awaited).map_err(Error::new)?;
        let mut waiting = Waiting { shared: &self.shared, answered: false };
        let landed = receiver.await.map_err(|_| CallError::Faulted);
        waiting.answered = true;
        self.submission.settle(landed).map(|(value, _)| value)
    }
}

/// A call of a lease, or its commit; see [`Lease::run`] and [`Lease::commit`].
#[must_use = "it is submitted when it is polled"]
pub struct LeaseCall<'l, T, E = rusqlite::Error>(
    Pin<Box<dyn Future<Output = Result<T, Error<E>>> + Send + 'l>>,
);

impl<T, E> Future for LeaseCall<'_, T, E> {
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<T, E> fmt::Debug for LeaseCall<'_, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseCall").finish_non_exhaustive()
    }
}

/// A command whose answer is awaited.
struct Waiting<'l> {
    shared: &'l Shared,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered && !std::thread::panicking() {
            self.shared.end(ErrorKind::LeaseEnded);
        }
    }
}

impl<E: Send + 'static> Drop for Lease<E> {
    fn drop(&mut self) {
        // After a fork the lock may be held by a thread that is not here.
        if self.submission.client.inner.core().check_process().is_ok() {
            self.shared.end(ErrorKind::LeaseEnded);
        }
    }
}
