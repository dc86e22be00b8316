//! The tasks of the running server: the builder, a monitor for each specification, the wake socket, retention, and the
//! checks of the state directory, of the database and of the specification files. Each task is required: if it ends with an error or a
//! panic, the server ends.

use super::wake::wake_socket;
use super::{App, AppError, BUILDER, RunningServer, Shared, Watched, monitor_of};
use crate::build::{BuilderSettings, DispatchEvent, LocalDispatcher};
use crate::config;
use crate::health;
use crate::model::{self, Event};
use crate::monitor;
use crate::os::state_dir::StateDir;
use crate::store::{self, DatabaseError};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

/// The pause before a build is started again after its worker vanished for the first time.
const LOSS_PAUSE: Duration = Duration::from_secs(5);
/// The pause between two checks of the state directory or of the specification files.
pub(super) const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// The pause between two retention runs.
const RETENTION_PAUSE: Duration = Duration::from_secs(3600);

/// Resolves when `stop` becomes true. Unlike `wait_for` itself, the future returns no borrow of the channel, which a
/// `select!` would hold while its other branches run.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

impl App {
    /// Starts all tasks.
    pub async fn run(&self) -> Result<(), AppError> {
        self.run_builder();
        self.listen()?;
        let shared = Arc::clone(&self.shared);
        self.spawn("the state directory", async move { shared.watch_state().await });
        let (health, database) = (self.shared.health.clone(), self.shared.main.client("probe"));
        self.spawn("the check of the database", async move {
            health.watch_writes(&database).await.map_err(|error| model::with_causes(&error))
        });
        let (meters, mut stop) = (Arc::clone(&self.shared.meters), self.shared.stop.subscribe());
        self.spawn("the measurement of the scheduler's lag", async move {
            tokio::select! {
                () = meters.measure_lag() => {}
                () = stopped(&mut stop) => {}
            }
            Ok(())
        });
        let shared = Arc::clone(&self.shared);
        self.spawn("the retention", async move {
            shared.retain().await;
            Ok(())
        });
        let app = self.clone();
        self.spawn("the look at specification files", async move { app.watch_files().await });
        self.finish_requests().await?;
        self.shared.monitored.store(true, Ordering::SeqCst);
        Ok(self.sync().await?)
    }

    /// Writes the file that tells commands about this server.
    pub(super) fn note_running(&self) {
        // Held until the file is written, so that two tasks do not write it at once.
        let address = self.shared.address.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, secret) =
            address.clone().map(|(at, secret)| (Some(at), secret)).unwrap_or_default();
        let config = self.config();
        let server = RunningServer {
            pid: std::process::id(),
            version: model::version().to_owned(),
            started_at: self.shared.meters.started_at,
            address: at,
            configuration: config.file.clone(),
            keep: config.keep,
            secret,
            unused: self.shared.unused.borrow().clone(),
            reloads: self.shared.reloads.done(),
        };
        server.write(&self.shared.state);
    }

    /// Opens the wake socket and handles its messages.
    pub(super) fn listen(&self) -> Result<(), AppError> {
        self.note_running();
        let state = &self.shared.state;
        let socket = wake_socket(state)
            .map_err(|error| AppError::File(StateDir::new(state).wake_socket(), error))?;
        let app = self.clone();
        let mut stop = self.shared.stop.subscribe();
        self.spawn("the wake socket", async move {
            let mut message = [0; 64];
            loop {
                tokio::select! {
                    received = socket.recv(&mut message) => {
                        let length = received.map_err(|error| error.to_string())?;
                        let handled = app.handle_message(&message[..length]).await;
                        handled.map_err(|error| model::with_causes(&error))?;
                    }
                    () = stopped(&mut stop) => return Ok(()),
                }
            }
        });
        Ok(())
    }

    /// Handles a message from another program: a request, or the notice that the database was changed. The sender's
    /// rights are not checked, because only programs that may write to the state directory can send a message.
    async fn handle_message(&self, message: &[u8]) -> Result<(), AppError> {
        let request = std::str::from_utf8(message).ok().and_then(|text| text.split_once(' '));
        if let Some((what, of)) = request {
            tracing::info!("a command asks: {} {}", what.escape_debug(), of.escape_debug());
        }
        match request {
            Some(("prune", _)) => self.shared.prune.notify_one(),
            Some(("reload", id)) => self.shared.reloads.want(id),
            _ => self.take_over().await?,
        }
        Ok(())
    }

    pub(super) fn run_builder(&self) {
        let shared = &self.shared;
        let executor = shared.executor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(executor) = executor else { return };
        // At most two events per running job.
        let (sender, events) =
            mpsc::channel::<DispatchEvent>(2 * usize::from(config::MAX_JOBS) + 16);
        let dispatcher = LocalDispatcher::new(executor, sender);
        let settings = BuilderSettings {
            max_jobs: shared.settings.max_jobs.clone(),
            systems: shared.systems.clone(),
            worker: "local".to_owned(),
            timeout: shared.settings.build_time.clone(),
            max_silent: shared.settings.build_silence.clone(),
            loss_pause: LOSS_PAUSE,
        };
        let work = shared.builder.clone().run(
            settings,
            shared.main.client("builds"),
            shared.logs.clone(),
            shared.health.clone(),
            dispatcher,
            events,
            shared.events.clone(),
        );
        let task = self.watch(BUILDER, async { work.await.map_err(|e| model::with_causes(&e)) });
        *shared.builder_task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Runs a required task: if it ends with an error or a panic, the server ends.
    pub(super) fn watch(
        &self,
        name: &str,
        work: impl Future<Output = Result<(), String>> + Send + 'static,
    ) -> JoinHandle<()> {
        let name = name.to_owned();
        let shared = Arc::clone(&self.shared);
        let work = tokio::spawn(work);
        tokio::spawn(async move {
            let why = match work.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(error) => error.to_string(),
            };
            tracing::error!(part = name, why, "a required task exited");
            shared.failed.send_if_modified(|failed| {
                let first = failed.is_none();
                if first {
                    *failed = Some((name, why));
                }
                first
            });
        })
    }

    /// Runs a required task, for which `shutdown` waits.
    pub(super) fn spawn(
        &self,
        name: &str,
        work: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        let task = self.watch(name, work);
        let mut running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|(_, task)| !task.is_finished());
        running.push((name.to_owned(), task));
    }

    /// Starts and ends monitors so that they match the stored specifications, and passes requests for looks to them.
    pub(crate) async fn sync(&self) -> Result<(), DatabaseError> {
        if !self.shared.monitored.load(Ordering::SeqCst) {
            return Ok(());
        }
        let found = self.shared.health.read(&self.shared.main, store::specifications).await?;
        self.shared.stored.notify_one();
        let names = found.iter().map(|state| &state.specification).filter(|one| one.private);
        let names = names.map(|specification| specification.name.clone());
        self.shared.private.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
        let mut watched = self.shared.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.shared.monitored.load(Ordering::SeqCst) {
            return Ok(());
        }
        watched.retain(|id, watched| {
            let stays = found.iter().any(|state| state.id == *id && state.specification.enabled);
            if !stays {
                self.publish(Event::Specification { id: *id });
                watched.stop.send_replace(true);
            }
            stays
        });
        for state in found.into_iter().filter(|state| state.specification.enabled) {
            if let Some(known) = watched.get_mut(&state.id) {
                let changed = known.specification != state.specification;
                if changed {
                    self.publish(Event::Specification { id: state.id });
                }
                if changed || known.wanted_at != state.look.wanted_at {
                    known.specification = state.specification;
                    known.wanted_at = state.look.wanted_at;
                    known.wanted.notify_one();
                }
                continue;
            }
            let wanted = Arc::new(Notify::new());
            let stop = watch::Sender::new(false);
            let part = monitor_of(&state.specification.name);
            let monitors = Arc::clone(&self.shared.monitors);
            let (id, request, stopped) = (state.id, Arc::clone(&wanted), stop.subscribe());
            self.spawn(&part, async move {
                let run = monitor::run(monitors, id, request, stopped);
                run.await.map_err(|error| model::with_causes(&error))
            });
            let (specification, wanted_at) = (state.specification, state.look.wanted_at);
            self.publish(Event::Specification { id: state.id });
            watched.insert(state.id, Watched { specification, wanted_at, wanted, stop });
        }
        Ok(())
    }
}

impl Shared {
    /// Deletes what retention does not keep: when the server starts, every hour, and on request.
    async fn retain(&self) {
        let mut stop = self.stop.subscribe();
        loop {
            match self.retention.run(&stop).await {
                Ok(pruned) if pruned.evaluations + pruned.files > 0 => tracing::info!(
                    evaluations = pruned.evaluations,
                    builds = pruned.builds,
                    files = pruned.files,
                    slices = pruned.slices,
                    slice_ms_max = pruned.slice_ms_max,
                    "retention run finished"
                ),
                Ok(_) => {}
                Err(error) if error.is_closed() => return,
                // No other task depends on retention, and the next run tries again.
                Err(error) => {
                    tracing::error!(
                        error = model::with_causes(&error),
                        "cannot delete what need not be kept"
                    );
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETENTION_PAUSE) => {}
                () = self.prune.notified() => {}
                () = stopped(&mut stop) => return,
            }
        }
    }

    /// Checks every second that the database can be read and that the lock file is in its place, until the server ends.
    async fn watch_state(&self) -> Result<(), String> {
        let mut stop = self.stop.subscribe();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_PAUSE) => {}
                () = stopped(&mut stop) => return Ok(()),
            }
            match self.health.read(&self.main, |_| Ok(())).await {
                Ok(()) => {}
                Err(error) if error.is_closed() || health::passes(&error) => return Ok(()),
                Err(error) => return Err(model::with_causes(&error)),
            }
            let path = StateDir::new(&self.state).lock();
            let of =
                |found: std::io::Result<std::fs::Metadata>| found.map(|it| (it.dev(), it.ino()));
            match (of(self.lock.metadata()), of(std::fs::metadata(&path))) {
                (Ok(own), Ok(found)) if own != found => {}
                (_, Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                _ => continue,
            }
            return Err(format!(
                "{} was removed or replaced, and kept other servers from this state directory: start the server \
                 again, and leave the file alone",
                path.display()
            ));
        }
    }
}
