//! Requests to the running server: cancel a build, restart a build, look at a specification.

use super::App;
use crate::model::{self, Action, Actions, BuildId, Cancel, Event, Restart};
use crate::store::{self, DatabaseError};
use std::sync::PoisonError;

impl App {
    /// Requests a look at a specification now. `false`: no specification of this name has a monitor.
    pub fn look(&self, name: &str) -> bool {
        let watched = self.shared.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let found = watched.values().find(|watched| watched.specification.name == name);
        found.inspect(|watched| watched.wanted.notify_one()).is_some()
    }

    /// Cancels a waiting build and all builds that need it, or tells a running build to end.
    pub(crate) async fn cancel(&self, id: BuildId) -> Result<Cancel, DatabaseError> {
        let now = model::now();
        let canceled = self.shared.web.write(move |tx| store::cancel(tx, id, now)).await?;
        match &canceled {
            Cancel::Done(changed) => {
                self.shared.meters.builds_changed(changed);
                model::publish(&self.shared.events, changed);
                self.shared.builder.wake();
            }
            Cancel::Running(attempt) => self.shared.builder.cancel_running(id, *attempt),
            Cancel::TooLate => {}
        }
        Ok(canceled)
    }

    /// Reschedules a build that ended without success, together with the builds that failed because of it.
    pub(crate) async fn restart(&self, id: BuildId) -> Result<Restart, DatabaseError> {
        let restarted = self.shared.web.write(move |tx| store::restart(tx, id)).await?;
        if let Restart::Done(changed) = &restarted {
            model::publish(&self.shared.events, changed);
            self.shared.builder.wake();
        }
        Ok(restarted)
    }

    /// Publishes the status of a build.
    pub(super) async fn publish_build(&self, id: BuildId) -> Result<(), DatabaseError> {
        let found = self.shared.main.read(move |s| store::build(s, id)).await?;
        if let Some(build) = found {
            self.publish(Event::Build {
                id,
                job: build.job,
                evaluation: build.evaluation,
                specification: build.specification_id,
                status: build.status,
            });
        }
        Ok(())
    }
}

impl Actions for App {
    fn cancel(&self, id: BuildId) -> Action<'_, Cancel> {
        Box::pin(Self::cancel(self, id))
    }

    fn restart(&self, id: BuildId) -> Action<'_, Restart> {
        Box::pin(Self::restart(self, id))
    }

    fn look(&self, specification: &str) -> bool {
        Self::look(self, specification)
    }
}
