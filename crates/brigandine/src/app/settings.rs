//! The settings that a reload changes while the server runs, and what reloads need (`reload.rs`).

use crate::config::Config;
use crate::model::{Live, Reload};
use crate::os::process::Limits;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// The most reloads that wait; further ones are dropped, because those that wait read the same files.
const WAITING_MAX: usize = 16;

/// How many reloads are kept, so that each of several commands finds its own.
const KEPT: usize = WAITING_MAX;

/// Reads the configuration as a start of the server would: the file, and the command line.
pub(super) type Source = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// What reloads need.
pub(super) struct Reloads {
    /// `None`: nobody has named a source, as in tests.
    source: Mutex<Option<Source>>,
    /// The last reloads, at most [`KEPT`], the newest last.
    done: Live<Vec<Reload>>,
    wanted: mpsc::Sender<String>,
    /// `None`: somebody waits for requests.
    requests: Mutex<Option<mpsc::Receiver<String>>>,
}

impl Reloads {
    pub(super) fn new() -> Self {
        let (wanted, requests) = mpsc::channel(WAITING_MAX);
        let requests = Mutex::new(Some(requests));
        Self { source: Mutex::default(), done: Live::default(), wanted, requests }
    }

    /// What became of the last reloads, the newest last.
    pub(super) fn done(&self) -> Vec<Reload> {
        self.done.get()
    }

    /// Keeps what became of a reload.
    pub(super) fn note(&self, reload: Reload) {
        let mut done = self.done.get();
        done.push(reload);
        done.drain(..done.len().saturating_sub(KEPT));
        self.done.set(done);
    }

    /// Says how the configuration is read.
    pub(super) fn set_source(&self, source: Source) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
    }

    /// How the configuration is read; `None`: nobody has said it.
    pub(super) fn source(&self) -> Option<Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The requests for reloads. `None`: an earlier call has taken them.
    pub(super) fn requests(&self) -> Option<mpsc::Receiver<String>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Asks for a reload. The caller finds the result by `id`.
    pub(super) fn want(&self, id: &str) {
        let _ = self.wanted.try_send(id.to_owned());
    }
}

impl std::fmt::Debug for Reloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloads").field("done", &self.done).finish_non_exhaustive()
    }
}

/// The limits that change with a reload, shared with the parts that use them.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) max_jobs: Live<usize>,
    pub(super) build_time: Live<Duration>,
    pub(super) build_silence: Live<Duration>,
    pub(super) build_grace: Live<Duration>,
    pub(super) build: Live<Limits>,
    pub(super) fetch_time: Live<Duration>,
}

impl Settings {
    pub(super) fn new(config: &Config) -> Self {
        let limits = &config.limits;
        Self {
            max_jobs: Live::new(config.max_jobs.max(1)),
            build_time: Live::new(limits.build_time),
            build_silence: Live::new(limits.build_silence),
            build_grace: Live::new(limits.build_grace),
            build: Live::new(limits.build),
            fetch_time: Live::new(limits.fetch_time),
        }
    }

    /// Gives all settings the values that a configuration has.
    pub(super) fn set(&self, config: &Config) {
        let limits = &config.limits;
        self.max_jobs.set(config.max_jobs.max(1));
        self.build_time.set(limits.build_time);
        self.build_silence.set(limits.build_silence);
        self.build_grace.set(limits.build_grace);
        self.build.set(limits.build);
        self.fetch_time.set(limits.fetch_time);
    }
}
