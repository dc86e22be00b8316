//! Exclusive calls, which run outside any transaction, between two batches.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rusqlite::Connection;

use super::{handle::Inner, pending::Pending, submission::Submission};
#[cfg(doc)]
use crate::Client;
use crate::engine::call::{Outcome, TypedCall};
use crate::engine::item::WriterItem;
use crate::error::Error;
use crate::ffi::lend;
use crate::queue::block_on;
use crate::stats::holders::HolderKind;

/// An exclusive call; see [`Client::exclusive`].
#[must_use = "a call is submitted when it is polled"]
pub struct Exclusive<F, T: Send + 'static, E: Send + 'static> {
    submission: Submission,
    pending: Pending<F, Outcome<T, E>>,
}

impl<F, T: Send + 'static, E: Send + 'static> Unpin for Exclusive<F, T, E> {}

opaque_debug!(
    "Exclusive", [F, T: Send + 'static, E: Send + 'static] Exclusive<F, T, E>,
    deadline: submission.deadline
);

impl<F, T, E> Exclusive<F, T, E>
where
    F: FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    #[track_caller]
    pub(crate) fn new(inner: &Arc<Inner>, f: F) -> Self {
        Self::by(Submission::new(HolderKind::Exclusive, inner), f)
    }

    fn by(submission: Submission, f: F) -> Self {
        Self { submission, pending: Pending::New(f) }
    }

    /// Sets a deadline: the call times out `patience` after its first poll, whether it waits or runs.
    pub fn deadline(mut self, patience: Duration) -> Self {
        self.submission.deadline = Some(patience);
        self
    }
}

/// Runs an exclusive call and waits for it. `f` stays on this thread's stack.
#[track_caller]
pub(crate) fn blocking<T, E, F>(inner: &Arc<Inner>, f: F) -> Result<T, Error<E>>
where
    F: FnOnce(&mut Connection) -> Result<T, E> + Send,
    T: Send,
    E: Send + 'static,
{
    let submission = Submission::new(HolderKind::Exclusive, inner);
    let mut f = Some(f);
    let f = move |conn: &mut Connection| (f.take().expect("an exclusive call runs once"))(conn);
    lend::<Connection, _, _, _>(f, |lent| {
        block_on(Exclusive::by(submission, move |conn: &mut Connection| lent.run(conn)))
    })
}

impl<F, T, E> Future for Exclusive<F, T, E>
where
    F: FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { submission, pending } = &mut *self;
        if let Some(f) = pending.take_new() {
            let ancestry = submission.admit()?;
            *pending = Pending::Sent(submission.submit_to_writer(|reply, meta| {
                WriterItem::Exclusive(Box::new(TypedCall { body: f, reply, ancestry, meta }))
            })?);
        }
        pending.poll(context, |answer| submission.settle(answer), |never| match never {})
    }
}
