//! The stops of writes that the writer has not answered yet (`client/stop.rs`).

use crate::queue::{Queue, Reply};
use crate::sync::{Mutex, lock};

use super::item::WriterItem;

/// The stops that wait for the writer. Bound: one per future that waits for a stop.
#[derive(Default)]
pub(crate) struct Stops(Mutex<Vec<Stopping>>);

/// A stop that waits for the writer.
pub(crate) struct Stopping {
    /// Calls with a smaller sequence number are served before the stop is answered.
    pub(crate) limit: u64,
    pub(crate) reply: Reply<()>,
}

impl Stops {
    pub(crate) fn add(&self, stop: Stopping) {
        lock(&self.0).push(stop);
    }

    /// Takes the stops whose earlier calls have all left the queue `writer` (STOP2).
    pub(crate) fn take_ready(&self, writer: &Queue<WriterItem>) -> Vec<Stopping> {
        let mut stopping = lock(&self.0);
        let (ready, later) = std::mem::take(&mut *stopping)
            .into_iter()
            .partition(|stop| !writer.has_older_than(stop.limit));
        *stopping = later;
        ready
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    /// Drops all stops, because the writer has ended. Their futures report that the database is closed.
    pub(crate) fn give_up(&self) {
        let left = std::mem::take(&mut *lock(&self.0));
        // Outside the lock, because it wakes callers.
        drop(left);
    }
}
