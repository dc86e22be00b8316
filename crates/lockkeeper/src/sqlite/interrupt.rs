//! How a running statement learns that it should stop.
//!
//! SQLite's own `sqlite3_interrupt` is aimed at a connection: sent a moment too late it hits the
//! next call, and it does not end a wait for a lock at all. So the library never uses it. Instead
//! a progress handler asks, every [`TICK_OPS`] virtual-machine steps, for the token of the call
//! that this thread runs, and the busy handler asks for it between its naps.
//!
//! - INTR1: both handlers read the thread's own frames (`queue/context.rs`), so they can only stop the
//!   call that runs on this thread now.
//! - INTR2: neither can panic or wait longer than `NAP_MAX` of `lock_wait.rs`.
//! - INTR3: both first wake the callers that were waiting to be woken when the call began (`queue/wakeups.rs`).

use std::sync::Arc;

use rusqlite::Result;

use super::callbacks::Callbacks;
use crate::ffi::Session;
use crate::queue;

/// Virtual-machine steps between two looks at the token: some 10 to 50 microseconds of work.
pub(crate) const TICK_OPS: i32 = 1000;

/// Installs both handlers on the connection of `session`.
pub(crate) fn install(
    session: &mut Session,
    callbacks: &Arc<Callbacks>,
    wal_hook: bool,
) -> Result<()> {
    let for_ticks = Arc::clone(callbacks);
    session.conn_mut().progress_handler(
        TICK_OPS,
        Some(move || {
            // INTR3
            for_ticks.release_answered();
            queue::tick()
        }),
    )?;
    session.watch(callbacks, wal_hook)
}
