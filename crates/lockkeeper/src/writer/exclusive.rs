//! How the writer serves exclusive calls: it lends the call the bare connection and replaces it afterwards.
//!
//! While the call runs, the writer has no connection, so a nested call finds no transaction. The copier pauses, because
//! the call may checkpoint. All that the call leaves on the connection (PRAGMAs, functions, hooks, limits, attached
//! files, temporary objects) ends with the connection. For a memory database, the new connection gets the content of
//! the old one.

use std::rc::Rc;
use std::sync::Arc;

use rusqlite::Connection;

use super::{Writer, current};
use crate::engine::call::{ExclusiveCall, kind_of_stop};
use crate::error::{Error, ErrorKind};
use crate::queue::Phase;
use crate::sqlite::{open, slow};
use crate::sync::now;

impl Writer {
    /// Runs an exclusive call. The batch before it has been committed.
    pub(super) fn run_exclusive(&mut self, call: Box<dyn ExclusiveCall>) {
        if let Some(why) = call.interrupt() {
            call.refuse(Error::new(kind_of_stop(why, Phase::Queued)));
            return;
        }
        let mut tx = match self.connect() {
            Ok(tx) => tx,
            Err(error) => {
                call.refuse(error.faulted());
                return;
            }
        };
        if self.core.opener.file.check().is_err() {
            self.abandon_file(&tx);
            call.refuse(Error::new(ErrorKind::Replaced));
            return;
        }
        // The call may checkpoint, or replace the files beside the database.
        self.checkpointer.wait_for_copier();
        self.core.opener.file.disconnecting();
        // From here on nested calls find no transaction.
        current::clear();
        self.tx = None;
        let Some(view) = Rc::get_mut(&mut tx) else {
            // Only a nested call that is still on this thread's stack could have a reference.
            call.refuse(Error::new(ErrorKind::Nested));
            return;
        };
        let domain = self.domain;
        let config = &self.core.config;
        let callbacks = Arc::clone(&view.link.callbacks);
        callbacks.recorder.unhook(&view.link.session);
        let began = now();
        let waited = began.saturating_duration_since(call.meta().submitted);
        if view.link.noted {
            callbacks.slot.begin_call(call.meta().origin.clone(), began, None);
        }
        let link = view.link_mut();
        link.begin_exclusive();
        let run = |conn: &mut Connection| call.run(domain, conn);
        // The result does not matter, because the connection is replaced.
        let _ = link.session.lend(run, |session| {
            open::end_exclusive(session, &callbacks, config);
        });
        let _ = view.link.clean();
        view.link.stale.set(true);
        if view.link.noted {
            let ran = now() - began;
            self.core.meters.exclusive.record(waited, ran);
            // The statements of the bare connection are not counted.
            view.link.forget_work();
            slow::report(&self.core.config, &view.link, waited, ran);
        }
        self.tx = Some(tx);
        // Reconnects immediately, so that the file is in WAL mode again and unlocked, and so that subscribers learn of
        // what the call may have committed (WRITE8). If that fails, the next call tries again and gets the error.
        let _ = self.connect();
    }
}
