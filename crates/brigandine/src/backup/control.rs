//! How long work is reported and stopped.

use super::error::BackupError;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Files and links that were copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Files {
    /// How many there are.
    pub(crate) files: u64,
    /// The sum of their sizes.
    pub(crate) bytes: u64,
    /// How many logs or outputs the database names that were not there.
    #[serde(default)]
    pub(crate) missing: u64,
}

/// A report of the progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The pages of the database that are copied, and all of them.
    Database(u64, u64),
    /// A copied database is checked.
    Check,
    /// The logs that are copied.
    Logs(Files),
    /// The outputs that are copied.
    Outputs(Files),
    /// Everything is being written to the disk.
    Sync,
}

/// How long work is reported and stopped.
#[derive(Clone)]
pub(crate) struct Control {
    /// Turns true when the work is to stop.
    pub(crate) stop: Arc<AtomicBool>,
    /// Called with each step, from several threads, many times a second.
    pub(crate) report: Arc<dyn Fn(Step) + Send + Sync>,
}

impl Control {
    /// Reports a step.
    ///
    /// # Errors
    /// The work is to stop.
    pub(super) fn step(&self, step: Step) -> Result<(), BackupError> {
        (self.report)(step);
        if self.is_stopped() { Err(BackupError::Stopped) } else { Ok(()) }
    }

    /// Whether the work is to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
