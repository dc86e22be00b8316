//! Stopping writes while reads go on.
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | running | the queue admits writes | `Queue::stop`, at the first poll of [`StopWrites`] |
//! | stopping | no write enters the queue; the writer serves the earlier ones | `Writer::settle_stops` |
//! | stopped | this process does not change the file or its WAL | the drop of the last [`StoppedWrites`] |
//!
//! - STOP1: the queue's lock orders a write and a stop. A write from before the stop is served; a later write is
//!   refused.
//! - STOP2: the writer's thread answers a stop between two batches, when no call from before the stop waits any more.
//!   It checks this after each batch. Callers may cancel these calls, so an errand makes sure that a next batch comes.
//! - STOP3: a stop may be dropped at any time. When the last stop is dropped, writes go on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::handle::Inner;
#[cfg(doc)]
use crate::Database;
use crate::engine::{item::WriterItem, stops::Stopping};
use crate::error::{Error, ErrorKind};
use crate::queue::{Awaited, Circle, Receiver, Wait, ancestry_for, reply};

/// A future that stops writes; see [`Database::stop_writes`].
#[must_use = "writes are stopped when it is polled"]
pub struct StopWrites {
    state: State,
}

impl StopWrites {
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        Self { state: State::New(Arc::clone(inner)) }
    }
}

enum State {
    New(Arc<Inner>),
    Waiting(Waiting),
    Over,
}

struct Waiting {
    stopped: StoppedWrites,
    answer: Receiver<()>,
    _wait: Option<Wait>,
}

/// Writes are refused while a value of this type exists; when the last one is dropped, writes go on. It keeps the
/// database open.
#[must_use = "writes go on when it is dropped"]
pub struct StoppedWrites(Arc<Inner>);

impl StoppedWrites {
    /// Lets writes go on, unless another [`StoppedWrites`] exists. The same as dropping it.
    pub fn resume(self) {
        drop(self);
    }
}

impl Drop for StoppedWrites {
    fn drop(&mut self) {
        let core = &self.0.core;
        // In a forked child the lock may be held for ever by a thread that exists only in the parent.
        if core.check_process().is_ok() {
            core.writer.resume();
        }
    }
}

opaque_debug!("StoppedWrites", [] StoppedWrites);
opaque_debug!("StopWrites", [] StopWrites);

/// Stops writes (STOP1). The writer answers when the earlier writes are done.
fn begin(inner: Arc<Inner>) -> Result<Waiting, Error> {
    let core = &inner.core;
    core.check_process().map_err(Error::new)?;
    core.opener.file.lost().map_or(Ok(()), Err)?;
    ancestry_for(core.domain)?;
    let wait = Wait::enter(|| Awaited::All(core.domain), true)
        .map_err(|Circle| Error::new(ErrorKind::Nested))?;
    let (reply, answer) = reply();
    let core = Arc::clone(core);
    let limit = core.writer.stop();
    let stopped = StoppedWrites(inner);
    core.stops.add(Stopping { limit, reply });
    // A refusal means that such an errand waits already, or that the database is closing.
    let _ = core.writer.push_errand(WriterItem::Stop);
    if !core.writer.is_open() {
        return Err(Error::new(ErrorKind::Closed));
    }
    Ok(Waiting { stopped, answer, _wait: wait })
}

impl Future for StopWrites {
    type Output = Result<StoppedWrites, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waiting = match std::mem::replace(&mut self.state, State::Over) {
            State::New(inner) => begin(inner)?,
            State::Waiting(waiting) => waiting,
            State::Over => return Poll::Ready(Err(Error::new(ErrorKind::Faulted))),
        };
        let Poll::Ready(answer) = waiting.answer.poll(context) else {
            self.state = State::Waiting(waiting);
            return Poll::Pending;
        };
        let stopped = waiting.stopped;
        // If there is no answer, the database was closed meanwhile, or the writer's thread has died.
        Poll::Ready(match (stopped.0.core.opener.file.lost(), answer) {
            (Some(lost), _) => Err(lost),
            (None, Ok(())) => Ok(stopped),
            (None, Err(_)) => Err(Error::new(ErrorKind::Closed)),
        })
    }
}
