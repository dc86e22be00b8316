//! The writer's side of exclusive calls: the bare connection is lent, and put right afterwards.
//!
//! While the call runs the writer has no connection, so a nested call finds no transaction; and the WAL
//! is not copied, since the call may checkpoint. Whatever it leaves behind on the connection (PRAGMAs,
//! functions, hooks, limits, attached files, temporary objects) ends with the connection, which is
//! replaced. A memory database goes on in a new connection with its content.

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
    /// Runs an exclusive call; the batch before it was committed after it had been taken.
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
            self.let_go(&tx);
            call.refuse(Error::new(ErrorKind::Replaced));
            return;
        }
        // It may checkpoint, or change what the file is.
        self.checkpointer.rest();
        self.core.opener.file.disconnecting();
        // Nested calls find no transaction here.
        current::clear();
        self.tx = None;
        let Some(view) = Rc::get_mut(&mut tx) else {
            // Only a nested call that is still on this thread's stack could hold it.
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
        // Whatever this says, the connection is replaced.
        let _ = link.session.lend(run, |session| {
            open::end_exclusive(session, &callbacks, config);
        });
        let _ = view.link.clean();
        view.link.stale.set(true);
        if view.link.noted {
            let ran = now() - began;
            self.core.meters.exclusive.record(waited, ran);
            // What the bare connection's statements do is not counted.
            view.link.forget_work();
            slow::report(&self.core.config, &view.link, waited, ran);
        }
        // It may have committed anything, more than once.
        self.publisher.unknown(self.commits);
        self.tx = Some(tx);
        // At once, so that the file is in WAL mode again and unlocked. A failure is told to the next call,
        // which tries again.
        let _ = self.connect();
    }
}
