//! The handle on the builder's loop: the settings, and how to wake and stop the loop.

use super::end::Running;
use crate::measure::Meters;
use crate::model::{BuildId, Changed, Live};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, broadcast, watch};

/// The settings of the builder.
#[derive(Debug, Clone)]
pub(crate) struct BuilderSettings {
    /// The most builds that run at the same time.
    pub(crate) max_jobs: Live<usize>,
    /// The systems for which the server builds.
    pub(crate) systems: Vec<String>,
    /// The name of this machine in the builds' attempts.
    pub(crate) worker: String,
    /// The time limit for jobs that name none.
    pub(crate) timeout: Live<Duration>,
    /// The limit on the time without output, for jobs that name none.
    pub(crate) max_silent: Live<Duration>,
    /// The pause before a lost build is started again; each further pause is four times as long.
    pub(crate) loss_pause: Duration,
}

/// How the builder is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// The builder goes on.
    No,
    /// It starts nothing more and lets running builds end.
    Drain,
    /// It starts nothing more and ends running builds, which are scheduled again.
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
    /// Incremented by each wake. The loop sets `idle` to this number when all builds that were ready at that wake have
    /// ended.
    pub(super) wanted: AtomicU64,
    pub(super) idle: watch::Sender<u64>,
    pub(super) stop: watch::Sender<Stop>,
    /// Running attempts that are to be canceled. Guard: the mutex. Bounded by the running builds, because the end of a
    /// build removes its entry.
    pub(super) cancel: Mutex<HashSet<(BuildId, i64)>>,
    pub(super) started: broadcast::Sender<(BuildId, Instant)>,
    /// The number of builds that run, from their claim to the commit of their end. Only the loop sets it.
    pub(super) running: AtomicUsize,
    /// Becomes true when the loop has ended without an error.
    pub(super) ended: watch::Sender<bool>,
    pub(super) meters: Arc<Meters>,
}

impl Builder {
    /// A builder whose loop does not run yet. It counts the ends of builds in `meters`.
    pub(crate) fn new(meters: Arc<Meters>) -> Self {
        let shared = Shared {
            wake: Notify::new(),
            wanted: AtomicU64::new(1),
            idle: watch::Sender::new(0),
            stop: watch::Sender::new(Stop::No),
            cancel: Mutex::default(),
            started: broadcast::Sender::new(1024),
            running: AtomicUsize::new(0),
            ended: watch::Sender::new(false),
            meters,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Tells the loop that builds may be ready.
    pub(crate) fn wake(&self) {
        // The loop reads this number before it claims builds, so it finds the builds that were committed before this
        // call.
        self.shared.wanted.fetch_add(1, Ordering::SeqCst);
        self.shared.wake.notify_one();
    }

    /// Waits until nothing runs, and no build that was registered before this call can be started.
    pub(crate) async fn wait_idle(&self) {
        self.wake();
        let wanted = self.shared.wanted.load(Ordering::SeqCst);
        let mut idle = self.shared.idle.subscribe();
        // The sender lives in `shared`, so this cannot fail.
        let _ = idle.wait_for(|idle| *idle >= wanted).await;
    }

    /// Asks the loop to end. A drain does not undo [`Stop::Now`].
    pub(crate) fn stop(&self, how: Stop) {
        self.shared.stop.send_if_modified(|stop| {
            let is_more = how > *stop;
            *stop = how.max(*stop);
            is_more
        });
    }

    /// Waits until the loop has ended without an error.
    pub(crate) async fn wait_end(&self) {
        // The sender lives in `shared`, so this cannot fail.
        let _ = self.shared.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// The number of builds that run.
    pub(crate) fn running(&self) -> usize {
        self.shared.running.load(Ordering::Relaxed)
    }

    /// Asks a running attempt to end.
    pub(crate) fn cancel_running(&self, id: BuildId, attempt: i64) {
        self.cancel_set().insert((id, attempt));
        self.shared.wake.notify_one();
    }

    /// Reports when the processes of builds start, for measurements.
    pub(crate) fn starts(&self) -> broadcast::Receiver<(BuildId, Instant)> {
        self.shared.started.subscribe()
    }

    /// Counts builds that have a new status, after the commit. `finished` is the one whose attempt has ended them.
    pub(super) fn count(&self, changed: &[Changed], finished: Option<&Running>) {
        let meters = &self.shared.meters;
        meters.builds_changed(changed);
        if let Some(finished) = finished.filter(|_| !changed.is_empty()) {
            meters.build_times.record(finished.started.1.elapsed());
        }
    }

    pub(super) fn cancel_set(&self) -> std::sync::MutexGuard<'_, HashSet<(BuildId, i64)>> {
        self.shared.cancel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
