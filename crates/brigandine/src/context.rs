//! What the handlers of the API and the pages share: the database, logs, events and actions; and what the sender of a
//! request may see of them.

use std::convert::Infallible;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request;
use axum::response::Response;
use tokio::sync::{broadcast, watch};

use crate::auth::{Auth, Principal, Visitor};
use crate::health::Health;
use crate::http::{HttpError, HttpMeters, Result, closed, stream};
use crate::log::{LogReader, Logs};
use crate::measure::Meters;
use crate::model::{
    Actions, Asked, Build, Change, Configuration, Event, Outcome, Reload, Sight, Specified,
    Specify, Target, Tasks, Unused, now,
};
use crate::store::{Database, Hidden, Snapshot, Visible, visible};

/// What the handlers share. Clones share the same parts.
#[derive(Clone)]
pub(crate) struct Context(Arc<Parts>);

/// The parts of a [`Context`].
pub(crate) struct Parts {
    /// The database, with the queue for pages and the API.
    pub(crate) database: Database,
    /// Subscribes to the changes that are committed from then on.
    pub(crate) events: Box<dyn Fn() -> broadcast::Receiver<Event> + Send + Sync>,
    /// Logs of builds and evaluations.
    pub(crate) logs: Logs,
    /// What the server waits for, such as room on a full disk.
    pub(crate) health: Health,
    /// What the server counts, apart from the web server.
    pub(crate) meters: Arc<Meters>,
    /// What the web server counts.
    pub(crate) http_meters: Arc<HttpMeters>,
    /// Says which tasks of the server run.
    pub(crate) tasks: Box<dyn Fn() -> Tasks + Send + Sync>,
    /// The parts of the specification files that the server does not use.
    pub(crate) unused: watch::Receiver<Vec<Unused>>,
    /// The server's settings, and how the files differ from them. Reads files.
    pub(crate) configuration: Box<dyn Fn() -> Configuration + Send + Sync>,
    /// The state directory. Paths of products are relative to it.
    pub(crate) state: PathBuf,
    /// The systems that the server builds for.
    pub(crate) systems: Vec<String>,
    /// Becomes true when the web server begins to close. Streams then end.
    pub(crate) closing: watch::Receiver<bool>,
    /// Checks the credentials of requests.
    pub(crate) auth: Auth,
    /// Makes the changes that requests ask for.
    pub(crate) actions: Box<dyn Actions>,
}

impl Context {
    /// Puts the parts together.
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Reads as somebody with this sight. Handlers get a [`Reading`] from their request instead.
    pub(crate) fn seen_with(&self, sight: Sight) -> Reading {
        Reading { context: self.clone(), sight }
    }

    /// Subscribes to the changes that are committed from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        (self.0.events)()
    }

    /// Logs of builds and evaluations.
    pub(crate) fn logs(&self) -> &Logs {
        &self.0.logs
    }

    /// The systems that the server builds for.
    pub(crate) fn systems(&self) -> &[String] {
        &self.0.systems
    }

    /// Checks that the log file of a finished build is the file whose digest was stored.
    pub(crate) async fn check_log(&self, build: &Build) -> Result<()> {
        let (logs, id, build) = (self.0.logs.clone(), build.id, build.clone());
        let checked = tokio::task::spawn_blocking(move || logs.check(&build)).await;
        let checked = checked.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        checked
            .map_err(|error| HttpError::unreadable(format_args!("The log of build {id}"), &error))
    }

    /// What the server waits for, such as room on a full disk.
    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    /// The counters of the database, as a function, because reading them asks the file system.
    pub(crate) fn database_stats(&self) -> impl Fn() -> lockkeeper::Stats + Send + use<> {
        let database = self.0.database.clone();
        move || database.stats()
    }

    /// What the server counts, apart from the web server.
    pub(crate) fn meters(&self) -> &Meters {
        &self.0.meters
    }

    /// What the web server counts.
    pub(crate) fn http_meters(&self) -> &Arc<HttpMeters> {
        &self.0.http_meters
    }

    /// Which tasks of the server run.
    pub(crate) fn tasks(&self) -> Tasks {
        (self.0.tasks)()
    }

    /// The state directory.
    pub(crate) fn state(&self) -> &std::path::Path {
        &self.0.state
    }

    /// Makes a change of each target, for somebody who may ask for it.
    pub(crate) async fn change(
        &self,
        change: Change,
        targets: Vec<Target>,
        by: &Principal,
        reason: &str,
    ) -> Result<Vec<(Target, Outcome)>> {
        let asked = Asked::new(by.actor.clone(), now(), reason);
        self.0.actions.change(change, targets, asked).await.map_err(HttpError::database)
    }

    /// Changes specifications, for somebody who may ask for it. Unless `even_of_files` is set, those that stand in a
    /// specification file are not changed.
    pub(crate) async fn specify(
        &self,
        change: Specify,
        even_of_files: bool,
        by: &Principal,
        reason: &str,
    ) -> Result<Specified> {
        let asked = Asked::new(by.actor.clone(), now(), reason);
        let specified = self.0.actions.specify(change, even_of_files, asked);
        specified.await.map_err(HttpError::database)
    }

    /// Checks the credentials of requests.
    pub(crate) fn auth(&self) -> &Auth {
        &self.0.auth
    }

    /// A receiver whose value becomes true when the web server begins to close.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.0.closing.clone()
    }

    /// Answers with a log as text: `first`, then what `reader` reads until the log ends. At most `left` bytes in all.
    pub(crate) fn follow(&self, first: Vec<u8>, mut reader: LogReader, mut left: u64) -> Response {
        let mut closing = self.closing();
        stream("text/plain; charset=utf-8", move |sender| async move {
            let mut next = Ok(Some(first));
            loop {
                match next {
                    Ok(Some(mut piece)) => {
                        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                        left -= piece.len() as u64;
                        if !piece.is_empty() && !sender.send(piece).await || left == 0 {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(error) => {
                        tracing::warn!(%error, "a log cannot be read to its end");
                        return sender.fail(error).await;
                    }
                }
                next = tokio::select! {
                    piece = reader.next() => piece,
                    () = sender.closed() => return,
                    () = closed(&mut closing) => {
                        return sender.fail(std::io::Error::other("the server ends")).await;
                    }
                };
            }
        })
    }
}

/// A request that reads: what the handlers share, and what the request's sender may see. A handler that reads takes it as
/// a parameter, and so shows nothing that is hidden from the sender.
#[derive(Clone)]
pub(crate) struct Reading {
    context: Context,
    sight: Sight,
}

impl Deref for Reading {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

impl FromRequestParts<Context> for Reading {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut request::Parts,
        context: &Context,
    ) -> std::result::Result<Self, Infallible> {
        let sight = parts.extensions.get::<Visitor>().map(Visitor::sight).unwrap_or_default();
        Ok(context.seen_with(sight))
    }
}

impl Reading {
    /// Reads everything that an answer needs from one snapshot.
    pub(crate) async fn read<T, F>(&self, mut read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Visible<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let sight = self.sight.clone();
        let read = move |s: &Snapshot| read(&Visible::new(s, &sight)?);
        self.0.database.read(read).await.map_err(HttpError::database)
    }

    /// Like [`Reading::read`], for a few rows: reads on the calling thread and does not switch to another thread. If
    /// the read takes more than some thousand steps, it moves to a reader thread.
    pub(crate) async fn read_few<T, F>(&self, mut read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Visible<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let sight = self.sight.clone();
        let read = move |s: &Snapshot| read(&Visible::new(s, &sight)?);
        self.0.database.read(read).short().await.map_err(HttpError::database)
    }

    /// Whether nothing on this server can be hidden from the sender.
    pub(crate) fn sees_everything(&self) -> bool {
        self.sight == Sight::Everything
    }

    /// What is hidden from the sender now.
    pub(crate) async fn hidden(&self) -> Result<Hidden> {
        self.read_few(|s| Ok(s.hidden().clone())).await
    }

    /// The parts of the specification files that the server does not use. If something is hidden from the sender, those
    /// that may name it are left out: a file that cannot be read, or specifications that are not stored yet.
    pub(crate) fn unused(&self, s: &Visible<'_>) -> rusqlite::Result<Vec<Unused>> {
        let mut all = self.0.unused.borrow().clone();
        if s.hidden().is_empty() {
            return Ok(all);
        }
        let seen = visible::specifications(s)?;
        all.retain(|unused| {
            let of = unused.specification();
            of.is_some_and(|of| seen.iter().any(|state| state.specification.name == of))
        });
        Ok(all)
    }

    /// The server's settings, and how the files differ from them. The files are read on a thread that may block. If
    /// something is hidden from the sender, what may name it is left out.
    pub(crate) async fn configuration(&self) -> Result<Configuration> {
        let parts = Arc::clone(&self.0);
        let read = tokio::task::spawn_blocking(move || (parts.configuration)());
        let mut found = read.await.map_err(|error| {
            tracing::error!(%error, "the configuration could not be compared with its file");
            HttpError::Internal
        })?;
        let hidden = self.hidden().await?;
        if !hidden.is_empty() {
            found.settings.retain(|setting| setting.key != FILES);
            found.problem.clear();
            found.reload = found.reload.filter(|reload| reload.error.is_empty());
            found.reload = found.reload.map(|reload| Reload {
                changed: without(reload.changed, FILES),
                restart: without(reload.restart, FILES),
                specifications: Vec::new(),
                ..reload
            });
        }
        Ok(found)
    }
}

/// The setting whose value has the names of specification files.
const FILES: &str = "specifications";

/// Settings other than this one.
fn without(mut settings: Vec<String>, key: &str) -> Vec<String> {
    settings.retain(|setting| setting != key);
    settings
}
