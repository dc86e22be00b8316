//! How the writer commits a batch and answers its calls (WRITE1, WRITE6, WRITE7).

use std::rc::Rc;
use std::time::Duration;

use rusqlite::ErrorCode;

use super::{Writer, batch::copy_of};
use crate::engine::write_call::Fate;
use crate::error::{Error, ErrorKind};
use crate::ffi::Sql;
use crate::queue;
use crate::sqlite::transaction::Transaction;
use crate::sync::now;

impl Writer {
    pub(super) fn finish_batch(&mut self, tx: Rc<Transaction>) {
        let committed = self.commit(&tx);
        drop(tx);
        match committed {
            Ok(()) => self.answer(),
            // Runs each call in a transaction of its own, so that only a call that cannot be committed gets the error.
            Err(_) => self.replay(true),
        }
    }

    /// Commits the batch. `Ok`: the calls in `ran` are stored, or were answered with an error. `Err`: the calls in
    /// `ran` are undone and may run again.
    pub(super) fn commit(&mut self, tx: &Transaction) -> Result<(), rusqlite::Error> {
        let link = &tx.link;
        let began = now();
        if !self.core.opener.file.is_in_place(began) {
            // FILE2
            link.clean();
            for call in std::mem::take(&mut self.batch.ran) {
                call.finish(Fate::kind(ErrorKind::Replaced));
            }
            self.abandon_file(tx);
            return Ok(());
        }
        let give_up_at = queue::after(self.config().busy_timeout);
        loop {
            let Err(error) = link.session.run(Sql::Commit) else {
                self.commits += 1;
                if self.batch.dirty && link.noted {
                    self.core.meters.commit.record_time(now() - began);
                    self.core.meters.batch_calls.record(self.batch.ran.len() as u64);
                }
                self.checkpointer.committed(tx);
                // WRITE7
                self.publisher.committed(self.commits, self.batch.dirty);
                return Ok(());
            };
            let code = error.sqlite_error_code();
            if code == Some(ErrorCode::DatabaseBusy) && !link.is_lost() && now() < give_up_at {
                // In a journal mode without WAL, a reader blocks the commit.
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let io = matches!(
                code,
                Some(
                    ErrorCode::SystemIoFailure
                        | ErrorCode::OutOfMemory
                        | ErrorCode::DatabaseCorrupt
                        | ErrorCode::FileLockingProtocolFailed
                        | ErrorCode::CannotOpen
                )
            );
            if io {
                // WRITE6
                for call in std::mem::take(&mut self.batch.ran) {
                    let error = Error::sqlite_error(ErrorKind::Unknown, copy_of(&error));
                    call.finish(Fate::Instead(error));
                }
                link.clean();
                self.disconnect();
                self.publisher.unknown(self.commits);
                return Ok(());
            }
            self.clean_or_disconnect(link);
            return Err(error);
        }
    }

    /// Answers every call of the batch, after its commit or if the batch holds no writes.
    pub(super) fn answer(&mut self) {
        // Taken out of `self`, because `pin` borrows `self`. The list is put back below, so that its memory is used
        // again.
        let mut ran = std::mem::take(&mut self.batch.ran);
        for call in ran.drain(..) {
            let fate = match call.wants_snapshot() {
                true => {
                    let origin = call.meta().origin.clone();
                    Fate::OwnAt(self.pin(origin))
                }
                false => Fate::Own,
            };
            call.finish(fate);
        }
        self.batch.ran = ran;
    }

    /// Answers the call of a batch of one with the error of COMMIT.
    pub(super) fn answer_uncommitted(&mut self, error: &rusqlite::Error) {
        for call in std::mem::take(&mut self.batch.ran) {
            call.finish(Fate::Instead(Error::of_own(copy_of(error)).detail("in COMMIT")));
        }
    }
}
