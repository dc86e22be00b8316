//! A lease as its holder sees it: the future that takes a lease, its calls and its commit. `engine/lease_state.rs`
//! decides when a lease ends.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::{handle::Inner, pending::Pending, submission::Submission};
#[cfg(doc)]
use crate::Client;
use crate::engine::call::{Once, TypedCall};
use crate::engine::item::{LeaseRequest, WriterItem};
use crate::engine::lease_state::{Command, LeaseState};
use crate::engine::write_call::{TypedWrite, WriteCall, WriteOutcome};
use crate::error::{Error, ErrorKind};
use crate::ffi::lend;
use crate::queue::{Awaited, CallError, block_on, reply};
use crate::sqlite::transaction::Transaction;
use crate::stats::holders::HolderKind;

/// Default of [`AcquireLease::hold_max`].
const HOLD_MAX: Duration = Duration::from_secs(5);

/// Default of [`AcquireLease::idle_max`].
const IDLE_MAX: Duration = Duration::from_secs(1);

/// A future that takes a lease; see [`Client::lease`].
#[must_use = "a lease is asked for when it is polled"]
pub struct AcquireLease<E: Send + 'static> {
    submission: Submission,
    hold_max: Duration,
    idle_max: Duration,
    pending: Pending<(), WriteOutcome<(), E>>,
    /// The state of the lease, from the submission until the lease's handle is made.
    state: Option<Arc<LeaseState>>,
}

impl<E: Send + 'static> Unpin for AcquireLease<E> {}

opaque_debug!(
    "AcquireLease", [E: Send + 'static] AcquireLease<E>,
    hold_max: hold_max, idle_max: idle_max, deadline: submission.deadline
);

impl<E: Send + 'static> AcquireLease<E> {
    #[track_caller]
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        Self {
            submission: Submission::new(HolderKind::Lease, inner),
            hold_max: HOLD_MAX,
            idle_max: IDLE_MAX,
            pending: Pending::New(()),
            state: None,
        }
    }

    /// Sets how long the lease may last, counted from its turn. Default: 5 seconds.
    pub fn hold_max(mut self, time: Duration) -> Self {
        self.hold_max = time;
        self
    }

    /// Sets how long the holder may take between two calls. Default: 1 second.
    pub fn idle_max(mut self, time: Duration) -> Self {
        self.idle_max = time;
        self
    }

    /// Sets a deadline: the request times out if its turn has not come `patience` after the first poll.
    pub fn deadline(mut self, patience: Duration) -> Self {
        self.submission.deadline = Some(patience);
        self
    }

    fn submit(&mut self) -> Result<(), Error<E>> {
        let ancestry = self.submission.admit()?;
        let state = Arc::new(LeaseState::new(self.hold_max, self.idle_max));
        let sent = self.submission.submit_to_writer(|reply, meta| {
            let body = Once(Some(nothing::<E>));
            let opening = TypedWrite::new(TypedCall { body, reply, ancestry, meta }, false);
            let state = Arc::clone(&state);
            WriterItem::Lease(Box::new(LeaseRequest { opening: Box::new(opening), state }))
        })?;
        (self.pending, self.state) = (Pending::Sent(sent), Some(state));
        Ok(())
    }
}

/// The closure of the calls that open and commit a lease.
fn nothing<E>(_: &Transaction) -> Result<(), E> {
    Ok(())
}

impl<E: Send + 'static> Future for AcquireLease<E> {
    type Output = Result<Lease<E>, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.pending.take_new().is_some() {
            self.submit()?;
        }
        let this = &mut *self;
        let settle = |answer| this.submission.settle(answer);
        let opened = ready!(this.pending.poll(context, settle, |never| match never {}));
        let Some(state) = self.state.take() else {
            return Poll::Ready(Err(Error::new(ErrorKind::Faulted)));
        };
        Poll::Ready(match opened {
            Ok(_) => {
                Ok(Lease { submission: self.submission.follow_up(), state, error: PhantomData })
            }
            Err(error) => {
                // The writer may have opened the lease in spite of the error. There is no handle to it, so the lease
                // must end.
                state.end(ErrorKind::LeaseEnded);
                Err(error)
            }
        })
    }
}

impl<E: Send + 'static> Drop for AcquireLease<E> {
    fn drop(&mut self) {
        // The writer may have opened the lease. There is no handle to it, so the writer must not wait for its commands.
        if let Some(state) = &self.state {
            state.end(ErrorKind::LeaseEnded);
        }
    }
}

/// The writer, lent for a transaction that stays open across awaits; see [`Client::lease`].
///
/// Dropping it rolls the transaction back.
#[must_use = "dropping it rolls the transaction back"]
pub struct Lease<E: Send + 'static = rusqlite::Error> {
    submission: Submission,
    state: Arc<LeaseState>,
    error: PhantomData<fn() -> E>,
}

impl<E: Send + 'static> fmt::Debug for Lease<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("over", &self.state.over()).finish()
    }
}

impl<E: Send + 'static> Lease<E> {
    /// Runs `f` inside the transaction, on the writer's thread.
    ///
    /// `Err` or a panic undoes what `f` wrote and keeps the rest of the transaction. A statement that makes SQLite roll
    /// the whole transaction back (a full disk, `OR ROLLBACK`) ends the lease, and so does a call that fails after it has
    /// made a virtual table, which SQLite cannot undo alone. Nothing is stored before [`Lease::commit`].
    ///
    /// # Errors
    /// `f`'s own error. [`ErrorKind::LeaseExpired`] when the lease was held or left idle for too long,
    /// [`ErrorKind::LeaseEnded`] when it ended for another reason. The whole transaction is rolled back then.
    ///
    /// # Panics
    /// Resumes a panic of `f` on the caller.
    ///
    /// # Cancel safety
    /// Dropped before it was answered: the lease is over and its transaction is rolled back.
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
    /// stored, except perhaps after [`ErrorKind::Unknown`].
    ///
    /// # Cancel safety
    /// Dropped before it was answered: the transaction is stored as a whole or not at all.
    pub fn commit(mut self) -> LeaseCall<'static, (), E> {
        LeaseCall(Box::pin(async move { self.send(nothing::<E>, Command::Commit).await }))
    }

    /// Rolls the transaction back, as dropping the lease does.
    pub fn rollback(self) {
        drop(self);
    }

    /// As [`Lease::run`], but blocks this thread. `f` and its result may borrow, as for [`Client::blocking_write`].
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

    /// As [`Lease::commit`], but blocks this thread.
    ///
    /// # Errors
    /// As [`Lease::commit`].
    pub fn blocking_commit(self) -> Result<(), Error<E>> {
        block_on(self.commit())
    }

    async fn send<T, F>(
        &mut self,
        f: F,
        command: fn(Box<dyn WriteCall>) -> Command,
    ) -> Result<T, Error<E>>
    where
        F: FnOnce(&Transaction) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        let ancestry = self.submission.admit()?;
        let meta = self.submission.meta();
        let (reply, receiver) = reply();
        let call = TypedCall { body: Once(Some(f)), reply, ancestry, meta };
        let call = TypedWrite::new(call, false);
        let writer = &self.submission.inner.core.writer;
        let awaited = || Awaited::Call(writer.worker_set(), receiver.interruptible());
        let _wait = self.state.submit(command(Box::new(call)), awaited).map_err(Error::new)?;
        let mut waiting = Waiting { state: &self.state, answered: false };
        let answer = receiver.await.map_err(|_| CallError::Faulted);
        waiting.answered = true;
        self.submission.settle(answer).map(|(value, _)| value)
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

opaque_debug!("LeaseCall", [T, E] LeaseCall<'_, T, E>);

/// A command whose answer is awaited. If it is dropped before the answer, the lease ends.
struct Waiting<'l> {
    state: &'l LeaseState,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered && !std::thread::panicking() {
            self.state.end(ErrorKind::LeaseEnded);
        }
    }
}

impl<E: Send + 'static> Drop for Lease<E> {
    fn drop(&mut self) {
        // In a forked child the lock may be held for ever by a thread that exists only in the parent.
        if self.submission.inner.core.check_process().is_ok() {
            self.state.end(ErrorKind::LeaseEnded);
        }
    }
}
