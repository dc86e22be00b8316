//! When the WAL is folded back into the file.
//!
//! SQLite's automatic checkpoint runs inside the COMMIT that crosses its limit: somebody's write
//! pays for it. It is off on every connection; instead the writer checkpoints between two batches,
//! after it has answered the last one (<https://www.sqlite.org/wal.html#ckpt>).
//!
//! - K1: there is one checkpointer, the writer thread, between two transactions: a checkpoint never
//!   races a commit (the WAL-reset bug of SQLite before 3.51.3 needs that race).
//! - K2: a passive checkpoint waits for nobody. It may leave frames that a reader still needs; then
//!   the next attempt waits for another share of the limit.
//! - K3: the size that makes a checkpoint due begins at [`SMALL`] and doubles, up to the configured
//!   limit, while checkpoints are less than [`OFTEN`] apart. A small WAL is written over and over
//!   in place, which a file system syncs twice as fast as a growing file; a large one folds more
//!   versions of a page into one copy, which pays under load.
//! - K4: when readers that overlap have kept the WAL from starting over until it has grown to
//!   [`PATIENCE`] times its limit, the writer waits for them once per share, [`RESET_WAIT`] at most.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::queue::now;
use crate::transaction::Transaction;

/// The WAL size at which checkpoints begin; SQLite's own default of 1,000 pages.
const SMALL: u64 = 4 << 20;

/// Checkpoints closer than this make the WAL larger.
const OFTEN: Duration = Duration::from_millis(50);

/// How many times its limit the WAL may grow before the writer waits for readers.
const PATIENCE: u64 = 2;

/// The longest wait for readers, during which writes wait too.
const RESET_WAIT: Duration = Duration::from_millis(10);

/// Bytes that a frame adds to its page.
const FRAME_HEADER: u64 = 24;

pub(crate) struct Checkpointer {
    limit_bytes: u64,
    /// The size at which a checkpoint is due now (K3).
    due_bytes: u64,
    last: Option<Instant>,
    page_bytes: u64,
    /// Frames in the WAL when the next attempt is due; 0: at the limit.
    due_at_frames: u64,
    /// Of this transaction: the row changes counted before it, and the frames.
    changes_before: u64,
    frames_before: u64,
    /// Frames per changed row: the most, fading; an unknown workload is taken for one page each.
    frames_per_change: f64,
}

impl Checkpointer {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            limit_bytes: config.checkpoint_wal_bytes,
            due_bytes: config.checkpoint_wal_bytes.min(SMALL),
            last: None,
            page_bytes: 0,
            due_at_frames: 0,
            changes_before: 0,
            frames_before: 0,
            frames_per_change: 1.0,
        }
    }

    fn frames(tx: &Transaction) -> u64 {
        u64::from(tx.link.guard.wal_frames.load(Ordering::Relaxed))
    }

    pub(crate) fn begin(&mut self, tx: &Transaction) {
        self.changes_before = tx.link.session.conn().total_changes();
        self.frames_before = Self::frames(tx);
    }

    /// The bytes that this transaction will probably add to the WAL.
    pub(crate) fn estimate(&self, tx: &Transaction) -> u64 {
        let changes = tx.link.session.conn().total_changes() - self.changes_before;
        (changes as f64 * self.frames_per_change) as u64 * self.page_bytes.max(4096)
    }

    pub(crate) fn committed(&mut self, tx: &Transaction) {
        let changes = tx.link.session.conn().total_changes() - self.changes_before;
        let frames = Self::frames(tx);
        // Fewer frames than before: the WAL started over.
        let added = frames.checked_sub(self.frames_before).unwrap_or(frames);
        if changes > 0 {
            let this = added as f64 / changes as f64;
            // Up at once, so that the ceiling holds from the second batch on; down slowly.
            let step = if this > self.frames_per_change { 1.0 } else { 1.0 / 16.0 };
            self.frames_per_change += (this - self.frames_per_change) * step;
        }
        if frames < self.frames_before {
            self.due_at_frames = 0;
        }
    }

    /// Checkpoints if it is due.
    pub(crate) fn between_batches(&mut self, tx: &Transaction) {
        // Without a name, the PRAGMA below takes the attached files too.
        let attached = tx.link.guard.attached_wal_frames.load(Ordering::Relaxed);
        let frames = Self::frames(tx).max(u64::from(attached));
        if frames == 0 {
            return;
        }
        if self.page_bytes == 0 {
            let conn = tx.link.session.conn();
            let size = conn.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0));
            self.page_bytes = u64::from(size.unwrap_or(4096));
        }
        let frame_bytes = self.page_bytes + FRAME_HEADER;
        let due = self.due_bytes / frame_bytes;
        if frames < due.max(self.due_at_frames).max(1) {
            return;
        }
        let began = now();
        if self.last.replace(began).is_some_and(|last| began - last < OFTEN) {
            self.due_bytes = (self.due_bytes * 2).min(self.limit_bytes);
        }
        let wait = frames >= (self.limit_bytes / frame_bytes).max(1) * PATIENCE;
        tx.link.guard.lock_wait.set_end(Some(if wait { now() + RESET_WAIT } else { now() }));
        let mode = if wait { "RESTART" } else { "PASSIVE" };
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        let done = tx.link.session.conn().query_row(&sql, [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        tx.link.guard.lock_wait.set_end(None);
        tx.link.guard.attached_wal_frames.store(0, Ordering::Relaxed);
        // K2. A passive checkpoint reports no contention; what counts is whether all was copied.
        let complete = matches!(done, Ok((_, log, copied)) if log == copied);
        self.due_at_frames = frames + if complete { due / 2 } else { due / 4 };
    }
}
