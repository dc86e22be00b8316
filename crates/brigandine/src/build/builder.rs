//! The handle on the builder: what it is told, and how it is woken, asked and ended.

use crate::model::BuildId;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, broadcast, watch};

/// What the builder is told.
#[derive(Debug, Clone)]
pub(crate) struct BuilderSettings {
    /// Builds at once.
    pub(crate) max_jobs: usize,
    /// What can be built here.
    pub(crate) systems: Vec<String>,
    /// Who is said to have built it.
    pub(crate) worker: String,
    /// Unless the job says otherwise.
    pub(crate) timeout: Duration,
    /// Unless the job says otherwise.
    pub(crate) max_silent: Duration,
    /// Before a build is started again whose worker vanished; four times as long after each further time.
    pub(crate) loss_pause: Duration,
}

/// How the builder is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It goes on.
    No,
    /// Starts nothing more and lets running builds end.
    Drain,
    /// Starts nothing more and cuts running builds, which are scheduled again.
    Now,
}

/// A handle on the builder's loop.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) wake: Notify,
    /// Raised by each wake; `idle` follows when all that was ready then is done.
    pub(super) wanted: AtomicU64,
    pub(super) idle: watch::Sender<u64>,
    pub(super) stop: watch::Sender<Stop>,
    /// Builds that somebody wants canceled while they run. Guard: the mutex. Bounded by the number
    /// of running builds: entries go with the end of their build.
    pub(super) cancel: Mutex<HashSet<(BuildId, i64)>>,
    pub(super) started: broadcast::Sender<(BuildId, Instant)>,
}

impl Builder {
    /// A builder whose loop does not run yet.
    pub(crate) fn new() -> Self {
        let shared = Shared {
            wake: Notify::new(),
            wanted: AtomicU64::new(1),
            idle: watch::Sender::new(0),
            stop: watch::Sender::new(Stop::No),
            cancel: Mutex::default(),
            started: broadcast::Sender::new(1024),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Something was registered: look at the queue.
    pub(crate) fn wake(&self) {
        // Read by the loop before it asks the queue, so what is committed before this is seen.
        self.shared.wanted.fetch_add(1, Ordering::SeqCst);
        self.shared.wake.notify_one();
    }

    /// Waits until nothing runs and nothing that was registered before this call can be started.
    pub(crate) async fn wait_idle(&self) {
        self.wake();
        let wanted = self.shared.wanted.load(Ordering::SeqCst);
        let mut idle = self.shared.idle.subscribe();
        // The sender lives in `shared`, so this cannot fail.
        let _ = idle.wait_for(|idle| *idle >= wanted).await;
    }

    /// Asks the loop to end.
    pub(crate) fn stop(&self, how: Stop) {
        self.shared.stop.send_replace(how);
    }

    /// Asks for the end of a running start of a build.
    pub(crate) fn cancel_running(&self, id: BuildId, attempt: i64) {
        self.cancel_set().insert((id, attempt));
        self.shared.wake.notify_one();
    }

    /// Tells when processes start; for measurements.
    pub(crate) fn starts(&self) -> broadcast::Receiver<(BuildId, Instant)> {
        self.shared.started.subscribe()
    }

    pub(super) fn cancel_set(&self) -> std::sync::MutexGuard<'_, HashSet<(BuildId, i64)>> {
        self.shared.cancel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
