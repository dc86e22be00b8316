//! Commits of other processes: while there are subscribers, the clock regularly asks the writer to check for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::item::WriterItem;
use crate::changes::feed::Feed;
use crate::queue::{self, Alarm, Clock, Queue};
use crate::sync::{Mutex, lock};

/// The shortest time between two checks.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Sets an alarm for each check, as long as there are subscribers.
pub(crate) struct ForeignCommits {
    /// `None`: no other process can commit, or the caller has switched the checks off.
    interval: Option<Duration>,
    feed: Arc<Feed>,
    writer: Arc<Queue<WriterItem>>,
    clock: Arc<Clock>,
    /// Whether an alarm is set.
    on: AtomicBool,
    next: Mutex<Option<Alarm>>,
}

impl ForeignCommits {
    pub(crate) fn new(
        interval: Option<Duration>,
        feed: Arc<Feed>,
        writer: Arc<Queue<WriterItem>>,
        clock: Arc<Clock>,
    ) -> Arc<Self> {
        let interval = interval.map(|interval| interval.max(INTERVAL_MIN));
        let (on, next) = (AtomicBool::new(false), Mutex::new(None));
        Arc::new(Self { interval, feed, writer, clock, on, next })
    }

    /// Starts the checks, unless they are under way. The checks end when there are no subscribers.
    pub(crate) fn keep_looking(self: &Arc<Self>) {
        if let Some(interval) = self.interval
            && !self.on.load(Ordering::Relaxed)
            && !self.on.swap(true, Ordering::SeqCst)
        {
            self.look_after(interval);
        }
    }

    fn look_after(self: &Arc<Self>, interval: Duration) {
        let look = move |this: &Arc<Self>| this.look_now(interval);
        let alarm = self.clock.set_for(self, queue::after(interval), look);
        let before = lock(&self.next).replace(alarm);
        drop(before);
    }

    fn look_now(self: &Arc<Self>, interval: Duration) {
        if !self.feed.is_watched() {
            self.on.store(false, Ordering::SeqCst);
            // A new subscriber may have read `on` as true before it was cleared, and so not have started the checks.
            if self.feed.is_watched() {
                self.keep_looking();
            }
            return;
        }
        // A refusal means that such an errand waits already, or that the database is closing.
        let _ = self.writer.push_errand(WriterItem::Maintain);
        self.look_after(interval);
    }
}
