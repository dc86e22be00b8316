//! Closing a queue: intake stops, the workers serve the accepted calls, and their threads are joined.
//!
//! - CLOSE1: closing begins when the future is first polled (or `blocking_close` is called). If the future is dropped
//!   before that, nothing is closed. If it is dropped later, the close goes on.
//! - CLOSE2: when the deadline passes, the drain becomes an abort. The future still waits for the threads.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Alarm, Awaited, Clock, Domain, Receiver, Wait, after, ancestry_for, block_on};
use crate::sync::{AtomicBool, Ordering};

/// How a close ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// Every accepted call was served.
    Drained,
    /// The deadline passed, or `abort` was called: calls were refused or interrupted.
    Aborted,
    /// This process was forked from the one that has the threads. Nothing was closed.
    Forked,
    /// The close was requested inside a call and would wait for that call, directly or through other calls. Nothing was
    /// closed.
    Nested,
}

/// Something that can be closed: one queue with its threads, or a database with both of its queues.
pub(crate) trait Closing: Send + Sync + 'static {
    /// Whether this process was forked from the one that has the threads.
    fn is_forked(&self) -> bool;
    fn close(&self);
    fn abort(&self);
    fn gone(&self) -> Receiver<()>;
    /// Joins the threads. Call it when [`Closing::gone`] has resolved.
    fn join(&self);
    fn clock(&self) -> &Clock;
    /// The close waits for the calls of this domain.
    fn domain(&self) -> Domain;
}

/// A future that closes; plain threads use [`Close::blocking_wait`].
///
/// # Cancel safety
/// Dropped before the first poll: nothing is closed. Dropped later: the close goes on.
#[must_use = "closing begins when the future is polled"]
pub struct Close {
    target: Arc<dyn Closing>,
    abort: bool,
    deadline: Option<Duration>,
    waiting: Option<Receiver<()>>,
    aborted: Arc<AtomicBool>,
    alarm: Option<Alarm>,
    /// `Some` if the future was polled inside a call, because the calls that the close waits for may wait for that
    /// call.
    wait: Option<Wait>,
}

impl Close {
    pub(crate) fn new(target: Arc<dyn Closing>, abort: bool) -> Self {
        let aborted = Arc::new(AtomicBool::new(abort));
        Self { target, abort, deadline: None, waiting: None, aborted, alarm: None, wait: None }
    }

    /// Aborts the calls that have not been served after `patience`.
    pub fn deadline(mut self, patience: Duration) -> Self {
        self.deadline = Some(patience);
        self
    }

    /// Closes and blocks this thread until the worker threads have ended.
    pub fn blocking_wait(self) -> Closed {
        block_on(self)
    }

    fn begin(&mut self) -> Receiver<()> {
        if self.abort {
            self.target.abort();
        } else {
            self.target.close();
        }
        if let Some(patience) = self.deadline.take() {
            let (target, aborted) = (Arc::clone(&self.target), Arc::clone(&self.aborted));
            self.alarm = Some(self.target.clock().set(after(patience), move || {
                aborted.store(true, Ordering::Relaxed);
                target.abort();
            }));
        }
        self.target.gone()
    }
}

impl Future for Close {
    type Output = Closed;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Closed> {
        let waiting = match self.waiting.take() {
            Some(waiting) => waiting,
            None if self.target.is_forked() => return Poll::Ready(Closed::Forked),
            None => {
                let domain = self.target.domain();
                let entered = Wait::enter(|| Awaited::All(domain), true);
                match (ancestry_for(domain), entered) {
                    (Ok(_), Ok(wait)) => self.wait = wait,
                    _ => return Poll::Ready(Closed::Nested),
                }
                self.begin()
            }
        };
        match waiting.poll(context) {
            Poll::Pending => {
                self.waiting = Some(waiting);
                Poll::Pending
            }
            Poll::Ready(_) => {
                // Each thread has freed its slot and is about to return.
                self.target.join();
                self.alarm = None;
                self.wait = None;
                self.target.clock().close();
                // Pairs with the store in the alarm; the clock's lock orders this load after it.
                let aborted = self.aborted.load(Ordering::Relaxed);
                Poll::Ready(if aborted { Closed::Aborted } else { Closed::Drained })
            }
        }
    }
}

impl std::fmt::Debug for Close {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Close").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
