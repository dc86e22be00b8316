//! Builds whose rows the database refuses to change, although other writes succeed.
//!
//! For example, a counter of the build's evaluation would become negative. Such a write fails each time, so it may not
//! share a transaction with the writes of other builds for long (BUILD8).
//!
//! | what fails | what happens |
//! |---|---|
//! | the write of several ends | each is written by itself; those that fail are apart from then on |
//! | an end apart, refused | its room is free; it is tried [`TRIES`] times, then the build fails without a result |
//! | an end apart, another error | its room stays taken, and it is tried until the error has passed |
//! | the start of a build, refused | the build pauses as a lost one (BUILD6); after [`LOSSES_MAX`] times it fails |
//! | also the failure, refused | the build is left as it is until the next start of the server |
//!
//! [`store::abandon`] makes a build fail.

use super::{Loop, RETRY};
use crate::build::dispatch::Dispatcher;
use crate::build::end::End;
use crate::build::refusals::RefusedEnd;
use crate::build::state::LOSSES_MAX;
use crate::health;
use crate::model::{self, BuildId, BuildLogFile, Timestamp};
use crate::store::{self, Abandoned, DatabaseError};
use std::time::Instant;

/// After this many refusals the end of a build is given up.
const TRIES: u32 = 3;

impl<D: Dispatcher> Loop<D> {
    /// How many builds the next write may claim. The write stores all received ends first, so their room is free
    /// (BUILD2). The room of refused ends is free as well (BUILD8).
    pub(super) fn free(&self) -> usize {
        let refused = self.refused.iter().filter(|refused| refused.times > 0);
        let over = self.ends.iter().chain(refused.map(|refused| &refused.end));
        let over = over.filter(|end| self.running.contains_key(&end.key().0)).count();
        self.settings.max_jobs.get().saturating_sub(self.running.len().saturating_sub(over))
    }

    /// Whether the end of this attempt is waiting to be written.
    pub(super) fn has_ended(&self, key: (BuildId, i64)) -> bool {
        let refused = self.refused.iter().map(|refused| &refused.end);
        self.ends.iter().chain(refused).any(|end| end.key() == key)
    }

    /// Writes each end by itself after a write of all ends has failed. Those that fail are apart from then on.
    ///
    /// # Errors
    /// No later call can succeed.
    pub(super) async fn one_by_one(&mut self, now: Timestamp) -> Result<(), DatabaseError> {
        for end in std::mem::take(&mut self.ends) {
            self.write_alone(RefusedEnd { end, times: 0, due: Instant::now() }, now).await?;
        }
        Ok(())
    }

    /// Writes the ends apart that are due.
    ///
    /// # Errors
    /// No later call can succeed.
    pub(super) async fn try_refused(&mut self) -> Result<(), DatabaseError> {
        let began = Instant::now();
        if self.refused.iter().all(|refused| refused.due > began) {
            return Ok(());
        }
        let (due, later) =
            std::mem::take(&mut self.refused).into_iter().partition(|refused| refused.due <= began);
        self.refused = later;
        let mut stuck = false;
        for refused in due {
            stuck |= !self.write_alone(refused, model::now()).await?;
        }
        self.stuck = if stuck { self.stuck + 1 } else { 0 };
        Ok(())
    }

    /// Writes one end, or gives it up, or keeps it for later. `false`: it met an error that is no refusal.
    async fn write_alone(
        &mut self,
        RefusedEnd { end, times, .. }: RefusedEnd,
        now: Timestamp,
    ) -> Result<bool, DatabaseError> {
        let stored = end.clone();
        let error = match self.database.write(move |tx| stored.write(tx, now)).await {
            Ok(changed) => {
                self.settle(&end, &changed);
                return Ok(true);
            }
            Err(error) if health::is_last(&error) => return Err(error),
            Err(error) => error,
        };
        let (id, attempt) = end.key();
        tracing::error!(%error, build = %id, attempt, "cannot store the end of a build");
        let is_refusal = health::is_refusal(&error);
        if !is_refusal {
            self.health.note(&error);
        }
        let times = times + u32::from(is_refusal);
        let due = Instant::now() + RETRY;
        if times < TRIES {
            self.refused.push(RefusedEnd { end, times, due }); // BUILD3
        } else if let Some(end) = end.instead(&error.to_string(), now) {
            // It counts as refused, so that its room stays free.
            self.refused.push(RefusedEnd { end, times: 1, due: Instant::now() });
        } else {
            self.leave(&end);
        }
        Ok(is_refusal)
    }

    /// Forgets a build that the database does not even allow to fail.
    fn leave(&mut self, end: &End) {
        let key @ (id, _) = end.key();
        if self.forget(key).is_none() {
            self.unstartable.given_up.insert(id);
        }
        self.resting.remove(&id);
        self.unstartable.times.remove(&id);
        tracing::error!(
            build = %id,
            "the database refuses every change of a build: it is left as it is until the next start of the server; \
             look for what is wrong with its rows (SQLite's `integrity_check`), correct them or restore a backup, and \
             restart the server"
        );
    }

    /// Lets builds pause that the database refuses to start, and gives up those that it has refused too often.
    pub(super) fn note_unstartable(&mut self, refused: Vec<store::RefusedStart>, now: Timestamp) {
        for store::RefusedStart { id, why } in refused {
            let times = self.unstartable.times.entry(id).or_default();
            *times += 1;
            let times = *times;
            let pause = self.rest(times);
            self.resting.insert(id, Instant::now() + pause);
            tracing::error!(
                build = %id, error = why, retry_s = pause.as_secs(), "the database refuses to start a build"
            );
            if times >= LOSSES_MAX && !self.has_ended((id, 0)) {
                let message = format!(
                    "it could not be started {times} times, because the database refuses it: {why}"
                );
                let log = BuildLogFile::default();
                let abandoned = Abandoned { id, attempt: None, message, log, now };
                self.ends.push(End::Abandoned(abandoned));
            }
        }
    }

    /// Reports a build that has failed because of the database.
    pub(super) fn note_abandoned(&mut self, abandoned: &Abandoned) {
        let Abandoned { id, attempt, ref message, .. } = *abandoned;
        if attempt.is_none() {
            self.unstartable.times.remove(&id);
            self.resting.remove(&id);
        }
        tracing::error!(
            build = %id,
            attempt,
            why = message,
            "a build has failed because of the database: look for what is wrong with its rows (SQLite's \
             `integrity_check`), then `brigandine restart {id}`"
        );
    }
}
