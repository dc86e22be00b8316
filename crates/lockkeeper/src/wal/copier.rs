//! The copier: copies the WAL back into the file while the writer goes on.
//!
//! A checkpoint copies pages and then lets the WAL start over. Copying takes milliseconds and blocks no call. So the
//! copier does it, on a thread and a connection of its own, with passive checkpoints, which neither wait nor make
//! others wait. Then the writer only has to copy the few pages that were committed meanwhile, between two batches
//! (`checkpoint.rs`).
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | idle | no checkpoint runs here; the last answer, if any, waits to be fetched | `ask`, `Drop` |
//! | busy | the thread copies, or is about to; it may have SQLite's checkpoint lock | the thread, with an answer |
//! | gone | the thread has ended or is about to; the writer copies everything itself | never |
//!
//! - COPY1: only the writer's thread asks the copier, and never while a copy is under way. When the writer needs the
//!   checkpoint lock, it waits for the end of the copy (`wait_idle`), which depends only on the disk.
//! - COPY2: copying beside commits is safe in versions of SQLite without the WAL-reset bug; `sqlite/preflight.rs`
//!   refuses the others.
//! - COPY3: the connection is closed before the writer's, so that the writer's is the last one.
//! - COPY4: however the thread ends, it sets `Gone`, so the writer does not wait for ever. Without a copier checkpoints
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
    /// Notified when the state changes. The copier's thread waits for a request, and the writer for the request's end.
    changed: Condvar,
}

/// What the copier is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The copier may be asked. Holds the answer to the last request until the writer fetches it: how many frames of
    /// the WAL are in the file. `None`: there is no answer to fetch.
    Idle(Option<u64>),
    /// The copier was asked and has not answered yet.
    Busy,
    /// The copier cannot be used any more.
    Gone,
}

impl Copier {
    /// Starts the thread, which opens its connection at the first request.
    pub(crate) fn start(core: &Arc<Core>) -> std::io::Result<Self> {
        let state = Mutex::new(Progress::Idle(None));
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let (on_thread, core) = (Gone(Arc::clone(&shared)), Arc::clone(core));
        let name = String::from("lockkeeper-copy");
        let thread =
            std::thread::Builder::new().name(name).spawn(move || serve(&on_thread.0, &core))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Asks the thread to copy all frames that readers permit. Call it when the copier is idle (COPY1).
    pub(crate) fn ask(&self) {
        let mut state = lock(&self.shared.state);
        if *state != Progress::Gone {
            *state = Progress::Busy;
        }
        drop(state);
        self.shared.changed.notify_all();
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
    pub(crate) fn wait_idle(&self) {
        let mut state = lock(&self.shared.state);
        // COPY4: the wait also ends when the thread ends.
        while *state == Progress::Busy {
            state = wait(&self.shared.changed, state);
        }
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.wait_idle();
        *lock(&self.shared.state) = Progress::Gone;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // COPY3. The panic hook has reported a panic of the thread.
            let _ = thread.join();
        }
    }
}

/// Sets `Gone` when the thread ends, also by a panic (COPY4).
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        *lock(&self.0.state) = Progress::Gone;
        self.0.changed.notify_all();
    }
}

fn serve(shared: &Shared, core: &Core) {
    // A caller's `setup` may run here. If it submits to the writer, it gets `Nested` instead of waiting. If it waits
    // for another database, the writer may wait for this thread. So the detection of circles treats this thread as a
    // worker of the writer's queue.
    let _frame = Frame::of_worker(core.domain, core.writer.worker_set());
    if let Some(on_start) = &core.config.on_thread_start {
        (on_start.f)();
    }
    let mut conn = None;
    loop {
        let mut state = lock(&shared.state);
        while matches!(*state, Progress::Idle(_)) {
            state = wait(&shared.changed, state);
        }
        if *state == Progress::Gone {
            return;
        }
        drop(state);
        if conn.is_none() {
            match core.opener.open(Role::Copier) {
                Ok(open) => conn = Some(open),
                // For example, no file descriptors are left. The thread ends, and the writer does without the copier.
                Err(_error) => {
                    #[cfg(feature = "tracing")]
                    tracing::warn!(target: "lockkeeper", error = %_error, "no connection to copy the WAL");
                    return;
                }
            }
        }
        let answer = conn.as_ref().and_then(|conn| copy(conn, core));
        *lock(&shared.state) = Progress::Idle(answer);
        shared.changed.notify_all();
    }
}

/// Runs one passive checkpoint of the main file. Returns how many frames of the WAL are in the file now. `None`: the
/// checkpoint failed, or another process has the checkpoint lock.
fn copy(conn: &Snapshot, core: &Core) -> Option<u64> {
    core.opener.file.check().ok()?;
    let began = now();
    let sql = "PRAGMA main.wal_checkpoint(PASSIVE)";
    let done = conn.link.session.conn().query_row(sql, [], |row| {
        // Column 1, which is not needed here, is the number of frames in the WAL.
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(2)?))
    });
    core.meters.checkpoint_copy.record_time(now() - began);
    match done {
        Ok((0, copied)) => u64::try_from(copied).ok(),
        _ => None,
    }
}
