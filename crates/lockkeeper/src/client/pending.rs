//! The states of a caller's future.
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | new | the call was not submitted | the first poll, or `submit` |
//! | sent | the call is in one of the two queues, or runs; the drop cancels it | its answer |
//! | done | the submission answered or refused the call | the next poll |
//! | over | the caller has the answer | never |

use std::convert::Infallible;
use std::task::{Context, Poll, ready};

use crate::engine::item::{ReaderItem, WriterItem};
use crate::error::{Error, ErrorKind};
use crate::queue::{CallError, InFlight};

/// The state of a call's future. `N` is the call before its submission, `V` is the answer, and `D` is the result if the
/// submission itself produced one.
///
/// Each kind of call has only the fields that it needs, because the fields of its future decide whether the future is
/// `Sync` and `UnwindSafe`.
pub(crate) enum Pending<N, V: Send + 'static, D = Infallible> {
    New(N),
    Sent(Sent<V>),
    Done(D),
    Over,
}

/// A call in one of the two queues.
pub(crate) enum Sent<V: Send + 'static> {
    ToWriter(InFlight<WriterItem, V>),
    ToReaders(InFlight<ReaderItem, V>),
}

impl<V: Send + 'static> Sent<V> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<V, CallError>> {
        match self {
            Self::ToWriter(in_flight) => in_flight.poll(context),
            Self::ToReaders(in_flight) => in_flight.poll(context),
        }
    }
}

impl<N, V: Send + 'static, D> Pending<N, V, D> {
    /// Takes the call if it has not been submitted yet. The code that takes it submits it and stores the next state.
    pub(crate) fn take_new(&mut self) -> Option<N> {
        if !matches!(self, Self::New(_)) {
            return None;
        }
        match std::mem::replace(self, Self::Over) {
            Self::New(new) => Some(new),
            _ => None,
        }
    }

    /// Polls for the answer. `settle` turns the answer into the caller's result; `early` does so for a result of the
    /// submission.
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

    /// The same future without the type `N`; the call must not be new any more.
    pub(crate) fn submitted<M>(self) -> Pending<M, V, D> {
        match self {
            Self::Sent(sent) => Pending::Sent(sent),
            Self::Done(done) => Pending::Done(done),
            Self::New(_) | Self::Over => Pending::Over,
        }
    }
}
