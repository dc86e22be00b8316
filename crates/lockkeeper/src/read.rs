//! The reading side of a call: a builder, then a future.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::database::Client;
use crate::engine::call::{Body, Many, ManyLent, Outcome, Submitted, TypedRead};
use crate::engine::held::Hold;
use crate::engine::item::{ReaderItem, WriterItem};
use crate::engine::turns::Way;
use crate::error::{Error, ErrorKind};
use crate::ffi::lend;
use crate::holders::HolderKind;
use crate::queue::{Flight, Phase, ancestry_for, block_on, now};
use crate::submission::Submission;
use crate::transaction::Snapshot;
use crate::writer;

/// A read; see [`Client::read`].
#[must_use = "a call is submitted when it is polled"]
pub struct Read<B, T: Send + 'static, E: Send + 'static> {
    submission: Submission<E>,
    state: State<B, T, E>,
    /// The snapshot to read on, if not the newest.
    hold: Option<Arc<Hold>>,
    short: bool,
    /// It is counted among the short reads that wait ([`Turns::wait`](crate::engine::turns::Turns::wait)).
    counted: bool,
}

enum State<B, T: Send + 'static, E: Send + 'static> {
    New(B),
    /// A short read that lets its executor poll others first; since then it waits.
    GaveWay(B, Instant),
    Flying(Flight<ReaderItem, Outcome<T, E>>),
    /// A memory database reads on its writer.
    FlyingToWriter(Flight<WriterItem, Outcome<T, E>>),
    /// It was submitted, and answered at once.
    Done(Result<T, Error<E>>),
    Over,
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
        self.submission.client.inner.core().short.turns.wait();
    }

    fn count_out(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.submission.client.inner.core().short.turns.waited();
        }
    }
}

impl<B, T: Send + 'static, E: Send + 'static> std::fmt::Debug for Read<B, T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Read")
            .field("deadline", &self.submission.deadline)
            .field("short", &self.short)
            .finish_non_exhaustive()
    }
}

/// A closure that can be run again if a first run has to be given up.
pub trait Repeatable {}

impl<F> Repeatable for Many<F> {}

impl<B, T, E> Read<B, T, E>
where
    B: Body<Snapshot, T, E>,
    T: Send + 'static,
    E: Send + 'static,
{
    #[track_caller]
    pub(crate) fn new(client: Client<E>, body: B, hold: Option<Arc<Hold>>) -> Self {
        let mut read = Self::by(Submission::new(HolderKind::Read, client), body);
        read.hold = hold;
        read
    }

    /// A read of the newest state, on behalf of what was submitted as something else.
    pub(crate) fn by(submission: Submission<E>, body: B) -> Self {
        Self { submission, state: State::New(body), hold: None, short: false, counted: false }
    }

    /// Gives up after `patience`, counted from the first poll; covers waiting and running.
    pub fn deadline(mut self, patience: Duration) -> Self {
        self.submission.deadline = Some(patience);
        self
    }

    /// Tries to run the closure on the calling thread first, without a hop to a reader thread.
    ///
    /// For point reads: one or a few rows by key, found in the cache. The closure runs under a
    /// budget of some 4,000 virtual-machine steps (about 50 to 100 microseconds); when it is used
    /// up, the closure is stopped and run again on a reader thread. What the budget does not cover
    /// is a page that has to come from the disk, and time the closure spends outside SQLite. On an
    /// async executor, use it for databases that fit the page cache. It is five to ten times as
    /// fast as the hop for a single caller.
    ///
    /// A loop of short reads does not keep its executor from anything else: after some 70 microseconds of answers
    /// on a thread the next call returns `Pending` once. Where eight or more such calls wait at the same
    /// time, further ones join the other reads on the reader threads, which serve so many faster.
    ///
    /// Without effect on memory databases and held snapshots.
    pub fn short(mut self) -> Self
    where
        B: Repeatable,
    {
        self.short = true;
        self
    }

    /// Submits the read now, rather than when it is first polled; [`Read::short`] is without effect then. What
    /// can stand in a struct, since it has not the closure's type.
    pub fn submit(mut self) -> SubmittedRead<T, E> {
        self.short = false;
        self.count_out();
        match std::mem::replace(&mut self.state, State::Over) {
            State::New(body) | State::GaveWay(body, _) => match self.begin(body, false) {
                Ok(None) => {}
                Ok(Some(value)) => self.state = State::Done(Ok(value)),
                Err(error) => self.state = State::Done(Err(error)),
            },
            begun => self.state = begun,
        }
        let state = match std::mem::replace(&mut self.state, State::Over) {
            State::Flying(flight) => State::Flying(flight),
            State::FlyingToWriter(flight) => State::FlyingToWriter(flight),
            State::Done(result) => State::Done(result),
            State::New(_) | State::GaveWay(..) | State::Over => State::Over,
        };
        let rest = self.submission.follow_up();
        let submission = std::mem::replace(&mut self.submission, rest);
        SubmittedRead(Read {
            submission,
            state,
            hold: self.hold.take(),
            short: false,
            counted: false,
        })
    }

    /// Takes off the deadline what the read has waited for its executor.
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

    /// Begins the read, or a short one that `gave_way` goes on; a value means that it is done already.
    fn begin(&mut self, mut body: B, gave_way: bool) -> Result<Option<T>, Error<E>> {
        let core = self.submission.client.inner.core();
        core.check_process().map_err(Error::new)?;
        core.opener.file.lost().map_or(Ok(()), Err)?;
        if self.hold.is_none()
            && let Some(tx) = writer::current(core.domain)
        {
            return match tx.in_write_call() {
                true => tx.read_nested(|snapshot| body.call(snapshot)).map(Some),
                false => Err(Error::new(ErrorKind::Nested)),
            };
        }
        let ancestry = ancestry_for(core.domain)?;
        let memory = core.config.is_memory();
        if self.short && self.hold.is_none() && !memory && core.opener.file.is_in_place(now()) {
            match core.short.turns.way(gave_way) {
                Way::Inline => {
                    let ran = core.short.run(core.domain, |snapshot| body.call(snapshot));
                    if let Some(result) = ran {
                        return result.map(Some).map_err(Error::of_call);
                    }
                }
                Way::Yield => {
                    self.state = State::GaveWay(body, now());
                    self.count_in();
                    return Ok(None);
                }
                Way::Readers => self.count_in(),
            }
        }
        let call = |reply, meta| Box::new(TypedRead::new(body, reply, ancestry, meta));
        if memory && self.hold.is_none() {
            let read = |reply, meta| WriterItem::Read(call(reply, meta));
            self.state = State::FlyingToWriter(self.submission.submit_to_writer(read)?);
            return Ok(None);
        }
        let hold = &self.hold;
        let flight = self.submission.submit_to_readers(|reply, meta| match hold {
            Some(hold) => ReaderItem::Held(Arc::clone(hold.held()), call(reply, meta)),
            None => ReaderItem::Read(call(reply, meta)),
        })?;
        self.state = State::Flying(flight);
        Ok(None)
    }
}

/// Runs a read and waits for it; `f` stays on this thread's stack.
#[track_caller]
pub(crate) fn blocking<T, E, F>(
    client: Client<E>,
    f: F,
    hold: Option<Arc<Hold>>,
) -> Result<T, Error<E>>
where
    F: FnMut(&Snapshot) -> Result<T, E> + Send,
    T: Send,
    E: Send + 'static,
{
    let submission = Submission::new(HolderKind::Read, client);
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
        if let State::New(_) | State::GaveWay(..) = self.state {
            self.count_out();
            let begun = match std::mem::replace(&mut self.state, State::Over) {
                State::New(body) => self.begin(body, false),
                State::GaveWay(body, since) => {
                    self.shorten_deadline(now() - since)?;
                    self.begin(body, true)
                }
                _ => Err(Error::new(ErrorKind::Faulted)),
            };
            if let Some(value) = begun? {
                return Poll::Ready(Ok(value));
            }
        }
        let landed = match &mut self.state {
            State::Flying(flight) => ready!(flight.poll(context)),
            State::FlyingToWriter(flight) => ready!(flight.poll(context)),
            State::GaveWay(..) => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            _ => {
                return Poll::Ready(match std::mem::replace(&mut self.state, State::Over) {
                    State::Done(result) => result,
                    _ => Err(Error::new(ErrorKind::Faulted)),
                });
            }
        };
        self.state = State::Over;
        self.count_out();
        // The caller may drop the snapshot next and take another, while this future lives on.
        self.hold = None;
        Poll::Ready(self.submission.settle(landed))
    }
}

/// A read that was submitted, by [`Read::submit`]: what it is to do can no longer be changed, and is not in its
/// type.
#[must_use = "dropping it cancels the read"]
pub struct SubmittedRead<T: Send + 'static, E: Send + 'static = rusqlite::Error>(
    Read<Submitted, T, E>,
);

impl<T: Send + 'static, E: Send + 'static> std::fmt::Debug for SubmittedRead<T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubmittedRead").finish_non_exhaustive()
    }
}

impl<T: Send + 'static, E: Send + 'static> Future for SubmittedRead<T, E> {
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}
