//! When the WAL is checkpointed, that is, copied back into the file.
//!
//! SQLite's automatic checkpoint runs inside the COMMIT that crosses its limit, at the expense of one of the writes. It
//! is switched off on every connection (<https://www.sqlite.org/wal.html#ckpt>). Instead the copier copies the pages
//! beside the writer (`copier.rs`), and the writer does the rest between two batches, after it has answered the calls
//! of the last batch.
//!
//! - CKPT1: the writer's thread decides. When a checkpoint is due and more than [`SHARE`] of the WAL is not in the file
//!   yet, the writer asks the copier to copy it, and goes on with its batches. Then the writer copies the rest itself,
//!   so that the next commit can start the WAL over. It asks the copier at most [`COPIES_MAX`] times, since commits may
//!   outrun the copier, and never for attached files, which the copier does not have open. The writer and the copier
//!   never checkpoint at the same time.
//! - CKPT2: a passive checkpoint never waits. It may leave frames that a reader still needs. Then the next attempt is
//!   due when the WAL has grown by another quarter of the size that makes a checkpoint due.
//! - CKPT3: the size that makes a checkpoint due begins at [`SMALL`] and doubles, up to the configured limit, while
//!   checkpoints are less than [`OFTEN`] apart. A small WAL is written over and over in place, which a file system
//!   syncs twice as fast as a growing file. With a large WAL, a page that has changed several times is copied only
//!   once, which pays under load.
//! - CKPT4: when overlapping readers have kept the WAL from starting over until it has grown to [`WAIT_FACTOR`] times
//!   its limit, the writer waits for them at each attempt, for at most [`RESET_WAIT`].
//! - CKPT5: no batch begins while the WAL is at its cap, unless a reader that the writer cannot end pins the WAL. The
//!   writer waits for the readers, then ends held snapshots and reads older than [`CUT_AGE`] with `SnapshotExpired`.
//!   When all frames are copied, new readers need none of the WAL, and the writer ends the older readers once more. It
//!   waits for at most [`CUT_WAIT`] each time. So the WAL exceeds its cap by one batch at most. If another process, or
//!   a closure that waits outside SQLite, still pins the WAL, the writer counts that and tries again when the WAL has
//!   grown by another cap.
//! - CKPT6: the writer does not end a backup, because a backup must succeed under any load, and does not wait for it.
//!   So while a backup runs the WAL may pass its cap, which is counted too. When the backup has ended, an errand makes
//!   the writer checkpoint, even if there are no more writes.
//! - CKPT7: the fields about the WAL apply to one generation of the WAL, which its salts identify. When the salts
//!   change, the fields are reset. The number of frames would not tell, because a WAL that has started over may have as
//!   many frames as before. The salts are 8 bytes of the WAL's header, which are read from the file whenever the WAL is
//!   large enough for a decision.
//! - CKPT8: if the file or its WAL is no longer in its place (`sqlite/file.rs`), the writer makes one last checkpoint,
//!   which writes the answered calls into the file that is still open here; see [`abandon`].

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

/// The WAL size at which checkpoints begin, in bytes: about SQLite's own default of 1,000 pages.
const SMALL: u64 = 4 << 20;

/// If two checkpoints are closer than this, the size that makes one due doubles.
const OFTEN: Duration = Duration::from_millis(50);

/// The most bytes that the writer copies itself while the next batch waits (CKPT1).
const SHARE: u64 = 256 << 10;

/// How often the copier is asked for one checkpoint. After that the writer copies the rest, of whatever size.
const COPIES_MAX: u32 = 2;

/// The writer waits for readers when the WAL has grown to this many times its limit; a fraction.
const WAIT_FACTOR: (u64, u64) = (3, 2);

/// The longest wait for readers, during which writes wait too.
const RESET_WAIT: Duration = Duration::from_millis(10);

/// Reads and held snapshots that are older than this are ended when the WAL is at its cap.
const CUT_AGE: Duration = Duration::from_millis(100);

/// The longest wait for reads and snapshots that were ended.
const CUT_WAIT: Duration = Duration::from_secs(1);

/// Bytes that a frame adds to its page.
const FRAME_HEADER: u64 = 24;

pub(crate) struct Checkpointer {
    limit_bytes: u64,
    cap_bytes: u64,
    /// The number of frames at which the writer tries again to empty a WAL that stays at its cap (CKPT5, CKPT6); 0: it
    /// tries as soon as the WAL has reached the cap.
    drain_at_frames: u64,
    /// Whether a backup has kept the WAL at its cap (CKPT6).
    held_by_backup: bool,
    /// The size at which a checkpoint is due now, in bytes (CKPT3).
    due_bytes: u64,
    last: Option<Instant>,
    page_bytes: u64,
    /// The salts of the WAL to which the following fields apply (CKPT7). `None`: not read yet.
    generation: Option<WalSalts>,
    /// The number of frames at which the next attempt is due; 0: `due_bytes` alone decides.
    due_at_frames: u64,
    /// The row changes before the present transaction.
    changes_before: u64,
    /// The frames in the WAL before the present transaction.
    frames_before: u64,
    /// An estimate of the frames per changed row. Begins at one frame per row, rises immediately, falls slowly.
    frames_per_change: f64,
    /// The copier (CKPT1).
    copier: CopierState,
    /// Frames of this WAL that the copier has copied to the file.
    copied: u64,
    /// How often the copier was asked for the present checkpoint.
    asked: u32,
    /// Whether the WAL has started over since the copier was asked, so that the copier's answer does not apply.
    outdated: bool,
}

/// The copier, which copies beside the writer.
enum CopierState {
    /// The copier was not needed yet. Most databases never need it.
    NotStarted,
    Running(Copier),
    /// The copier could not be started, or its thread has ended.
    Unavailable,
}

impl Checkpointer {
    pub(crate) fn new(config: &Config) -> Self {
        // There must be room below the cap to copy while the writer goes on (CKPT1, CKPT4).
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
            copier: CopierState::NotStarted,
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

    /// An estimate of the bytes that this transaction will add to the WAL.
    pub(crate) fn estimate(&self, tx: &Transaction) -> u64 {
        let changes = tx.link.session.conn().total_changes() - self.changes_before;
        (changes as f64 * self.frames_per_change) as u64 * self.page_bytes.max(4096)
    }

    pub(crate) fn committed(&mut self, tx: &Transaction) {
        let changes = tx.link.session.conn().total_changes() - self.changes_before;
        let frames = Self::frames(tx);
        // If there are fewer frames than before, the WAL has started over.
        let added = frames.checked_sub(self.frames_before).unwrap_or(frames);
        if changes > 0 {
            let this = added as f64 / changes as f64;
            // The estimate rises immediately, so that the batch's ceiling holds from the second batch on, and falls
            // slowly.
            let step = if this > self.frames_per_change { 1.0 } else { 1.0 / 16.0 };
            self.frames_per_change += (this - self.frames_per_change) * step;
        }
    }

    /// Resets the fields about the WAL if it has started over (CKPT7).
    fn look_at_generation(&mut self, tx: &Transaction) {
        // If the salts cannot be read, commits fail and report it.
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

    /// Waits until the copier is idle. Then only the writer checkpoints until it asks the copier again.
    pub(crate) fn wait_for_copier(&self) {
        if let CopierState::Running(copier) = &self.copier {
            copier.wait_idle();
        }
    }

    /// Copies the WAL to the file, as far as readers permit, and empties it.
    pub(crate) fn fold_back(&mut self, tx: &Transaction, core: &Core) {
        self.wait_for_copier();
        if run(tx, core, Checkpoint::Truncate, RESET_WAIT) {
            tx.link.callbacks.wal_frames.store(0, Ordering::Relaxed);
            self.started_over();
        }
    }

    /// Ends the copier and closes its connection.
    pub(crate) fn finish(&mut self) {
        self.copier = CopierState::Unavailable;
    }

    /// Whether a copy is under way. Notes the result of the last copy.
    fn is_copying(&mut self) -> bool {
        let CopierState::Running(copier) = &self.copier else { return false };
        match copier.progress() {
            Progress::Busy => return true,
            Progress::Idle(Some(copied)) if !self.outdated => self.copied = copied,
            Progress::Idle(_) => {}
            Progress::Gone => self.copier = CopierState::Unavailable,
        }
        false
    }

    /// Asks the copier to begin a copy, and starts the copier if need be. `false`: the copier is not available.
    fn ask(&mut self, core: &Arc<Core>) -> bool {
        if let CopierState::NotStarted = self.copier {
            let started = Copier::start(core);
            self.copier = started.map_or(CopierState::Unavailable, CopierState::Running);
        }
        let CopierState::Running(copier) = &self.copier else { return false };
        self.outdated = false;
        self.asked += 1;
        copier.ask();
        true
    }

    /// Checkpoints if a checkpoint is due.
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
            // CKPT6. The postponed checkpoint is due. The copier makes it, because the WAL may be many times as large
            // as its cap.
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
        // The PRAGMA names no schema, so it checkpoints the attached files, too.
        let restart = frames >= patient;
        let complete = match restart {
            true => run(tx, core, Checkpoint::Restart, RESET_WAIT),
            // No call was committed since the copy, so nothing is left to copy.
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

    /// Handles a WAL that has reached its cap of `cap` frames (CKPT5, CKPT6).
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
        // CKPT5. The checkpoint lock must be free. This wait is short compared with the waits for readers.
        self.wait_for_copier();
        match drain(tx, core) {
            true => self.started_over(),
            // Another process pins the WAL, or a closure that waits outside SQLite does.
            false => self.drain_at_frames = frames + cap,
        }
    }
}

/// Writes the answered calls into the file that this process has open, when that file or its WAL was replaced (CKPT8).
/// So the open file is complete if it was only moved, and its WAL is not mistaken for a WAL of the file that is in its
/// place now. If only the index of the WAL is gone, the WAL stays as it is, for the next opener of the file. A
/// checkpoint could destroy the commits of another process that opens the file meanwhile, because the two processes
/// would lock different indexes. Call it when no copy is under way.
pub(crate) fn abandon(tx: &Transaction, core: &Core) {
    if core.opener.file.must_empty_wal() {
        checkpoint(tx, core, Checkpoint::Truncate, RESET_WAIT);
    }
    // On close, SQLite would delete the WAL by its name, which may be that of another file by now.
    let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    let _ = tx.link.session.conn().set_db_config(keep, true);
}

/// Empties the WAL, and ends readers for that if need be (CKPT5). `false`: the WAL is still pinned.
fn drain(tx: &Transaction, core: &Core) -> bool {
    // If only overlapping reads are in the way, a short wait may suffice, because each of them ends soon.
    if run(tx, core, Checkpoint::Restart, RESET_WAIT) {
        return true;
    }
    // Readers of an older state keep frames from being copied.
    let copied = [CUT_AGE, CUT_WAIT].into_iter().any(|wait| {
        core.cut_readers(CUT_AGE);
        run(tx, core, Checkpoint::Full, wait)
    });
    if copied {
        // Readers that begin from now on read only the file. Those that began before need frames of the WAL, and are
        // all older than `CUT_AGE` when the second wait is over.
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

/// Counts that the WAL stays at its maximum, and logs which reader pins it.
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

/// Runs one checkpoint, which waits for readers and other processes for at most `wait`. `true`: all frames were copied
/// and, after a restart, no reader uses the WAL any more.
fn run(tx: &Transaction, core: &Core, mode: Checkpoint, wait: Duration) -> bool {
    if core.opener.file.check().is_err() {
        // The next call gets the error. `abandon` deals with the WAL.
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
    // CKPT2. A passive checkpoint does not report contention, only whether all frames were copied.
    let complete = done.unwrap_or(false);
    if complete && mode == Checkpoint::Restart {
        // The next commit starts the WAL over. Until then there is nothing to checkpoint.
        callbacks.wal_frames.store(0, Ordering::Relaxed);
    }
    core.meters.checkpoint.record_time(now() - began);
    if !complete {
        core.meters.checkpoints_incomplete.fetch_add(1, Ordering::Relaxed);
    }
    complete
}
