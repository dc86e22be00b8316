//! A write transaction that stays open across awaits, for a limited time.
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | waiting | it is a call in the writer's queue | its turn, drop, deadline |
//! | idle | the writer waits in [`LeaseState::next`], the transaction is open | a command, `end`, the idle time |
//! | running | the writer runs a command; `running` is its token | its end, `end` |
//! | over | `over` says why; the transaction is committed or rolled back soon | never |
//!
//! - LEASE1: only the writer's thread touches the connection; everybody else sets `over` and rings.
//! - LEASE2: whatever ends a lease without a commit rolls it back: drop, expiry, abort, a command that
//!   lost the transaction, a dropped command.
//! - LEASE3: the writer waits for the caller only in `next`, for the idle time at most, and the hold time
//!   ends a running command too. So the next writer waits for a known time.
//!
//! Bound: one command waits at most, because the handle is borrowed until it is answered.

use std::sync::Arc;
use std::time::Duration;

use super::write_call::{Fate, WriteCall};
use crate::error::ErrorKind;
use crate::queue::{Awaited, Circle, Holder, Interrupt, Interruptible, Wait, after};
use crate::sync::{Condvar, Mutex, lock, now, wait_until};

/// What the holder and the writer share.
pub(crate) struct LeaseState {
    state: Mutex<State>,
    /// Rung when there is a command or the lease is over; the writer waits for it.
    bell: Condvar,
    pub(crate) hold_max: Duration,
    idle_max: Duration,
    /// The call in which it was asked for; `None`: it was outside of any.
    holder: Option<Holder>,
}

#[derive(Default)]
struct State {
    command: Option<Command>,
    running: Option<Arc<dyn Interruptible>>,
    over: Option<ErrorKind>,
    /// The writer's wait for the call that holds the lease, while there is no command.
    wait: Option<Wait>,
}

/// What the holder asks of the writer.
pub(crate) enum Command {
    Run(Box<dyn WriteCall>),
    /// Its closure does nothing; its answer is that of the commit.
    Commit(Box<dyn WriteCall>),
}

impl LeaseState {
    /// A lease that is asked for here and now.
    pub(crate) fn new(hold_max: Duration, idle_max: Duration) -> Self {
        Self {
            state: Mutex::new(State::default()),
            bell: Condvar::new(),
            hold_max,
            idle_max,
            holder: Holder::here(),
        }
    }

    /// Why it is over, if it is.
    pub(crate) fn over(&self) -> Option<ErrorKind> {
        lock(&self.state).over
    }

    /// The next command; `None`: the lease is over.
    pub(crate) fn next(&self) -> Option<Command> {
        let idle_until = after(self.idle_max);
        let mut state = lock(&self.state);
        loop {
            if state.over.is_some() {
                return None;
            }
            if let Some(command) = state.command.take() {
                state.running = match &command {
                    Command::Run(call) => call.interruptible(),
                    Command::Commit(_) => None,
                };
                return Some(command);
            }
            if let (Some(holder), None) = (self.holder, &state.wait) {
                match Wait::enter(|| Awaited::Holder(holder), true) {
                    Ok(wait) => state.wait = wait,
                    // The call that waits for this writer goes on, and the holder gets the error.
                    Err(Circle) => {
                        state.over = Some(ErrorKind::Nested);
                        return None;
                    }
                }
            }
            if now() >= idle_until {
                state.over = Some(ErrorKind::LeaseExpired);
                state.wait = None;
                return None;
            }
            state = wait_until(&self.bell, state, idle_until);
        }
    }

    /// A command has been run; false: the lease has ended meanwhile.
    pub(crate) fn rest(&self) -> bool {
        let mut state = lock(&self.state);
        let running = state.running.take();
        let goes_on = state.over.is_none();
        drop(state);
        drop(running);
        goes_on
    }

    /// Ends the lease (LEASE2); the first reason stays. A running command is asked to stop.
    pub(crate) fn end(&self, why: ErrorKind) {
        let mut state = lock(&self.state);
        let why = *state.over.get_or_insert(why);
        let forgotten = state.command.take();
        state.wait = None;
        if let Some(running) = &state.running {
            running.token().raise(match why {
                ErrorKind::LeaseExpired => Interrupt::LeaseExpired,
                ErrorKind::Canceled => Interrupt::Aborted,
                _ => Interrupt::Canceled,
            });
        }
        self.bell.notify_one();
        drop(state);
        if let Some(Command::Run(call) | Command::Commit(call)) = forgotten {
            call.finish(Fate::kind(why));
        }
    }

    /// Gives the writer a command, and enters the caller's wait for `awaited` instead of the writer's.
    pub(crate) fn submit(
        &self,
        command: Command,
        awaited: impl FnOnce() -> Awaited,
    ) -> Result<Option<Wait>, ErrorKind> {
        let mut state = lock(&self.state);
        let refused = match state.over {
            Some(why) => why,
            None => match Wait::enter_for(Some(&mut state.wait), awaited, true) {
                Ok(wait) => {
                    state.command = Some(command);
                    self.bell.notify_one();
                    return Ok(wait);
                }
                Err(Circle) => ErrorKind::Nested,
            },
        };
        drop(state);
        drop(command);
        Err(refused)
    }
}

/// The lease that the writer serves, so that an abort can end it. One at most.
#[derive(Default)]
pub(crate) struct LeaseSlot(Mutex<Option<Arc<LeaseState>>>);

impl LeaseSlot {
    /// The writer's turn has come to this lease.
    pub(crate) fn set(&self, lease: &Arc<LeaseState>) {
        *lock(&self.0) = Some(Arc::clone(lease));
    }

    /// It is over.
    pub(crate) fn clear(&self) {
        *lock(&self.0) = None;
    }

    /// Ends the lease that the writer waits for. To be called after the writer's queue was aborted.
    pub(crate) fn abort(&self) {
        let lease = lock(&self.0).clone();
        if let Some(lease) = lease {
            lease.end(ErrorKind::Canceled);
        }
    }
}
