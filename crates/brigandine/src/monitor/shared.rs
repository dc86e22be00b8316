//! What all monitors share.

use super::turns::Turns;
use crate::evaluate::EvaluatorSettings;
use crate::health::Health;
use crate::input::{Checkouts, Repositories};
use crate::log::Logs;
use crate::measure::Meters;
use crate::model::{BuildId, Event, Live};
use crate::outputs::Outputs;
use crate::store::Database;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// What all monitors share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The database, with the queue for evaluations.
    pub(crate) database: Database,
    /// Looks wait until this says that there is room.
    pub(crate) health: Health,
    /// The clones.
    pub(crate) repositories: Arc<Repositories>,
    /// The exports.
    pub(crate) checkouts: Arc<Checkouts>,
    /// The evaluators' logs.
    pub(crate) logs: Logs,
    /// The settings of evaluators.
    pub(crate) evaluator: Live<EvaluatorSettings>,
    /// The systems for which the server builds.
    pub(crate) systems: Vec<String>,
    /// How builds are isolated, as a part of a job's identity.
    pub(crate) isolation: &'static str,
    /// The pause between two looks, unless the specification names one.
    pub(crate) interval: Live<Duration>,
    /// The folder in which evaluators get their directories.
    pub(crate) work: PathBuf,
    /// The outputs of builds. When jobs are linked to finished builds, the server checks that the outputs of these
    /// builds exist.
    pub(crate) outputs: Arc<Outputs>,
    /// Called when builds may have been scheduled.
    pub(crate) scheduled: Scheduled,
    /// Called when a running attempt is asked to end.
    pub(crate) ending: Ending,
    /// Where the ends of evaluations are counted.
    pub(crate) meters: Arc<Meters>,
    /// Where changes are published.
    pub(crate) events: broadcast::Sender<Event>,
    /// Bounds how many fetches run at the same time.
    pub(crate) fetches: Arc<Turns>,
    /// Bounds how many evaluations run at the same time.
    pub(crate) evaluations: Turns,
}

/// Tells the builder that builds may be ready.
pub(crate) struct Scheduled(pub(crate) Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Scheduled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scheduled")
    }
}

/// Tells the builder that a running attempt must end.
pub(crate) struct Ending(pub(crate) Box<dyn Fn(BuildId, i64) + Send + Sync>);

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ending")
    }
}
