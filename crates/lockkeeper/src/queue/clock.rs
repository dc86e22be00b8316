//! A timer thread for deadlines of calls, maximum ages of snapshots, checks for stalled pools, and the like.
//!
//! The library has no runtime and so no timer of its own. The thread starts with the first alarm and ends when the
//! clock is closed or dropped.
//!
//! - CLK1: an alarm rings at most once, never before its time, and outside the clock's lock.
//! - CLK2: dropping an [`Alarm`] immediately removes it from the clock. Bound: one alarm per call, snapshot or lease
//!   with a time limit, and one for each regular check.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, lock, now, wait, wait_until};

type Ring = Box<dyn FnOnce() + Send>;

pub(crate) struct Clock(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    alarms: BTreeMap<(Instant, u64), Ring>,
    next: u64,
    closed: bool,
    thread: Option<JoinHandle<()>>,
}

/// An alarm that was set. Dropping it cancels it.
pub(crate) struct Alarm {
    key: (Instant, u64),
    inner: Arc<Inner>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let state = Mutex::new(State::default());
        Self(Arc::new(Inner { state, changed: Condvar::new() }))
    }

    /// Calls `ring` at `at`; never if the clock is closed or its thread cannot be started.
    pub(crate) fn set(&self, at: Instant, ring: impl FnOnce() + Send + 'static) -> Alarm {
        let mut state = lock(&self.0.state);
        let key = (at, state.next);
        state.next += 1;
        if !state.closed {
            let first = state.alarms.first_key_value().is_none_or(|(&soonest, _)| key < soonest);
            state.alarms.insert(key, Box::new(ring));
            if state.thread.is_none() {
                let inner = Arc::clone(&self.0);
                let builder = std::thread::Builder::new().name("lockkeeper-clock".to_owned());
                state.thread = builder.spawn(move || inner.run()).ok();
            } else if first {
                self.0.changed.notify_one();
            }
        }
        drop(state);
        Alarm { key, inner: Arc::clone(&self.0) }
    }

    /// As [`Clock::set`], but keeps only a weak reference to `target` and passes `target` to `ring`. If `target` is
    /// gone at `at`, `ring` is not called.
    pub(crate) fn set_for<T: Send + Sync + 'static>(
        &self,
        target: &Arc<T>,
        at: Instant,
        ring: impl FnOnce(&Arc<T>) + Send + 'static,
    ) -> Alarm {
        let target = Arc::downgrade(target);
        self.set(at, move || {
            if let Some(target) = target.upgrade() {
                ring(&target);
            }
        })
    }

    /// Removes all alarms and ends the thread. Joins the thread, unless it is the thread that calls this.
    pub(crate) fn close(&self) {
        if let Some(thread) = self.0.stop()
            && thread.thread().id() != std::thread::current().id()
        {
            // An error means that an alarm panicked; the panic hook has reported it.
            let _ = thread.join();
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        drop(self.0.stop());
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // CLK2
        let ring = lock(&self.inner.state).alarms.remove(&self.key);
        drop(ring);
    }
}

impl Inner {
    /// Removes all alarms and tells the thread to end; returns its handle.
    fn stop(&self) -> Option<JoinHandle<()>> {
        let mut state = lock(&self.state);
        state.closed = true;
        let forgotten = std::mem::take(&mut state.alarms);
        let thread = state.thread.take();
        self.changed.notify_one();
        drop(state);
        drop(forgotten);
        thread
    }

    fn run(&self) {
        let mut state = lock(&self.state);
        while !state.closed {
            let Some((&key, _)) = state.alarms.first_key_value() else {
                state = wait(&self.changed, state);
                continue;
            };
            if key.0 > now() {
                state = wait_until(&self.changed, state, key.0);
                continue;
            }
            let ring = state.alarms.remove(&key);
            // CLK1
            drop(state);
            if let Some(ring) = ring {
                ring();
            }
            state = lock(&self.state);
        }
    }
}

/// The instant that is `patience` from now.
pub(crate) fn after(patience: Duration) -> Instant {
    let now = now();
    // `None`: the clock cannot represent the instant. A year from now is as good as never.
    now.checked_add(patience).unwrap_or(now + Duration::from_secs(60 * 60 * 24 * 365))
}
