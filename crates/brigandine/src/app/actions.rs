//! Requests to the running server: changes of builds and specifications, and looks at inputs.

use super::App;
use crate::model::{self, Action, Actions, Asked, Change, Event, Outcome, Target};
use crate::store::{self, DatabaseError};
use std::sync::{Arc, PoisonError};

impl App {
    /// Requests a look at a specification now. `false`: no specification of this name has a monitor.
    pub fn look(&self, name: &str) -> bool {
        let watched = self.shared.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let found = watched.values().find(|watched| watched.specification.name == name);
        found.inspect(|watched| watched.wanted.notify_one()).is_some()
    }

    /// Makes a change of each target, and does what follows from the changes: events, running attempts that must end,
    /// looks.
    pub(crate) async fn change(
        &self,
        change: Change,
        targets: Vec<Target>,
        asked: Asked,
    ) -> Result<Vec<(Target, Outcome)>, DatabaseError> {
        tracing::info!(
            actor = %asked.actor,
            change = change.as_str(),
            targets = targets.len(),
            first = targets.first().map(tracing::field::display),
            "a change is asked for"
        );
        let targets: Arc<[Target]> = targets.into();
        let write = move |tx: &store::Transaction| store::request(tx, change, &targets, &asked);
        let done = self.shared.web.write(write).await?;
        self.shared.meters.builds_changed(&done.changed);
        model::publish(&self.shared.events, &done.changed);
        for (id, attempt) in done.running {
            self.shared.builder.cancel_running(id, attempt);
        }
        self.shared.builder.wake();
        if change == Change::Evaluate {
            // The request is stored, so the next synchronisation repeats what fails here.
            if let Err(error) = self.sync().await {
                tracing::warn!(error = model::with_causes(&error), "a look is not begun yet");
            }
        }
        // Open pages show the new rows of the audit.
        self.publish(Event::Notice);
        Ok(done.outcomes)
    }

    /// Does what follows from changes that another process has made in the database.
    pub(super) async fn take_over(&self) -> Result<(), super::AppError> {
        let shared = &self.shared;
        for (id, attempt) in shared.health.read(&shared.main, store::asked_to_end).await? {
            shared.builder.cancel_running(id, attempt);
        }
        // Builds may have been scheduled.
        shared.builder.wake();
        self.publish(Event::Notice);
        self.sync().await
    }
}

impl Actions for App {
    fn change(
        &self,
        change: Change,
        targets: Vec<Target>,
        asked: Asked,
    ) -> Action<'_, Vec<(Target, Outcome)>> {
        Box::pin(Self::change(self, change, targets, asked))
    }
}
