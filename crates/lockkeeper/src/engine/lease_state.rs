//! A write transaction that stays open across awaits, for a limited time.
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | waiting | it is a call in the writer's queue | its turn, drop, deadline |
//! | idle | the writer waits in [`LeaseState::next`], the transaction is open | a command, `end`, the idle time |
//! | running | the writer runs a command; `running` is its token | its end, `end` |
//! | over | `over` says why; the writer soon commits or rolls back | never |
//!
//! - LEASE1: only the writer's thread touches the connection. Other threads set `over` and wake the writer.
//! - LEASE2: a lease that ends without a commit is rolled back, whether by drop, expiry, abort, a command that lost the
//!   transaction, or a dropped command.
//! - LEASE3: the writer waits for the holder only in `next`, for at most the idle time. The hold time also ends a
//!   running command. So the time that the next write waits has a limit.
//!
//! Bound: one waiting command, because the command borrows the handle until it is answered.

use std::sync::Arc;
use std::time::Duration;

use super::write_call::{Fate, WriteCall};
use crate::error::ErrorKind;
use crate::queue::{Awaited, Circle, Holder, Interrupt, Interruptible, Wait, after};
use crate::sync::{Condvar, Mutex, lock, now, wait_until};

/// The part of a lease that the holder and the writer share.
pub(crate) struct LeaseState {
    state: Mutex<State>,
    /// Notified when there is a command or the lease is over. The writer waits for it.
    changed: Condvar,
    pub(crate) hold_max: Duration,
    idle_max: Duration,
    /// The call inside which the lease was requested; `None`: it was requested outside of calls.
    holder: Option<Holder>,
}

#[derive(Default)]
struct State {
    command: Option<Command>,
    running: Option<Arc<dyn Interruptible>>,
    over: Option<ErrorKind>,
    /// The writer's wait for a command of `holder`, for the detection of circles (`queue/waits.rs`).
    wait: Option<Wait>,
}

/// A command of the holder to the writer.
pub(crate) enum Command {
    Run(Box<dyn WriteCall>),
    /// The closure does nothing. The answer is the result of the commit.
    Commit(Box<dyn WriteCall>),
}

impl LeaseState {
    /// The state of a lease that this thread requests.
    pub(crate) fn new(hold_max: Duration, idle_max: Duration) -> Self {
        Self {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            hold_max,
            idle_max,
            holder: Holder::here(),
        }
    }

    /// Why the lease is over; `None`: it is not.
    pub(crate) fn over(&self) -> Option<ErrorKind> {
        lock(&self.state).over
    }

    /// Waits for the next command. `None`: the lease is over.
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
                    // The holder waits for a call that waits for this writer. The lease ends, and the holder gets the
                    // error.
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
            state = wait_until(&self.changed, state, idle_until);
        }
    }

    /// Notes that the command has run. `false`: the lease has ended meanwhile.
    pub(crate) fn command_done(&self) -> bool {
        let mut state = lock(&self.state);
        let running = state.running.take();
        let goes_on = state.over.is_none();
        drop(state);
        drop(running);
        goes_on
    }

    /// Ends the lease (LEASE2) and asks a running command to stop. The first reason stays.
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
        self.changed.notify_one();
        drop(state);
        if let Some(Command::Run(call) | Command::Commit(call)) = forgotten {
            call.finish(Fate::kind(why));
        }
    }

    /// Gives the writer a command. In the list of waits, the caller's wait for `awaited` replaces the writer's wait for
    /// a command.
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
                    self.changed.notify_one();
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

/// The lease that the writer serves, at most one, so that an abort can end it.
#[derive(Default)]
pub(crate) struct LeaseSlot(Mutex<Option<Arc<LeaseState>>>);

impl LeaseSlot {
    /// Notes that the writer begins to serve this lease.
    pub(crate) fn set(&self, lease: &Arc<LeaseState>) {
        *lock(&self.0) = Some(Arc::clone(lease));
    }

    /// Notes that the writer has served the lease.
    pub(crate) fn clear(&self) {
        *lock(&self.0) = None;
    }

    /// Ends the lease that the writer serves. Call it after the abort of the writer's queue.
    pub(crate) fn abort(&self) {
        let lease = lock(&self.0).clone();
        if let Some(lease) = lease {
            lease.end(ErrorKind::Canceled);
        }
    }
}
