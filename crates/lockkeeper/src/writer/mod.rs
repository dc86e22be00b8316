//! The writer thread's service: group commit with a fate for each call.
//!
//! A batch is what waits when the writer comes round, and what arrives while it runs. One
//! `BEGIN IMMEDIATE`, the calls one after another, one `COMMIT`, then the answers. No timer.
//!
//! | state of a batch | what may be trusted | left by |
//! |---|---|---|
//! | waiting for the lock | no transaction; the first call may time out or leave | `begin` |
//! | running | calls in `ran` are in the transaction, unanswered | each `run_one` |
//! | lost | SQLite rolled everything back; calls in `ran` are undone | `replay` (`replay.rs`) |
//! | committed | calls in `ran` are stored, unanswered | `answer` |
//!
//! Invariants:
//!
//! - WRITE1: a call is answered after the COMMIT that stores it returned, or when it is certain that
//!   nothing of it is stored. A failure that may rest on a neighbour's unstored write (a constraint)
//!   is held back until that write is stored, and found anew if it is not. That goes for the call
//!   that lost the transaction too: it is run again, after and apart from the others.
//! - WRITE2: undoing a call never undoes another. The first writing call of a transaction is undone by
//!   rolling back the transaction, which holds nothing else; each later one runs in a savepoint,
//!   opened before its first statement that may write, or without one (`elision.rs`): then undoing it is
//!   losing the transaction (WRITE3), which is allowed only while every earlier call may run again.
//! - WRITE3: after each call the writer asks SQLite whether the transaction still exists (interrupts,
//!   full disks, `OR ROLLBACK` and `RAISE(ROLLBACK)` end it). If not, the call that lost it is
//!   answered, and the earlier ones are run again, or told `NotApplied` when they may run only once.
//! - WRITE4: replaying ends: each loss takes at least one call out of the set that is run again.
//! - WRITE5: no call leaves anything to the next one: statements are reset, deferred foreign keys
//!   checked and switched back, temporary objects dropped (`sqlite/temporary.rs`), rows counted from 0;
//!   transaction control is denied to calls by the authorizer. Where that is not possible, and after
//!   each exclusive call, the connection is replaced before the next one (`connect`).
//! - WRITE6: an error of COMMIT itself leaves `Unknown` only if it was an I/O error; the connection is
//!   opened again before anything else runs.
//! - WRITE7: what calls changed is published after the COMMIT that stores it returned and before they are
//!   answered; the changes of calls that were undone are thrown away with them (`publisher.rs`).
//!
//! A batch is begun and its calls are run in `run.rs`; it is committed and answered in `commit.rs`. What is no batch
//! has a file of its own: `exclusive.rs`, `lease.rs`. Which connection serves is decided in `open.rs`.

mod batch;
mod commit;
pub(crate) mod current;
mod elision;
mod exclusive;
mod lease;
mod open;
mod publisher;
mod replay;
mod run;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::batch::{After, OpenBatch};
use self::elision::Trust;
use self::publisher::Publisher;
use crate::config::Config;
use crate::engine::call::{ReadCall, kind_of_stop};
use crate::engine::core::{Core, YIELDS};
use crate::engine::item::{SnapshotRequest, WriterItem};
use crate::engine::{held::Held, serve_read, write_call::WriteCall};
use crate::error::Error;
use crate::ffi::Checkpoint;
use crate::queue::{Batch, Domain, LaneId, Phase, Service, Taken};
use crate::sqlite::{instance::Claim, slow, transaction::Transaction};
use crate::stats::holders::Origin;
use crate::sync::{lock, now};
use crate::wal::checkpoint::Checkpointer;

pub(crate) struct Writer {
    core: Arc<Core>,
    domain: Domain,
    /// `None`: it must be opened (again) before the next call.
    tx: Option<Rc<Transaction>>,
    checkpointer: Checkpointer,
    publisher: Publisher,
    batch: OpenBatch,
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
    /// A `stop_writes` waits for it.
    Asked,
    /// A `stop_writes` was answered: the file and its WAL are left as they are.
    Told,
}

impl Writer {
    /// STOP2: answers the stops of writes for which everything is done.
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

    fn config(&self) -> &Config {
        &self.core.config
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
                if slow::report(self.config(), &tx.link, waited, run) {
                    last = now();
                }
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
}

impl Drop for Writer {
    fn drop(&mut self) {
        // However the thread ends, each stop is answered: the database is closed.
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
                WriterItem::Snapshot(SnapshotRequest { reply, origin }) => {
                    reply.answer(self.pin(origin));
                    batch.charge_and_take(lane, now() - began)
                }
                WriterItem::Stop => {
                    self.stopped = Stopped::Asked;
                    batch.begin_again()
                }
                WriterItem::Maintain => {
                    if let Some(tx) = &self.tx {
                        self.publisher.check_for_foreign_commits(&tx.link, self.commits);
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
            tx.link.callbacks.slot.rest();
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
            self.let_go = false; // again: there are no readers now
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
