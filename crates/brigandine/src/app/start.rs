//! How the server starts: the order in which the parts are opened, and what is recovered before a task runs.

use super::actions::CHANGES_MAX;
use super::ground::Ground;
use super::lock::{keep_private, recover, tell_restored};
use super::settings::{Reloads, Settings};
use super::{App, AppError, Shared};
use crate::backup::Restored;
use crate::build::{Allowed, Builder, LocalExecutor};
use crate::config::Config;
use crate::evaluate::EvaluatorSettings;
use crate::input::{Checkouts, Repositories};
use crate::log::Logs;
use crate::measure::Meters;
use crate::model::Live;
use crate::monitor::{self, Ending, Scheduled, Turns};
use crate::os::state_dir::StateDir;
use crate::outputs::Outputs;
use crate::retention::Retention;
use crate::store;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, Semaphore, watch};

/// The most fetches that hold a turn, and the most fetches that run, with and without a turn (`monitor::Turns`).
const FETCHES: (usize, usize) = (8, 128);
/// The most evaluations that hold a turn, and the most that run, with and without a turn.
const EVALUATIONS: (usize, usize) = (2, 64);
/// The most jobs of one evaluation.
const EVALUATION_JOBS_MAX: usize = 1_000_000;
/// The most bytes of one build's output.
const OUTPUT_BYTES_MAX: u64 = 16 << 30;
/// How many exported revisions are kept although nothing uses them.
const CHECKOUTS_KEPT: usize = 16;

impl App {
    /// Opens the state directory, and recovers from a server that was killed. No task runs yet.
    ///
    /// # Errors
    /// The directory is in use or cannot be used, and nothing was changed; or the database failed during the recovery,
    /// which the next start continues.
    pub async fn start(config: Config) -> Result<Self, AppError> {
        Self::open(&Ground::take(config).await?).await
    }

    /// Opens the database, and recovers from a server that was killed. No task runs yet.
    ///
    /// # Errors
    /// The database cannot be opened, or failed during the recovery. The next call continues.
    #[expect(
        clippy::too_many_lines,
        reason = "the parts of a server in the order in which each needs those before it"
    )]
    pub(crate) async fn open(ground: &Ground) -> Result<Self, AppError> {
        let Ground { config, lock, events, health, supervisors, sandbox, .. } = ground;
        let (state, limits) = (config.state.clone(), config.limits.clone());
        let settings = Settings::new(config);
        let files = StateDir::new(&state);
        let files_failed = |error| AppError::File(state.clone(), error);
        let isolation = sandbox.class();
        let database = store::open(&state).await?;
        keep_private(&state)?;
        let logs = Logs::new(&state, limits.build_log);
        let new_id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
            .map_err(|error| AppError::File("/proc/sys/kernel/random/uuid".into(), error))?;
        let new_id = new_id.trim().to_owned();
        let started = database.write(move |tx| store::note_start(tx, &new_id)).await?;
        let repositories = Arc::new(Repositories::new(
            files.repositories(),
            settings.fetch_time.clone(),
            &started.state_id,
            config.git_filters.clone(),
            Arc::clone(supervisors),
        ));
        let checkouts =
            Arc::new(Checkouts::new(Arc::clone(&repositories), files.checkouts(), CHECKOUTS_KEPT));
        std::fs::create_dir_all(files.repositories()).map_err(files_failed)?;
        let outputs = files.outputs();
        let _ = tokio::task::spawn_blocking(move || Outputs::clean(&outputs)).await;
        let restored = Restored::read(&state);
        let meters = Arc::new(Meters::default());
        if started.killed {
            let is_restored = restored.is_some();
            let id = &started.state_id;
            recover(&state, id, &database, &logs, &checkouts, &meters, is_restored).await?;
        } else {
            let exports = Arc::clone(&checkouts);
            // This also removes exports that a server with another configuration made.
            let _ = tokio::task::spawn_blocking(move || exports.clean()).await;
        }
        if let Some(restored) = &restored {
            tell_restored(&state, restored);
        }
        let executor = LocalExecutor::new(
            &state,
            Arc::clone(&checkouts),
            Arc::clone(supervisors),
            &started.state_id,
            Allowed {
                sandbox: sandbox.clone(),
                grace: settings.build_grace.clone(),
                limits: settings.build.clone(),
                output_bytes_max: OUTPUT_BYTES_MAX,
            },
            health.clone(),
        )
        .map_err(files_failed)?;
        let outputs = executor.outputs();
        let retention =
            Retention::new(&database, outputs, logs.clone(), config.keep, events.clone());
        let builder = Builder::new(Arc::clone(&meters));
        let systems = vec![format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)];
        let monitors = monitor::Shared {
            database: database.client("evaluation"),
            health: health.clone(),
            repositories,
            checkouts,
            logs: logs.clone(),
            evaluator: Live::new(EvaluatorSettings {
                program: std::env::current_exe().unwrap_or_else(|_| "brigandine".into()),
                supervisors: Arc::clone(supervisors),
                sandbox: sandbox.clone(),
                state_id: started.state_id,
                timeout: limits.evaluation_time,
                output_bytes_max: limits.evaluation_output,
                jobs_max: EVALUATION_JOBS_MAX,
                limits: limits.build,
            }),
            systems: systems.clone(),
            isolation,
            interval: Live::new(config.interval),
            work: files.work(),
            outputs: executor.outputs(),
            scheduled: Scheduled(Box::new({
                let builder = builder.clone();
                move || builder.wake()
            })),
            ending: Ending(Box::new({
                let builder = builder.clone();
                move |id, attempt| builder.cancel_running(id, attempt)
            })),
            meters: Arc::clone(&meters),
            events: events.clone(),
            fetches: Arc::new(Turns::new(FETCHES.0, FETCHES.1)),
            evaluations: Turns::new(EVALUATIONS.0, EVALUATIONS.1),
        };
        let shared = Shared {
            web: database.client("web"),
            main: database,
            logs,
            health: health.clone(),
            meters,
            events: events.clone(),
            builder,
            retention,
            prune: Notify::new(),
            changes: Arc::new(Semaphore::new(CHANGES_MAX)),
            address: Mutex::default(),
            unused: watch::Sender::default(),
            stored: Notify::new(),
            monitors: Arc::new(monitors),
            executor: Mutex::new(Some(executor)),
            watched: Mutex::default(),
            private: Mutex::default(),
            running: Mutex::default(),
            builder_task: Mutex::default(),
            monitored: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            failed: watch::Sender::new(None),
            state,
            config: Live::new(Arc::new(config.clone())),
            settings,
            reloads: Reloads::new(),
            systems,
            lock: Arc::clone(lock),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}
