//! A stream that makes its pieces in turns with the client's other streams.
//!
//! Making a piece may take the processor for a while (the lines of a log become HTML). The runtime runs ready tasks in
//! the order in which they became ready, so hundreds of streams that begin at once would delay every other request.
//!
//! - HTURN1: before each piece a stream takes one of its client's turns; without one it is not ready to run.
//! - HTURN2: then it lets all ready tasks run. It gives the turn back after the piece, or when it has none: a stream that
//!   waits for an event, or for its client, has no turn.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

pub(super) struct InTurns {
    inner: Body,
    turns: Arc<Semaphore>,
    state: State,
}

enum State {
    Idle,
    /// For a turn (HTURN1).
    Waiting(Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>),
    /// To the tasks that are ready (HTURN2).
    Yielding {
        _turn: OwnedSemaphorePermit,
        yielded: Arc<Yielded>,
    },
}

/// Becomes true when the runtime comes back to a stream that has yielded. Being polled again does not say so: hyper may
/// poll a body twice in a row.
struct Yielded {
    yielded: AtomicBool,
    stream: Waker,
}

impl Wake for Yielded {
    fn wake(self: Arc<Self>) {
        // Before the wake, so that the woken task sees it. Pairs with the load in `poll_frame`.
        self.yielded.store(true, Ordering::Release);
        self.stream.wake_by_ref();
    }
}

impl InTurns {
    pub(super) fn new(inner: Body, turns: Arc<Semaphore>) -> Self {
        Self { inner, turns, state: State::Idle }
    }
}

impl http_body::Body for InTurns {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            self.state = match &mut self.state {
                State::Idle => State::Waiting(Box::pin(Arc::clone(&self.turns).acquire_owned())),
                State::Waiting(turn) => {
                    // The semaphore is never closed.
                    let Ok(turn) = ready!(turn.as_mut().poll(context)) else {
                        return Poll::Ready(None);
                    };
                    let (yielded, stream) = (AtomicBool::new(false), context.waker().clone());
                    let yielded = Arc::new(Yielded { yielded, stream });
                    let waker = Waker::from(Arc::clone(&yielded));
                    // Polled once, so that the runtime wakes `yielded` behind the tasks that are ready now.
                    let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
                    State::Yielding { _turn: turn, yielded }
                }
                State::Yielding { yielded, .. } if !yielded.yielded.load(Ordering::Acquire) => {
                    return Poll::Pending;
                }
                State::Yielding { .. } => {
                    let frame = Pin::new(&mut self.inner).poll_frame(context);
                    self.state = State::Idle;
                    return frame;
                }
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}
