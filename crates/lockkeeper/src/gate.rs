//! A lock for a closure that stays on its caller's stack while a worker runs it.
//!
//! | state | who may touch the closure | left by |
//! |---|---|---|
//! | `Free` | no thread; a worker may enter | [`Gate::enter`], [`Gate::close`] |
//! | `Inside` | the worker that entered | drop of [`Inside`] |
//! | `Closed` | only its owner | never |
//!
//! - GATE1: a worker touches the closure only between [`Gate::enter`] and the drop of its [`Inside`], also when the
//!   closure panics.
//! - GATE2: [`Gate::close`] returns when no worker is inside, and none can enter from then on. Only then the owner
//!   touches the closure or drops it. So it does not matter when, or whether, the queue answers the call.
//!
//! The mutex orders the worker's accesses before the owner's. If a worker's thread were ended while it is inside, which
//! only foreign code could do with `pthread_exit`, the owner would be blocked for ever.

use crate::sync::{Condvar, Mutex, lock, wait};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Inside,
    Closed,
}

#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    /// Notified when a worker has left. The owner waits for it.
    left: Condvar,
}

/// The worker that entered is inside until it drops this value.
#[derive(Debug)]
pub(crate) struct Inside<'g>(&'g Gate);

impl Gate {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State::Free), left: Condvar::new() }
    }

    /// Lets a worker in (GATE1). `None`: the gate is closed, or another worker is inside.
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        let mut state = lock(&self.state);
        (*state == State::Free).then(|| {
            *state = State::Inside;
            Inside(self)
        })
    }

    /// Waits until no worker is inside. From then on no worker can enter (GATE2).
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        while *state == State::Inside {
            state = wait(&self.left, state);
        }
        *state = State::Closed;
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        *lock(&self.0.state) = State::Free;
        self.0.left.notify_one();
    }
}
