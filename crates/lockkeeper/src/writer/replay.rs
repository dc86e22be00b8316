//! The replay of a lost transaction: its calls run again, or get `NotApplied` (WRITE1, WRITE3 and WRITE4 of `mod.rs`).
//!
//! The calls that may run again do so together in one transaction. If that transaction is lost too, each call runs in a
//! transaction of its own. The call that lost the first transaction comes last, in a transaction of its own.

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
        // Whether a call that succeeded before has failed now, or the other way round. If so, it is not certain that
        // the call that lost the transaction would fail again.
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
                    // The call cannot be committed alone either, so the failure is its own.
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

    /// Runs a call of a replay. Sets `differs` if the call does not end as it did before.
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
