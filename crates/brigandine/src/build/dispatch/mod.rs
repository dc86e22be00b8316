//! What to build is separate from where: a [`Dispatcher`] takes jobs and reports, an [`Executor`]
//! runs one. The local dispatcher is the first; one for remote workers must not need changes
//! above the trait.

pub(crate) mod local;

use crate::log::LogWriter;
use crate::model::{BuildId, BuildLogFile, BuildStatus, Definition, NewProduct};
use crate::outputs::Hold;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// One start of a build with all that is needed to run it anywhere: no path of the server.
#[derive(Debug, Clone)]
pub(crate) struct BuildJob {
    /// The build.
    pub(crate) id: BuildId,
    /// The number of this start.
    pub(crate) attempt: i64,
    /// What is to be done.
    pub(crate) definition: Definition,
    /// The digests of the outputs it sees, by the name it knows them by.
    pub(crate) needs: Vec<(String, String)>,
    /// Wall-clock limit.
    pub(crate) timeout: Duration,
    /// How long it may be silent.
    pub(crate) max_silent: Duration,
}

/// How one start ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// A finished status.
    pub(crate) status: BuildStatus,
    /// Why, for people; may be empty.
    pub(crate) message: String,
    /// Name and digest of each output.
    pub(crate) outputs: Vec<(String, String)>,
    /// Files to download, with paths relative to the state directory.
    pub(crate) products: Vec<NewProduct>,
    /// Keeps the outputs there until this is stored.
    pub(crate) hold: Option<Hold>,
    /// Digests of outputs that it needs and that are not there: they are made again, and so is it.
    pub(crate) gone: Vec<String>,
    /// What the build log is to say besides.
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    /// An end without outputs.
    pub(crate) fn ended(status: BuildStatus, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            outputs: Vec::new(),
            products: Vec::new(),
            hold: None,
            gone: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The end of a job that could not begin, since outputs that it needs are not there.
    pub(crate) fn without(gone: Vec<String>) -> Self {
        let message = format!("outputs that it needs are gone: {}", gone.join(", "));
        Self { gone, ..Self::ended(BuildStatus::FailedOther, message) }
    }
}

/// The worker, not the build, is in trouble: this start counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost(pub(crate) String);

/// What a dispatcher reports. Log output goes straight to the build's [`LogWriter`].
#[derive(Debug)]
pub(crate) enum DispatchEvent {
    /// The process runs.
    Started {
        /// The build.
        id: BuildId,
        /// The start.
        attempt: i64,
        /// Since when.
        at: Instant,
    },
    /// The process ended, its log is closed.
    Ended {
        /// The build.
        id: BuildId,
        /// The start.
        attempt: i64,
        /// How.
        outcome: Outcome,
        /// Where its log is.
        log: BuildLogFile,
    },
    /// The worker vanished.
    Lost {
        /// The build.
        id: BuildId,
        /// The start.
        attempt: i64,
        /// What is known.
        message: String,
        /// Where its log is, if it has one.
        log: BuildLogFile,
    },
}

/// Hands jobs to executors, wherever they are.
///
/// For every job taken it reports exactly one end, [`DispatchEvent::Ended`] or
/// [`DispatchEvent::Lost`], on the channel it was made with, and at most one start before it.
pub(crate) trait Dispatcher: Send + Sync + 'static {
    /// Takes a job. Returns at once.
    fn offer(&self, job: BuildJob, log: LogWriter);

    /// Asks for the end of a start, which then ends as canceled unless it ended just before.
    /// Unknown starts are ignored.
    fn cancel(&self, id: BuildId, attempt: i64);
}

/// Runs one self-contained job.
pub(crate) trait Executor: Send + Sync + 'static {
    /// Runs the job to its end, writing what it prints to `log`. `started` is called once, when
    /// its process runs. When `cancel` turns true, the job ends as canceled.
    fn run(
        &self,
        job: BuildJob,
        log: &mut LogWriter,
        cancel: watch::Receiver<bool>,
        started: impl FnOnce() + Send,
    ) -> impl Future<Output = Result<Outcome, Lost>> + Send;
}
