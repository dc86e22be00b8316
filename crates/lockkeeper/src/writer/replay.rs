//! What becomes of the calls of a lost transaction: they are run again, or told that they may not be.
//!
//! WRITE1, WRITE3 and WRITE4 of `mod.rs`: those that may run again do so together first; if the transaction is lost
//! once more, each alone. The call that lost it comes last, apart from the others.

use std::collections::VecDeque;

use super::{Writer, batch::After};
use crate::engine::write_call::{Fate, WriteCall};
use crate::error::ErrorKind;
use crate::sqlite::transaction::Transaction;
use crate::sync::now;

impl Writer {
    /// Runs the calls of a lost transaction again (WRITE3, WRITE4).
    pub(super) fn replay(&mut self, alone: bool) {
        let mut again: VecDeque<_> = std::mem::take(&mut self.batch.ran).into();
        let mut loser = self.batch.loser.take();
        let mut alone = alone;
        // A call that had succeeded before has failed now, or the other way round.
        let mut differs = false;
        loop {
            let Some(call) = again.pop_front() else {
                // WRITE1: no other call is left.
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
                if let Some(call) = self.batch.loser.take() {
                    again.push_front(call);
                }
                for call in std::mem::take(&mut self.batch.ran).into_iter().rev() {
                    again.push_front(call);
                }
                alone = true;
            }
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
        *differs |= before != self.batch.kept;
        after
    }
}
