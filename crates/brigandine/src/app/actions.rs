//! Requests to the running server: changes of builds and specifications, and looks at inputs.
//!
//! - ACT1: a change that was begun is made to its end, with what follows from it, even if the client has left. So no part
//!   of a change waits for the next start of the server.

use super::{App, Shared};
use crate::model::{
    self, Action, Actions, Asked, Change, EvaluationId, Event, History, Outcome, Specified,
    Specify, Target,
};
use crate::store::{self, DatabaseError};
use std::sync::{Arc, PoisonError};
use tokio::sync::Semaphore;
use tracing::Instrument;

/// The most changes at the same time. Further ones wait, and can still be given up.
pub(super) const CHANGES_MAX: usize = 64;

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
        let after = |effects: &store::Effects| self.shared.follow(effects);
        let done = store::carry_out(&self.shared.web, change, targets, asked, &after).await;
        self.shared.builder.wake();
        if matches!(change, Change::Evaluate | Change::Restart | Change::Enable | Change::Disable) {
            self.sync_later().await;
        }
        // Open pages show the new rows of the audit, and an evaluation that was canceled ends.
        self.publish(Event::Notice);
        done
    }

    /// Tells the monitors of a change that is stored. What fails here, the next synchronisation does.
    async fn sync_later(&self) {
        if let Err(error) = self.sync().await {
            let error = model::with_causes(&error);
            tracing::warn!(error, "monitors do not know of a change yet");
        }
    }

    /// Cancels what a killed server has left of evaluations that were withdrawn.
    pub(super) async fn finish_requests(&self) -> Result<(), DatabaseError> {
        let (shared, now) = (&self.shared, model::now());
        let after = |effects: &store::Effects| shared.follow(effects);
        let mut last = EvaluationId::new(0);
        loop {
            let read = move |s: &store::Snapshot| store::unfinished(s, last, now);
            let some = shared.health.read(&shared.main, read).await?;
            let Some((id, _)) = some.last() else { return Ok(()) };
            last = *id;
            for (_, rest) in some {
                let finish = || store::finish_rest(&shared.main, rest.clone(), &after);
                shared.health.retry(finish).await?;
            }
        }
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
        Ok(self.sync().await?)
    }

    /// Changes specifications. Unless `even_of_files` is set, those that stand in a specification file are not changed.
    pub(crate) async fn specify(
        &self,
        change: Specify,
        even_of_files: bool,
        asked: Asked,
    ) -> Result<Specified, DatabaseError> {
        if !even_of_files && let Some((name, file)) = self.standing_in_file(change.names()).await {
            return Ok(Specified::OfFile(name, file.display().to_string()));
        }
        let history = matches!(change, Specify::Remove { history: History::Deleted, .. });
        let actor = asked.actor.clone();
        let write = move |tx: &store::Transaction| store::specify(tx, &change, &asked);
        let specified = self.shared.web.write(write).await?;
        if matches!(specified, Specified::Done(_) | Specified::Removed(_)) {
            tracing::info!(%actor, ?specified, "a request has changed specifications");
            self.sync_later().await;
            self.publish(Event::Notice);
        }
        if history {
            self.shared.prune.notify_one();
        }
        Ok(specified)
    }
}

impl Shared {
    /// Does what must follow a write that changed builds.
    fn follow(&self, effects: &store::Effects) {
        self.meters.builds_changed(&effects.changed);
        model::publish(&self.events, &effects.changed);
        for (id, attempt) in &effects.running {
            self.builder.cancel_running(*id, *attempt);
        }
    }
}

/// Runs an action to its end once a permit is free (ACT1).
///
/// # Cancel safety
/// Dropped before there is a permit: nothing has begun. Dropped later: the action goes on.
async fn to_the_end<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    action: impl Future<Output = T> + Send + 'static,
) -> T {
    // Nobody closes the semaphore.
    let permit = Arc::clone(permits).acquire_owned().await;
    let action = async move {
        let _permit = permit;
        action.await
    };
    match tokio::spawn(action.in_current_span()).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Actions for App {
    fn change(
        &self,
        change: Change,
        targets: Vec<Target>,
        asked: Asked,
    ) -> Action<'_, Vec<(Target, Outcome)>> {
        let app = self.clone();
        let action = async move { app.change(change, targets, asked).await };
        Box::pin(to_the_end(&self.shared.changes, action))
    }

    fn specify(&self, change: Specify, even_of_files: bool, asked: Asked) -> Action<'_, Specified> {
        let app = self.clone();
        let action = async move { app.specify(change, even_of_files, asked).await };
        Box::pin(to_the_end(&self.shared.changes, action))
    }
}

#[cfg(test)]
mod tests {
    use super::to_the_end;
    use std::sync::Arc;
    use tokio::sync::{Notify, Semaphore, oneshot};

    #[tokio::test]
    async fn an_action_goes_on_when_nobody_waits_for_it_any_more() {
        let (permits, go) = (Arc::new(Semaphore::new(1)), Arc::new(Notify::new()));
        let (begun, has_begun) = oneshot::channel();
        let (ended, has_ended) = oneshot::channel();
        let wait = Arc::clone(&go);
        let action = async move {
            begun.send(()).expect("somebody waits");
            wait.notified().await;
            ended.send(()).expect("somebody waits");
        };
        tokio::select! {
            biased;
            begun = has_begun => begun.expect("begun"),
            () = to_the_end(&permits, action) => panic!("it waits"),
        }
        // A second one waits for the permit of the first, and has not begun when it is given up.
        let second = to_the_end(&permits, async { panic!("it has begun") });
        assert!(tokio::time::timeout(std::time::Duration::ZERO, second).await.is_err());
        go.notify_one();
        has_ended.await.expect("ended");
        assert_eq!(to_the_end(&permits, async { 7 }).await, 7);
    }

    #[tokio::test]
    #[should_panic(expected = "a mistake")]
    async fn the_panic_of_an_action_is_that_of_who_waits() {
        to_the_end(&Arc::new(Semaphore::new(1)), async { panic!("a mistake") }).await;
    }
}
