//! Whether the database accepts writes: an empty write each second, which takes the file's lock and changes nothing.
//!
//! Without it the server would know only of the writes that its tasks make, and an idle server makes none.
//!
//! An empty write does not need room on the disk. So its success does not end the failure of another write, and the
//! watch over the disks says whether they are full.

use super::errors::words;
use super::{Health, LOOK, WHY_LATE, lock, passes};
use crate::store::{Database, DatabaseError, Transaction};
use std::time::{Duration, Instant};

/// The pause between two empty writes.
const PAUSE: Duration = Duration::from_secs(1);
/// If an empty write takes longer, the database counts as not writable until the write has ended.
const LATE: Duration = Duration::from_secs(3);

impl Health {
    /// Makes an empty write each second, until the server stops.
    ///
    /// # Errors
    /// The error of a write, if it is not temporary.
    pub(crate) async fn watch_writes(&self, database: &Database) -> Result<(), DatabaseError> {
        let mut stop = self.shared.stop.subscribe();
        loop {
            let since = *lock(&self.shared.unwritten).get_or_insert_with(Instant::now);
            let write = database.write(|_: &Transaction| -> rusqlite::Result<()> { Ok(()) });
            let written = tokio::select! {
                written = self.noting_delay(since, write.into_future()) => written,
                // Dropping the write cancels it, so a locked database does not delay the end of the server.
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            match written {
                Ok(()) => {
                    *lock(&self.shared.unwritten) = None;
                    // Usually there is nothing to change. Then the state's lock is only taken for reading.
                    let noted = {
                        let state = self.shared.state.borrow();
                        state.late || state.probing.is_some()
                    };
                    if noted {
                        self.change(|state| (state.probing, state.late) = (None, false));
                    }
                }
                Err(error) if error.is_closed() => return Ok(()),
                Err(error) if passes(&error) => {
                    self.change(|state| state.probing = Some(words(&error)));
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
        }
    }

    /// Waits for `write`. Notes when no empty write has been accepted for [`LATE`] since `since`.
    async fn noting_delay<T>(&self, since: Instant, write: impl Future<Output = T>) -> T {
        let mut write = std::pin::pin!(write);
        tokio::select! {
            written = &mut write => return written,
            () = tokio::time::sleep_until((since + LATE).into()) => {}
        }
        self.change(|state| state.late = true);
        write.await
    }

    /// Why the database cannot be written now, in sentences for people; empty: it can be written.
    pub(crate) fn unwritable(&self) -> Vec<String> {
        let mut all = Vec::new();
        let full_at = *lock(&self.shared.full_at);
        if full_at.is_some_and(|at| at.elapsed() < 2 * LOOK) {
            all.push("The disk of the state directory is full.".to_owned());
        }
        let noted = self.shared.state.borrow().database().cloned();
        let since = *lock(&self.shared.unwritten);
        if let Some(error) = noted {
            all.push(format!("The database cannot be used: {error}."));
        } else if let Some(late) = since.map(|since| since.elapsed()).filter(|it| *it >= LATE) {
            let late = late.as_secs();
            all.push(format!("The database has accepted no write for {late} s: {WHY_LATE}."));
        }
        all
    }

    /// Notes that the database has accepted no write since this time.
    #[cfg(test)]
    pub(crate) fn note_waiting(&self, since: Option<Instant>) {
        *lock(&self.shared.unwritten) = since;
    }
}
