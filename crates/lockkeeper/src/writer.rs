//! The writer thread's service: group commit with a fate for each call.
//!
//! A batch is what waits when the writer comes round, and what arrives while it runs. One
//! `BEGIN IMMEDIATE`, the calls one after another, one `COMMIT`, then the answers. No timer.
//!
//! | state of a batch | what may be trusted | left by |
//! |---|---|---|
//! | waiting for the lock | no transaction; the first call may time out or leave | `begin` |
//! | running | calls in `ran` are in the transaction, unanswered | each `run_one` |
//! | lost | SQLite rolled everything back; calls in `ran` are undone | `replay` (`writer/replay.rs`) |
//! | committed | calls in `ran` are stored, unanswered | `answer` |
//!
//! Invariants:
//!
//! - B1: a call is answered after the COMMIT that stores it returned, or when it is certain that
//!   nothing of it is stored. A failure that may rest on a neighbour's unstored write (a constraint)
//!   is held back until that write is stored, and found anew if it is not. That goes for the call
//!   that lost the transaction too: it is run again, after and apart from the others.
//! - B2: undoing a call never undoes another. The first writing call of a transaction is undone by
//!   rolling back the transaction, which holds nothing else; each later one runs in a savepoint,
//!   opened before its first statement that may write, or *bare* (`bare.rs`): then undoing it is
//!   losing the transaction (B3), which is allowed only while every earlier call may run again.
//! - B3: after each call the writer asks SQLite whether the transaction still exists (interrupts,
//!   full disks, `OR ROLLBACK` and `RAISE(ROLLBACK)` end it). If not, the call that lost it is
//!   answered, and the earlier ones are run again, or told `NotApplied` when they may run only once.
//! - B4: replaying ends: each loss takes at least one call out of the set that is run again.
//! - B5: no call leaves anything to the next one: statements are reset, deferred foreign keys
//!   checked and switched back, temporary objects dropped (`temporary.rs`), rows counted from 0;
//!   transaction control is denied to calls by the authorizer. Where that is not possible, and after
//!   each exclusive call, the connection is replaced before the next one (`connect`).
//! - B6: an error of COMMIT itself leaves `Unknown` only if it was an I/O error; the connection is
//!   opened again before anything else runs.
//! - B7: what calls changed is published after the COMMIT that stores it returned and before they are
//!   answered; the changes of calls that were undone are thrown away with them (`record.rs`).
//!
//! What is no batch has a file below: `writer/exclusive.rs`, `writer/lease.rs`.

mod exclusive;
mod lease;
mod replay;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;

use crate::bare::Trust;
use crate::checkpoint::{self, Checkpointer};
use crate::config::Config;
use crate::connection::{self, Link};
use crate::engine::call::{ReadCall, kind_of_stop};
use crate::engine::core::{Core, YIELDS};
use crate::engine::held::Held;
use crate::engine::item::{SnapshotRequest, WriterItem};
use crate::engine::serve_read;
use crate::engine::write_call::{Fate, Ran, WriteCall};
use crate::error::{Error, ErrorKind, kind_of_own};
use crate::ffi::{Checkpoint, Sql};
use crate::guard;
use crate::holders::Origin;
use crate::instance::{Claim, Claimed};
use crate::migrate;
use crate::path;
use crate::place::Role;
use crate::queue::{
    self, Ancestry, Batch, Domain, Frame, LaneId, Phase, Service, Taken, lock, now,
};
use crate::record::Publisher;
use crate::slow;
use crate::transaction::{Snapshot, Transaction};

thread_local! {
    /// The transaction view of the writer that runs on this thread, for nested calls.
    static CURRENT: RefCell<Option<(Domain, Rc<Transaction>)>> = const { RefCell::new(None) };
}

/// The view of the call that this thread runs as the writer of `domain`.
pub(crate) fn current(domain: Domain) -> Option<Rc<Transaction>> {
    CURRENT.with_borrow(|current| {
        current.as_ref().filter(|(of, _)| *of == domain).map(|(_, tx)| Rc::clone(tx))
    })
}

pub(crate) struct Writer {
    core: Arc<Core>,
    domain: Domain,
    /// `None`: it must be opened (again) before the next call.
    tx: Option<Rc<Transaction>>,
    checkpointer: Checkpointer,
    publisher: Publisher,
    /// Calls of this batch that have run and wait for the commit.
    ran: Vec<Box<dyn WriteCall>>,
    /// The call that lost the transaction, if it may have failed on unstored writes (B1).
    loser: Option<Box<dyn WriteCall>>,
    /// The call that was run last waits in `ran` for its commit, and has succeeded.
    kept: bool,
    /// A call of this batch has written: later ones need savepoints (B2).
    dirty: bool,
    /// Every call in `ran` may run again.
    all_repeatable: bool,
    /// Which closures may run without a savepoint.
    trust: Trust,
    commits: u64,
    /// Since when another process has kept the lock.
    locked_since: Option<Instant>,
    /// A memory database whose connection had to be given up: its content is gone.
    content_lost: bool,
    /// It was noticed that the file is not in its place, and the WAL was seen to.
    let_go: bool,
    stopped: Stopped,
    /// There was no WAL before a file was opened for reading alone.
    made_wal: bool,
    /// The last field: the file is given back after its connection was closed.
    claim: Option<Claim>,
}

/// Whether writes are stopped, as far as the writer knows (`client/stop.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    No,
    /// Somebody waits for it.
    Asked,
    /// Somebody was told so: the file and its WAL are left as they are.
    Told,
}

/// What became of a call that was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// It is in `ran`, or was answered and left nothing behind.
    Going,
    /// It was answered, and undone by rolling back the transaction, which held nothing else.
    Restart,
    /// The transaction is gone, and with it the calls in `ran`.
    Lost { alone: bool },
}

impl Writer {
    pub(crate) fn open(core: Arc<Core>) -> Result<Self, Error> {
        let checkpointer = Checkpointer::new(&core.config);
        let publisher = Publisher::new(Arc::clone(&core.feed));
        let mut writer = Self {
            domain: core.domain,
            core,
            tx: None,
            checkpointer,
            publisher,
            ran: Vec::new(),
            loser: None,
            kept: false,
            dirty: false,
            all_repeatable: true,
            trust: Trust::default(),
            commits: 0,
            locked_since: None,
            content_lost: false,
            let_go: false,
            stopped: Stopped::No,
            made_wal: false,
            claim: None,
        };
        let opener = &writer.core.opener;
        let warnings = guard::check(&opener.config, &opener.file, &opener.machine)?;
        let _ = writer.core.warnings.set(warnings);
        match Claim::take(&opener.config, &opener.file, &writer.core.writer)? {
            Claimed::Nothing => {}
            Claimed::Own(claim) => writer.claim = Some(claim),
            Claimed::Other(other) => {
                let _ = writer.core.other.set(other);
                return Err(Error::new(ErrorKind::AlreadyOpen));
            }
        }
        if writer.config().is_read_only() && !writer.config().immutable {
            let path = writer.core.opener.file.path();
            writer.made_wal = path.is_some_and(|path| path::is_absent(&path::beside(path, "-wal")));
        }
        match writer.open_file() {
            Ok(()) => Ok(writer),
            Err(error) => {
                writer.disconnect();
                writer.remove_made_wal();
                Err(error)
            }
        }
    }

    fn open_file(&mut self) -> Result<(), Error> {
        let migrations = self.core.migrations.as_ref();
        let conn = migrate::open_first(&self.core.opener, migrations)?;
        let tx = self.adopt(conn);
        self.claim.as_ref().map_or(Ok(()), Claim::confirm)?;
        match &self.core.migrations {
            Some(migrations) if self.core.config.is_read_only() => {
                migrations.check_version(&tx, &self.core.opener)
            }
            Some(migrations) => migrations.run(&tx, &self.core.opener),
            None => Ok(()),
        }
    }

    /// ST2: answers the stops of writes for which everything is done.
    fn settle_stops(&mut self) {
        let ready = self.core.stops.take_ready(&self.core.writer);
        let stopped = self.core.writer.is_stopped();
        if stopped && !ready.is_empty() {
            let writes = !self.config().is_memory() && !self.config().is_read_only();
            if let (Some(tx), true) = (&self.tx, writes) {
                self.checkpointer.fold_back(tx, &self.core);
            }
            self.stopped = Stopped::Told;
        }
        if !self.core.stops.is_empty() {
            let _ = self.core.writer.push_errand(WriterItem::Stop);
        } else if !stopped {
            self.stopped = Stopped::No;
        }
        for stop in ready {
            stop.reply.answer(());
        }
    }

    /// Leaves nothing beside a file that was opened for reading alone, if that is possible.
    fn remove_made_wal(&mut self) {
        if std::mem::take(&mut self.made_wal) && !self.core.opener.file.is_lost() {
            // Somebody else has it open, or this process may not write it: then it stays.
            let _ = connection::remove_empty_wal(&self.core.opener);
        }
    }

    fn config(&self) -> &Config {
        &self.core.config
    }

    fn connect(&mut self) -> Result<Rc<Transaction>, Error> {
        if self.tx.as_ref().is_some_and(|tx| tx.link.is_stale()) {
            self.renew();
        }
        if let Some(tx) = &self.tx {
            return Ok(Rc::clone(tx));
        }
        if self.content_lost {
            return Err(Error::new(ErrorKind::Faulted).detail("the memory database was lost"));
        }
        let conn = connection::open(&self.core.opener, Role::Writer)?;
        Ok(self.adopt(conn))
    }

    /// Makes `conn` the connection of the calls from now on.
    fn adopt(&mut self, conn: Snapshot) -> Rc<Transaction> {
        // The next call is told if the file is another.
        let _ = self.core.opener.file.connected();
        if self.config().immutable {
            // What is beside it is nothing that belongs to it.
            self.core.opener.file.disconnecting();
        }
        let tx = Rc::new(Transaction::new(conn));
        self.publisher.connected(&tx.link);
        CURRENT.set(Some((self.domain, Rc::clone(&tx))));
        self.tx = Some(Rc::clone(&tx));
        tx
    }

    /// Opens another connection for a stale one, which is closed then, so that it is never the last that
    /// the file has; that of a memory database takes over its content.
    fn renew(&mut self) {
        CURRENT.set(None);
        let Some(old) = self.tx.take() else { return };
        let new = match self.config().is_memory() {
            true => connection::open_with_content(&self.core.opener, &old.link),
            false => connection::open(&self.core.opener, Role::Writer),
        };
        match new {
            Ok(new) => drop(self.adopt(new)),
            // What is in memory is worth more than what a call has left beside it.
            Err(_) if self.config().is_memory() => {
                old.link.stale.set(false);
                CURRENT.set(Some((self.domain, Rc::clone(&old))));
                self.tx = Some(old);
            }
            // Whoever needs a connection tries again, and is told.
            Err(_) => self.core.opener.file.disconnecting(),
        }
    }

    fn disconnect(&mut self) {
        self.core.opener.file.disconnecting();
        CURRENT.set(None);
        self.tx = None;
        self.content_lost = self.config().is_memory();
    }

    /// Serves calls until one comes that must run outside a transaction; returns that one.
    fn serve_writes(
        &mut self,
        lane: LaneId,
        call: Box<dyn WriteCall>,
        batch: &mut Batch<'_, WriterItem>,
    ) -> Option<Taken<WriterItem>> {
        let tx = match self.begin(&*call) {
            Ok(tx) => tx,
            Err(fate) => {
                call.finish(fate);
                batch.charge(lane, Duration::ZERO);
                return batch.take();
            }
        };
        let began = now();
        let mut last = began;
        let mut calls = 0;
        let mut next = (lane, call);
        loop {
            let (lane, call) = next;
            let waited = last.saturating_duration_since(call.meta().submitted);
            let after = match self.rehearse(&tx, call, last) {
                Ok((call, at)) => {
                    last = at;
                    self.run_one(&tx, call, last)
                }
                Err(after) => after,
            };
            calls += 1;
            let time = now();
            let run = time - last;
            last = time;
            if tx.link.noted {
                self.core.meters.writes.record(waited, run);
                slow::report(self.config(), &tx.link, waited, run);
            }
            match after {
                After::Going => {}
                After::Restart => {
                    batch.charge(lane, run);
                    // Nothing was unstored when they ran, so nothing they saw was.
                    self.answer();
                    return batch.take();
                }
                After::Lost { alone } => {
                    batch.charge(lane, run);
                    // If it was given up, it must be closed before another is opened.
                    drop(tx);
                    self.replay(alone);
                    return batch.take();
                }
            }
            if self.is_full(&tx, calls, time - began) {
                batch.charge(lane, run);
                self.finish_batch(tx);
                return None;
            }
            let mut taken = batch.charge_and_take(lane, run);
            // Callers that were answered together come back together: those that wait for this
            // processor get it for a moment before the commit.
            if taken.is_none() && calls > 1 && batch.give_way() {
                taken = batch.take();
                last = now();
            }
            next = match taken {
                Some(Taken { lane, call: WriterItem::Write(call), .. }) => (lane, call),
                other => {
                    self.finish_batch(tx);
                    return other;
                }
            };
        }
    }

    /// Whether the batch has reached a ceiling.
    fn is_full(&self, tx: &Transaction, calls: usize, run: Duration) -> bool {
        tx.link.is_stale()
            || calls >= self.config().batch_calls_max
            || run >= self.config().batch_time_max
            || self.checkpointer.estimate(tx) >= self.config().batch_wal_bytes_max
    }

    /// Gets the write lock on behalf of `call`, the first call of the batch.
    fn begin(&mut self, call: &dyn WriteCall) -> Result<Rc<Transaction>, Fate> {
        if let Some(why) = call.interrupt() {
            return Err(Fate::kind(kind_of_stop(why, Phase::Queued)));
        }
        let tx = self.connect().map_err(|error| Fate::Instead(error.faulted()))?;
        if !self.core.opener.file.is_in_place(now()) {
            self.let_go(&tx);
            return Err(Fate::kind(ErrorKind::Replaced));
        }
        // Each call waits for the lock for the busy timeout, and those that queued up behind the
        // first one have waited as long: the time counts from the later of the call and the lock.
        let since = self.locked_since.get_or_insert_with(now);
        let end = call.meta().submitted.max(*since).checked_add(self.core.config.busy_timeout);
        tx.link.guard.lock_wait.set_end(end);
        let frame = Frame::enter(self.domain, Ancestry::default(), call.interruptible());
        let (asked, waits) = (now(), tx.link.guard.lock_wait.waits());
        let begun = tx.link.session.run(Sql::BeginImmediate);
        drop(frame);
        let meters = &self.core.meters;
        meters.lock_wait.record_time(now() - asked);
        let waits = tx.link.guard.lock_wait.waits() - waits;
        meters.busy_waits.fetch_add(waits, Ordering::Relaxed);
        tx.link.guard.lock_wait.set_end(None);
        match begun {
            Ok(()) => {
                self.locked_since = None;
                self.dirty = false;
                self.all_repeatable = true;
                self.checkpointer.begin(&tx);
                self.publisher.begin(&tx.link, self.commits);
                Ok(tx)
            }
            Err(error) => {
                let fate = match (kind_of_own(&error), call.interrupt()) {
                    (ErrorKind::Busy, Some(why)) => Fate::kind(kind_of_stop(why, Phase::Locked)),
                    _ => Fate::Instead(Error::of_own(error)),
                };
                if !tx.link.clean() {
                    self.disconnect();
                }
                Err(fate)
            }
        }
    }

    /// The first of two runs of a call that may run again, where they are wanted
    /// (`Builder::run_writes_twice`): undone, whatever came of it. `Ok`: the call, and when its run that
    /// counts begins. `Err`: it has been answered, or runs again after those that it has undone (B3).
    fn rehearse(
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
            link.guard.slot.begin_call(call.meta().origin.clone(), at, None);
        }
        self.publisher.begin_call(link);
        link.begin_own();
        link.begin_call(false, true);
        call.run(self.domain, tx);
        link.end_call();
        let undone = !link.saved.get() || link.undo_call();
        let keys = link.restore_keys();
        let lost = !undone || link.is_lost() || keys.is_err();
        if lost && !link.clean() {
            self.disconnect();
        }
        match call.interrupt() {
            Some(why) => call.finish(Fate::kind(kind_of_stop(why, Phase::Running))),
            None if lost => self.loser = Some(call),
            None => return Ok((call, now())),
        }
        Err(if lost { After::Lost { alone: true } } else { After::Going })
    }

    /// Runs one call inside the open transaction.
    fn run_one(&mut self, tx: &Transaction, mut call: Box<dyn WriteCall>, at: Instant) -> After {
        self.kept = false;
        if let Some(why) = call.interrupt() {
            call.finish(Fate::kind(kind_of_stop(why, Phase::Queued)));
            return After::Going;
        }
        let link = &tx.link;
        let closure = call.closure();
        if link.noted {
            link.guard.slot.begin_call(call.meta().origin.clone(), at, None);
        }
        let bare = self.dirty && self.trust.allows(closure) && self.all_repeatable;
        self.publisher.begin_call(link);
        link.begin_own();
        link.begin_call(false, self.dirty && !bare);
        let ran = call.run(self.domain, tx);
        link.end_call();
        self.trust.record(closure, link.writes.get(), ran == Ran::Good);
        if link.is_lost() {
            // B3
            let alone = !replay::is_own_doing(link);
            let _ = link.restore_keys();
            match (ran, call.interrupt()) {
                (Ran::Good, Some(why)) => {
                    call.finish(Fate::kind(kind_of_stop(why, Phase::Running)));
                    return After::Lost { alone };
                }
                (Ran::Good, None) => call.judge(ErrorKind::RolledBack),
                (Ran::Failed | Ran::Panicked, _) => {}
            }
            self.lose(call);
            return After::Lost { alone };
        }
        let fate = match (ran, call.interrupt()) {
            // A closure that overlooked that its statements were stopped did half of its work.
            (Ran::Good, Some(why)) => Fate::kind(kind_of_stop(why, Phase::Running)),
            (Ran::Good, None) if link.writes.get() > 0 && link.session.has_deferred_violation() => {
                call.judge(ErrorKind::ForeignKey);
                Fate::Own
            }
            (Ran::Good, None) => return self.keep(link, call),
            (Ran::Failed | Ran::Panicked, _) => Fate::Own,
        };
        if link.writes.get() == 0 {
            // Nothing to undo; but what it read may be unstored yet (B1).
            return self.hold_back(link, call, fate);
        }
        if !link.saved.get() {
            // B2: the transaction holds nothing else, or what it holds may run again.
            let rolled_back = link.session.run(Sql::Rollback).is_ok() || link.is_lost();
            let _ = link.restore_keys();
            if !rolled_back {
                self.disconnect();
            }
            if !bare {
                call.finish(fate);
                return After::Restart;
            }
            self.trust.betray(closure);
            match fate {
                Fate::Own => self.lose(call),
                fate => call.finish(fate),
            }
            return After::Lost { alone: false };
        }
        if !link.undo_call() {
            // The savepoint could not be trusted: start over without this call.
            if !link.clean() {
                self.disconnect();
            }
            match fate {
                Fate::Own => self.lose(call),
                fate => call.finish(fate),
            }
            return After::Lost { alone: true };
        }
        self.hold_back(link, call, fate)
    }

    /// The call lost the transaction by a failure of its own: it is answered, or waits for the end
    /// of the replay when it may have failed on unstored writes (B1).
    fn lose(&mut self, call: Box<dyn WriteCall>) {
        match self.dirty && call.interrupt().is_none() {
            true => self.loser = Some(call),
            false => call.finish(Fate::Own),
        }
    }

    /// The call succeeded: it waits for the commit.
    fn keep(&mut self, link: &Link, call: Box<dyn WriteCall>) -> After {
        let settled = match link.saved.get() {
            true => link.session.run(Sql::Release),
            false => Ok(()),
        };
        let settled = settled.and_then(|()| link.restore_keys());
        if settled.is_ok() {
            link.end_temporary();
        }
        if settled.is_err() || link.is_lost() {
            if !link.clean() {
                self.disconnect();
            }
            call.finish(match settled {
                Ok(()) => Fate::kind(ErrorKind::RolledBack),
                Err(error) => Fate::Instead(Error::of_own(error)),
            });
            return After::Lost { alone: true };
        }
        self.kept = true;
        if !self.dirty && link.writes.get() == 0 && !call.wants_snapshot() {
            // It wrote nothing and saw nothing that is not stored: a later loss cannot touch it.
            call.finish(Fate::Own);
            return After::Going;
        }
        if link.writes.get() > 0 {
            self.dirty = true;
            self.publisher.keep(link);
        }
        self.all_repeatable &= call.is_repeatable();
        self.ran.push(call);
        After::Going
    }

    /// The call failed and is undone: its answer waits if it may rest on unstored writes (B1).
    fn hold_back(&mut self, link: &Link, call: Box<dyn WriteCall>, fate: Fate) -> After {
        let _ = link.restore_keys();
        if self.dirty && matches!(fate, Fate::Own) {
            self.all_repeatable &= call.is_repeatable();
            self.ran.push(call);
        } else {
            call.finish(fate);
        }
        After::Going
    }

    fn finish_batch(&mut self, tx: Rc<Transaction>) {
        let committed = self.commit(&tx);
        drop(tx);
        match committed {
            Ok(()) => self.answer(),
            // Each alone, so that whoever cannot be committed is told why.
            Err(_) => self.replay(true),
        }
    }

    /// Commits; `Err`: the calls in `ran` are undone, for this reason, and may be run again.
    fn commit(&mut self, tx: &Transaction) -> Result<(), rusqlite::Error> {
        let link = &tx.link;
        let began = now();
        if !self.core.opener.file.is_in_place(began) {
            // G4
            link.clean();
            for call in std::mem::take(&mut self.ran) {
                call.finish(Fate::kind(ErrorKind::Replaced));
            }
            self.let_go(tx);
            return Ok(());
        }
        let give_up_at = queue::after(self.config().busy_timeout);
        loop {
            let Err(error) = link.session.run(Sql::Commit) else {
                self.commits += 1;
                if self.dirty && link.noted {
                    self.core.meters.commit.record_time(now() - began);
                    self.core.meters.batch_calls.record(self.ran.len() as u64);
                }
                self.checkpointer.committed(tx);
                // B7
                self.publisher.committed(self.commits, self.dirty);
                return Ok(());
            };
            let code = error.sqlite_error_code();
            if code == Some(ErrorCode::DatabaseBusy) && !link.is_lost() && now() < give_up_at {
                // A reader in a mode without WAL.
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
                // B6
                for call in std::mem::take(&mut self.ran) {
                    let error = Error::sqlite_error(ErrorKind::Unknown, copy_of(&error));
                    call.finish(Fate::Instead(error));
                }
                link.clean();
                self.disconnect();
                self.publisher.unknown(self.commits);
                return Ok(());
            }
            if !link.clean() {
                self.disconnect();
            }
            return Err(error);
        }
    }

    /// The file is not in its place any more, and no transaction is open.
    fn let_go(&mut self, tx: &Transaction) {
        if !std::mem::replace(&mut self.let_go, true) {
            self.checkpointer.rest();
            checkpoint::let_go(tx, &self.core);
        }
    }

    /// Tells every call of the batch that it is stored, or how it failed.
    fn answer(&mut self) {
        // A wake-up may run the caller's code at once: the list is not borrowed meanwhile.
        let mut ran = std::mem::take(&mut self.ran);
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
        self.ran = ran;
    }

    /// Memory databases: a read on the one connection, between two transactions.
    fn run_read(&mut self, call: Box<dyn ReadCall>) {
        if let Some(why) = call.interrupt() {
            call.refuse(Error::new(kind_of_stop(why, Phase::Queued)));
            return;
        }
        match self.connect() {
            Ok(tx) => {
                let meter = self.core.meters.reads(0);
                serve_read::run_alone(&tx, &self.core, meter, call);
            }
            Err(error) => call.refuse(error.faulted()),
        }
    }

    /// Takes a snapshot of the state after the last commit.
    fn pin(&mut self, origin: Origin) -> Result<Arc<Held>, Error> {
        let commit = self.commits;
        match self.config().is_memory() {
            true => {
                let tx = self.connect()?;
                self.core.held.copy(&tx, commit, origin)
            }
            false => self.core.held.pin(Some(commit), origin),
        }
    }

    fn explain_wal_left(&self, error: rusqlite::Error) -> Error {
        let wal = self.core.opener.file.path().map(|path| path::beside(path, "-wal"));
        let wal = wal.unwrap_or_default();
        Error::of_own(error).detail(format!(
            "the database is closed and what was answered is stored, but {} could not be folded back; \
             keep it beside the file, the next open reads it",
            wal.display(),
        ))
    }

    fn take_snapshot(&mut self, request: SnapshotRequest) {
        let held = self.pin(request.origin.clone());
        request.answer(held);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // However the thread ends, nobody is left waiting; who waits is told that it is closed.
        self.core.stops.give_up();
    }
}

impl Service for Writer {
    type Call = WriterItem;

    fn serve(&mut self, first: Taken<WriterItem>, batch: &mut Batch<'_, WriterItem>) {
        self.core.yields_left.store(YIELDS, Ordering::Relaxed);
        let mut next = Some(first);
        while let Some(Taken { lane, call, .. }) = next {
            let began = now();
            next = match call {
                WriterItem::Write(call) => self.serve_writes(lane, call, batch),
                WriterItem::Exclusive(call) => {
                    self.run_exclusive(call);
                    batch.charge(lane, now() - began);
                    None
                }
                WriterItem::Lease(lease) => {
                    self.run_lease(*lease);
                    batch.charge(lane, now() - began);
                    None
                }
                WriterItem::Read(call) => {
                    self.run_read(call);
                    batch.charge_and_take(lane, now() - began)
                }
                WriterItem::Snapshot(request) => {
                    self.take_snapshot(request);
                    batch.charge_and_take(lane, now() - began)
                }
                WriterItem::Stop => {
                    self.stopped = Stopped::Asked;
                    batch.begin_again()
                }
                WriterItem::Look => {
                    if let Some(tx) = &self.tx {
                        self.publisher.look(&tx.link, self.commits);
                    }
                    // An errand: no batch of calls has begun.
                    batch.begin_again()
                }
            };
        }
        if self.stopped != Stopped::No {
            self.settle_stops();
        }
        if let Some(tx) = &self.tx {
            tx.link.guard.slot.rest();
            if !self.core.config.is_read_only() && self.stopped != Stopped::Told {
                self.checkpointer.between_batches(tx, &self.core);
            }
        }
    }

    fn finish(mut self) {
        // The connection that is closed last removes the WAL; it must be one that can write.
        self.core.wait_for_readers();
        self.checkpointer.finish();
        if self.config().is_read_only() {
            // There is nothing to be folded back.
        } else if let Some(tx) = self.tx.clone()
            && self.core.opener.file.check().is_err()
        {
            self.let_go = false; // again: nobody reads now
            self.let_go(&tx);
        }
        // Closing copies the WAL back without a word about failures.
        else if let Some(tx) = &self.tx
            && !self.config().is_memory()
            && let Err(error) = tx.link.session.checkpoint(Checkpoint::Passive)
        {
            *lock(&self.core.wal_left) = Some(self.explain_wal_left(error));
        }
        self.disconnect();
        self.remove_made_wal();
        self.core.opener.file.closed();
    }
}

/// `rusqlite::Error` is not `Clone`, but SQLite's own failures are told to several callers.
fn copy_of(error: &rusqlite::Error) -> rusqlite::Error {
    let code = error.sqlite_error().copied();
    let code = code.unwrap_or(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR));
    let message = match error {
        rusqlite::Error::SqliteFailure(_, message) => message.clone(),
        other => Some(other.to_string()),
    };
    rusqlite::Error::SqliteFailure(code, message)
}
