//! The reading side of a call: a builder, then a future.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::database::{Client, unwind};
use crate::error::{Error, ErrorKind};
use crate::holders::{Board, Why};
use crate::job::{Body, Outcome, ReadCall, ReaderItem, WriterItem};
use crate::queue::{Flight, Room, ancestry_for, refused, reply};
use crate::short::{self, Short};
use crate::snapshot::Hold;
use crate::transaction::Snapshot;
use crate::writer;

/// A read; see [`Client::read`].
#[must_use = "a call is submitted when it is polled"]
pub struct Read<B, T: Send + 'static, E: Send + 'static> {
    client: Client<E>,
    state: State<B, T, E>,
    /// The snapshot to read on, if not the newest.
    hold: Option<Arc<Hold>>,
    deadline: Option<Duration>,
    short: bool,
    place: &'static Location<'static>,
    /// Who held the call up when its deadline passed.
    why: Why,
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
            .field("deadline", &self.deadline)
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
        let (place, why) = (Location::caller(), Why::default());
        Self { client, state: State::New(body), hold, deadline: None, short: false, place, why }
    }

    /// Gives up after `patience`, counted from the first poll; covers waiting and running.
    pub fn deadline(mut self, patience: Duration) -> Self {
        self.deadline = Some(patience);
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
        let core = self.client.inner.core();
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
        let (reply, receiver) = reply();
        let job = Box::new(ReadCall::new(body, reply, ancestry, self.client.meta(self.place)));
        let by_writer = memory && self.hold.is_none();
        let holder = if by_writer { Board::why_no_writer } else { Board::why_no_reader };
        let deadline = self.deadline.map(|patience| self.why.deadline(core, patience, holder));
        let inner = &self.client.inner;
        if by_writer {
            let item = WriterItem::Read(job);
            let flight = Flight::take_off(&inner.writes, item, receiver, Room::Wait, deadline);
            let (flight, _) = flight.map_err(|error| refused(&error))?;
            self.state = State::FlyingToWriter(flight);
            return Ok(None);
        }
        let item = match &self.hold {
            Some(hold) => ReaderItem::Held(Arc::clone(hold.held()), job),
            None => ReaderItem::Read(job),
        };
        let flight = Flight::take_off(&inner.reads, item, receiver, Room::Wait, deadline);
        let (flight, check_for_stall) = flight.map_err(|error| refused(&error))?;
        if check_for_stall {
            core.check_for_stall();
        }
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
        let outcome = match &mut self.state {
            State::Flying(flight) => ready!(flight.poll(context)),
            State::FlyingToWriter(flight) => ready!(flight.poll(context)),
            State::New(_) | State::Over => return Poll::Ready(Err(Error::new(ErrorKind::Faulted))),
        };
        self.state = State::Over;
        // The caller may drop the snapshot next and take another, while this future lives on.
        self.hold = None;
        Poll::Ready(match outcome {
            Ok(outcome) => unwind(outcome).map_err(|error| self.why.explain(error)),
            Err(_) => Err(Error::new(ErrorKind::Faulted)),
        })
    }
}
