//! What is built is separate from where: a [`Dispatcher`] takes jobs and reports, an [`Executor`] runs one. A
//! dispatcher for remote workers must need no changes above the trait.

pub(crate) mod local;

use crate::log::LogWriter;
use crate::model::{BuildId, BuildLogFile, BuildStatus, Definition, NewProduct};
use crate::outputs::Hold;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// One attempt of a build, with all that is needed to run it on any machine: no path of the server.
#[derive(Debug, Clone)]
pub(crate) struct BuildJob {
    /// The build.
    pub(crate) id: BuildId,
    /// The number of the attempt.
    pub(crate) attempt: i64,
    /// What is to be done.
    pub(crate) definition: Definition,
    /// The outputs that it sees: their names in the build, and their digests.
    pub(crate) needs: Vec<(String, String)>,
    /// Wall-clock limit.
    pub(crate) timeout: Duration,
    /// How long it may print nothing.
    pub(crate) max_silent: Duration,
}

/// How one attempt ended.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// A finished status.
    pub(crate) status: BuildStatus,
    /// Why, for people; may be empty.
    pub(crate) message: String,
    /// Name and digest of each output.
    pub(crate) outputs: Vec<(String, String)>,
    /// Files to download, with paths relative to the state directory.
    pub(crate) products: Vec<NewProduct>,
    /// Keeps the outputs until this is stored.
    pub(crate) hold: Option<Hold>,
    /// Digests of missing outputs that it needs: they are built again, and then so is it.
    pub(crate) gone: Vec<String>,
    /// Notes for the build log.
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

    /// The end of a job that could not start, since outputs that it needs are missing.
    pub(crate) fn without(gone: Vec<String>) -> Self {
        let message = format!("outputs that it needs are gone: {}", gone.join(", "));
        Self { gone, ..Self::ended(BuildStatus::FailedOther, message) }
    }
}

/// The worker failed, not the build, which is started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost(pub(crate) String);

/// What a dispatcher reports of one attempt. Log output goes straight to the build's [`LogWriter`].
#[derive(Debug)]
pub(crate) struct DispatchEvent {
    pub(crate) id: BuildId,
    pub(crate) attempt: i64,
    pub(crate) progress: Progress,
}

/// How far an attempt is.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Its process runs, since then.
    Started(Instant),
    /// It has ended, and its log is closed.
    Ended(Result<Outcome, Lost>, BuildLogFile),
}

/// Hands jobs to executors, wherever they are.
///
/// For every job taken it reports exactly one [`Progress::Ended`] on the channel it was made with, and at most one
/// [`Progress::Started`] before it.
pub(crate) trait Dispatcher: Send + Sync + 'static {
    /// Takes a job. Returns at once.
    fn offer(&self, job: BuildJob, log: LogWriter);

    /// Asks an attempt to end; it ends as canceled, unless it has just ended. Unknown attempts are ignored.
    fn cancel(&self, id: BuildId, attempt: i64);
}

/// Runs one self-contained job.
pub(crate) trait Executor: Send + Sync + 'static {
    /// Runs the job to its end, and writes what it prints to `log`. Calls `started` once, when its process runs. When
    /// `cancel` turns true, the job ends as canceled.
    fn run(
        &self,
        job: BuildJob,
        log: &mut LogWriter,
        cancel: watch::Receiver<bool>,
        started: impl FnOnce() + Send,
    ) -> impl Future<Output = Result<Outcome, Lost>> + Send;
}
