//! The reader threads' service: several waiting reads on one snapshot, each answered when it ends. Answered callers
//! wake each other (`queue/wakeups.rs`).
//!
//! A read transaction costs two `fcntl` and one `stat`; a read inside an open transaction costs neither. So a reader
//! that finds several reads waiting begins one transaction for all of them.
//!
//! - READ1: a read is served only on a snapshot that was taken after the read's submission, so it sees every write that
//!   was answered before its submission. SQLite takes the snapshot with the first read of the transaction, and only
//!   calls that waited before the transaction began join it.
//! - READ2: a reader takes reads from the queue one by one, never ahead. So a long read delays no other read, because
//!   the other reads are still in the queue, where other readers find them.
//! - READ3: a reader keeps a transaction open for at most [`SHARE_TIME`] and the time of its last read, so that the WAL
//!   can start over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::item::{ReaderItem, SnapshotRequest, WriterItem};
use crate::engine::{call::ReadCall, core::Core, serve_read};
use crate::error::{Error, ErrorKind};
use crate::ffi::Sql;
use crate::place::Role;
use crate::queue::{self, Batch, Service, Taken};
use crate::sqlite::snapshot::Snapshot;
use crate::stats::holders::HolderKind;
use crate::sync::now;

/// Reads may join a transaction for this long after its beginning.
const SHARE_TIME: Duration = Duration::from_millis(1);

pub(crate) struct Reader {
    core: Arc<Core>,
    /// The part of the statistics that this thread writes.
    shard: usize,
    /// `None`: the next read opens it.
    conn: Option<Box<Snapshot>>,
}

impl Reader {
    pub(crate) fn open(core: Arc<Core>) -> Result<Self, Error> {
        let shard = core.meters.shard();
        let mut reader = Self { core, shard, conn: None };
        reader.connect()?;
        Ok(reader)
    }

    fn connect(&mut self) -> Result<(), Error> {
        // A memory database has only the writer's connection. This thread serves its snapshots, which are copies.
        if self.conn.is_none() && !self.core.config.is_memory() {
            self.conn = Some(Box::new(self.core.opener.open(Role::Reader)?));
        }
        Ok(())
    }

    /// Begins a read transaction.
    fn begin(&mut self) -> Result<(), Error> {
        let in_place = self.core.opener.file.is_in_place(now());
        self.connect().map_err(Error::faulted)?;
        if !in_place {
            return Err(Error::new(ErrorKind::Replaced));
        }
        let begun = self.conn.as_ref().map_or(Ok(()), |conn| conn.link.session.run(Sql::Begin));
        begun.map_err(|error| {
            self.settle();
            Error::of_own(error)
        })
    }

    /// Serves `first`, and reads that were submitted before the transaction began. If it takes an item from the queue
    /// that is no plain read, it returns that item.
    fn serve_reads(
        &mut self,
        lane: queue::LaneId,
        first: Box<dyn ReadCall>,
        behind: usize,
        batch: &mut Batch<'_, ReaderItem>,
    ) -> Option<Taken<ReaderItem>> {
        if let Err(error) = self.begin() {
            first.refuse(error);
            batch.charge(lane, Duration::ZERO);
            return None;
        }
        let conn = self.conn.as_ref()?;
        let meter = self.core.meters.reads(self.shard);
        let began = now();
        conn.link.callbacks.slot.begin_reading(began);
        let mut last = began;
        let mut next = (lane, first, behind);
        let mut was_backup = false;
        let other = loop {
            let (lane, call, behind) = next;
            was_backup |= call.meta().origin.kind == HolderKind::Backup;
            let answered = self.core.opener.wakeups.has_any();
            conn.link.callbacks.answered_before.store(answered, Ordering::Relaxed);
            self.core.wakeup_watch.keep();
            let run = serve_read::run(conn, &self.core, meter, call, last, behind);
            last += run;
            let time = last;
            if time - began >= SHARE_TIME || conn.link.is_lost() {
                batch.charge(lane, run);
                break None;
            }
            next = match batch.charge_and_take_older(lane, run) {
                Some(Taken { lane, call: ReaderItem::Read(call), behind }) => (lane, call, behind),
                other => break other,
            };
        };
        self.settle();
        if was_backup {
            // The WAL may have grown meanwhile, and no write may come for a long time, so the writer checks now whether
            // a checkpoint is due.
            let _ = self.core.writer.push_errand(WriterItem::Maintain);
        }
        let left = self.core.yields_left.load(Ordering::Relaxed);
        if left > 0 {
            // Under load a reader never sleeps. The writer, which sleeps in every sync, and its callers must not wait
            // for the end of a reader's time slice, so the reader yields. A lost decrement costs one more yield.
            self.core.yields_left.store(left - 1, Ordering::Relaxed);
            self.wake_callers();
            std::thread::yield_now();
        }
        other
    }

    /// Wakes the answered callers (WAKE1).
    fn wake_callers(&self) {
        self.core.opener.wakeups.wake_one();
        self.core.wakeup_watch.keep();
    }

    /// Ends the transaction. Closes the connection if that fails.
    fn settle(&mut self) {
        let Some(conn) = &self.conn else { return };
        conn.link.callbacks.slot.rest();
        let ended = conn.link.is_lost() || conn.link.session.run(Sql::Commit).is_ok();
        if !ended && !conn.link.clean() {
            self.conn = None;
        }
    }
}

impl Service for Reader {
    type Call = ReaderItem;

    fn serve(&mut self, first: Taken<ReaderItem>, batch: &mut Batch<'_, ReaderItem>) {
        let mut next = Some(first);
        while let Some(Taken { lane, call, behind }) = next {
            if let ReaderItem::Read(call) = call {
                next = self.serve_reads(lane, call, behind, batch).or_else(|| batch.begin_again());
                continue;
            }
            // WAKE1
            self.wake_callers();
            let began = now();
            // The time of an errand is not charged to a lane.
            let is_errand = matches!(call, ReaderItem::Errand(_));
            match call {
                ReaderItem::Read(_) => {}
                ReaderItem::Held(held, call) => {
                    held.serve(call, |conn, call| serve_read::run_held(conn, &self.core, call));
                }
                ReaderItem::Snapshot(SnapshotRequest { reply, origin }) => {
                    reply.answer(self.core.held.pin(None, origin));
                }
                ReaderItem::Errand(errand) => self.core.short.do_errand(errand),
            }
            let run = if is_errand { Duration::ZERO } else { now() - began };
            batch.charge(lane, run);
            next = None;
        }
        self.wake_callers();
    }

    fn finish(self) {}
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Runs however the thread ends. The clock may be closed by now, so it would not wake the callers.
        self.core.opener.wakeups.wake_all();
    }
}
