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
//! One mutex guards everything that waits: the lanes (see `lanes.rs`), whether intake is open, and
//! the workers that sleep. A submission pushes under the lock and rings one sleeping worker. A
//! worker takes calls under the lock, one at a time, and runs them outside of it.
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
//! | closed | nothing enters; workers serve what was accepted, then exit | never |
//!
//! Invariants:
//!
//! - QUEUE1: a call is taken by a worker or removed by its caller, never both: both happen under the
//!   lock. So a canceled call that was not taken never runs, and its place is free at once.
//! - QUEUE2: a call that was taken is answered by its worker, also when it is skipped, panics or the
//!   thread dies (CALL1).
//! - QUEUE3: once intake is closed nothing enters; `close` and `push` hold the same lock, so no call is
//!   forgotten. Calls that waited for room are refused by `close`, accepted ones are served.
//! - QUEUE4: a worker sleeps only after it has seen, under the lock, that nothing is accepted; a push
//!   that finds a sleeping worker takes it off the list of sleepers before it rings, so that the
//!   next push rings another. No wake-up is lost and none is spent twice.
//! - QUEUE5: calls are dropped and refused outside the lock: their captured values are the caller's
//!   code, which may call back.
//! - QUEUE6: when the last worker exits, for whatever reason, intake is closed and what waits is
//!   refused. A dead worker is an error, not a hang.
//!
//! - QUEUE7: a call that is shed (`admission.rs`) was taken and is answered like one, by the thread that
//!   took it, outside the lock, before it sleeps.
//!
//! - QUEUE8: `abort` asks every call to stop that a worker runs: it is noted in the worker's seat by the same
//!   hold of the lock that took it from its lane.
//!
//! - QUEUE9: the library's own errands wait apart from the calls, at most one of each kind, and are taken at the
//!   beginning of a batch ahead of every call; but not two in a row while calls wait. Once intake is closed
//!   none is left: who closes does what is left to do.
//!
//! - QUEUE10: while it is stopped for calls that change something, those are refused and others enter. A call enters
//!   before a stop or after it, since both hold the lock; `has_older_than` says whether one that entered before waits.
//!
//! Lock order: the queue's lock, then a reply's slot; the clock's lock is never held while another
//! is taken, nor taken while another is held. Waiting for room is first in, first out per lane and
//! costs no wake-up: the call itself waits, and moves up when a place becomes free.

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
pub(crate) use flight::{Deadline, Flight, Lane, Room, ancestry_for, refused};
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
