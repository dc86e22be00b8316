//! A reload of the configuration: the running server takes the settings of its files, or keeps what it has.
//!
//! The caller reads the files, because it knows the command line too ([`App::set_source`]). This file gives the settings
//! to the parts that use them, and tells commands and pages what became of the last reload.

use super::App;
use crate::config::{self, Config};
use crate::model::{Configuration, Reload};
use std::sync::{Arc, PoisonError};
use tokio::sync::mpsc;

impl App {
    /// The configuration that the server uses.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.shared.config.get()
    }

    /// Says how the configuration is read again.
    pub(crate) fn set_source(
        &self,
        source: impl Fn() -> Result<Config, String> + Send + Sync + 'static,
    ) {
        self.shared.reloads.set_source(Arc::new(source));
    }

    /// The requests of commands for a reload, each with its number. `None`: an earlier call has taken them.
    pub(crate) fn reload_requests(&self) -> Option<mpsc::Receiver<String>> {
        self.shared.reloads.requests()
    }

    /// Uses the settings of `new` from now on, but for those that only a restart changes.
    pub(crate) fn take(&self, new: Config) -> Arc<Config> {
        let shared = &self.shared;
        let before = self.config();
        let config = Arc::new(config::without_restart(new, &before));
        shared.config.set(Arc::clone(&config));
        shared.settings.set(&config);
        let limits = &config.limits;
        shared.logs.set_bytes_max(limits.build_log);
        shared.health.set_reserve(limits.disk_reserve);
        shared.retention.set_keep(config.keep);
        let mut evaluator = shared.monitors.evaluator.get();
        evaluator.timeout = limits.evaluation_time;
        evaluator.output_bytes_max = limits.evaluation_output;
        evaluator.limits = limits.build;
        shared.monitors.evaluator.set(evaluator);
        shared.monitors.interval.set(config.interval);
        if config.interval != before.interval {
            // Each monitor sleeps for the interval of before. It looks at once, and sleeps for the new one after that.
            let watched = shared.watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.values().for_each(|watched| watched.wanted.notify_one());
        }
        // More builds may run now.
        shared.builder.wake();
        shared.stored.notify_one();
        config
    }

    /// Tells commands and pages what became of a reload.
    pub(crate) fn note_reload(&self, reload: Reload) {
        self.shared.reloads.note(reload);
        self.note_running();
    }

    /// The settings that the server uses, and how the files differ from them. Reads the files. Blocks.
    pub(crate) fn configuration(&self) -> Configuration {
        let running = self.config();
        let file = self.shared.reloads.source().map(|source| source());
        let (file, problem) = match file {
            None => (None, String::new()),
            Some(Ok(file)) => (Some(file), String::new()),
            Some(Err(problem)) => (None, problem),
        };
        let path = running.file.as_ref();
        Configuration {
            file: path.map(|path| path.display().to_string()).unwrap_or_default(),
            settings: config::settings(&running, file.as_ref()),
            problem,
            reload: self.shared.reloads.done().pop(),
        }
    }
}
