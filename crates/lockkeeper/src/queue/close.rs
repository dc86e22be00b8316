//! Stopping intake, draining, joining.
//!
//! - CLOSE1: closing begins when the future is first polled (or `blocking_close` is called), never by a
//!   drop of the future; it goes on when the future is dropped.
//! - CLOSE2: a deadline turns the drain into an abort; the future still waits for the threads.

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
    /// This process was forked from the one that has the threads: nothing was closed.
    Forked,
    /// It was asked for inside a call that this would wait for, directly or through other calls: nothing was
    /// closed.
    Nested,
}

/// What can be closed: one queue with its threads, or a database with both of its queues.
pub(crate) trait Closing: Send + Sync + 'static {
    /// Whether the threads are those of another process.
    fn is_forked(&self) -> bool;
    fn close(&self);
    fn abort(&self);
    fn gone(&self) -> Receiver<()>;
    /// Joins threads that have left; must not be called before [`Closing::gone`] has resolved.
    fn join(&self);
    fn clock(&self) -> &Clock;
    /// Whose calls a close waits for.
    fn domain(&self) -> Domain;
}

/// A close under way: a future, or [`Close::blocking_wait`] for plain threads.
///
/// # Cancel safety
/// Dropping it after the first poll leaves the close going on; dropping it before does nothing.
#[must_use = "closing begins when the future is polled"]
pub struct Close {
    target: Arc<dyn Closing>,
    abort: bool,
    deadline: Option<Duration>,
    waiting: Option<Receiver<()>>,
    aborted: Arc<AtomicBool>,
    alarm: Option<Alarm>,
    /// Inside a call: calls that are still to be served may wait for that one.
    wait: Option<Wait>,
}

impl Close {
    pub(crate) fn new(target: Arc<dyn Closing>, abort: bool) -> Self {
        let aborted = Arc::new(AtomicBool::new(abort));
        Self { target, abort, deadline: None, waiting: None, aborted, alarm: None, wait: None }
    }

    /// Aborts what has not been served after `patience`.
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
                // The threads have left their seats: what remains of them is the return from
                // their last function.
                self.target.join();
                self.alarm = None;
                self.wait = None;
                self.target.clock().close();
                // Pairs with the store in the alarm, ordered by the clock's lock.
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
