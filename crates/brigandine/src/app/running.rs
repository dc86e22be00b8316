//! What the server that runs was told, for commands that should go by it: a file in the state directory.
//!
//! It is written when the server starts and removed when it ends; that of a server that was killed stays
//! until the next start. It is believed only while a server has the directory.

use super::{Served, Settings, served};
use crate::model::{Keep, Unused};
use crate::os::state_dir::StateDir;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What the server that runs was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningServer {
    /// Its process.
    pub(crate) pid: u32,
    /// The configuration that it was started with.
    pub(crate) configuration: Option<PathBuf>,
    /// Which evaluations it keeps where the specification does not say it.
    pub(crate) keep: Keep,
    /// What it was given and does not use.
    #[serde(default)]
    pub(crate) unused: Vec<Unused>,
}

/// What the server of this state directory was told. `None`: no server runs, or it does not say.
pub(crate) fn running_server(state: &Path) -> Option<RunningServer> {
    if served(state) == Served::No {
        return None;
    }
    let text = std::fs::read(StateDir::new(state).server()).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Leaves word of what this server was told. Commands do without, so a failure is only traced.
pub(super) fn note(state: &Path, settings: &Settings, unused: Vec<Unused>) {
    let told = RunningServer {
        pid: std::process::id(),
        configuration: settings.configuration.clone(),
        keep: settings.keep,
        unused,
    };
    let written = serde_json::to_vec(&told)
        .map_err(std::io::Error::from)
        .and_then(|text| std::fs::write(StateDir::new(state).server(), text));
    if let Err(error) = written {
        let file = StateDir::new(state).server();
        tracing::warn!(%error, file = %file.display(), "commands will not know this server's configuration");
    }
}

/// Takes the word back.
pub(super) fn forget(state: &Path) {
    let _ = std::fs::remove_file(StateDir::new(state).server());
}
