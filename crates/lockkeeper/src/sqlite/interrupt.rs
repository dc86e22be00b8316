//! How a running statement is stopped.
//!
//! `sqlite3_interrupt` stops a connection: sent a moment too late it stops the next call, and it does not end a wait for a
//! lock. So the library never uses it. Instead the progress handler reads, every [`TICK_OPS`] virtual-machine steps, the
//! token of the call that runs on this thread, and the busy handler reads it between two attempts.
//!
//! - INTR1: both handlers read the thread's own frames (`queue/context.rs`), so they can only stop the call that runs on
//!   this thread now.
//! - INTR2: neither handler panics, and neither sleeps longer than `NAP_MAX` of `lock_wait.rs`.
//! - INTR3: both handlers first wake the callers that were answered before the call began (`queue/wakeups.rs`).

use std::sync::Arc;

use rusqlite::Result;

use super::callbacks::Callbacks;
use crate::ffi::Session;
use crate::queue;

/// Virtual-machine steps between two reads of the token: some 10 to 50 microseconds of work.
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
