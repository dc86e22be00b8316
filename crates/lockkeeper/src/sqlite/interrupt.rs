//! How a running statement is stopped.
//!
//! `sqlite3_interrupt` stops whatever runs on a connection: if it comes a moment too late, it stops the next call. It
//! also does not end a wait for a lock. So the library never uses it. Instead, the progress handler reads the interrupt
//! token of the call that runs on this thread every [`TICK_OPS`] virtual-machine steps, and the busy handler reads the
//! token between two attempts to get a lock.
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

/// Installs the progress handler and the busy handler on the connection of `session`, and with `wal_hook` the WAL hook.
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
