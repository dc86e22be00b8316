//! What the API and the pages share: the site's parts, answers, refusals, the server itself.

mod answer;
mod client;
mod clients;
mod disposition;
mod error;
mod gate;
mod host;
mod query;
mod range;
mod server;
mod socket;
mod stream;
mod token;
mod turns;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use tokio::sync::{broadcast, watch};

pub(crate) use answer::{file, html, json, text};
pub(crate) use error::{Refusal, Result};
pub(crate) use query::{Path, Query};
pub(crate) use range::{Wanted, describe, tag, wanted};
pub(crate) use server::{closed, serve};
pub(crate) use stream::{Sender, stream};
pub(crate) use token::Token;

use crate::health::Health;
use crate::log::Logs;
use crate::model::{Build, BuildId, Event, Unused};
use crate::store::{Database, Snapshot};

/// Everything that answers are made from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Site(Arc<Parts>);

/// The parts of a [`Site`].
pub(crate) struct Parts {
    /// The lane of the web in the database.
    pub(crate) database: Database,
    /// Committed changes, as they happen.
    pub(crate) events: Box<dyn Fn() -> broadcast::Receiver<Event> + Send + Sync>,
    /// Logs of builds and evaluations.
    pub(crate) logs: Logs,
    /// What the server waits for.
    pub(crate) health: Health,
    /// What the specification files say and the server does not do.
    pub(crate) unused: watch::Receiver<Vec<Unused>>,
    /// The state directory, to which paths of products are relative.
    pub(crate) state: PathBuf,
    /// What the server builds for.
    pub(crate) systems: Vec<String>,
    /// True when the server is about to end: streams end then.
    pub(crate) closing: watch::Receiver<bool>,
    /// Allows changes; without one there are none.
    pub(crate) token: Option<Token>,
    /// Makes changes.
    pub(crate) changes: Box<dyn Changes>,
}

/// A change that is being made: its status and what is said about it.
pub(crate) type Change<'a> =
    Pin<Box<dyn Future<Output = Result<(StatusCode, serde_json::Value)>> + Send + 'a>>;

/// What may be asked of the server beyond reading.
pub(crate) trait Changes: Send + Sync {
    /// Cancels a build that waits or runs.
    fn cancel(&self, id: BuildId) -> Change<'_>;
    /// Builds once more what ended badly.
    fn restart(&self, id: BuildId) -> Change<'_>;
    /// Looks at a specification's inputs now.
    fn evaluate(&self, name: String) -> Change<'_>;
}

/// What is answered while the server cannot start: why it waits.
pub(crate) fn waiting(why: Arc<Mutex<String>>) -> Router {
    crate::web::waiting(why)
}

impl Site {
    /// Puts the parts together.
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The routes of the API and the pages.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .merge(crate::api::router())
            .merge(crate::web::router())
            .fallback(crate::web::unknown_path)
            .method_not_allowed_fallback(error::wrong_method)
            .with_state(self)
    }

    /// Reads everything an answer needs from one snapshot.
    pub(crate) async fn read<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Snapshot) -> rusqlite::Result<T> + Send + 'static,
    {
        self.0.database.read(read).await.map_err(Refusal::database)
    }

    /// As [`Site::read`], for a few rows: read on this very thread, which costs no turn of another
    /// one; should it take more than some thousand steps, it is handed over.
    pub(crate) async fn read_few<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Snapshot) -> rusqlite::Result<T> + Send + 'static,
    {
        self.0.database.read(read).short().await.map_err(Refusal::database)
    }

    /// Committed changes from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        (self.0.events)()
    }

    /// Logs of builds and evaluations.
    pub(crate) fn logs(&self) -> &Logs {
        &self.0.logs
    }

    /// What the server builds for.
    pub(crate) fn systems(&self) -> &[String] {
        &self.0.systems
    }

    /// Refuses the log of a finished build that is not what was stored.
    pub(crate) async fn check_log(&self, build: &Build) -> Result<()> {
        let (logs, id, build) = (self.0.logs.clone(), build.id, build.clone());
        let checked = tokio::task::spawn_blocking(move || logs.check(&build)).await;
        let checked = checked.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        checked.map_err(|error| Refusal::unreadable(format_args!("The log of build {id}"), &error))
    }

    /// What the server waits for.
    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    /// What the specification files say and the server does not do.
    pub(crate) fn unused(&self) -> Vec<Unused> {
        self.0.unused.borrow().clone()
    }

    /// The state directory.
    pub(crate) fn state(&self) -> &std::path::Path {
        &self.0.state
    }

    /// Who makes changes, for a request that carries the token.
    ///
    /// # Errors
    /// It does not, or there is no token.
    pub(crate) fn changes(&self, headers: &HeaderMap) -> Result<&dyn Changes> {
        let token = self.0.token.as_ref().ok_or(Refusal::Forbidden(
            "changes over HTTP are switched off: the server has no token; put one into the file \
             `token` of its state directory, or name a file with `token-file` under `[web]`",
        ))?;
        token.check(headers)?;
        Ok(&*self.0.changes)
    }

    /// Becomes true when the server is about to end.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.0.closing.clone()
    }
}

#[cfg(test)]
pub(crate) mod tests;
