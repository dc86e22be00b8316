//! Connects the parts of the server: the order in which they are opened and started, and the reverse order in which
//! they end.
//!
//! ```text
//! start: lock the state directory → database, migrations → recovery after a kill → clones, exports, logs
//! run:   builder → monitors → the wake socket, retention (HTTP is the caller's)
//! stop:  monitors, no new builds → with a drain: the end of the running builds → HTTP (the caller's) → wake socket,
//!        the other tasks, builder → database → lock
//! ```
//!
//! While running builds are awaited, everything else goes on: pages, probes, commands, cancels.
//!
//! Every task is required: if a task ends with an error or a panic, the server ends, and [`App::failed`] says which
//! task it was and why.

mod actions;
mod error;
mod files;
mod ground;
mod isolation;
mod lock;
mod one_shot;
mod reload;
mod running;
mod settings;
mod start;
mod tasks;
mod wake;

pub use error::AppError;
pub(crate) use ground::Ground;
pub(crate) use lock::{lock as lock_state, make_state, prune};
pub(crate) use running::{RunningServer, running_server};
pub(crate) use wake::{Presence, Served, served, tell, wake};

use crate::build::{Builder, LocalExecutor, Stop};
use crate::config::Config;
use crate::health::{self, Health};
use crate::log::Logs;
use crate::measure::Meters;
use crate::model::{
    self, BuildId, Event, Live, Loaded, Specification, SpecificationId, Tasks, Unused,
};
use crate::monitor;
use crate::os::state_dir::StateDir;
use crate::retention::Retention;
use crate::store::{self, Database};
use settings::{Reloads, Settings};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio::task::JoinHandle;

/// How the names of the tasks begin that look at the inputs of a specification.
pub(crate) const MONITOR: &str = "the monitor of ";

/// The name of the task that looks at the inputs of a specification.
fn monitor_of(specification: &str) -> String {
    format!("{MONITOR}`{specification}`")
}

/// The name of the builder's task.
const BUILDER: &str = "the builder";

/// The server without HTTP. Clones share one server.
#[derive(Debug, Clone)]
pub struct App {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The state directory.
    state: PathBuf,
    /// The configuration that is in use. `reload.rs` changes it.
    config: Live<Arc<Config>>,
    settings: Settings,
    reloads: Reloads,
    /// The systems for which the server builds. The first is the default for jobs.
    systems: Vec<String>,
    /// The database, for everything except pages, the API, evaluations and builds.
    main: Database,
    /// The database, for pages and the API, whose calls wait in a queue of their own.
    web: Database,
    logs: Logs,
    health: Health,
    meters: Arc<Meters>,
    events: broadcast::Sender<Event>,
    builder: Builder,
    retention: Retention,
    /// Requests a retention run.
    prune: Notify,
    /// One permit for each change that clients ask for at the same time.
    changes: Arc<Semaphore>,
    /// Where the server answers over HTTP, and the secret that it knows commands by; `None`: nowhere.
    address: Mutex<Option<(SocketAddr, String)>>,
    /// How the specification files differ from the stored specifications.
    unused: watch::Sender<Vec<Unused>>,
    /// Notified when specifications may have been stored. The files are then compared with the stored specifications.
    stored: Notify,
    monitors: Arc<monitor::Shared>,
    /// The executor; `None`: `run_builder` has taken it.
    executor: Mutex<Option<LocalExecutor>>,
    /// The specifications that have monitors. Lock order: before `running`.
    watched: Mutex<HashMap<SpecificationId, Watched>>,
    /// The names of specifications that are or were private, since their monitors have these names.
    private: Mutex<BTreeSet<String>>,
    /// The running tasks except the builder's, with their names. At most one for each specification, and six more.
    running: Mutex<Vec<(String, JoinHandle<()>)>>,
    builder_task: Mutex<Option<JoinHandle<()>>>,
    /// Whether specifications get monitors: true from `run` until the server begins to end. `sync` reads the flag with
    /// `watched` locked, and `begin_shutdown` resets it before it locks `watched`. So no monitor is added later.
    monitored: AtomicBool,
    /// Whether the server ends.
    ending: AtomicBool,
    /// Becomes true when the wake socket and the other tasks, except for monitors and the builder, must end.
    stop: watch::Sender<bool>,
    /// The first required task that exited, and why; `None`: all of them run.
    failed: watch::Sender<Option<(String, String)>>,
    /// The lock of the state directory, held while the server runs. The kernel releases it even after `kill -9`.
    lock: Arc<File>,
}

/// A specification that has a monitor.
#[derive(Debug)]
struct Watched {
    specification: Specification,
    /// The time of the last request to look at the inputs that the monitor received.
    wanted_at: i64,
    /// Requests a look at the inputs.
    wanted: Arc<Notify>,
    /// Becomes true when the monitor must end. `begin_shutdown` sets it for all monitors.
    stop: watch::Sender<bool>,
}

impl App {
    /// Stores specifications in one write. An existing specification is replaced only if `replace` is set.
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

    /// Sends an event to all receivers, if there are any.
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

    /// Begins to shut down, and does not wait: no build is started any more, inputs are not looked at, and evaluations
    /// are aborted. Without `drain`, running builds are cut and scheduled again. With it they go on, and so do pages,
    /// probes and commands. Called as soon as a signal comes, because the same signal may reach the builds and evaluators
    /// (`build/turns/stops.rs`).
    pub(crate) fn begin_shutdown(&self, drain: bool) {
        let shared = &self.shared;
        shared.ending.store(true, Ordering::SeqCst);
        // The builder is stopped first, so that no build starts while the other parts end.
        shared.builder.stop(if drain { Stop::Drain } else { Stop::Now });
        shared.health.note_end();
        shared.monitored.store(false, Ordering::SeqCst);
        for (_, watched) in shared.watched.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            watched.stop.send_replace(true);
        }
    }

    /// Waits until no build runs any more, after [`App::begin_shutdown`]. Pending forever if the builder fails
    /// ([`App::failed`]).
    pub(crate) async fn drained(&self) {
        self.shared.builder.wait_end().await;
    }

    /// Shuts down. With `drain`, running builds are awaited first; otherwise they are killed and rescheduled. Then the
    /// database is closed.
    pub async fn shutdown(&self, drain: bool) -> Result<(), AppError> {
        let shared = &self.shared;
        self.begin_shutdown(drain);
        if drain {
            tokio::select! {
                () = self.drained() => {}
                _ = self.failed() => {}
            }
        }
        shared.builder.stop(Stop::Now);
        shared.stop.send_replace(true);
        shared.health.stop();
        let files = StateDir::new(&shared.state);
        let _ = std::fs::remove_file(files.wake_socket());
        let _ = std::fs::remove_file(files.server());
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

    /// Tells commands where the server answers over HTTP, and by which secret it knows them.
    pub(crate) fn note_address(&self, address: SocketAddr, secret: &str) {
        let noted = Some((address, secret.to_owned()));
        *self.shared.address.lock().unwrap_or_else(PoisonError::into_inner) = noted;
        self.note_running();
    }

    /// The database, with the queue for pages and the API.
    pub fn database(&self) -> &Database {
        &self.shared.web
    }

    /// Subscribes to the events from now on. A receiver that lags loses the oldest events.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// How the specification files differ from the stored specifications.
    pub(crate) fn unused(&self) -> watch::Receiver<Vec<Unused>> {
        self.shared.unused.subscribe()
    }

    /// What the server waits for.
    pub(crate) fn health(&self) -> &Health {
        &self.shared.health
    }

    /// What the server counts.
    pub(crate) fn meters(&self) -> &Arc<Meters> {
        &self.shared.meters
    }

    /// The build logs.
    pub(crate) fn logs(&self) -> &Logs {
        &self.shared.logs
    }

    /// The systems for which this server builds.
    pub(crate) fn systems(&self) -> &[String] {
        &self.shared.systems
    }

    /// The state directory.
    pub(crate) fn state(&self) -> &Path {
        &self.shared.state
    }

    /// Which tasks run.
    pub(crate) fn tasks(&self) -> Tasks {
        let shared = &self.shared;
        let mut tasks = Tasks::default();
        if let Some((part, why)) = &*shared.failed.borrow() {
            tasks.faults.push(format!("A required task exited: {part}: {why}."));
        }
        tasks.ending = shared.ending.load(Ordering::SeqCst);
        if tasks.ending {
            tasks.faults.push(match shared.builder.running() {
                0 => "The server ends.".to_owned(),
                1 => "The server ends: 1 build still runs.".to_owned(),
                many => format!("The server ends: {many} builds still run."),
            });
        } else if !shared.monitored.load(Ordering::SeqCst) {
            let why = "Nothing is evaluated: the server starts, or runs with --one-shot.";
            tasks.faults.push(why.to_owned());
        }
        let builder = shared.builder_task.lock().unwrap_or_else(PoisonError::into_inner);
        if builder.as_ref().is_some_and(|task| !task.is_finished()) {
            tasks.running.push(BUILDER.to_owned());
        }
        drop(builder);
        let running = shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = running.iter().filter(|(_, task)| !task.is_finished());
        tasks.running.extend(alive.map(|(name, _)| name.clone()));
        drop(running);
        let private = shared.private.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.private = private.iter().map(|name| monitor_of(name)).collect();
        tasks
    }

    /// Wakes the builder, because a build was registered directly in the database.
    pub fn wake(&self) {
        self.shared.builder.wake();
    }

    /// Subscribes to the times at which the processes of builds start, for measurements.
    pub fn starts(&self) -> broadcast::Receiver<(BuildId, Instant)> {
        self.shared.builder.starts()
    }
}
