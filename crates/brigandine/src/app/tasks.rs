//! What runs while the server does: the builder, a monitor per specification, the wake socket, retention, and the look
//! at the state directory. Each is essential: one that ends with an error or a panic ends the server.

use super::wake::wake_socket;
use super::{App, AppError, Shared, Watched, running};
use crate::build::{BuilderSettings, DispatchEvent, LocalDispatcher};
use crate::health;
use crate::model::{self, Cancel, Event};
use crate::monitor;
use crate::os::state_dir::StateDir;
use crate::store;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

/// Before a build is started again whose worker vanished for the first time.
const LOSS_PAUSE: Duration = Duration::from_secs(5);
/// Between two looks at the files that the server cannot do without.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at what need not be kept.
const RETENTION: Duration = Duration::from_secs(3600);

impl App {
    /// Starts the builder, a monitor per specification, and the socket by which other programs
    /// say that they changed the database.
    pub async fn run(&self) -> Result<(), AppError> {
        self.run_builder();
        self.listen()?;
        let shared = Arc::clone(&self.shared);
        self.spawn("the state directory", async move { shared.watch_state().await });
        let shared = Arc::clone(&self.shared);
        self.spawn("the retention", async move {
            shared.retain().await;
            Ok(())
        });
        let app = self.clone();
        self.spawn("the look at specification files", async move { app.watch_files().await });
        self.shared.monitor_specifications(true);
        self.sync().await
    }

    /// Opens the wake socket, and leaves word of what this server was told.
    pub(super) fn listen(&self) -> Result<(), AppError> {
        let settings = &self.shared.settings;
        self.note_running();
        let socket = wake_socket(&settings.state)
            .map_err(|error| AppError::File(StateDir::new(&settings.state).wake_socket(), error))?;
        let app = self.clone();
        let mut stop = self.shared.stop.subscribe();
        self.spawn("the wake socket", async move {
            let mut said = [0; 64];
            loop {
                tokio::select! {
                    received = socket.recv(&mut said) => {
                        let length = received.map_err(|error| error.to_string())?;
                        let heard = app.hear(&said[..length]).await;
                        heard.map_err(|error| model::with_causes(&error))?;
                    }
                    // Its answer borrows the channel, so it must not live across the other branch.
                    () = async { drop(stop.wait_for(|stop| *stop).await) } => return Ok(()),
                }
            }
        });
        Ok(())
    }

    /// Leaves word of what this server was told.
    pub(super) fn note_running(&self) {
        let settings = &self.shared.settings;
        let unused = self.shared.unused.borrow().clone();
        running::note(&settings.state, settings, unused);
    }

    /// Does what another program says through the wake socket: a wish, or that the database was
    /// changed. Who may write to the state directory may ask for anything.
    async fn hear(&self, said: &[u8]) -> Result<(), AppError> {
        let wish = std::str::from_utf8(said).ok().and_then(|said| said.split_once(' '));
        if let Some((what, of)) = wish {
            tracing::info!("a command asks: {} {}", what.escape_debug(), of.escape_debug());
        }
        let build = wish.and_then(|(_, id)| id.parse().ok());
        match (wish.map(|(what, _)| what), build) {
            // The outcome is in the build's row, where whoever asked will see it.
            (Some("cancel"), Some(id)) => {
                let canceled = self.shared.health.retry(|| self.cancel(id)).await?;
                if canceled == Cancel::TooLate {
                    // Whoever asked has canceled it: pages do not know yet, nor that a twin may start.
                    self.shared.builder.wake();
                    self.publish_build(id).await?;
                }
            }
            (Some("prune"), _) => self.shared.prune.notify_one(),
            _ => {
                // Somebody may have scheduled builds.
                self.shared.builder.wake();
                self.sync().await?;
            }
        }
        Ok(())
    }

    pub(super) fn run_builder(&self) {
        let shared = &self.shared;
        let executor = shared.executor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(executor) = executor else { return };
        let settings = &shared.settings;
        // Every running job sends at most two events.
        let (sender, events) = mpsc::channel::<DispatchEvent>(2 * settings.max_jobs + 16);
        let dispatcher = LocalDispatcher::new(executor, sender);
        let builder_settings = BuilderSettings {
            max_jobs: settings.max_jobs.max(1),
            systems: settings.systems.clone(),
            worker: "local".to_owned(),
            timeout: settings.build_timeout,
            max_silent: settings.build_silence,
            loss_pause: LOSS_PAUSE,
        };
        let work = shared.builder.clone().run(
            builder_settings,
            shared.main.client("builds"),
            shared.logs.clone(),
            shared.health.clone(),
            dispatcher,
            events,
            shared.events.clone(),
        );
        let task =
            self.watch("the builder", async { work.await.map_err(|e| model::with_causes(&e)) });
        *shared.builder_task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Runs an essential part; its error or panic is the server's end.
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

    /// Makes the monitors fit the specifications in the database, and passes on wishes for looks.
    pub(crate) async fn sync(&self) -> Result<(), AppError> {
        if !self.shared.is_monitored() {
            return Ok(());
        }
        let found = self.shared.health.read(&self.shared.main, store::specifications).await?;
        self.shared.stored.notify_one();
        let mut watched = self.shared.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|id, watched| {
            let stays = found.iter().any(|state| state.id == *id && state.specification.enabled);
            if !stays {
                // Pages show it until they are told.
                let _ = self.shared.events.send(Event::Specification { id: *id });
                watched.stop.send_replace(true);
            }
            stays
        });
        for state in found.into_iter().filter(|state| state.specification.enabled) {
            if let Some(known) = watched.get_mut(&state.id) {
                let changed = known.specification != state.specification;
                if changed {
                    let _ = self.shared.events.send(Event::Specification { id: state.id });
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
            let part = format!("the monitor of `{}`", state.specification.name);
            let monitors = Arc::clone(&self.shared.monitors);
            let (id, wish, stopped) = (state.id, Arc::clone(&wanted), stop.subscribe());
            self.spawn(&part, async move {
                monitor::run(monitors, id, wish, stopped).await.map_err(|e| model::with_causes(&e))
            });
            let (specification, wanted_at) = (state.specification, state.look.wanted_at);
            let _ = self.shared.events.send(Event::Specification { id: state.id });
            watched.insert(state.id, Watched { specification, wanted_at, wanted, stop });
        }
        Ok(())
    }
}

impl Shared {
    /// Deletes what is not kept: now, every hour, and when somebody asks.
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
                // Nothing depends on it: it is tried again.
                Err(error) => {
                    tracing::error!(
                        error = model::with_causes(&error),
                        "cannot delete what need not be kept"
                    );
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETENTION) => {}
                () = self.prune.notified() => {}
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
            }
        }
    }

    /// Looks each second whether the database and the lock are in their places, until the server ends.
    async fn watch_state(&self) -> Result<(), String> {
        let mut stop = self.stop.subscribe();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return Ok(()),
            }
            match self.health.read(&self.main, |_| Ok(())).await {
                Ok(()) => {}
                Err(error) if error.is_closed() || health::passes(&error) => return Ok(()),
                Err(error) => return Err(model::with_causes(&error)),
            }
            let path = StateDir::new(&self.settings.state).lock();
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

    pub(super) fn monitor_specifications(&self, yes: bool) {
        self.monitored.store(yes, Ordering::SeqCst);
    }

    pub(super) fn is_monitored(&self) -> bool {
        self.monitored.load(Ordering::SeqCst)
    }
}
