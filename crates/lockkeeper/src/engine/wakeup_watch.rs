//! The clock wakes answered callers that no other caller wakes (`queue/wakeups.rs` WAKE2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::queue::{self, Alarm, Clock, WATCH_INTERVAL, Wakeups};
use crate::sync::{Mutex, lock, now};

/// Keeps an alarm set while wakers are in the batch.
pub(crate) struct WakeupWatch {
    wakeups: Arc<Wakeups>,
    clock: Arc<Clock>,
    /// Whether an alarm is set.
    on: AtomicBool,
    next: Mutex<Option<Alarm>>,
}

impl WakeupWatch {
    pub(crate) fn new(wakeups: Arc<Wakeups>, clock: Arc<Clock>) -> Arc<Self> {
        Arc::new(Self { wakeups, clock, on: AtomicBool::new(false), next: Mutex::new(None) })
    }

    /// Makes the clock check for the wakers that this thread has pushed, if they are still in the batch.
    pub(crate) fn keep(self: &Arc<Self>) {
        // If a check has missed a waker of this thread, the check took the batch's lock before the push did, and
        // cleared `on` before that. So this thread reads `on` as false.
        if self.wakeups.has_any()
            && !self.on.load(Ordering::Relaxed)
            && !self.on.swap(true, Ordering::AcqRel)
        {
            self.set_alarm();
        }
    }

    fn set_alarm(self: &Arc<Self>) {
        let alarm = self.clock.set_for(self, queue::after(WATCH_INTERVAL), Self::look);
        let before = lock(&self.next).replace(alarm);
        drop(before);
    }

    fn look(self: &Arc<Self>) {
        self.on.swap(false, Ordering::AcqRel);
        let before = now().checked_sub(WATCH_INTERVAL);
        if before.is_none_or(|before| self.wakeups.wake_older(before)) {
            self.keep();
        }
    }
}
