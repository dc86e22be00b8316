//! The configuration of the running server, for commands: a file in the state directory.
//!
//! The server writes it at its start and removes it at its end. A server that was killed leaves it until the next start,
//! so commands read it only while a server runs.

use super::wake::{Served, served};
use crate::model::{Keep, Unused};
use crate::os::state_dir::StateDir;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What commands may know of the running server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningServer {
    /// Its process.
    pub(crate) pid: u32,
    /// Its configuration file.
    pub(crate) configuration: Option<PathBuf>,
    /// Which evaluations it keeps of a specification without `keep`.
    pub(crate) keep: Keep,
    /// How its specification files differ from what is stored.
    #[serde(default)]
    pub(crate) unused: Vec<Unused>,
}

/// The running server of this state directory. `None`: no server runs, or its file cannot be read.
pub(crate) fn running_server(state: &Path) -> Option<RunningServer> {
    if served(state) == Served::No {
        return None;
    }
    let text = std::fs::read(StateDir::new(state).server()).ok()?;
    serde_json::from_slice(&text).ok()
}

impl RunningServer {
    /// Writes the file. Commands work without it, so a failure is only traced.
    pub(super) fn write(&self, state: &Path) {
        let file = StateDir::new(state).server();
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&file, text));
        if let Err(error) = written {
            tracing::warn!(%error, file = %file.display(), "commands will not know this server's configuration");
        }
    }
}
