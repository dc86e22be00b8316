//! A write as its caller sees it: a builder, then a future.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::pending::{Pending, Sent};
use super::{handle::Inner, snapshot::HeldSnapshot, submission::Submission};
#[cfg(doc)]
use crate::Client;
use crate::engine::call::{Body, ManyLent, Submitted, TypedCall};
use crate::engine::write_call::{TypedWrite, WriteOutcome};
use crate::engine::{held::Held, item::WriterItem};
use crate::error::{Error, ErrorKind};
use crate::ffi::lend;
use crate::queue::{InFlight, Refused, RefusedReason, Room, ancestry_for, block_on, reply};
use crate::sqlite::{counters::Outer, transaction::Transaction};
use crate::stats::holders::HolderKind;
use crate::writer::current;

/// A write's value, and its snapshot if the write asked for one.
pub(crate) type Value<T> = (T, Option<Arc<Held>>);

/// A write; see [`Client::write`].
#[must_use = "a call is submitted when it is polled"]
pub struct Write<B, T: Send + 'static, E: Send + 'static> {
    submission: Submission,
    pending: Pending<B, WriteOutcome<T, E>, Error<E>>,
}

impl<B, T: Send + 'static, E: Send + 'static> Unpin for Write<B, T, E> {}

opaque_debug!(
    "Write", [B, T: Send + 'static, E: Send + 'static] Write<B, T, E>,
    deadline: submission.deadline
);

impl<B, T, E> Write<B, T, E>
where
    B: Body<Transaction, T, E>,
    T: Send + 'static,
    E: Send + 'static,
{
    #[track_caller]
    pub(crate) fn new(inner: &Arc<Inner>, body: B) -> Self {
        Self::by(Submission::new(HolderKind::Write, inner), body)
    }

    fn by(submission: Submission, body: B) -> Self {
        Self { submission, pending: Pending::New(body) }
    }

    /// Sets a deadline: the write times out `patience` after its first poll or its submission, whether it waits for
    /// room, for its turn or for the lock, or runs. If it was running, its effects are undone.
    pub fn deadline(mut self, patience: Duration) -> Self {
        self.submission.deadline = Some(patience);
        self
    }

    /// Also takes a snapshot of the state right after this write's commit, before any later commit. The writer waits
    /// until the snapshot is taken, for well below a millisecond.
    pub fn and_snapshot(self) -> WriteAndSnapshot<B, T, E> {
        WriteAndSnapshot(self)
    }

    /// Submits the write now instead of when it is first polled. It is queued behind the writes that this client has
    /// submitted before. If the client's part of the queue is full, the write waits for room. The type of the result
    /// does not contain the closure's type, so a result can be a field of a struct.
    ///
    /// # Examples
    /// ```
    /// use lockkeeper::{Database, SubmittedWrite};
    ///
    /// struct Import {
    ///     last: SubmittedWrite<usize>,
    /// }
    ///
    /// # let db = Database::blocking_open(":memory:")?;
    /// # db.blocking_write(|tx| tx.execute_batch("CREATE TABLE note (text TEXT)"))?;
    /// let last = db.write(|tx| tx.execute("INSERT INTO note VALUES ('milk')", [])).submit();
    /// let import = Import { last };
    /// # futures_lite::future::block_on(async {
    /// assert_eq!(import.last.await?, 1);
    /// # Ok::<_, lockkeeper::Error>(()) })?;
    /// # Ok::<_, lockkeeper::Error>(())
    /// ```
    pub fn submit(mut self) -> SubmittedWrite<T, E> {
        if let Some(body) = self.pending.take_new() {
            let launched = launch(&mut self.submission, body, false);
            self.pending = launched.map_or_else(Pending::Done, Pending::Sent);
        }
        SubmittedWrite(Write { submission: self.submission, pending: self.pending.submitted() })
    }

    fn poll_answer(
        &mut self,
        wants_snapshot: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<Value<T>, Error<E>>> {
        if let Some(body) = self.pending.take_new() {
            let sent = launch(&mut self.submission, body, wants_snapshot)?;
            self.pending = Pending::Sent(sent);
        }
        self.pending.poll(context, |answer| self.submission.settle(answer), Err)
    }
}

fn launch<B, T, E>(
    submission: &mut Submission,
    body: B,
    wants_snapshot: bool,
) -> Result<Sent<WriteOutcome<T, E>>, Error<E>>
where
    B: Body<Transaction, T, E>,
    T: Send + 'static,
    E: Send + 'static,
{
    let ancestry = submission.admit()?;
    submission.submit_to_writer(|reply, meta| {
        let call = TypedCall { body, reply, ancestry, meta };
        WriterItem::Write(Box::new(TypedWrite::new(call, wants_snapshot)))
    })
}

impl<B, T, E> Future for Write<B, T, E>
where
    B: Body<Transaction, T, E>,
    T: Send + 'static,
    E: Send + 'static,
{
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_answer(false, context).map_ok(|(value, _)| value)
    }
}

/// A write that also takes a snapshot; see [`Write::and_snapshot`].
#[must_use = "a call is submitted when it is polled"]
#[derive(Debug)]
pub struct WriteAndSnapshot<B, T: Send + 'static, E: Send + 'static>(Write<B, T, E>);

impl<B, T, E> Future for WriteAndSnapshot<B, T, E>
where
    B: Body<Transaction, T, E>,
    T: Send + 'static,
    E: Send + 'static,
{
    type Output = Result<(T, HeldSnapshot<E>), Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (value, held) = ready!(self.0.poll_answer(true, context))?;
        Poll::Ready(match held {
            Some(held) => Ok((value, HeldSnapshot::new(&self.0.submission.inner, held))),
            None => Err(Error::new(ErrorKind::Faulted)),
        })
    }
}

/// A write that [`Client::try_write`] or [`Write::submit`] has submitted. It has no settings, and its type does not
/// contain the closure's type.
#[must_use = "dropping it cancels the write"]
pub struct SubmittedWrite<T: Send + 'static, E: Send + 'static = rusqlite::Error>(
    Write<Submitted, T, E>,
);

opaque_debug!("SubmittedWrite", [T: Send + 'static, E: Send + 'static] SubmittedWrite<T, E>);

impl<T: Send + 'static, E: Send + 'static> SubmittedWrite<T, E> {
    #[track_caller]
    pub(crate) fn new<B>(inner: &Arc<Inner>, body: B) -> Result<Self, Refused<B>>
    where
        B: Body<Transaction, T, E>,
    {
        let submission = Submission::new(HolderKind::Write, inner);
        let core = &inner.core;
        if core.check_process().is_err() {
            return Err(Refused { reason: RefusedReason::Forked, call: body });
        }
        if core.config.is_read_only() {
            return Err(Refused { reason: RefusedReason::ReadOnly, call: body });
        }
        let Ok(ancestry) = ancestry_for(core.domain) else {
            return Err(Refused { reason: RefusedReason::Nested, call: body });
        };
        let (reply, receiver) = reply();
        let call = TypedCall { body, reply, ancestry, meta: submission.meta() };
        let item = WriterItem::Write(Box::new(TypedWrite::<B, T, E>::new(call, false)));
        match InFlight::submit(&inner.writes, item, receiver, Room::Need, None) {
            Ok((in_flight, _)) => {
                let pending = Pending::Sent(Sent::ToWriter(in_flight));
                Ok(Self(Write { submission, pending }))
            }
            Err(Refused { reason, call: WriterItem::Write(call) }) => {
                let call = call.into_any().downcast::<TypedWrite<B, T, E>>();
                let call = call.expect("the call that was submitted comes back");
                Err(Refused { reason, call: call.into_body() })
            }
            Err(_) => unreachable!("a write was submitted"),
        }
    }
}

impl<T: Send + 'static, E: Send + 'static> Future for SubmittedWrite<T, E> {
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// Lets a nested write count its rows from 0. The drop restores the counts of the outer write.
struct OwnCounts<'t> {
    tx: &'t Transaction,
    rowid: i64,
    outer: Outer,
}

impl<'t> OwnCounts<'t> {
    fn begin(tx: &'t Transaction) -> Self {
        let rowid = tx.link.session.conn().last_insert_rowid();
        Self { tx, rowid, outer: tx.link.count_anew() }
    }
}

impl Drop for OwnCounts<'_> {
    fn drop(&mut self) {
        let link = &self.tx.link;
        link.session.set_last_insert_rowid(self.rowid);
        link.callbacks.counters.resume(self.outer, link.session.conn().total_changes());
    }
}

/// Runs a write and waits for it. Inside a write of the same database, runs `f` immediately, in a savepoint of that
/// write.
#[track_caller]
pub(crate) fn blocking<T, E, F>(inner: &Arc<Inner>, mut f: F) -> Result<T, Error<E>>
where
    F: FnMut(&Transaction) -> Result<T, E> + Send,
    T: Send,
    E: Send + 'static,
{
    let Some(tx) = current::transaction(inner.core.domain) else {
        let submission = Submission::new(HolderKind::Write, inner);
        return lend::<Transaction, _, _, _>(f, |lent| {
            block_on(Write::by(submission, ManyLent::new::<F>(lent)))
        });
    };
    if !tx.in_write_call() {
        return Err(Error::new(ErrorKind::Nested));
    }
    let failed = |error| match tx.link.is_lost() {
        true => Error::new(ErrorKind::RolledBack),
        false => Error::of_own(error),
    };
    let _own = OwnCounts::begin(&tx);
    tx.nested(|| f(&tx)).map_err(failed)?.map_err(Error::of_call)
}
