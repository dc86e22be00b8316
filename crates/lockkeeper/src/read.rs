//! The reading side of a call: a builder, then a future.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::database::Client;
use crate::error::{Error, ErrorKind};
use crate::holders::HolderKind;
use crate::job::{Body, Outcome, ReadCall, ReaderItem, WriterItem};
use crate::queue::{Flight, ancestry_for};
use crate::short::{self, Short};
use crate::snapshot::Hold;
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
}

enum State<B, T: Send + 'static, E: Send + 'static> {
    New(B),
    Flying(Flight<ReaderItem, Outcome<T, E>>),
    /// A memory database reads on its writer.
    FlyingToWriter(Flight<WriterItem, Outcome<T, E>>),
    Over,
}

impl<B, T: Send + 'static, E: Send + 'static> Unpin for Read<B, T, E> {}

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

impl<F> Repeatable for crate::job::Many<F> {}

impl<B, T, E> Read<B, T, E>
where
    B: Body<Snapshot, T, E>,
    T: Send + 'static,
    E: Send + 'static,
{
    #[track_caller]
    pub(crate) fn new(client: Client<E>, body: B, hold: Option<Arc<Hold>>) -> Self {
        Self { hold, ..Self::by(Submission::new(HolderKind::Read, client), body) }
    }

    /// A read of the newest state, on behalf of what was submitted as something else.
    pub(crate) fn by(submission: Submission<E>, body: B) -> Self {
        Self { submission, state: State::New(body), hold: None, short: false }
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
    /// fast as the hop for a single caller; many concurrent callers gain less.
    ///
    /// Without effect on memory databases and held snapshots.
    pub fn short(mut self) -> Self
    where
        B: Repeatable,
    {
        self.short = true;
        self
    }

    /// Begins the read; a value means that it is done already.
    fn begin(&mut self, mut body: B) -> Result<Option<T>, Error<E>> {
        let core = self.submission.client.inner.core();
        core.check_process().map_err(Error::new)?;
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
        if self.short && self.hold.is_none() && !memory {
            match core.short.run(core.domain, |snapshot| body.call(snapshot)) {
                Short::Done(result) => return result.map(Some).map_err(Error::of_call),
                Short::NoConnection { ask: true } => short::ask(core),
                Short::NoConnection { ask: false } | Short::TooLong => {}
            }
        }
        let job = |reply, meta| Box::new(ReadCall::new(body, reply, ancestry, meta));
        if memory && self.hold.is_none() {
            let read = |reply, meta| WriterItem::Read(job(reply, meta));
            self.state = State::FlyingToWriter(self.submission.submit_to_writer(read)?);
            return Ok(None);
        }
        let hold = &self.hold;
        let flight = self.submission.submit_to_readers(|reply, meta| match hold {
            Some(hold) => ReaderItem::Held(Arc::clone(hold.held()), job(reply, meta)),
            None => ReaderItem::Read(job(reply, meta)),
        })?;
        self.state = State::Flying(flight);
        Ok(None)
    }
}

impl<B, T, E> Future for Read<B, T, E>
where
    B: Body<Snapshot, T, E>,
    T: Send + 'static,
    E: Send + 'static,
{
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::New(_) = self.state {
            let State::New(body) = std::mem::replace(&mut self.state, State::Over) else {
                return Poll::Ready(Err(Error::new(ErrorKind::Faulted)));
            };
            if let Some(value) = self.begin(body)? {
                return Poll::Ready(Ok(value));
            }
        }
        let landed = match &mut self.state {
            State::Flying(flight) => ready!(flight.poll(context)),
            State::FlyingToWriter(flight) => ready!(flight.poll(context)),
            State::New(_) | State::Over => return Poll::Ready(Err(Error::new(ErrorKind::Faulted))),
        };
        self.state = State::Over;
        // The caller may drop the snapshot next and take another, while this future lives on.
        self.hold = None;
        Poll::Ready(self.submission.settle(landed))
    }
}
