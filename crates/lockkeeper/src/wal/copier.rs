//! Copies the WAL back into the file while the writer goes on.
//!
//! A checkpoint is two things: copying pages, and starting the WAL over. Copying takes milliseconds
//! and disturbs no call; it is done here, on a thread and a connection of its own, with passive
//! checkpoints, which neither wait nor make others wait. What is left for the writer is to copy the
//! few pages that were committed meanwhile, between two batches (`checkpoint.rs`).
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | resting | no checkpoint runs here; the last answer, if any, waits to be fetched | `ask`, `Drop` |
//! | asked | the thread will copy | the thread |
//! | copying | SQLite's checkpoint lock is taken | the thread, with an answer |
//! | gone | the thread has ended, or is about to: the writer does everything itself | never |
//!
//! - COPY1: only the writer's thread asks, and never while a copy is under way; where it needs the
//!   checkpoint lock it waits for the end of the copy (`rest`), which depends on the disk alone.
//! - COPY2: copying beside commits is safe with a SQLite without the WAL-reset bug; `sqlite/preflight.rs` refuses
//!   the others.
//! - COPY3: the connection is closed before the writer's, so that the writer's is the last one.
//! - COPY4: whatever ends the thread, `gone` is set, so the writer never waits for it in vain. Then checkpoints
//!   take longer, and nothing else changes.
//!
//! Lock order: `state` is taken alone. Bound: one request.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::engine::core::Core;
use crate::place::Role;
use crate::queue::Frame;
use crate::sqlite::snapshot::Snapshot;
use crate::sync::{Condvar, Mutex, lock, now, wait};

pub(crate) struct Copier {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<Progress>,
    /// Rung when the state changes; waited for by the thread (a request) and the writer (its end).
    bell: Condvar,
}

/// What the copier is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It may be asked. Until it is fetched, the answer to the last request: how many frames of the WAL are in the file.
    Idle(Option<u64>),
    /// It was asked and has not answered.
    Busy,
    /// It cannot be used any more.
    Gone,
}

impl Copier {
    /// Starts the thread; it opens its connection when it is asked first.
    pub(crate) fn start(core: &Arc<Core>) -> std::io::Result<Self> {
        let state = Mutex::new(Progress::Idle(None));
        let shared = Arc::new(Shared { state, bell: Condvar::new() });
        let (on_thread, core) = (Gone(Arc::clone(&shared)), Arc::clone(core));
        let name = String::from("lockkeeper-copy");
        let thread =
            std::thread::Builder::new().name(name).spawn(move || serve(&on_thread.0, &core))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Has everything copied that can be; to be called when it rests (COPY1).
    pub(crate) fn ask(&self) {
        let mut state = lock(&self.shared.state);
        if *state != Progress::Gone {
            *state = Progress::Busy;
        }
        drop(state);
        self.shared.bell.notify_all();
    }

    pub(crate) fn progress(&self) -> Progress {
        let mut state = lock(&self.shared.state);
        let progress = *state;
        if let Progress::Idle(_) = progress {
            *state = Progress::Idle(None);
        }
        progress
    }

    /// Waits until no copy is under way.
    pub(crate) fn rest(&self) {
        let mut state = lock(&self.shared.state);
        // COPY4: ends also when the thread does.
        while *state == Progress::Busy {
            state = wait(&self.shared.bell, state);
        }
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.rest();
        *lock(&self.shared.state) = Progress::Gone;
        self.shared.bell.notify_all();
        if let Some(thread) = self.thread.take() {
            // COPY3. The panic hook has reported what it may have died of.
            let _ = thread.join();
        }
    }
}

/// COPY4
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        *lock(&self.0.state) = Progress::Gone;
        self.0.bell.notify_all();
    }
}

fn serve(shared: &Shared, core: &Core) {
    // A caller's `setup` that runs here and submits to the writer is told so instead of waiting.
    // And while it waits for another database, the writer may wait for it.
    let _frame = Frame::of_worker(core.domain, core.writer.seats());
    if let Some(on_start) = &core.config.on_thread_start {
        (on_start.f)();
    }
    let mut conn = None;
    loop {
        let mut state = lock(&shared.state);
        while matches!(*state, Progress::Idle(_)) {
            state = wait(&shared.bell, state);
        }
        if *state == Progress::Gone {
            return;
        }
        drop(state);
        if conn.is_none() {
            match core.opener.open(Role::Copier) {
                Ok(open) => conn = Some(open),
                // No descriptors left, for example: the writer can do without.
                Err(_error) => {
                    #[cfg(feature = "tracing")]
                    tracing::warn!(target: "lockkeeper", error = %_error, "no connection to copy the WAL");
                    return;
                }
            }
        }
        let answer = conn.as_ref().and_then(|conn| copy(conn, core));
        *lock(&shared.state) = Progress::Idle(answer);
        shared.bell.notify_all();
    }
}

/// One passive checkpoint of the main file: how many frames of the WAL are in the file now; `None`: it
/// failed, or another process is at it.
fn copy(conn: &Snapshot, core: &Core) -> Option<u64> {
    core.opener.file.check().ok()?;
    let began = now();
    let sql = "PRAGMA main.wal_checkpoint(PASSIVE)";
    let done = conn.link.session.conn().query_row(sql, [], |row| {
        // The column between them: the frames that the WAL has.
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(2)?))
    });
    core.meters.checkpoint_copy.record_time(now() - began);
    match done {
        Ok((0, copied)) => u64::try_from(copied).ok(),
        _ => None,
    }
}
