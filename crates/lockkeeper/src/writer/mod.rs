//! The writer thread's service: group commit in which each call has its own result.
//!
//! A batch is the calls that wait when the writer begins it, and the calls that arrive while it runs. The writer runs
//! one `BEGIN IMMEDIATE`, the calls one after another, one `COMMIT`, then answers. There is no timer.
//!
//! | state of a batch | what may be trusted | left by |
//! |---|---|---|
//! | waiting for the lock | there is no transaction; the first call may time out or be canceled | `begin` |
//! | running | calls in `ran` are in the transaction and not answered | each `run_one` |
//! | lost | SQLite has rolled the transaction back; calls in `ran` are undone | `replay` (`replay.rs`) |
//! | committed | calls in `ran` are stored and not answered | `answer` |
//!
//! Invariants:
//!
//! - WRITE1: the writer answers a call after the COMMIT that stores it has returned, or when it is certain that nothing
//!   of it is stored. A call may fail because of an unstored write of another call in the batch (a constraint). The
//!   writer holds the failed call's answer back until that write is stored; if the write is lost, the writer runs the
//!   failed call again. The same goes for a call that lost the transaction: it runs again after the others, in a
//!   transaction of its own.
//! - WRITE2: undoing a call never undoes another call. The first writing call of a transaction is undone by rolling
//!   back the transaction, which holds no other writes. Each later call runs in a savepoint, opened before its first
//!   statement that may write. If a later call runs without a savepoint (`elision.rs`), undoing it loses the
//!   transaction (WRITE3); that is allowed only while every earlier call may run again.
//! - WRITE3: after each call the writer asks SQLite whether the transaction still exists, since interrupts, full disks,
//!   `OR ROLLBACK` and `RAISE(ROLLBACK)` end it. If the transaction is gone, the writer answers the call that lost it
//!   and runs the earlier calls again; earlier calls that may run only once get `NotApplied`.
//! - WRITE4: a replay ends, because each loss removes at least one call from the calls that run again.
//! - WRITE5: no call affects the next one through the connection: statements are reset, deferred foreign keys are
//!   checked and switched back, temporary objects are dropped (`sqlite/temporary.rs`), rows are counted from 0, and the
//!   authorizer denies transaction control to calls. If that fails, and after each exclusive call, the writer replaces
//!   the connection before the next call (`connect`).
//! - WRITE6: after some errors of COMMIT (I/O, no memory, a damaged file) it is unknown whether the batch is stored.
//!   Its calls then get `Unknown`, and the writer opens the connection again before the next call. After any other
//!   error of COMMIT the batch is certainly not stored.
//! - WRITE7: the changes of a batch are published after its COMMIT has returned and before its calls are answered. The
//!   changes of a call that is undone are discarded with it (`publisher.rs`).
//! - WRITE8: subscribers learn of the commits of other processes and of exclusive calls. A connection can tell whether
//!   others have committed since it was last asked, but not what was committed before it was opened. So
//!   [`Change::Unknown`] is published whenever the connection is replaced, and when an exclusive call has ended and no
//!   new connection can be opened. While there is no connection, the regular checks try to open one.
//!
//! `run.rs` begins a batch and runs its calls, `commit.rs` commits and answers them, `exclusive.rs` and `lease.rs`
//! serve calls outside of batches, and `open.rs` decides which connection serves. Of the fields of [`Writer`], `batch`
//! is about the open batch; `publisher` and `checkpointer` also have fields about it. All other fields outlive the
//! batch.

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
#[cfg(doc)]
use crate::changes::change::Change;
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
    /// The connection. `None`: `connect` opens it (again) before the next call.
    tx: Option<Rc<Transaction>>,
    checkpointer: Checkpointer,
    publisher: Publisher,
    batch: OpenBatch,
    /// Which closures may run without a savepoint.
    trust: Trust,
    commits: u64,
    /// When the writer began to wait for a lock of another process that it has not got yet; `None`: it does not wait.
    locked_since: Option<Instant>,
    /// Whether the connection of a memory database had to be closed, so that its content is lost.
    content_lost: bool,
    /// Whether the file is no longer in its place and `abandon_file` has dealt with the WAL.
    abandoned: bool,
    stopped: Stopped,
    /// Whether the file was opened read-only and had no WAL before, so that the WAL is removed at the end.
    made_wal: bool,
    /// Must be the last field, so that the drop releases the file after the connection was closed.
    claim: Option<Claim>,
}

/// The writer's view of whether writes are stopped (`client/stop.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    No,
    /// A `stop_writes` waits for the writer.
    Asked,
    /// A `stop_writes` was answered: the writer must not change the file or its WAL.
    Told,
}

impl Writer {
    /// Answers the stops whose earlier calls are all done (STOP2).
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

    /// Serves a batch of writes. Returns the next item, if it has taken one that does not belong to the batch.
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
                    // The other calls of the batch have written nothing and saw only stored data, so they need no
                    // commit.
                    self.answer();
                    return batch.take();
                }
                After::Lost { alone } => {
                    batch.charge(lane, run);
                    // A connection that is given up must be closed before another is opened.
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
            // Callers that were answered together submit their next calls together. Before the commit the writer yields
            // the processor once, so that the callers that wait for the processor can submit theirs.
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

    /// Runs a read of a memory database on the only connection, between two transactions.
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
        // Runs however the thread ends. The stops that wait then report that the database is closed.
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
                    if let Some(tx) = self.connect_for_check() {
                        self.publisher.check_for_foreign_commits(&tx.link, self.commits);
                    }
                    // An errand does not begin a batch.
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
        // The last connection to close removes the WAL, so it must be a connection that can write.
        self.core.wait_for_readers();
        self.checkpointer.finish();
        if self.config().is_read_only() {
            // There is nothing to checkpoint.
        } else if let Some(tx) = self.tx.clone()
            && self.core.opener.file.check().is_err()
        {
            self.abandoned = false; // Abandon the file again, now that no readers are left.
            self.abandon_file(&tx);
        }
        // Checkpointed here, because closing would checkpoint the WAL without reporting a failure.
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
