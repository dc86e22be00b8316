//! Calls outside any transaction, fenced between two batches.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rusqlite::Connection;

use crate::database::Client;
use crate::engine::call::{Outcome, TypedExclusive};
use crate::engine::item::WriterItem;
use crate::error::{Error, ErrorKind};
use crate::ffi::lend;
use crate::holders::HolderKind;
use crate::queue::{Flight, block_on};
use crate::submission::Submission;

/// An exclusive call; see [`Client::exclusive`].
#[must_use = "a call is submitted when it is polled"]
pub struct Exclusive<F, T: Send + 'static, E: Send + 'static> {
    submission: Submission<E>,
    state: State<F, T, E>,
}

enum State<F, T: Send + 'static, E: Send + 'static> {
    New(F),
    Flying(Flight<WriterItem, Outcome<T, E>>),
    Over,
}

impl<F, T: Send + 'static, E: Send + 'static> Unpin for Exclusive<F, T, E> {}

impl<F, T: Send + 'static, E: Send + 'static> std::fmt::Debug for Exclusive<F, T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exclusive")
            .field("deadline", &self.submission.deadline)
            .finish_non_exhaustive()
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
        Self::by(Submission::new(HolderKind::Exclusive, client), f)
    }

    fn by(submission: Submission<E>, f: F) -> Self {
        Self { submission, state: State::New(f) }
    }

    /// Gives up after `patience`, counted from the first poll; covers waiting and running.
    pub fn deadline(mut self, patience: Duration) -> Self {
        self.submission.deadline = Some(patience);
        self
    }
}

/// Runs an exclusive call and waits for it; `f` stays on this thread's stack.
#[track_caller]
pub(crate) fn blocking<T, E, F>(client: Client<E>, f: F) -> Result<T, Error<E>>
where
    F: FnOnce(&mut Connection) -> Result<T, E> + Send,
    T: Send,
    E: Send + 'static,
{
    let submission = Submission::new(HolderKind::Exclusive, client);
    lend::<Connection, _, _, _>(once(f), |lent| {
        block_on(Exclusive::by(submission, move |conn: &mut Connection| lent.run(conn)))
    })
}

/// A closure that is run once at most, as one that might run again.
fn once<T, E>(
    f: impl FnOnce(&mut Connection) -> Result<T, E>,
) -> impl FnMut(&mut Connection) -> Result<T, E> {
    let mut f = Some(f);
    move |conn| (f.take().expect("an exclusive call runs once"))(conn)
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
            let ancestry = self.submission.admit()?;
            let flight = self.submission.submit_to_writer(|reply, meta| {
                WriterItem::Exclusive(Box::new(TypedExclusive { f, reply, ancestry, meta }))
            })?;
            self.state = State::Flying(flight);
        }
        let State::Flying(flight) = &mut self.state else {
            return Poll::Ready(Err(Error::new(ErrorKind::Faulted)));
        };
        let landed = ready!(flight.poll(context));
        self.state = State::Over;
        Poll::Ready(self.submission.settle(landed))
    }
}
