//! When the WAL is folded back into the file.
//!
//! SQLite's automatic checkpoint runs inside the COMMIT that crosses its limit: one of the writes
//! pays for it. It is off on every connection (<https://www.sqlite.org/wal.html#ckpt>). Instead the
//! pages are copied beside the writer (`copier.rs`), and what is left to do is done by the writer
//! between two batches, after it has answered the last one.
//!
//! - CKPT1: the writer's thread decides. While a WAL that is due holds more than [`SHARE`] that is not in
//!   the file, it has the copier copy, and goes on; then it copies the rest itself, so that the next
//!   commit can start the WAL over. The copier is asked [`COPIES_MAX`] times at most, since it may
//!   lose the race, and never for attached files, which it does not know. The two never checkpoint at
//!   the same time.
//! - CKPT2: a passive checkpoint never waits. It may leave frames that a reader still needs; then
//!   the next attempt waits for another share of the limit.
//! - CKPT3: the size that makes a checkpoint due begins at [`SMALL`] and doubles, up to the configured
//!   limit, while checkpoints are less than [`OFTEN`] apart. A small WAL is written over and over
//!   in place, which a file system syncs twice as fast as a growing file; a large one folds more
//!   versions of a page into one copy, which pays under load.
//! - CKPT4: when readers that overlap have kept the WAL from starting over until it has grown to
//!   [`WAIT_FACTOR`] times its limit, the writer waits for them once per share, [`RESET_WAIT`] at most.
//! - CKPT5: no batch begins while the WAL is at its cap, unless it is pinned by a reader that cannot be
//!   ended here. The writer waits for the readers; has held snapshots and reads older than [`CUT_AGE`] end
//!   with `SnapshotExpired`; and, once every frame is copied, so that new readers need nothing of the
//!   WAL, does so again. It waits [`CUT_WAIT`] at most for each. So the WAL is never larger than its
//!   cap and one batch. What is left to pin it is another process, or a closure that waits outside
//!   SQLite: that is counted, and the next attempt waits until the WAL has grown by another cap.
//! - CKPT6: a backup is neither cut, since it has to end under any load, nor waited for: while one
//!   runs the WAL may pass its cap, by what is written meanwhile. That is counted, too. When it has
//!   ended, the writer is told to look, so that the WAL is folded back also if there are no more writes.
//! - CKPT7: what is remembered of the WAL is remembered of one generation of it, told by its salts, and
//!   forgotten when they are others: a WAL that starts over may have as many frames as before, or more.
//!   They are read, 8 bytes of a header that is in memory, whenever the WAL is large enough for
//!   anything to be decided.
//! - CKPT8: no checkpoint of a file that is not in its place any more (`sqlite/file.rs`), but for the last: the one that
//!   brings what was answered into the file that is still open here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;

use super::copier::{Copier, Progress};
use crate::config::Config;
use crate::engine::core::Core;
use crate::ffi::{Checkpoint, WalSalts};
use crate::sqlite::transaction::Transaction;
use crate::sync::now;

/// The WAL size at which checkpoints begin; SQLite's own default of 1,000 pages.
const SMALL: u64 = 4 << 20;

/// Checkpoints closer than this make the WAL larger.
const OFTEN: Duration = Duration::from_millis(50);

/// What the writer copies itself, while the next batch waits.
const SHARE: u64 = 256 << 10;

/// How often the copier is asked before the writer copies what is left, however much it is.
const COPIES_MAX: u32 = 2;

/// How many times its limit the WAL may grow before the writer waits for readers.
const WAIT_FACTOR: (u64, u64) = (3, 2);

/// The longest wait for readers, during which writes wait too.
const RESET_WAIT: Duration = Duration::from_millis(10);

/// The age from which reads and snapshots are cut when the WAL is at its cap.
const CUT_AGE: Duration = Duration::from_millis(100);

/// The longest wait for those that were cut.
const CUT_WAIT: Duration = Duration::from_secs(1);

/// Bytes that a frame adds to its page.
const FRAME_HEADER: u64 = 24;

pub(crate) struct Checkpointer {
    limit_bytes: u64,
    cap_bytes: u64,
    /// At the cap, and pinned: frames at which to try again (CKPT5).
    drain_at_frames: u64,
    /// A backup has kept the WAL at its cap (CKPT6).
    held_by_backup: bool,
    /// The size at which a checkpoint is due now (CKPT3).
    due_bytes: u64,
    last: Option<Instant>,
    page_bytes: u64,
    /// The salts of the WAL that what follows is about (CKPT7); `None`: nothing is known of it.
    generation: Option<WalSalts>,
    /// Frames in the WAL when the next attempt is due; 0: at the limit.
    due_at_frames: u64,
    /// Of this transaction: the row changes counted before it, and the frames.
    changes_before: u64,
    frames_before: u64,
    /// Frames per changed row: the most, fading; an unknown workload is taken for one page each.
    frames_per_change: f64,
    /// Who copies beside the writer (CKPT1).
    help: Help,
    /// Frames of this WAL that are known to be in the file.
    copied: u64,
    /// Copies that this checkpoint has asked for.
    asked: u32,
    /// The WAL has started over since the copier was asked: its answer is of no use.
    outdated: bool,
}

/// Who copies beside the writer.
enum Help {
    /// The copier is not started: most databases never need it.
    Unasked,
    Running(Copier),
    /// It could not be started, or has gone.
    None,
}

impl Checkpointer {
    pub(crate) fn new(config: &Config) -> Self {
        // Below the cap there must be room to copy while the writer goes on (CKPT1, CKPT4).
        let limit_bytes = match config.wal_bytes_max {
            u64::MAX => config.checkpoint_wal_bytes,
            cap => config.checkpoint_wal_bytes.min(cap / 2),
        };
        Self {
            limit_bytes,
            cap_bytes: config.wal_bytes_max,
            drain_at_frames: 0,
            held_by_backup: false,
            due_bytes: if limit_bytes == u64::MAX { limit_bytes } else { limit_bytes.min(SMALL) },
            last: None,
            page_bytes: 0,
            generation: None,
            due_at_frames: 0,
            changes_before: 0,
            frames_before: 0,
            frames_per_change: 1.0,
            help: Help::Unasked,
            copied: 0,
            asked: 0,
            outdated: false,
        }
    }

    fn frames(tx: &Transaction) -> u64 {
        u64::from(tx.link.callbacks.wal_frames.load(Ordering::Relaxed))
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
    }

    /// CKPT7
    fn look_at_generation(&mut self, tx: &Transaction) {
        // What cannot be read cannot be written either: commits say so.
        let Some(now) = tx.link.session.wal_salts() else { return };
        if self.generation.is_some_and(|before| before != now) {
            self.started_over();
        }
        self.generation = Some(now);
    }

    fn started_over(&mut self) {
        self.generation = None;
        self.due_at_frames = 0;
        self.drain_at_frames = 0;
        self.copied = 0;
        self.asked = 0;
        self.outdated = true;
    }

    /// Waits until only the writer checkpoints: for what needs the file to itself.
    pub(crate) fn rest(&self) {
        if let Help::Running(copier) = &self.help {
            copier.rest();
        }
    }

    /// Brings the WAL into the file, as far as readers let it, and empties it.
    pub(crate) fn fold_back(&mut self, tx: &Transaction, core: &Core) {
        self.rest();
        if run(tx, core, Checkpoint::Truncate, RESET_WAIT) {
            tx.link.callbacks.wal_frames.store(0, Ordering::Relaxed);
            self.started_over();
        }
    }

    /// Ends the copier, which closes its connection.
    pub(crate) fn finish(&mut self) {
        self.help = Help::None;
    }

    /// Whether a copy is under way; takes note of what the last one did.
    fn is_copying(&mut self) -> bool {
        let Help::Running(copier) = &self.help else { return false };
        match copier.progress() {
            Progress::Busy => return true,
            Progress::Idle(Some(copied)) if !self.outdated => self.copied = copied,
            Progress::Idle(_) => {}
            Progress::Gone => self.help = Help::None,
        }
        false
    }

    /// Has the copier begin; false: there is none.
    fn ask(&mut self, core: &Arc<Core>) -> bool {
        if let Help::Unasked = self.help {
            self.help = Copier::start(core).map_or(Help::None, Help::Running);
        }
        let Help::Running(copier) = &self.help else { return false };
        self.outdated = false;
        self.asked += 1;
        copier.ask();
        true
    }

    /// Checkpoints if it is due.
    pub(crate) fn between_batches(&mut self, tx: &Transaction, core: &Arc<Core>) {
        let attached = u64::from(tx.link.callbacks.attached_wal_frames.load(Ordering::Relaxed));
        let main = Self::frames(tx);
        let frames = main.max(attached);
        if frames == 0 {
            return;
        }
        if self.page_bytes == 0 {
            let conn = tx.link.session.conn();
            let size = conn.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0));
            self.page_bytes = u64::from(size.unwrap_or(4096));
        }
        let frame_bytes = self.page_bytes + FRAME_HEADER;
        let due = (self.due_bytes / frame_bytes).max(1);
        let cap = (self.cap_bytes / frame_bytes).max(1);
        if frames >= due.min(cap) {
            self.look_at_generation(tx);
        }
        if self.held_by_backup && !core.opener.board.backup_runs() {
            // CKPT6. What was put off is due, but beside the writer: it may be many caps long.
            self.held_by_backup = false;
            self.due_at_frames = 0;
            self.drain_at_frames = frames + due;
            (self.asked, self.copied, self.outdated) = (0, 0, true);
        }
        if frames >= cap && frames >= self.drain_at_frames {
            self.keep_cap(tx, core, frames, due, cap);
            return;
        }
        if frames < due.max(self.due_at_frames) || self.is_copying() {
            return;
        }
        let began = now();
        if self.asked == 0 && self.last.replace(began).is_some_and(|last| began - last < OFTEN) {
            self.due_bytes = (self.due_bytes * 2).min(self.limit_bytes);
        }
        // CKPT1
        let share = SHARE / frame_bytes;
        if main.saturating_sub(self.copied) > share
            && attached == 0
            && self.asked < COPIES_MAX
            && self.ask(core)
        {
            return;
        }
        self.asked = 0;
        let patient = (self.limit_bytes / frame_bytes).max(1) * WAIT_FACTOR.0 / WAIT_FACTOR.1;
        // Without a name, the PRAGMA takes the attached files too.
        let restart = frames >= patient;
        let complete = match restart {
            true => run(tx, core, Checkpoint::Restart, RESET_WAIT),
            // Nothing was committed after the copy.
            false if attached == 0 && self.copied >= main => true,
            false => run(tx, core, Checkpoint::Passive, Duration::ZERO),
        };
        if complete && restart {
            return self.started_over();
        }
        if complete {
            self.copied = main;
        }
        self.due_at_frames = frames + if complete { due / 2 } else { due / 4 };
    }

    /// The WAL has reached its cap.
    fn keep_cap(&mut self, tx: &Transaction, core: &Arc<Core>, frames: u64, due: u64, cap: u64) {
        if core.opener.board.backup_runs() {
            // CKPT6
            if !self.is_copying() && !self.ask(core) {
                run(tx, core, Checkpoint::Passive, Duration::ZERO);
            }
            self.asked = 0;
            over_max(core);
            self.drain_at_frames = frames + due;
            self.held_by_backup = true;
            return;
        }
        // CKPT5. The checkpoint lock must be free, and the copy is short beside what may follow.
        self.rest();
        match drain(tx, core) {
            true => self.started_over(),
            // Another process, or a closure that waits for something, may be what pins it.
            false => self.drain_at_frames = frames + cap,
        }
    }
}

/// CKPT8: the file was replaced, or its WAL; brings what was answered into the file that this process has open, so
/// that it is whole if it was only moved, and so that the WAL is not taken for one of the file that is in its
/// place now. To be called when no copy is under way.
pub(crate) fn let_go(tx: &Transaction, core: &Core) {
    if core.opener.file.has_wal_to_itself() {
        checkpoint(tx, core, Checkpoint::Truncate, RESET_WAIT);
    }
    // When it is closed, SQLite would delete the WAL by its name, which may be another's by now.
    let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    let _ = tx.link.session.conn().set_db_config(keep, true);
}

/// CKPT5: empties the WAL, whatever it takes within reason; false: it is still pinned.
fn drain(tx: &Transaction, core: &Core) -> bool {
    // Reads that overlap: each ends soon.
    if run(tx, core, Checkpoint::Restart, RESET_WAIT) {
        return true;
    }
    // Those that read an older state keep frames from being copied.
    let copied = [CUT_AGE, CUT_WAIT].into_iter().any(|wait| {
        core.cut_readers(CUT_AGE);
        run(tx, core, Checkpoint::Full, wait)
    });
    if copied {
        // Readers that begin from now on read the file alone. Those that began before need frames of
        // the WAL; none of them is younger than `CUT_AGE` when the second wait is over.
        if run(tx, core, Checkpoint::Restart, RESET_WAIT)
            || run(tx, core, Checkpoint::Restart, CUT_AGE)
        {
            return true;
        }
        core.cut_readers(CUT_AGE);
        if run(tx, core, Checkpoint::Restart, CUT_WAIT) {
            return true;
        }
    }
    over_max(core);
    false
}

/// The WAL stays at its maximum: counts that, and tells who pins it.
fn over_max(core: &Core) {
    core.meters.wal_over_max.fetch_add(1, Ordering::Relaxed);
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "lockkeeper",
        "the WAL is at its maximum and pinned by {}",
        core.opener.board.oldest_reader().map_or_else(
            || String::from("another process, or a connection outside the library"),
            |holder| holder.to_string()
        )
    );
}

/// Runs one checkpoint that waits for others for `wait` at most; whether all was copied and, after a
/// restart, no reader uses the WAL any more.
fn run(tx: &Transaction, core: &Core, mode: Checkpoint, wait: Duration) -> bool {
    if core.opener.file.check().is_err() {
        // The next call is told. What is to become of the WAL is decided by `let_go`.
        return false;
    }
    checkpoint(tx, core, mode, wait)
}

fn checkpoint(tx: &Transaction, core: &Core, mode: Checkpoint, wait: Duration) -> bool {
    let callbacks = &tx.link.callbacks;
    let began = now();
    callbacks.lock_wait.set_end(Some(began + wait));
    let done = tx.link.session.checkpoint(mode);
    callbacks.lock_wait.set_end(None);
    callbacks.attached_wal_frames.store(0, Ordering::Relaxed);
    // CKPT2. A passive checkpoint reports no contention; what counts is whether all was copied.
    let complete = done.unwrap_or(false);
    if complete && mode == Checkpoint::Restart {
        // The next commit starts the WAL over; until then there is nothing more to do.
        callbacks.wal_frames.store(0, Ordering::Relaxed);
    }
    core.meters.checkpoint.record_time(now() - began);
    if !complete {
        core.meters.checkpoints_incomplete.fetch_add(1, Ordering::Relaxed);
    }
    complete
}
