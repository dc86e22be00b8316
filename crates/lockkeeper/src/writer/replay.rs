//! What becomes of the calls of a lost transaction: they are run again, or told that they may not be.
//!
//! B1, B3 and B4 of `writer.rs`: those that may run again do so together first; if the transaction is lost
//! once more, each alone. The call that lost it comes last, apart from the others.

use std::collections::VecDeque;

use rusqlite::ErrorCode;

use super::{After, Writer, copy_of};
use crate::connection::Link;
use crate::engine::write_call::{Fate, WriteCall};
use crate::error::{Error, ErrorKind};
use crate::queue::now;
use crate::transaction::Transaction;

impl Writer {
    /// Runs the calls of a lost transaction again (B3, B4).
    pub(super) fn replay(&mut self, alone: bool) {
        let mut again: VecDeque<_> = std::mem::take(&mut self.ran).into();
        let mut loser = self.loser.take();
        let mut alone = alone;
        // A call that had succeeded before has failed now, or the other way round.
        let mut differs = false;
        loop {
            let Some(call) = again.pop_front() else {
                // B1: nobody else is left.
                let Some(call) = loser.take() else { return };
                if call.is_repeatable() {
                    again.push_back(call);
                    alone = true;
                    continue;
                }
                let fate = if differs { Fate::kind(ErrorKind::NotApplied) } else { Fate::Own };
                return call.finish(fate);
            };
            if !call.is_repeatable() {
                differs |= call.has_succeeded();
                call.finish(Fate::kind(ErrorKind::NotApplied));
                continue;
            }
            let tx = match self.begin(&*call) {
                Ok(tx) => tx,
                Err(fate) => {
                    differs |= call.has_succeeded();
                    call.finish(fate);
                    continue;
                }
            };
            let mut after = self.run_again(&tx, call, &mut differs);
            while after == After::Going && !alone && !tx.link.is_stale() {
                let Some(call) = again.pop_front() else { break };
                after = match call.is_repeatable() {
                    true => self.run_again(&tx, call, &mut differs),
                    false => {
                        differs |= call.has_succeeded();
                        call.finish(Fate::kind(ErrorKind::NotApplied));
                        After::Going
                    }
                };
            }
            let lost = match after {
                After::Going => match self.commit(&tx) {
                    Ok(()) => {
                        self.answer();
                        false
                    }
                    // Alone and still not to be committed: the failure is this call's own.
                    Err(error) if alone => {
                        differs = true;
                        self.answer_uncommitted(&error);
                        false
                    }
                    Err(_) => true,
                },
                After::Restart => {
                    self.answer();
                    false
                }
                After::Lost { .. } => true,
            };
            if lost {
                if let Some(call) = self.loser.take() {
                    again.push_front(call);
                }
                for call in std::mem::take(&mut self.ran).into_iter().rev() {
                    again.push_front(call);
                }
                alone = true;
            }
        }
    }

    /// Tells the calls of a batch of one why COMMIT refused them.
    pub(super) fn answer_uncommitted(&mut self, error: &rusqlite::Error) {
        for call in std::mem::take(&mut self.ran) {
            call.finish(Fate::Instead(Error::of_own(copy_of(error)).detail("in COMMIT")));
        }
    }

    /// Runs a call of a replay; `differs` is set when it does not end as it did before.
    fn run_again(
        &mut self,
        tx: &Transaction,
        call: Box<dyn WriteCall>,
        differs: &mut bool,
    ) -> After {
        let before = call.has_succeeded();
        let after = self.run_one(tx, call, now());
        *differs |= before != self.kept;
        after
    }
}

/// Whether the transaction was lost by something that this call did or that was done to it alone,
/// so that the calls before it may well be run again together.
pub(super) fn is_own_doing(link: &Link) -> bool {
    let code = rusqlite::ffi::Error::new(link.session.last_code()).code;
    matches!(
        code,
        ErrorCode::OperationInterrupted
            | ErrorCode::ConstraintViolation
            | ErrorCode::OperationAborted
    )
}
