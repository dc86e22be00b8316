//! Threads that own a resource, and the bounded fair queue in front of them.
//!
//! This module knows nothing of SQLite. A [`Worker`] builds a resource on its own thread, so the
//! resource need not be `Send` (an OpenGL context, an `Rc` tree, another embedded store), and runs
//! calls on it one after another:
//!
//! ```
//! use lockkeeper::queue::Worker;
//! use std::{cell::Cell, rc::Rc};
//!
//! let worker = Worker::builder("counter")
//!     .capacity(64)
//!     .blocking_spawn(|| Ok::<_, std::convert::Infallible>(Rc::new(Cell::new(0))))?;
//! let n = worker.blocking_call(|counter| {
//!     counter.set(counter.get() + 1);
//!     counter.get()
//! })?;
//! assert_eq!(n, 1);
//! worker.blocking_close()?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # The algorithm
//!
//! One mutex guards the lanes with all waiting calls (see `lanes.rs`), whether intake is open, and the list of sleeping
//! workers. A submission pushes its call under the lock and wakes one sleeping worker. A worker takes calls under the
//! lock, one at a time, and runs them outside of it.
//!
//! | state of a call | what may be trusted | left by |
//! |---|---|---|
//! | waiting for room | in `overflow` of its lane; never began | promotion, `remove`, `close`, `abort` |
//! | queued | in `accepted` of its lane; never began | `take`, `remove`, `abort` |
//! | taken | in no lane; one worker owns it | the worker's answer |
//! | answered | its reply holds the result | the caller |
//!
//! | intake | what may be trusted | left by |
//! |---|---|---|
//! | open | a push is accepted or waits for room | `close`, `abort`, the last worker's exit |
//! | closed | no call enters; workers serve the accepted calls, then exit | never |
//!
//! Invariants:
//!
//! - QUEUE1: a worker takes a call or its caller removes it, never both, because both happen under the lock. So a
//!   canceled call that no worker has taken never runs, and its place becomes free immediately.
//! - QUEUE2: a worker answers each call that it takes, also when it skips the call, the call panics or the thread
//!   dies (CALL1).
//! - QUEUE3: once intake is closed no call enters. `close` and `push` hold the same lock, so no call is forgotten:
//!   `close` refuses the calls that wait for room, and the workers serve the accepted ones.
//! - QUEUE4: a worker sleeps only after it has seen, under the lock, that no call is accepted. A push that finds a
//!   sleeping worker removes that worker from the list of sleepers and then wakes it, so the next push wakes another
//!   worker. No wake-up is lost and no worker is woken twice.
//! - QUEUE5: calls are dropped and refused outside the lock. Dropping the values that a closure has captured runs code
//!   of the caller, which may submit calls.
//! - QUEUE6: when the last worker exits, for whatever reason, it closes intake and refuses the waiting calls. A dead
//!   worker is an error, not a hang.
//! - QUEUE7: the worker that takes a call may shed it (`admission.rs`). The worker answers a shed call like any other
//!   call that it takes, outside the lock, before it sleeps.
//! - QUEUE8: `abort` asks every running call to stop. The worker notes a call in its slot under the same hold of the
//!   lock that takes it from its lane, so `abort` finds it either waiting or running.
//! - QUEUE9: errands (maintenance that the library asks of its own workers) wait apart from the calls, at most one of
//!   each kind. A worker takes an errand at the beginning of a batch, ahead of every call, but not two in a row while
//!   calls wait. `close` and `abort` drop the waiting errands, because closing a database does their work itself.
//! - QUEUE10: between `stop` and `resume` the queue refuses the calls that change something, and admits all others.
//!   `stop` and `push` hold the same lock, so each call enters either before the stop or after it. `has_older_than`
//!   tells whether a call that entered before the stop still waits.
//!
//! Lock order: the queue's lock, then a reply's slot. The clock's lock is taken alone. In each lane, calls that wait
//! for room are accepted first in, first out. This needs no wake-up: the thread that frees a place accepts the next
//! call under the same hold of the lock.

mod admission;
mod call;
mod clock;
mod close;
mod context;
mod error;
mod flight;
mod frames;
mod handle;
mod lane;
mod lanes;
mod lookout;
mod owner;
mod state;
mod waits;
#[cfg(feature = "sqlite")]
mod wakeups;
mod worker;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

pub use call::Interrupt;
pub use close::{Close, Closed};
pub use error::{CallError, Phase, Refused, RefusedReason, StartError};
pub use handle::{Builder, Call, Client, Spawn, Worker, should_stop};
pub use lane::Priority;
pub use owner::Verdict;

pub(crate) use call::{Interruptible, Receiver, Reply, block_on, reply, shielded};
pub(crate) use clock::{Alarm, Clock, after};
pub(crate) use close::Closing;
pub(crate) use context::{Frame, unstoppable};
pub(crate) use flight::{Deadline, InFlight, Lane, Room, ancestry_for, refused};
pub(crate) use frames::{Ancestry, Domain, interrupt, this_thread, tick};
pub(crate) use lane::{LaneFigures, LaneId, MAIN, Position, Taken};
pub(crate) use lanes::Scope;
pub(crate) use lookout::Look;
pub(crate) use owner::stopped;
pub(crate) use state::{Item, Pushed, Queue};
pub(crate) use waits::{Awaited, Circle, Holder, Wait, behind};
#[cfg(feature = "sqlite")]
pub(crate) use wakeups::{WATCH_INTERVAL, Wakeups};
pub(crate) use worker::{Batch, Built, Pool, PoolConfig, Service, panic_text};
