//! Calls outside any transaction, fenced between two batches.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rusqlite::Connection;

use crate::database::{Client, unwind};
use crate::error::{Error, ErrorKind};
use crate::holders::{Board, Why};
use crate::job::{ExclusiveCall, Outcome, WriterItem};
use crate::queue::{Flight, Room, ancestry_for, refused, reply};

/// An exclusive call; see [`Client::exclusive`].
#[must_use = "a call is submitted when it is polled"]
pub struct Exclusive<F, T: Send + 'static, E: Send + 'static> {
    client: Client<E>,
    state: State<F, T, E>,
    deadline: Option<Duration>,
    place: &'static Location<'static>,
    /// Who held the call up when its deadline passed.
    why: Why,
}

enum State<F, T: Send + 'static, E: Send + 'static> {
    New(F),
    Flying(Flight<WriterItem, Outcome<T, E>>),
    Over,
}

impl<F, T: Send + 'static, E: Send + 'static> Unpin for Exclusive<F, T, E> {}

impl<F, T: Send + 'static, E: Send + 'static> std::fmt::Debug for Exclusive<F, T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exclusive").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl<F, T, E> Exclusive<F, T, E>
where
    F: FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    #[track_caller]
    pub(crate) fn new(client: Client<E>, f: F) -> Self {
        let (place, why) = (Location::caller(), Why::default());
        Self { client, state: State::New(f), deadline: None, place, why }
    }

    /// Gives up after `patience`, counted from the first poll; covers waiting and running.
    pub fn deadline(mut self, patience: Duration) -> Self {
        self.deadline = Some(patience);
        self
    }
}

impl<F, T, E> Future for Exclusive<F, T, E>
where
    F: FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::New(_) = self.state {
            let State::New(f) = std::mem::replace(&mut self.state, State::Over) else {
                return Poll::Ready(Err(Error::new(ErrorKind::Faulted)));
            };
            let core = Arc::clone(self.client.inner.core());
            core.check_process().map_err(Error::new)?;
            let ancestry = ancestry_for(core.domain)?;
            let (reply, receiver) = reply();
            let item = WriterItem::Exclusive(Box::new(ExclusiveCall {
                f,
                reply,
                ancestry,
                meta: self.client.meta(self.place),
            }));
            let deadline = self
                .deadline
                .map(|patience| self.why.deadline(&core, patience, Board::why_no_writer));
            match Flight::take_off(&self.client.inner.writes, item, receiver, Room::Wait, deadline)
            {
                Ok((flight, _)) => self.state = State::Flying(flight),
                Err(error) => return Poll::Ready(Err(refused(&error).into())),
            }
        }
        let State::Flying(flight) = &mut self.state else {
            return Poll::Ready(Err(Error::new(ErrorKind::Faulted)));
        };
        let outcome = ready!(flight.poll(context));
        self.state = State::Over;
        Poll::Ready(match outcome {
            Ok(outcome) => unwind(outcome).map_err(|error| self.why.explain(error)),
            Err(_) => Err(Error::new(ErrorKind::Faulted)),
        })
    }
}
