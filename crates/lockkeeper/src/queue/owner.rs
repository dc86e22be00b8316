//! The service of a worker's thread: it builds the resource, runs calls on it, and replaces it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::call::{Interrupt, Interruptible, Receiver};
use super::error::{CallError, Phase};
use super::worker::{Batch, Pool, Service};
use super::{clock::Clock, close::Closing, frames::Domain, lane::Taken, state::Item};
use crate::sync::now;

/// Whether a resource may serve the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Keep the resource.
    Reuse,
    /// Drop the resource and build another one before the next call.
    Replace,
}

pub(super) type Recycle<R> = Box<dyn FnMut(&mut R, bool) -> Verdict + Send>;

/// A boxed call on an `R`.
pub(crate) trait Job<R>: Send {
    /// Runs the call. `true`: the call panicked.
    fn run(self: Box<Self>, domain: Domain, resource: &mut R) -> bool;
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>>;
    fn refuse(self: Box<Self>, why: CallError);
}

/// The error of a call that was asked to stop.
pub(crate) fn stopped(why: Interrupt, phase: Phase) -> CallError {
    match why {
        Interrupt::Deadline => CallError::Timeout(phase),
        Interrupt::Canceled | Interrupt::Aborted | Interrupt::Expired | Interrupt::LeaseExpired => {
            CallError::Aborted
        }
    }
}

impl<R: 'static> Item for Box<dyn Job<R>> {
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        Job::interruptible(&**self)
    }

    fn refuse(self, why: CallError) {
        Job::refuse(self, why);
    }
}

/// The resource, how to build it, and when to replace it.
pub(super) struct Owner<R, E> {
    pub(super) build: Box<dyn FnMut() -> Result<R, E> + Send>,
    pub(super) recycle: Recycle<R>,
    /// `None`: the resource was dropped and has not been built again.
    pub(super) resource: Option<R>,
    pub(super) domain: Domain,
}

impl<R: 'static, E: 'static> Service for Owner<R, E> {
    type Call = Box<dyn Job<R>>;

    fn serve(&mut self, first: Taken<Self::Call>, batch: &mut Batch<'_, Self::Call>) {
        let mut next = Some(first);
        while let Some(Taken { lane, call, .. }) = next {
            let began = now();
            self.run(call);
            next = batch.charge_and_take(lane, now() - began);
        }
    }

    fn finish(self) {
        // A panicking destructor must not look like a dead worker.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self)));
    }
}

impl<R: 'static, E> Owner<R, E> {
    fn run(&mut self, call: Box<dyn Job<R>>) {
        if self.resource.is_none() {
            // If the build function fails or panics, this call fails, and the next call builds again.
            self.resource =
                catch_unwind(AssertUnwindSafe(&mut self.build)).ok().and_then(Result::ok);
        }
        let Some(resource) = self.resource.as_mut() else {
            call.refuse(CallError::Faulted);
            return;
        };
        let panicked = call.run(self.domain, resource);
        let recycle = &mut self.recycle;
        let verdict = catch_unwind(AssertUnwindSafe(|| recycle(resource, panicked)));
        if !matches!(verdict, Ok(Verdict::Reuse)) {
            let dirty = self.resource.take();
            let _ = catch_unwind(AssertUnwindSafe(|| drop(dirty)));
        }
    }
}

/// The parts of a worker that its close needs: the pool, with the queue and the thread, and the clock.
pub(super) struct Closer<R: 'static, E: Send + 'static> {
    pub(super) pool: Arc<Pool<Owner<R, E>, E>>,
    pub(super) clock: Arc<Clock>,
}

impl<R: 'static, E: Send + 'static> Closing for Closer<R, E> {
    fn is_forked(&self) -> bool {
        self.pool.queue.is_forked()
    }

    fn close(&self) {
        self.pool.queue.close();
    }

    fn abort(&self) {
        self.pool.queue.abort();
    }

    fn gone(&self) -> Receiver<()> {
        self.pool.queue.gone()
    }

    fn join(&self) {
        self.pool.join();
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn domain(&self) -> Domain {
        self.pool.queue.domain
    }
}
