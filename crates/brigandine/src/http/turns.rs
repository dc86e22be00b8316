//! A stream that makes its pieces in turns with the other streams of its client.
//!
//! Making a piece may use the processor for a while (the lines of a build log become HTML). The runtime runs ready
//! tasks in the order in which they became ready, so hundreds of streams that begin at the same time would delay every
//! other request.
//!
//! - HTURN1: before each piece, a stream takes one of its client's turns. Without a turn its task is not ready to run.
//! - HTURN2: with the turn, the stream lets the tasks that are ready run first. It gives the turn back after the piece,
//!   or if there is no piece yet. So a stream that waits for an event, or for its client, holds no turn.

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
    /// Waits for a turn (HTURN1).
    Waiting(Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>),
    /// Lets the tasks that are ready run first (HTURN2).
    Yielding {
        _turn: OwnedSemaphorePermit,
        yielded: Arc<Yielded>,
    },
}

/// Becomes true when the runtime resumes a stream that has yielded. A second poll alone does not mean this, because
/// hyper may poll a body twice in a row.
struct Yielded {
    yielded: AtomicBool,
    stream: Waker,
}

impl Wake for Yielded {
    fn wake(self: Arc<Self>) {
        // Stored before the wake, so that the woken task sees it. Pairs with the load in `poll_frame`.
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
                    // `Err` does not happen, because the semaphore is never closed.
                    let Ok(turn) = ready!(turn.as_mut().poll(context)) else {
                        return Poll::Ready(None);
                    };
                    let (yielded, stream) = (AtomicBool::new(false), context.waker().clone());
                    let yielded = Arc::new(Yielded { yielded, stream });
                    let waker = Waker::from(Arc::clone(&yielded));
                    // Polled once. The runtime then wakes `yielded` after the tasks that are ready now.
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
