//! How the writer serves leases: each lease has a transaction, in which its calls run as they come.
//!
//! `engine/lease_state.rs` decides when a lease ends (LEASE1 to LEASE3). Here each call runs in a savepoint, so that
//! only this call is undone if it fails, and the lease is committed like a batch of one call.

use std::cell::Cell;

use super::Writer;
use crate::engine::lease_state::{Command, LeaseState};
use crate::engine::write_call::{Fate, Ran, WriteCall};
use crate::engine::{call::kind_of_stop, item::LeaseRequest};
use crate::error::ErrorKind;
use crate::ffi::Sql;
use crate::queue::{Phase, after};
use crate::sqlite::{slow, transaction::Transaction};
use crate::sync::now;

impl Writer {
    /// Serves a lease from its turn to its end.
    pub(super) fn run_lease(&mut self, lease: LeaseRequest) {
        let LeaseRequest { mut opening, state } = lease;
        // Set before `begin` reads the token, because an abort raises the token first and then ends the lease in this
        // slot.
        self.core.lease.set(&state);
        match self.begin(&*opening) {
            Ok(tx) => {
                let end = after(state.hold_max);
                let alarm = self.core.clock.set_for(&state, end, |lease| {
                    lease.end(ErrorKind::LeaseExpired);
                });
                let began = now();
                let waited = began.saturating_duration_since(opening.meta().submitted);
                if tx.link.noted {
                    tx.link.callbacks.slot.begin_call(opening.meta().origin.clone(), began, None);
                    tx.link.forget_work();
                }
                let served = opening.interrupt().is_none();
                // All calls of the lease count their rows together.
                tx.link.begin_own();
                opening.run(self.domain, &tx);
                match opening.interrupt() {
                    None => opening.finish(Fate::Own),
                    Some(why) => {
                        state.end(ErrorKind::LeaseEnded);
                        opening.finish(Fate::kind(kind_of_stop(why, Phase::Queued)));
                    }
                }
                self.serve_lease(&tx, &state);
                drop(alarm);
                let usable = tx.link.clean();
                tx.link.end_temporary();
                if tx.link.noted && served {
                    let held = now() - began;
                    self.core.meters.leases.record(waited, held);
                    slow::report(&self.core.config, &tx.link, waited, held);
                }
                if !usable {
                    self.disconnect();
                }
            }
            Err(fate) => opening.finish(fate),
        }
        // LEASE2: answers a command that still waits.
        state.end(ErrorKind::LeaseEnded);
        self.core.lease.clear();
    }

    /// Runs the commands of a lease inside the open transaction. Returns when the lease is over.
    fn serve_lease(&mut self, tx: &Transaction, state: &LeaseState) {
        let link = &tx.link;
        while let Some(command) = state.next() {
            let mut call = match command {
                Command::Run(call) => call,
                Command::Commit(call) => {
                    self.commit_lease(tx, call);
                    return;
                }
            };
            // Each call has a savepoint, so that it can be undone alone.
            self.publisher.begin_call(link);
            let work = link.work.as_ref().map(Cell::get).unwrap_or_default();
            link.begin_call(false, true);
            let ran = call.run(self.domain, tx);
            link.end_call();
            // The slow log reports the lease as a whole, so the work of its calls is added up.
            if let Some(all) = &link.work {
                all.set(all.get() + work);
            }
            let goes_on = state.command_done();
            let settled = match (ran, link.saved.get()) {
                (_, false) => true,
                (Ran::Good, true) => link.session.run(Sql::Release).is_ok(),
                (Ran::Failed | Ran::Panicked, true) => link.undo_call(),
            };
            let lost = link.is_lost() || !settled;
            let fate = match (ran, call.interrupt()) {
                (Ran::Good, Some(why)) => Fate::kind(kind_of_stop(why, Phase::Running)),
                (Ran::Good, None) if lost => Fate::kind(ErrorKind::LeaseEnded),
                _ => Fate::Own,
            };
            if ran == Ran::Good && link.writes.get() > 0 && !lost {
                self.batch.dirty = true;
                self.publisher.keep(link);
            }
            if lost || call.interrupt().is_some() {
                // Ended before the answer, so that the holder's next call gets the error.
                state.end(ErrorKind::LeaseEnded);
            }
            call.finish(fate);
            if lost || !goes_on {
                return;
            }
        }
    }

    fn commit_lease(&mut self, tx: &Transaction, mut call: Box<dyn WriteCall>) {
        call.run(self.domain, tx);
        if tx.link.session.has_deferred_violation() {
            tx.link.clean();
            call.finish(Fate::kind(ErrorKind::ForeignKey));
            return;
        }
        self.batch.ran.push(call);
        match self.commit(tx) {
            Ok(()) => self.answer(),
            // The transaction holds only this lease, so the failure is the lease's own. It is rolled back.
            Err(error) => self.answer_uncommitted(&error),
        }
    }
}
