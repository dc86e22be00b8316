//! Separates what is built from where it is built: a [`Dispatcher`] takes jobs and reports on them, an [`Executor`]
//! runs one job. A dispatcher for remote workers must not require changes above the trait.

pub(crate) mod local;

use crate::log::LogWriter;
use crate::model::{BuildId, BuildLogFile, BuildStatus, Definition, NewProduct};
use crate::outputs::Hold;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// One attempt of a build, with everything that is needed to run it on any machine. It contains no paths of the
/// server's machine.
#[derive(Debug, Clone)]
pub(crate) struct BuildJob {
    /// The build.
    pub(crate) id: BuildId,
    /// The number of the attempt.
    pub(crate) attempt: i64,
    /// The definition of the work.
    pub(crate) definition: Definition,
    /// The outputs that the build sees: their names in the build, and their digests.
    pub(crate) needs: Vec<(String, String)>,
    /// The limit on the wall-clock time.
    pub(crate) timeout: Duration,
    /// The limit on the time without output.
    pub(crate) max_silent: Duration,
}

/// How one attempt ended.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// A finished status.
    pub(crate) status: BuildStatus,
    /// Why the attempt ended with this status, for people; may be empty.
    pub(crate) message: String,
    /// The name and the digest of each output.
    pub(crate) outputs: Vec<(String, String)>,
    /// The products: files that pages offer for download. Their paths are relative to the state directory.
    pub(crate) products: Vec<NewProduct>,
    /// Keeps the outputs until this outcome is stored; `None`: there is nothing to keep.
    pub(crate) hold: Option<Hold>,
    /// Digests of outputs that the build needs and that are missing. They must be built again before this build.
    pub(crate) gone: Vec<String>,
    /// Notes for the build log.
    pub(crate) notes: Vec<String>,
    /// `true`: TERM or KILL has ended the attempt, which was not asked to end. Perhaps a stop of the server has sent the
    /// signal.
    pub(crate) killed: bool,
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
            killed: false,
        }
    }

    /// The end of a job that could not start, because outputs that it needs are missing.
    pub(crate) fn without(gone: Vec<String>) -> Self {
        let message = format!("outputs that it needs are gone: {}", gone.join(", "));
        Self { gone, ..Self::ended(BuildStatus::FailedOther, message) }
    }
}

/// The worker failed, not the build. So the build is started again, unless it was lost too often. The text says what
/// happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost(pub(crate) String);

/// Why an attempt is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndRequest {
    /// A cancel of the build was requested.
    Canceled,
    /// The server is stopped.
    Stopped,
}

impl EndRequest {
    /// The reason, for the build log and for people.
    pub(crate) const fn message(self) -> &'static str {
        match self {
            Self::Canceled => "canceled on request",
            Self::Stopped => "the server was stopped",
        }
    }
}

/// A dispatcher's report about one attempt. Log output goes straight to the build's [`LogWriter`].
#[derive(Debug)]
pub(crate) struct DispatchEvent {
    pub(crate) id: BuildId,
    pub(crate) attempt: i64,
    pub(crate) progress: Progress,
}

/// The progress of an attempt.
#[derive(Debug)]
pub(crate) enum Progress {
    /// The attempt's process has run since this time.
    Started(Instant),
    /// The attempt has ended, and its log is closed.
    Ended(Result<Outcome, Lost>, BuildLogFile),
}

/// Hands jobs to executors, which may be on other machines.
///
/// For every job, a dispatcher sends exactly one [`Progress::Ended`], and before that at most one
/// [`Progress::Started`], to the channel that it got when it was made.
pub(crate) trait Dispatcher: Send + Sync + 'static {
    /// Takes a job, and does not wait until it runs.
    fn offer(&self, job: BuildJob, log: LogWriter);

    /// Asks an attempt to end. The attempt ends as canceled, unless it has just ended. Unknown attempts are ignored.
    fn cancel(&self, id: BuildId, attempt: i64, why: EndRequest);
}

/// Runs one self-contained job.
pub(crate) trait Executor: Send + Sync + 'static {
    /// Runs the job to its end, and writes the job's output to `log`. Calls `started` once, when the job's process
    /// runs. Once `cancel` has a reason, the job ends as canceled, and its log says the reason.
    fn run(
        &self,
        job: BuildJob,
        log: &mut LogWriter,
        cancel: watch::Receiver<Option<EndRequest>>,
        started: impl FnOnce() + Send,
    ) -> impl Future<Output = Result<Outcome, Lost>> + Send;
}
