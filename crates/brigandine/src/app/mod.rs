//! Wires the parts: what is opened in which order, what runs, and how it ends in reverse.
//!
//! ```text
//! start: lock the state directory → database, migrations → recovery → clones, exports, logs
//! run:   builder → monitors → the wake socket, retention (HTTP is the caller's)
//! stop:  no new builds → wake socket → monitors → builder → database → lock
//! ```
//!
//! Every running part is essential: one that ends with an error or a panic ends the server, and
//! [`App::failed`] says which and why.

mod actions;
mod error;
mod files;
mod isolation;
mod one_shot;
mod running;
mod settings;
mod start;
mod state_dir;
mod tasks;
mod wake;

pub use error::AppError;
pub(crate) use running::{RunningServer, running_server};
pub use settings::Settings;
pub(crate) use state_dir::{make_state, prune};
pub(crate) use wake::{Presence, Served, served, tell, wake};

use crate::build::{Builder, LocalExecutor, Stop};
use crate::health::{self, Health};
use crate::log::Logs;
use crate::model::{self, BuildId, Event, Specification, SpecificationId, Unused};
use crate::monitor;
use crate::os::state_dir::StateDir;
use crate::retention::Retention;
use crate::store::{self, Database, Loaded};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;

/// The server without its HTTP. Clones share one server.
#[derive(Debug, Clone)]
pub struct App {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    /// The lane of whatever is neither web, evaluation nor builds.
    main: Database,
    web: Database,
    logs: Logs,
    health: Health,
    events: broadcast::Sender<Event>,
    builder: Builder,
    retention: Retention,
    /// Asks for a run of the retention now.
    prune: Notify,
    /// What the specification files say and the server does not do.
    unused: watch::Sender<Vec<Unused>>,
    /// Specifications may have been stored: the files are compared with them.
    stored: Notify,
    monitors: Arc<monitor::Shared>,
    /// What the executor needs; taken when the builder starts. Guard: the mutex.
    executor: Mutex<Option<LocalExecutor>>,
    /// Guard: the mutex; taken before `running` when both are.
    watched: Mutex<HashMap<SpecificationId, Watched>>,
    /// Tasks that run, by name. Guard: the mutex.
    running: Mutex<Vec<(String, JoinHandle<()>)>>,
    builder_task: Mutex<Option<JoinHandle<()>>>,
    /// Whether specifications have monitors: between `run` and `shutdown`. Read after the
    /// database and before `watched` is locked; a monitor made in that gap during a shutdown ends
    /// with its process.
    monitored: AtomicBool,
    /// Tells monitors and the wake socket to end.
    stop: watch::Sender<bool>,
    /// The first part that ended with an error.
    failed: watch::Sender<Option<(String, String)>>,
    /// Held while the server lives; the kernel gives it back even after `kill -9`.
    lock: File,
}

#[derive(Debug)]
struct Watched {
    specification: Specification,
    wanted_at: i64,
    wanted: Arc<Notify>,
    /// Turned true when this one is to end. The server's own `stop` is passed on to it.
    stop: watch::Sender<bool>,
}

impl App {
    /// Stores specifications, as one write. An existing one is replaced only with `replace`.
    pub async fn load(
        &self,
        specifications: Vec<Specification>,
        replace: bool,
    ) -> Result<Vec<(String, Loaded)>, AppError> {
        let now = model::now();
        let shared = &self.shared;
        let done = shared
            .main
            .write(move |tx| {
                specifications
                    .iter()
                    .map(|specification| {
                        let (id, loaded) =
                            store::put_specification(tx, specification, replace, now)?;
                        Ok((id, specification.name.clone(), loaded))
                    })
                    .collect::<rusqlite::Result<Vec<_>>>()
            })
            .await?;
        for (id, _, loaded) in &done {
            if matches!(loaded, Loaded::New | Loaded::Changed) {
                let _ = self.shared.events.send(Event::Specification { id: *id });
            }
        }
        self.sync().await?;
        Ok(done.into_iter().map(|(_, name, loaded)| (name, loaded)).collect())
    }

    /// Waits until nothing runs and nothing that was registered before can be started.
    pub async fn wait_idle(&self) {
        self.shared.builder.wait_idle().await;
    }

    /// Waits until an essential part has ended with an error.
    pub async fn failed(&self) -> AppError {
        let mut failed = self.shared.failed.subscribe();
        // The sender lives in `shared`, so the wait cannot fail.
        let found = failed.wait_for(Option::is_some).await.map(|found| found.clone());
        let (part, why) = found.ok().flatten().unwrap_or_default();
        AppError::Ended { part, why }
    }

    /// Ends in an orderly way: no new looks, evaluations are aborted, running builds end
    /// (`drain`) or are cut and scheduled again; then the database is closed.
    pub async fn shutdown(&self, drain: bool) -> Result<(), AppError> {
        let shared = &self.shared;
        // First of all, so that nothing is started while the rest ends.
        shared.builder.stop(if drain { Stop::Drain } else { Stop::Now });
        shared.monitor_specifications(false);
        shared.stop.send_replace(true);
        shared.health.stop();
        let _ = std::fs::remove_file(StateDir::new(&shared.settings.state).wake_socket());
        running::forget(&shared.settings.state);
        for (_, watched) in shared.watched.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            watched.stop.send_replace(true);
        }
        let running =
            std::mem::take(&mut *shared.running.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, task) in running {
            let _ = task.await;
        }
        let task = shared.builder_task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
        let noted = async {
            store::optimize(&shared.main).await?;
            shared.main.write(store::note_stop).await
        };
        if let Err(error) = noted.await {
            if !health::passes(&error) {
                return Err(error.into());
            }
            tracing::warn!(
                error = model::with_causes(&error),
                "that the server was stopped cannot be stored: the next one starts as after a kill"
            );
        }
        shared.main.close().await?;
        Ok(())
    }

    /// Turns a drain that is under way into a cut.
    pub(crate) fn cut(&self) {
        self.shared.builder.stop(Stop::Now);
    }

    /// The lane for pages and API.
    pub fn database(&self) -> &Database {
        &self.shared.web
    }

    /// What happens from now on. A receiver that lags loses the oldest events.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// What the specification files say and the server does not do.
    pub(crate) fn unused(&self) -> watch::Receiver<Vec<Unused>> {
        self.shared.unused.subscribe()
    }

    /// What the server waits for.
    pub(crate) fn health(&self) -> &Health {
        &self.shared.health
    }

    /// The build logs.
    pub(crate) fn logs(&self) -> &Logs {
        &self.shared.logs
    }

    /// What it builds for.
    pub(crate) fn systems(&self) -> &[String] {
        &self.shared.settings.systems
    }

    /// The state directory.
    pub(crate) fn state(&self) -> &Path {
        &self.shared.settings.state
    }

    /// Says that something was registered past the server: builds may be ready.
    pub fn wake(&self) {
        self.shared.builder.wake();
    }

    /// Tells when processes of builds start; for measurements.
    pub fn starts(&self) -> broadcast::Receiver<(BuildId, Instant)> {
        self.shared.builder.starts()
    }
}
