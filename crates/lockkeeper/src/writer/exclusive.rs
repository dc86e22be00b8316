//! The writer's side of exclusive calls: the bare connection is lent, and put right afterwards.
//!
//! While the call runs the writer has no connection, so a nested call finds no transaction; and nobody
//! copies the WAL, since the call may checkpoint. What it leaves behind ends here: a transaction,
//! statements, hooks, a busy timeout, settings of foreign keys. A connection that cannot be put right,
//! or was swapped for another, is replaced.

use std::rc::Rc;
use std::sync::Arc;

use super::{CURRENT, Writer};
use crate::connection::{self, Role};
use crate::error::ErrorKind;
use crate::job::{ExclusiveJob, kind_of_stop};
use crate::queue::{Phase, now};
use crate::stats;

impl Writer {
    /// Runs an exclusive call; the batch before it was committed after it had been taken.
    pub(super) fn run_exclusive(&mut self, job: Box<dyn ExclusiveJob>) {
        if let Some(why) = job.interruptible().and_then(|call| call.token().raised()) {
            job.refuse(kind_of_stop(why, Phase::Queued), None);
            return;
        }
        let mut tx = match self.connect() {
            Ok(tx) => tx,
            Err(error) => {
                job.refuse(ErrorKind::Faulted, error.into_sqlite());
                return;
            }
        };
        // It may checkpoint, or change what the file is.
        self.checkpointer.rest();
        // Nested calls find no transaction here.
        CURRENT.set(None);
        self.tx = None;
        let Some(view) = Rc::get_mut(&mut tx) else {
            // Only a nested call that is still on this thread's stack could hold it.
            job.refuse(ErrorKind::Nested, None);
            return;
        };
        let domain = self.domain;
        let config = &self.core.config;
        let guard = Arc::clone(&view.link.guard);
        guard.recorder.unhook(&view.link);
        let began = now();
        let waited = began.saturating_duration_since(job.meta().submitted);
        if view.link.noted {
            guard.slot.begin_call(job.meta().origin.clone(), began, None);
        }
        let link = view.link_mut();
        let ((), prepared) = link.session.lend(|conn| {
            job.run(domain, conn);
            // What it prepared, it prepared with the gate open; and it may have set a timeout or
            // hooks of its own.
            conn.flush_prepared_statement_cache();
            if !conn.is_autocommit() {
                // Inside a transaction the PRAGMA would be ignored.
                let _ = conn.execute_batch("ROLLBACK");
            }
            let _ = connection::install(conn, &guard, config, Role::Writer);
            let _ = connection::configure_attached(conn, config.busy_timeout);
            let _ = conn.execute_batch("PRAGMA foreign_keys = ON; PRAGMA defer_foreign_keys = OFF");
        });
        let usable = prepared.is_ok() && view.link.clean();
        if view.link.noted {
            let ran = now() - began;
            self.core.meters.exclusive.record(waited, ran);
            // Nobody counts what the bare connection's statements do.
            view.link.forget_work();
            stats::report(&self.core.config, &view.link, waited, ran);
        }
        // It may have committed anything, more than once.
        self.publisher.unknown(self.commits);
        if usable || self.config().is_memory() {
            CURRENT.set(Some((self.domain, Rc::clone(&tx))));
            self.tx = Some(tx);
        }
    }
}
