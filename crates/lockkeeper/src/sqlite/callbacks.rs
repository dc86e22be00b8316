//! The state that a connection's callbacks share with its owner.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use super::counters::Counters;
use super::flag::Flag;
use super::lock_wait::LockWait;
use super::temporary::TempSchema;
use crate::changes::interest::Reads;
use crate::changes::recorder::Recorder;
use crate::ffi::Watcher;
use crate::queue::Wakeups;
use crate::stats::holders::Slot;
use crate::sync::{Mutex, lock};

/// What the authorizer lets through (`authorizer.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Access {
    /// For the library's own statements and `setup`: everything.
    Open,
    /// For calls: no transaction control, no ATTACH, and no PRAGMA whose effect outlives the call.
    Call,
    /// For exclusive calls: everything except settings of the whole process, which the library could not restore.
    Exclusive,
}

/// What the authorizer of a connection lets through now.
#[derive(Debug)]
pub(super) struct AtomicAccess(AtomicU8);

impl AtomicAccess {
    pub(super) fn get(&self) -> Access {
        /// All values, in the order of their discriminants.
        const ALL: [Access; 3] = [Access::Open, Access::Call, Access::Exclusive];
        ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    pub(super) fn set(&self, access: Access) {
        self.0.store(access as u8, Ordering::Relaxed);
    }
}

/// Shared between a connection's callbacks and its owner. SQLite calls the callbacks on the owner's thread. Atomics and
/// locks are used only because the callbacks must be `Send`; so every access is relaxed, and no lock is contended.
#[derive(Debug)]
pub(crate) struct Callbacks {
    pub(super) access: AtomicAccess,
    /// The running call prepared `PRAGMA defer_foreign_keys`, which holds until the COMMIT.
    pub(super) deferred_keys: Flag,
    /// Which schemas the running call may have changed.
    pub(crate) temp_schema: TempSchema,
    /// The values of the connection's row counters when the running call began.
    pub(crate) counters: Arc<Counters>,
    /// Frames in the WAL after the last commit on this connection.
    pub(crate) wal_frames: AtomicU32,
    /// The largest number of frames in the WAL of an attached file since the last checkpoint.
    pub(crate) attached_wal_frames: AtomicU32,
    pub(crate) lock_wait: LockWait,
    /// Records what the running call changes, while the change feed has subscribers.
    pub(crate) recorder: Arc<Recorder>,
    /// What the running call has read while `noting_reads` was set; a live query sets it.
    pub(super) reads: Mutex<Reads>,
    pub(super) noting_reads: Flag,
    /// Which call uses this connection.
    pub(crate) slot: Arc<Slot>,
    /// The database's callers that were answered and are still to be woken.
    pub(crate) wakeups: Arc<Wakeups>,
    /// `wakeups` may hold callers that were answered before the running call began.
    pub(crate) answered_before: AtomicBool,
}

impl Callbacks {
    pub(super) fn new(wakeups: Arc<Wakeups>, busy_timeout: Duration) -> Self {
        let slot = Arc::new(Slot::default());
        Self {
            access: AtomicAccess(AtomicU8::new(Access::Open as u8)),
            deferred_keys: Flag::default(),
            temp_schema: TempSchema::default(),
            counters: Arc::default(),
            wal_frames: AtomicU32::new(0),
            attached_wal_frames: AtomicU32::new(0),
            lock_wait: LockWait::new(busy_timeout, Arc::clone(&slot)),
            recorder: Arc::new(Recorder::default()),
            reads: Mutex::default(),
            noting_reads: Flag::default(),
            slot,
            wakeups,
            answered_before: AtomicBool::new(false),
        }
    }

    /// Wakes the callers that were answered before the running call began, because this call takes long. Does so once
    /// per call.
    pub(crate) fn release_answered(&self) {
        if self.answered_before.swap(false, Ordering::Relaxed) {
            self.wakeups.wake_all();
        }
    }

    /// Begins or ends noting what is read; returns what was noted until now.
    pub(crate) fn note_reads(&self, begin: bool) -> Reads {
        self.noting_reads.set(begin);
        std::mem::take(&mut lock(&self.reads))
    }

    /// Notes that a table is read without a statement; if `table` is `None`, that the schema is read.
    pub(crate) fn note_direct_read(&self, schema: &str, table: Option<&str>) {
        if !self.noting_reads.get() {
            return;
        }
        let mut reads = lock(&self.reads);
        match table {
            None => reads.anything = true,
            Some(table) => reads.note(schema, table),
        }
    }
}

impl Watcher for Callbacks {
    /// Sleeps for a moment; true: try again.
    fn wait_for_lock(&self, attempt: i32) -> bool {
        if attempt == 0 {
            // INTR3
            self.release_answered();
            self.lock_wait.begin();
        }
        self.lock_wait.nap(attempt)
    }

    fn committed(&self, schema: &CStr, frames: i32) {
        let frames = u32::try_from(frames).unwrap_or(0);
        match schema == c"main" {
            true => self.wal_frames.store(frames, Ordering::Relaxed),
            false => _ = self.attached_wal_frames.fetch_max(frames, Ordering::Relaxed),
        }
    }
}
