//! What a server has before it opens the database: the lock of the state directory, the supervisors, and the isolation of
//! builds.

use super::lock::{lock, supervisors};
use super::running::RunningServer;
use super::{AppError, isolation};
use crate::config::Config;
use crate::health::Health;
use crate::model::{self, Event, Timestamp};
use crate::os::process::Supervisors;
use crate::os::sandbox::Sandbox;
use crate::os::state_dir::StateDir;
use rustix::fs::Mode;
use std::fs::{File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tokio::sync::broadcast;

/// How many events a slow receiver may lag behind.
const EVENTS: usize = 4096;

/// What a server has before it opens the database. It is made once, although a server that waits for the database opens
/// it many times. While it exists, no other server runs on the state directory.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(super) config: Config,
    started_at: Timestamp,
    pub(super) lock: Arc<File>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) health: Health,
    pub(super) supervisors: Arc<Supervisors>,
    pub(super) sandbox: Sandbox,
}

impl Ground {
    /// Locks the state directory, and decides how builds are isolated.
    ///
    /// # Errors
    /// The directory is in use or cannot be used, or builds cannot be isolated as configured. Nothing was changed.
    pub(crate) async fn take(mut config: Config) -> Result<Self, AppError> {
        std::fs::create_dir_all(&config.state)
            // The mode is set first, because files in the directory may be readable by others for a moment after they
            // are made.
            .and_then(|()| std::fs::set_permissions(&config.state, Permissions::from_mode(0o700)))
            .and_then(|()| config.state.canonicalize())
            .map(|state| config.state = state)
            .map_err(|error| AppError::State(config.state.clone(), error))?;
        // Files in the directory get the usual modes, because the user that runs builds must be able to read the part
        // that the sandbox shows. The mode of the directory itself keeps other users out.
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let lock = Arc::new(lock(&config.state)?);
        let events = broadcast::Sender::new(EVENTS);
        let (disks, reserve) = (StateDir::new(&config.state).disks(), config.limits.disk_reserve);
        let health = Health::watch(disks, reserve, events.clone())
            .map_err(|error| AppError::File(config.state.clone(), error))?;
        let supervisors = supervisors(&config.state).await?;
        let sandbox = isolation::choose(&config, &supervisors).await?;
        let started_at = model::now();
        Ok(Self { config, started_at, lock, events, health, supervisors, sandbox })
    }

    /// Tells commands where a server that waits for the database answers over HTTP.
    pub(crate) fn note_waiting(&self, address: Option<SocketAddr>) {
        let server = RunningServer {
            pid: std::process::id(),
            version: model::version().to_owned(),
            started_at: self.started_at,
            address,
            configuration: self.config.file.clone(),
            keep: self.config.keep,
            // A server that waits tells everybody why.
            secret: String::new(),
            unused: Vec::new(),
            reloads: Vec::new(),
        };
        server.write(&self.config.state);
    }
}
