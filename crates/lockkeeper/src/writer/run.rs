//! How the writer begins a batch and runs its calls, one after another (WRITE2, WRITE3, WRITE5).

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Writer;
use super::batch::{self, After};
use crate::engine::call::kind_of_stop;
use crate::engine::write_call::{Fate, Ran, WriteCall};
use crate::error::{Error, ErrorKind, kind_of_own};
use crate::ffi::Sql;
use crate::queue::{Ancestry, Frame, Phase};
use crate::sqlite::{link::Link, transaction::Transaction};
use crate::sync::now;

impl Writer {
    /// Begins a transaction for a batch whose first call is `call`, which may time out while the writer waits for the
    /// lock.
    pub(super) fn begin(&mut self, call: &dyn WriteCall) -> Result<Rc<Transaction>, Fate> {
        if let Some(why) = call.interrupt() {
            return Err(Fate::kind(kind_of_stop(why, Phase::Queued)));
        }
        let tx = self.connect().map_err(|error| Fate::Instead(error.faulted()))?;
        if !self.core.opener.file.is_in_place(now()) {
            self.abandon_file(&tx);
            return Err(Fate::kind(ErrorKind::Replaced));
        }
        // Each call waits for the lock for at most the busy timeout, and the calls behind the first one wait with it.
        // So the timeout begins with the submission of the call or with this wait, whichever is later.
        let since = self.locked_since.get_or_insert_with(now);
        let end = call.meta().submitted.max(*since).checked_add(self.core.config.busy_timeout);
        tx.link.callbacks.lock_wait.set_end(end);
        let frame = Frame::enter(self.domain, Ancestry::default(), call.interruptible());
        let (asked, waits) = (now(), tx.link.callbacks.lock_wait.waits());
        let begun = tx.link.session.run(Sql::BeginImmediate);
        drop(frame);
        let meters = &self.core.meters;
        meters.lock_wait.record_time(now() - asked);
        let waits = tx.link.callbacks.lock_wait.waits() - waits;
        meters.busy_waits.fetch_add(waits, Ordering::Relaxed);
        tx.link.callbacks.lock_wait.set_end(None);
        match begun {
            Ok(()) => {
                self.locked_since = None;
                self.batch.begin();
                self.checkpointer.begin(&tx);
                self.publisher.begin(&tx.link, self.commits);
                Ok(tx)
            }
            Err(error) => {
                let fate = match (kind_of_own(&error), call.interrupt()) {
                    (ErrorKind::Busy, Some(why)) => Fate::kind(kind_of_stop(why, Phase::Locked)),
                    _ => Fate::Instead(Error::of_own(error)),
                };
                self.clean_or_disconnect(&tx.link);
                Err(fate)
            }
        }
    }

    /// Runs a call for the first of two times, if `Builder::run_writes_twice` is set and the call may run again. This
    /// run is undone, whatever its result. `Ok`: the call, and the time at which its second run begins. `Err`: the call
    /// has been answered, or it lost the transaction and runs again after the calls that it has undone (WRITE3).
    pub(super) fn rehearse(
        &mut self,
        tx: &Transaction,
        mut call: Box<dyn WriteCall>,
        at: Instant,
    ) -> Result<(Box<dyn WriteCall>, Instant), After> {
        let wanted = self.config().run_writes_twice && call.is_repeatable();
        if !wanted || call.interrupt().is_some() {
            return Ok((call, at));
        }
        let link = &tx.link;
        if link.noted {
            link.callbacks.slot.begin_call(call.meta().origin.clone(), at, None);
        }
        self.publisher.begin_call(link);
        link.begin_own();
        link.begin_call(false, true);
        call.run(self.domain, tx);
        link.end_call();
        let undone = !link.saved.get() || link.undo_call();
        let keys = link.restore_keys();
        let lost = !undone || link.is_lost() || keys.is_err();
        if lost {
            self.clean_or_disconnect(link);
        }
        match call.interrupt() {
            Some(why) => call.finish(Fate::kind(kind_of_stop(why, Phase::Running))),
            None if lost => self.batch.loser = Some(call),
            None => return Ok((call, now())),
        }
        Err(if lost { After::Lost { alone: true } } else { After::Going })
    }

    /// Runs one call inside the open transaction.
    pub(super) fn run_one(
        &mut self,
        tx: &Transaction,
        mut call: Box<dyn WriteCall>,
        at: Instant,
    ) -> After {
        self.batch.kept = false;
        if let Some(why) = call.interrupt() {
            call.finish(Fate::kind(kind_of_stop(why, Phase::Queued)));
            return After::Going;
        }
        let link = &tx.link;
        let closure = call.closure();
        if link.noted {
            link.callbacks.slot.begin_call(call.meta().origin.clone(), at, None);
        }
        let elided = self.batch.dirty && self.trust.allows(closure) && self.batch.all_repeatable;
        self.publisher.begin_call(link);
        link.begin_own();
        link.begin_call(false, self.batch.dirty && !elided);
        let ran = call.run(self.domain, tx);
        link.end_call();
        self.trust.record(closure, link.writes.get(), ran == Ran::Good);
        if link.is_lost() {
            // WRITE3
            let alone = !batch::is_own_doing(link);
            let _ = link.restore_keys();
            match (ran, call.interrupt()) {
                (Ran::Good, Some(why)) => {
                    call.finish(Fate::kind(kind_of_stop(why, Phase::Running)));
                    return After::Lost { alone };
                }
                (Ran::Good, None) => call.judge(ErrorKind::RolledBack),
                (Ran::Failed | Ran::Panicked, _) => {}
            }
            self.lose(call, Fate::Own);
            return After::Lost { alone };
        }
        let fate = match (ran, call.interrupt()) {
            // A closure that ignores the interruption of its statements may have done half of its work.
            (Ran::Good, Some(why)) => Fate::kind(kind_of_stop(why, Phase::Running)),
            (Ran::Good, None) if link.writes.get() > 0 && link.session.has_deferred_violation() => {
                call.judge(ErrorKind::ForeignKey);
                Fate::Own
            }
            (Ran::Good, None) => return self.keep(link, call),
            (Ran::Failed | Ran::Panicked, _) => Fate::Own,
        };
        if link.writes.get() == 0 {
            // There is nothing to undo, but the call may have read unstored data (WRITE1).
            return self.hold_back(link, call, fate);
        }
        if !link.saved.get() {
            // WRITE2: the transaction holds no other writes, or all its calls may run again.
            let rolled_back = link.session.run(Sql::Rollback).is_ok() || link.is_lost();
            let _ = link.restore_keys();
            if !rolled_back {
                self.disconnect();
            }
            if !elided {
                call.finish(fate);
                return After::Restart;
            }
            self.trust.revoke(closure);
            self.lose(call, fate);
            return After::Lost { alone: false };
        }
        if !link.undo_call() {
            // The savepoint could not be rolled back: start over without this call.
            self.clean_or_disconnect(link);
            self.lose(call, fate);
            return After::Lost { alone: true };
        }
        self.hold_back(link, call, fate)
    }

    /// Answers with `fate` the call that lost the transaction. If unstored writes may have caused the call's failure,
    /// keeps the call for the end of the replay instead (WRITE1).
    fn lose(&mut self, call: Box<dyn WriteCall>, fate: Fate) {
        match fate {
            Fate::Own if self.batch.dirty && call.interrupt().is_none() => {
                self.batch.loser = Some(call);
            }
            fate => call.finish(fate),
        }
    }

    /// Ends the transaction and resets the statements. If that fails, closes the connection.
    pub(super) fn clean_or_disconnect(&mut self, link: &Link) {
        if !link.clean() {
            self.disconnect();
        }
    }

    /// Keeps a successful call until the commit.
    fn keep(&mut self, link: &Link, call: Box<dyn WriteCall>) -> After {
        let settled = if link.saved.get() { link.session.run(Sql::Release) } else { Ok(()) };
        let settled = settled.and_then(|()| link.restore_keys());
        if settled.is_ok() {
            link.end_temporary();
        }
        if settled.is_err() || link.is_lost() {
            self.clean_or_disconnect(link);
            call.finish(match settled {
                Ok(()) => Fate::kind(ErrorKind::RolledBack),
                Err(error) => Fate::Instead(Error::of_own(error)),
            });
            return After::Lost { alone: true };
        }
        self.batch.kept = true;
        if !self.batch.dirty && link.writes.get() == 0 && !call.wants_snapshot() {
            // The call wrote nothing and saw only stored data, so a later loss of the transaction does not affect it.
            call.finish(Fate::Own);
            return After::Going;
        }
        if link.writes.get() > 0 {
            self.batch.dirty = true;
            self.publisher.keep(link);
        }
        self.batch.all_repeatable &= call.is_repeatable();
        self.batch.ran.push(call);
        After::Going
    }

    /// Answers a call that failed and is undone. If unstored writes may have caused its failure, keeps it until the
    /// commit instead (WRITE1).
    fn hold_back(&mut self, link: &Link, call: Box<dyn WriteCall>, fate: Fate) -> After {
        let _ = link.restore_keys();
        if self.batch.dirty && matches!(fate, Fate::Own) {
            self.batch.all_repeatable &= call.is_repeatable();
            self.batch.ran.push(call);
        } else {
            call.finish(fate);
        }
        After::Going
    }
}
