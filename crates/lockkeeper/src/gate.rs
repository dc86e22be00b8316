//! Who may touch a closure that stays on its caller's stack while a worker runs it.
//!
//! | state | who may touch the closure | left by |
//! |---|---|---|
//! | `Free` | nobody; a worker may enter | [`Gate::enter`], [`Gate::close`] |
//! | `Inside` | the worker that entered | drop of [`Inside`] |
//! | `Closed` | its owner alone | never |
//!
//! - GATE1: a worker touches the closure between [`Gate::enter`] and the drop of its [`Inside`], also when the closure
//!   panics.
//! - GATE2: the owner returns from [`Gate::close`] when no worker is inside, and none enters from then on. It touches
//!   the closure, or lets it go, only then. So it does not matter when, or whether, the queue answers.
//!
//! The lock orders what the worker did before what the owner does next. A worker's thread that ends inside, which
//! only another program's `pthread_exit` could bring about, keeps the owner waiting for ever.

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
    /// Rung when a worker has left; the owner waits for it.
    left: Condvar,
}

/// A worker is inside until this is dropped.
#[derive(Debug)]
pub(crate) struct Inside<'g>(&'g Gate);

impl Gate {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State::Free), left: Condvar::new() }
    }

    /// GATE1. `None`: it is closed, or another worker is inside.
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        let mut state = lock(&self.state);
        (*state == State::Free).then(|| {
            *state = State::Inside;
            Inside(self)
        })
    }

    /// GATE2
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
