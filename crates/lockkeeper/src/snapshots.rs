//! The handle of a held snapshot, and the future that takes one.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::database::Client;
use crate::error::{Error, ErrorKind};
use crate::job::{self, Many, ReaderItem, WriterItem};
use crate::queue::{Flight, Room, ancestry_for, block_on, refused, reply};
use crate::read::Read;
use crate::snapshot::{Held, Hold};
use crate::transaction::Snapshot;

/// A snapshot that stays the same across awaits; see [`Client::snapshot`].
///
/// Reads on it run one after another. Released when the last clone is dropped and its last read is
/// answered, when it reaches its maximum age, or when the database is closed; later reads then say
/// so. Its place among the [held ones](crate::Builder::snapshots_max) is free at once.
pub struct HeldSnapshot<E: Send + 'static = rusqlite::Error> {
    client: Client<E>,
    hold: Arc<Hold>,
}

impl<E: Send + 'static> Clone for HeldSnapshot<E> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), hold: Arc::clone(&self.hold) }
    }
}

impl<E: Send + 'static> fmt::Debug for HeldSnapshot<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldSnapshot").field("commit", &self.commit()).finish_non_exhaustive()
    }
}

impl<E: Send + 'static> HeldSnapshot<E> {
    pub(crate) fn new(client: Client<E>, held: Arc<Held>) -> Self {
        Self { client, hold: Hold::new(held) }
    }

    /// The number of the commit that this snapshot shows, counted from the opening of the database;
    /// known when it was taken by [`Write::and_snapshot`](crate::Write::and_snapshot).
    pub fn commit(&self) -> Option<u64> {
        self.hold.held().commit()
    }

    /// Runs `f` on this snapshot, on a reader thread.
    ///
    /// # Errors
    /// As [`Client::read`]; [`ErrorKind::SnapshotExpired`] when it has been released.
    ///
    /// # Panics
    /// As [`Client::read`].
    ///
    /// # Cancel safety
    /// As [`Client::read`].
    #[track_caller]
    pub fn read<T, F>(&self, f: F) -> Read<Many<F>, T, E>
    where
        F: FnMut(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        Read::new(self.client.clone(), Many(f), Some(Arc::clone(&self.hold)))
    }

    /// As [`HeldSnapshot::read`], blocking this thread.
    ///
    /// # Errors
    /// As [`HeldSnapshot::read`].
    ///
    /// # Panics
    /// As [`HeldSnapshot::read`].
    #[track_caller]
    pub fn blocking_read<T, F>(&self, f: F) -> Result<T, Error<E>>
    where
        F: FnMut(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        block_on(self.read(f))
    }
}

/// A snapshot being taken; see [`Client::snapshot`].
#[must_use = "a call is submitted when it is polled"]
pub struct Snapshots<E: Send + 'static> {
    client: Client<E>,
    state: State,
    place: &'static Location<'static>,
}

type Answer = Result<Arc<Held>, Error>;

enum State {
    New,
    Flying(Flight<ReaderItem, Answer>),
    FlyingToWriter(Flight<WriterItem, Answer>),
    Over,
}

impl<E: Send + 'static> Unpin for Snapshots<E> {}

impl<E: Send + 'static> fmt::Debug for Snapshots<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").finish_non_exhaustive()
    }
}

impl<E: Send + 'static> Snapshots<E> {
    #[track_caller]
    pub(crate) fn new(client: Client<E>) -> Self {
        Self { client, state: State::New, place: Location::caller() }
    }

    fn begin(&mut self) -> Result<(), Error<E>> {
        let core = self.client.inner.core();
        core.check_process().map_err(Error::new)?;
        ancestry_for(core.domain)?;
        let (reply, receiver) = reply();
        let pin = job::Pin { reply, origin: self.client.meta(self.place).origin };
        let inner = &self.client.inner;
        self.state = if core.config.is_memory() {
            let item = WriterItem::Pin(pin);
            let flight = Flight::take_off(&inner.writes, item, receiver, Room::Wait, None);
            State::FlyingToWriter(flight.map_err(|error| refused(&error))?.0)
        } else {
            let item = ReaderItem::Pin(pin);
            let flight = Flight::take_off(&inner.reads, item, receiver, Room::Wait, None);
            let (flight, check_for_stall) = flight.map_err(|error| refused(&error))?;
            if check_for_stall {
                core.check_for_stall();
            }
            State::Flying(flight)
        };
        Ok(())
    }
}

impl<E: Send + 'static> Future for Snapshots<E> {
    type Output = Result<HeldSnapshot<E>, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::New = self.state {
            self.begin()?;
        }
        let outcome = match &mut self.state {
            State::Flying(flight) => ready!(flight.poll(context)),
            State::FlyingToWriter(flight) => ready!(flight.poll(context)),
            State::New | State::Over => return Poll::Ready(Err(Error::new(ErrorKind::Faulted))),
        };
        self.state = State::Over;
        Poll::Ready(match outcome {
            Ok(Ok(held)) => Ok(HeldSnapshot::new(self.client.clone(), held)),
            Ok(Err(error)) => Err(error.without_call()),
            Err(_) => Err(Error::new(ErrorKind::Faulted)),
        })
    }
}
