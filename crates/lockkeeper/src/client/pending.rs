//! What a caller's future is between its making and its answer.
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | new | nothing was submitted | the first poll, or `submit` |
//! | sent | the call is in one of the two queues, or runs; dropping it cancels it | its answer |
//! | done | it was answered, or refused, when it was submitted | the next poll |
//! | over | the answer was fetched | never |

use std::convert::Infallible;
use std::task::{Context, Poll, ready};

use crate::engine::item::{ReaderItem, WriterItem};
use crate::error::{Error, ErrorKind};
use crate::queue::{CallError, Flight};

/// A future of a call: made of an `N`, answered with a `V`, unless a `D` was known when it was submitted.
///
/// It holds no more than that kind of call needs, since its fields decide whether the future is `Sync` and `UnwindSafe`.
pub(crate) enum Pending<N, V: Send + 'static, D = Infallible> {
    New(N),
    Sent(Sent<V>),
    Done(D),
    Over,
}

/// A call in one of the two queues.
pub(crate) enum Sent<V: Send + 'static> {
    ToWriter(Flight<WriterItem, V>),
    ToReaders(Flight<ReaderItem, V>),
}

impl<V: Send + 'static> Sent<V> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<V, CallError>> {
        match self {
            Self::ToWriter(flight) => flight.poll(context),
            Self::ToReaders(flight) => flight.poll(context),
        }
    }
}

impl<N, V: Send + 'static, D> Pending<N, V, D> {
    /// What is to be submitted, if that has not been done; the caller puts in its place what came of it.
    pub(crate) fn take_new(&mut self) -> Option<N> {
        if !matches!(self, Self::New(_)) {
            return None;
        }
        match std::mem::replace(self, Self::Over) {
            Self::New(new) => Some(new),
            _ => None,
        }
    }

    /// Waits for the answer; `settle` makes what the caller gets of it, and `early` of what was known before.
    pub(crate) fn poll<T, E: 'static>(
        &mut self,
        context: &mut Context<'_>,
        settle: impl FnOnce(Result<V, CallError>) -> Result<T, Error<E>>,
        early: impl FnOnce(D) -> Result<T, Error<E>>,
    ) -> Poll<Result<T, Error<E>>> {
        if let Self::Sent(sent) = self {
            let answer = ready!(sent.poll(context));
            *self = Self::Over;
            return Poll::Ready(settle(answer));
        }
        Poll::Ready(match std::mem::replace(self, Self::Over) {
            Self::Done(done) => early(done),
            _ => Err(Error::new(ErrorKind::Faulted)),
        })
    }

    /// The same of a call that is not new any more.
    pub(crate) fn submitted<M>(self) -> Pending<M, V, D> {
        match self {
            Self::Sent(sent) => Pending::Sent(sent),
            Self::Done(done) => Pending::Done(done),
            Self::New(_) | Self::Over => Pending::Over,
        }
    }
}
