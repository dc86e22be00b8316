//! A read as its caller sees it: a builder, then a future.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::{handle::Inner, pending::Pending, submission::Submission};
use crate::engine::call::{Body, Many, ManyLent, Outcome, Submitted, TypedCall};
use crate::engine::item::{ReaderItem, WriterItem};
use crate::engine::{held::Hold, turns::Route};
use crate::error::{Error, ErrorKind};
use crate::ffi::lend;
use crate::queue::{Phase, ancestry_for, block_on};
use crate::sqlite::snapshot::Snapshot;
use crate::stats::holders::HolderKind;
use crate::sync::now;
use crate::writer::current;
#[cfg(doc)]
use crate::{Client, engine::turns::Turns};

type PendingRead<B, T, E> = Pending<B, Outcome<T, E>, Result<T, Error<E>>>;

/// A read; see [`Client::read`].
#[must_use = "a call is submitted when it is polled"]
pub struct Read<B, T: Send + 'static, E: Send + 'static> {
    submission: Submission,
    pending: PendingRead<B, T, E>,
    /// The held snapshot to read on; `None`: the newest state.
    hold: Option<Arc<Hold>>,
    short: bool,
    /// The time when the short read returned `Pending`, so that its executor could poll other tasks (TURN1 of
    /// `engine/turns.rs`); the next poll submits the read. `None`: the read has not yielded.
    yielded_at: Option<Instant>,
    /// Whether the read is counted as a waiting short read ([`Turns::wait`]).
    counted: bool,
}

impl<B, T: Send + 'static, E: Send + 'static> Unpin for Read<B, T, E> {}

impl<B, T: Send + 'static, E: Send + 'static> Drop for Read<B, T, E> {
    fn drop(&mut self) {
        self.count_out();
    }
}

impl<B, T: Send + 'static, E: Send + 'static> Read<B, T, E> {
    fn count_in(&mut self) {
        self.counted = true;
        self.submission.inner.core.short.turns.wait();
    }

    fn count_out(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.submission.inner.core.short.turns.waited();
        }
    }
}

opaque_debug!(
    "Read", [B, T: Send + 'static, E: Send + 'static] Read<B, T, E>,
    deadline: submission.deadline, short: short
);

/// A closure that can run again if its first run is stopped.
pub trait Repeatable {}

impl<F> Repeatable for Many<F> {}

impl<B, T, E> Read<B, T, E>
where
    B: Body<Snapshot, T, E>,
    T: Send + 'static,
    E: Send + 'static,
{
    #[track_caller]
    pub(crate) fn new(inner: &Arc<Inner>, body: B, hold: Option<Arc<Hold>>) -> Self {
        let mut read = Self::by(Submission::new(HolderKind::Read, inner), body);
        read.hold = hold;
        read
    }

    /// A read of the newest state. `submission` may be of another kind, such as a backup.
    pub(crate) fn by(submission: Submission, body: B) -> Self {
        let pending = Pending::New(body);
        Self { submission, pending, hold: None, short: false, yielded_at: None, counted: false }
    }

    /// Sets a deadline: the read times out `patience` after its first poll or its submission, whether it waits or runs.
    pub fn deadline(mut self, patience: Duration) -> Self {
        self.submission.deadline = Some(patience);
        self
    }

    /// Tries to run the closure on the calling thread first, without a hop to a reader thread.
    ///
    /// For point reads: one or a few rows by key, found in the cache. The closure runs under a budget of some 4,000
    /// virtual-machine steps (about 50 to 100 microseconds). A closure that uses up its budget is stopped and runs
    /// again on a reader thread. The budget does not cover reading pages from the disk, nor the time that the closure
    /// spends outside SQLite. So on an async executor use short reads for databases that fit the page cache. For a
    /// single caller a short read is five to ten times as fast as a read with the hop.
    ///
    /// A loop of short reads does not starve other tasks: after some 70 microseconds of short reads on a thread the
    /// next one returns `Pending` once. While eight or more short reads of the database wait, further ones run on the
    /// reader threads, which are faster under that load.
    ///
    /// Has no effect on memory databases and held snapshots.
    pub fn short(mut self) -> Self
    where
        B: Repeatable,
    {
        self.short = true;
        self
    }

    /// Submits the read now instead of when it is first polled; [`Read::short`] has no effect then. The type of the
    /// result does not contain the closure's type, so a result can be a field of a struct.
    pub fn submit(mut self) -> SubmittedRead<T, E> {
        self.short = false;
        self.count_out();
        if let Some(body) = self.pending.take_new() {
            self.pending = self.begin(body).unwrap_or_else(|error| Pending::Done(Err(error)));
        }
        let pending = std::mem::replace(&mut self.pending, Pending::Over).submitted();
        let rest = self.submission.follow_up();
        let submission = std::mem::replace(&mut self.submission, rest);
        let hold = self.hold.take();
        let (short, yielded_at, counted) = (false, None, false);
        SubmittedRead(Read { submission, pending, hold, short, yielded_at, counted })
    }

    /// Shortens the deadline by the time that the read has waited for its executor. An error: no time is left.
    fn shorten_deadline(&mut self, waited: Duration) -> Result<(), Error<E>> {
        match self.submission.deadline.map(|patience| patience.checked_sub(waited)) {
            None => Ok(()),
            Some(None) => Err(Error::new(ErrorKind::Timeout(Phase::Queued))),
            Some(left) => {
                self.submission.deadline = left;
                Ok(())
            }
        }
    }

    /// Begins the read and returns its next state: sent, done, or still new because the read yields first.
    fn begin(&mut self, mut body: B) -> Result<PendingRead<B, T, E>, Error<E>> {
        let core = &self.submission.inner.core;
        core.check_process().map_err(Error::new)?;
        core.opener.file.lost().map_or(Ok(()), Err)?;
        if self.hold.is_none()
            && let Some(tx) = current::transaction(core.domain)
        {
            return match tx.in_write_call() {
                true => tx
                    .read_nested(|snapshot| body.call(snapshot))
                    .map(|value| Pending::Done(Ok(value))),
                false => Err(Error::new(ErrorKind::Nested)),
            };
        }
        let ancestry = ancestry_for(core.domain)?;
        let memory = core.config.is_memory();
        if self.short && self.hold.is_none() && !memory && core.opener.file.is_in_place(now()) {
            match core.short.turns.route(self.yielded_at.is_some()) {
                Route::Inline => {
                    let ran = core.short.run(core.domain, |snapshot| body.call(snapshot));
                    if let Some(result) = ran {
                        return Ok(Pending::Done(result.map_err(Error::of_call)));
                    }
                }
                Route::Yield => {
                    self.yielded_at = Some(now());
                    self.count_in();
                    return Ok(Pending::New(body));
                }
                Route::Readers => self.count_in(),
            }
        }
        let call = |reply, meta| Box::new(TypedCall { body, reply, ancestry, meta });
        let hold = &self.hold;
        let sent = if memory && hold.is_none() {
            let read = |reply, meta| WriterItem::Read(call(reply, meta));
            self.submission.submit_to_writer(read)?
        } else {
            self.submission.submit_to_readers(|reply, meta| match hold {
                Some(hold) => ReaderItem::Held(Arc::clone(hold.held()), call(reply, meta)),
                None => ReaderItem::Read(call(reply, meta)),
            })?
        };
        Ok(Pending::Sent(sent))
    }
}

/// Runs a read and waits for it. `f` stays on this thread's stack.
#[track_caller]
pub(crate) fn blocking<T, E, F>(
    inner: &Arc<Inner>,
    f: F,
    hold: Option<Arc<Hold>>,
) -> Result<T, Error<E>>
where
    F: FnMut(&Snapshot) -> Result<T, E> + Send,
    T: Send,
    E: Send + 'static,
{
    let submission = Submission::new(HolderKind::Read, inner);
    lend::<Snapshot, _, _, _>(f, |lent| {
        let mut read = Read::by(submission, ManyLent::new::<F>(lent));
        read.hold = hold;
        block_on(read)
    })
}

impl<B, T, E> Future for Read<B, T, E>
where
    B: Body<Snapshot, T, E>,
    T: Send + 'static,
    E: Send + 'static,
{
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(body) = self.pending.take_new() {
            self.count_out();
            if let Some(since) = self.yielded_at {
                self.shorten_deadline(now() - since)?;
            }
            self.pending = self.begin(body)?;
            if let Pending::New(_) = self.pending {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let this = &mut *self;
        let settle = |answer| this.submission.settle(answer);
        let result = ready!(this.pending.poll(context, settle, |result| result));
        self.count_out();
        // Released now, because this future may live on while the caller drops the snapshot and takes another one.
        self.hold = None;
        Poll::Ready(result)
    }
}

/// A read that [`Read::submit`] has submitted. It has no settings, and its type does not contain the closure's type.
#[must_use = "dropping it cancels the read"]
pub struct SubmittedRead<T: Send + 'static, E: Send + 'static = rusqlite::Error>(
    Read<Submitted, T, E>,
);

opaque_debug!("SubmittedRead", [T: Send + 'static, E: Send + 'static] SubmittedRead<T, E>);

impl<T: Send + 'static, E: Send + 'static> Future for SubmittedRead<T, E> {
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}
