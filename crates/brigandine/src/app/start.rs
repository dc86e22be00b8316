//! How the server starts: what is opened in which order, and what is put right before anything runs.

use super::state_dir::{keep_private, lock, recover, supervisors};
use super::{App, AppError, Settings, Shared, isolation};
use crate::build::{Allowed, Builder, LocalExecutor};
use crate::evaluate::EvaluatorSettings;
use crate::health::Health;
use crate::input::{Checkouts, Repositories};
use crate::log::Logs;
use crate::monitor::{self, Scheduled, Turns};
use crate::os::state_dir::StateDir;
use crate::outputs::Outputs;
use crate::retention::Retention;
use crate::store;
use rustix::fs::Mode;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, broadcast, watch};

/// How many events a slow watcher may be behind.
const EVENTS: usize = 4096;
/// Fetches that have a turn, and that go on altogether.
const FETCHES: (usize, usize) = (8, 128);
/// Evaluations that have a turn, and that go on altogether.
const EVALUATIONS: (usize, usize) = (2, 64);

impl App {
    /// Opens the state directory and puts right what a killed server left behind. Nothing runs
    /// yet.
    ///
    /// # Errors
    /// The directory is in use or cannot be used; nothing was changed, unless the database failed
    /// in the middle, and then the next start does the rest.
    pub async fn start(settings: Settings) -> Result<Self, AppError> {
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
}
