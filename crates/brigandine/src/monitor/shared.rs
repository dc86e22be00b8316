//! What all monitors share.

use super::turns::Turns;
use crate::evaluate::EvaluatorSettings;
use crate::health::Health;
use crate::input::{Checkouts, Repositories};
use crate::log::Logs;
use crate::model::Event;
use crate::outputs::Outputs;
use crate::store::Database;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// What all monitors share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The lane for evaluations.
    pub(crate) database: Database,
    /// What is waited for before anything is begun.
    pub(crate) health: Health,
    /// The clones.
    pub(crate) repositories: Arc<Repositories>,
    /// The exports.
    pub(crate) checkouts: Arc<Checkouts>,
    /// The evaluators' logs.
    pub(crate) logs: Logs,
    /// What evaluators may take.
    pub(crate) evaluator: EvaluatorSettings,
    /// What the server builds for.
    pub(crate) systems: Vec<String>,
    /// What builds see of this machine.
    pub(crate) isolation: &'static str,
    /// Between two looks, unless the specification says otherwise.
    pub(crate) interval: Duration,
    /// Below this, evaluators get a directory of their own.
    pub(crate) work: PathBuf,
    /// Looked at when jobs are linked to builds that have some.
    pub(crate) outputs: Arc<Outputs>,
    /// Called when builds may have been scheduled.
    pub(crate) scheduled: Scheduled,
    /// For watchers.
    pub(crate) events: broadcast::Sender<Event>,
    /// Of fetches.
    pub(crate) fetches: Arc<Turns>,
    /// Of evaluations.
    pub(crate) evaluations: Turns,
}

/// Tells whoever starts builds that there may be some.
pub(crate) struct Scheduled(pub(crate) Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Scheduled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scheduled")
    }
}
