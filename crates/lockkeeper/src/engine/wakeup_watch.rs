//! The clock calls wakers of answered callers that are left too long (`relay.rs` U2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::queue::{self, Alarm, Clock, Mutex, lock};
use crate::relay::{LOOK, Relay};

/// Sets an alarm while wakers are left there.
pub(crate) struct WakeupWatch {
    relay: Arc<Relay>,
    clock: Arc<Clock>,
    /// An alarm is set.
    on: AtomicBool,
    next: Mutex<Option<Alarm>>,
}

impl WakeupWatch {
    pub(crate) fn new(relay: Arc<Relay>, clock: Arc<Clock>) -> Arc<Self> {
        Arc::new(Self { relay, clock, on: AtomicBool::new(false), next: Mutex::new(None) })
    }

    /// Has the clock look after the wakers that this thread has left, if they are still there.
    pub(crate) fn keep(self: &Arc<Self>) {
        // A look that misses a waker came before it was left, and lowered the flag before that:
        // both are ordered by the lock of the relay.
        if self.relay.has_any()
            && !self.on.load(Ordering::Relaxed)
            && !self.on.swap(true, Ordering::AcqRel)
        {
            self.set_alarm();
        }
    }

    fn set_alarm(self: &Arc<Self>) {
        let watch = Arc::downgrade(self);
        let alarm = self.clock.set(queue::after(LOOK), move || {
            if let Some(watch) = watch.upgrade() {
                watch.look();
            }
        });
        let before = lock(&self.next).replace(alarm);
        drop(before);
    }

    fn look(self: &Arc<Self>) {
        self.on.swap(false, Ordering::AcqRel);
        let before = queue::now().checked_sub(LOOK);
        if before.is_none_or(|before| self.relay.call_older(before)) {
            self.keep();
        }
    }
}
