//! Requests to the running server: changes of builds and specifications, and looks at inputs.

use super::{App, Shared};
use crate::model::{
    self, Action, Actions, Asked, Change, EvaluationId, Event, History, Outcome, Specified,
    Specify, Target,
};
use crate::store::{self, DatabaseError};
use std::sync::PoisonError;

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

impl Actions for App {
    fn change(
        &self,
        change: Change,
        targets: Vec<Target>,
        asked: Asked,
    ) -> Action<'_, Vec<(Target, Outcome)>> {
        Box::pin(Self::change(self, change, targets, asked))
    }

    fn specify(&self, change: Specify, even_of_files: bool, asked: Asked) -> Action<'_, Specified> {
        Box::pin(Self::specify(self, change, even_of_files, asked))
    }
}
