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
mod state_dir;
mod wake;

pub(crate) use error::AppError;
pub(crate) use running::{RunningServer, running_server};
pub(crate) use settings::Settings;
pub(crate) use state_dir::{make_state, prune};
pub(crate) use wake::{Presence, Served, served, tell, wake};

use crate::build::{
    Allowed, Builder, BuilderSettings, DispatchEvent, LocalDispatcher, LocalExecutor, Stop,
};
use crate::evaluate::EvaluatorSettings;
use crate::health::{self, Health};
use crate::input::{Checkouts, Repositories};
use crate::log::Logs;
use crate::model::{self, Cancel, Event, Specification, SpecificationId, Unused};
use crate::monitor::{self, Scheduled, Turns};
use crate::os::state_dir::StateDir;
use crate::outputs::Outputs;
use crate::retention::Retention;
use crate::store::{self, Database, Loaded};
use rustix::fs::Mode;
use state_dir::{keep_private, lock, recover, supervisors};
use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use wake::wake_socket;

/// The server without its HTTP. Clones share one server.
#[derive(Debug, Clone)]
pub(crate) struct App {
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

/// How many events a slow watcher may be behind.
const EVENTS: usize = 4096;
/// Before a build is started again whose worker vanished for the first time.
const LOSS_PAUSE: Duration = Duration::from_secs(5);
/// Fetches that have a turn, and that go on altogether.
const FETCHES: (usize, usize) = (8, 128);
/// Between two looks at the files that the server cannot do without.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at what need not be kept.
const RETENTION: Duration = Duration::from_secs(3600);
/// Evaluations that have a turn, and that go on altogether.
const EVALUATIONS: (usize, usize) = (2, 64);

impl App {
    /// Opens the state directory and puts right what a killed server left behind. Nothing runs
    /// yet.
    ///
    /// # Errors
    /// The directory is in use or cannot be used; nothing was changed, unless the database failed
    /// in the middle, and then the next start does the rest.
    pub(crate) async fn start(settings: Settings) -> Result<Self, AppError> {
        let mut settings = settings;
        std::fs::create_dir_all(&settings.state)
            // First of all: what is made in it may be readable by others for a moment.
            .and_then(|()| std::fs::set_permissions(&settings.state, Permissions::from_mode(0o700)))
            .and_then(|()| settings.state.canonicalize())
            .map(|state| settings.state = state)
            .map_err(|error| AppError::State(settings.state.clone(), error))?;
        // What is made below has the modes of any file: the directory keeps others out, and what of it is
        // shown to the user of builds must be readable.
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let state = settings.state.clone();
        let lock = lock(&state)?;
        let events = broadcast::Sender::new(EVENTS);
        let health =
            Health::watch(StateDir::new(&state).disks(), settings.disk_reserve, events.clone())
                .map_err(|error| AppError::File(state.clone(), error))?;
        let supervisors = supervisors(&state).await?;
        let sandbox = isolation::choose(&settings, &supervisors).await?;
        let isolation = sandbox.class();
        let database = store::open(&state).await?;
        keep_private(&state)?;
        let logs = Logs::new(&state, settings.log_bytes_max);
        let new_id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
            .map_err(|error| AppError::File("/proc/sys/kernel/random/uuid".into(), error))?;
        let new_id = new_id.trim().to_owned();
        let started = database.write(move |tx| store::note_start(tx, &new_id)).await?;
        let repositories = Arc::new(Repositories::new(
            StateDir::new(&state).repositories(),
            settings.fetch_timeout,
            &started.state_id,
            settings.git_filters.clone(),
            Arc::clone(&supervisors),
        ));
        let checkouts = Arc::new(Checkouts::new(
            Arc::clone(&repositories),
            StateDir::new(&state).checkouts(),
            settings.checkouts_kept,
        ));
        let files_failed = |error| AppError::File(state.clone(), error);
        std::fs::create_dir_all(StateDir::new(&state).repositories()).map_err(files_failed)?;
        let outputs = StateDir::new(&state).outputs();
        let cleaned = tokio::task::spawn_blocking(move || Outputs::clean(&outputs));
        let _ = cleaned.await;
        if started.killed {
            recover(&state, &started.state_id, &database, &logs, &checkouts).await?;
        } else {
            let exports = Arc::clone(&checkouts);
            // Also those that a server with other settings made, and that nothing names any more.
            let _ = tokio::task::spawn_blocking(move || exports.clean()).await;
        }
        let executor = LocalExecutor::new(
            &state,
            Arc::clone(&checkouts),
            Arc::clone(&supervisors),
            &started.state_id,
            Allowed {
                sandbox: sandbox.clone(),
                grace: settings.build_grace,
                limits: settings.build_limits,
                output_bytes_max: settings.output_bytes_max,
            },
            health.clone(),
        )
        .map_err(files_failed)?;
        let retention = Retention::new(
            &database,
            executor.outputs(),
            logs.clone(),
            settings.keep,
            events.clone(),
        );
        let builder = Builder::new();
        let monitors = monitor::Shared {
            database: database.client("evaluation"),
            health: health.clone(),
            repositories,
            checkouts,
            logs: logs.clone(),
            evaluator: EvaluatorSettings {
                program: settings.program.clone(),
                supervisors,
                sandbox,
                state_id: started.state_id,
                timeout: settings.evaluation_timeout,
                output_bytes_max: settings.evaluation_output_bytes_max,
                jobs_max: settings.evaluation_jobs_max,
                limits: settings.build_limits,
            },
            systems: settings.systems.clone(),
            isolation,
            interval: settings.interval,
            work: StateDir::new(&state).work(),
            outputs: executor.outputs(),
            scheduled: Scheduled(Box::new({
                let builder = builder.clone();
                move || builder.wake()
            })),
            events: events.clone(),
            fetches: Arc::new(Turns::new(FETCHES.0, FETCHES.1)),
            evaluations: Turns::new(EVALUATIONS.0, EVALUATIONS.1),
        };
        let shared = Shared {
            web: database.client("web"),
            main: database,
            logs,
            health,
            events,
            builder,
            retention,
            prune: Notify::new(),
            unused: watch::Sender::default(),
            stored: Notify::new(),
            monitors: Arc::new(monitors),
            executor: Mutex::new(Some(executor)),
            watched: Mutex::default(),
            running: Mutex::default(),
            builder_task: Mutex::default(),
            monitored: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            failed: watch::Sender::new(None),
            settings,
            lock,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Stores specifications, as one write. An existing one is replaced only with `replace`.
    pub(crate) async fn load(
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

    /// Starts the builder, a monitor per specification, and the socket by which other programs
    /// say that they changed the database.
    pub(crate) async fn run(&self) -> Result<(), AppError> {
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
    fn listen(&self) -> Result<(), AppError> {
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
    fn note_running(&self) {
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

    fn run_builder(&self) {
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
    fn watch(
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

    fn spawn(&self, name: &str, work: impl Future<Output = Result<(), String>> + Send + 'static) {
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

    /// Waits until nothing runs and nothing that was registered before can be started.
    pub(crate) async fn wait_idle(&self) {
        self.shared.builder.wait_idle().await;
    }

    /// Waits until an essential part has ended with an error.
    pub(crate) async fn failed(&self) -> AppError {
        let mut failed = self.shared.failed.subscribe();
        // The sender lives in `shared`, so the wait cannot fail.
        let found = failed.wait_for(Option::is_some).await.map(|found| found.clone());
        let (part, why) = found.ok().flatten().unwrap_or_default();
        AppError::Ended { part, why }
    }

    /// Ends in an orderly way: no new looks, evaluations are aborted, running builds end
    /// (`drain`) or are cut and scheduled again; then the database is closed.
    pub(crate) async fn shutdown(&self, drain: bool) -> Result<(), AppError> {
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
    pub(crate) fn database(&self) -> &Database {
        &self.shared.web
    }

    /// What happens from now on. A receiver that lags loses the oldest events.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
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

    /// The builder, for measurements.
    pub(crate) fn builder(&self) -> &Builder {
        &self.shared.builder
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

    fn monitor_specifications(&self, yes: bool) {
        self.monitored.store(yes, Ordering::SeqCst);
    }

    fn is_monitored(&self) -> bool {
        self.monitored.load(Ordering::SeqCst)
    }
}
