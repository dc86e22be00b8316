//! Connects the parts of the server: which are opened in which order, which run, and how they end in reverse.
//!
//! ```text
//! start: lock the state directory → database, migrations → recovery → clones, exports, logs
//! run:   builder → monitors → the wake socket, retention (HTTP is the caller's)
//! stop:  no new builds → wake socket → monitors → builder → database → lock
//! ```
//!
//! Every task is required: one that ends with an error or a panic ends the server, and [`App::failed`] says which and
//! why.

mod actions;
mod error;
mod files;
mod isolation;
mod lock;
mod one_shot;
mod running;
mod start;
mod tasks;
mod wake;

pub use error::AppError;
pub(crate) use lock::{make_state, prune};
pub(crate) use running::{RunningServer, running_server};
pub(crate) use wake::{Presence, Served, served, tell, wake};

use crate::build::{Builder, LocalExecutor, Stop};
use crate::config::Config;
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
use std::sync::atomic::{AtomicBool, Ordering};
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
    config: Config,
    /// What can be built here; the first is the default of jobs.
    systems: Vec<String>,
    /// The lane of everything but pages and API, evaluations, and builds.
    main: Database,
    /// The lane of pages and API.
    web: Database,
    logs: Logs,
    health: Health,
    events: broadcast::Sender<Event>,
    builder: Builder,
    retention: Retention,
    /// Requests a retention run.
    prune: Notify,
    /// How the specification files differ from what is stored.
    unused: watch::Sender<Vec<Unused>>,
    /// Notified when specifications may have been stored: they are compared with the files again.
    stored: Notify,
    monitors: Arc<monitor::Shared>,
    /// Taken by `run_builder`.
    executor: Mutex<Option<LocalExecutor>>,
    /// The specifications that have monitors. Lock order: before `running`.
    watched: Mutex<HashMap<SpecificationId, Watched>>,
    /// The running tasks but the builder's, with their names. Bound: one for each specification, and four.
    running: Mutex<Vec<(String, JoinHandle<()>)>>,
    builder_task: Mutex<Option<JoinHandle<()>>>,
    /// Whether specifications get monitors: from `run` until `shutdown`. `sync` reads it without `watched` locked, so it
    /// may add a monitor while a shutdown begins; that monitor ends with the process.
    monitored: AtomicBool,
    /// True: monitors and the wake socket end.
    stop: watch::Sender<bool>,
    /// The first required task that exited, and why.
    failed: watch::Sender<Option<(String, String)>>,
    /// The lock of the state directory, held for the life of the server; the kernel releases it even after `kill -9`.
    lock: File,
}

/// A specification that has a monitor.
#[derive(Debug)]
struct Watched {
    specification: Specification,
    /// The last request for a look that the monitor received.
    wanted_at: i64,
    /// Requests a look.
    wanted: Arc<Notify>,
    /// True: the monitor ends. `shutdown` sets it for all monitors.
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
        let stored = shared.main.write(move |tx| {
            let put = |specification: &Specification| {
                let (id, loaded) = store::put_specification(tx, specification, replace, now)?;
                Ok((id, specification.name.clone(), loaded))
            };
            specifications.iter().map(put).collect::<rusqlite::Result<Vec<_>>>()
        });
        let done = stored.await?;
        for (id, _, loaded) in &done {
            if matches!(loaded, Loaded::New | Loaded::Changed) {
                self.publish(Event::Specification { id: *id });
            }
        }
        self.sync().await?;
        Ok(done.into_iter().map(|(_, name, loaded)| (name, loaded)).collect())
    }

    /// Sends an event to the watchers, if there are any.
    fn publish(&self, event: Event) {
        let _ = self.shared.events.send(event);
    }

    /// Waits until no build runs, and no registered build can be started.
    pub async fn wait_idle(&self) {
        self.shared.builder.wait_idle().await;
    }

    /// Waits until a required task has exited.
    pub async fn failed(&self) -> AppError {
        let mut failed = self.shared.failed.subscribe();
        // `shared` owns the sender, so the wait cannot fail.
        let found = failed.wait_for(Option::is_some).await.map(|found| found.clone());
        let (part, why) = found.ok().flatten().unwrap_or_default();
        AppError::Ended { part, why }
    }

    /// Shuts down: no new looks, evaluations are aborted, running builds end (`drain`) or are killed and scheduled again;
    /// then the database is closed.
    pub async fn shutdown(&self, drain: bool) -> Result<(), AppError> {
        let shared = &self.shared;
        // First, so that no build is started while the rest ends.
        shared.builder.stop(if drain { Stop::Drain } else { Stop::Now });
        shared.monitored.store(false, Ordering::SeqCst);
        shared.stop.send_replace(true);
        shared.health.stop();
        let files = StateDir::new(&shared.config.state);
        let _ = std::fs::remove_file(files.wake_socket());
        let _ = std::fs::remove_file(files.server());
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

    /// Kills the builds that a drain waits for.
    pub(crate) fn cut(&self) {
        self.shared.builder.stop(Stop::Now);
    }

    /// The lane for pages and API.
    pub fn database(&self) -> &Database {
        &self.shared.web
    }

    /// The events from now on. A receiver that lags loses the oldest events.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// How the specification files differ from what is stored.
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

    /// The systems that builds can have here.
    pub(crate) fn systems(&self) -> &[String] {
        &self.shared.systems
    }

    /// The state directory.
    pub(crate) fn state(&self) -> &Path {
        &self.shared.config.state
    }

    /// Wakes the builder, because something was registered in the database directly.
    pub fn wake(&self) {
        self.shared.builder.wake();
    }

    /// The times at which the processes of builds start; for measurements.
    pub fn starts(&self) -> broadcast::Receiver<(BuildId, Instant)> {
        self.shared.builder.starts()
    }
}
