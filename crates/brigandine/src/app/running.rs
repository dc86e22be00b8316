//! A file in the state directory that tells commands about the running server.
//!
//! The server writes the file when it starts, or begins to wait for the database, and removes the file when it ends. A
//! killed server leaves the file until a process next locks the state directory, so commands read the file only while
//! the directory is locked.

use super::wake::{Served, served};
use crate::model::{Keep, Reload, Timestamp, Unused};
use crate::os::state_dir::StateDir;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What commands need to know about the running server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningServer {
    /// The server's process id.
    pub(crate) pid: u32,
    /// The server's version and commit.
    #[serde(default)]
    pub(crate) version: String,
    /// When the server started.
    #[serde(default)]
    pub(crate) started_at: Timestamp,
    /// Where the server answers over HTTP; `None`: nowhere.
    #[serde(default)]
    pub(crate) address: Option<SocketAddr>,
    /// The server's configuration file; `None`: it has none.
    pub(crate) configuration: Option<PathBuf>,
    /// Which evaluations the server keeps, for specifications without `keep`.
    pub(crate) keep: Keep,
    /// What commands show the web server, which tells them what it tells those who may read; empty: there is none.
    #[serde(default)]
    pub(crate) secret: String,
    /// How the server's specification files differ from the stored specifications.
    #[serde(default)]
    pub(crate) unused: Vec<Unused>,
    /// What became of the last reloads of the configuration, the newest last.
    #[serde(default)]
    pub(crate) reloads: Vec<Reload>,
}

/// Reads the file of the server that runs on this state directory. `None`: no server runs, or the file cannot be read.
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
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|text| options.open(&file)?.write_all(&text));
        if let Err(error) = written {
            tracing::warn!(%error, file = %file.display(), "commands will not know this server's configuration");
        }
    }
}
