//! Why an evaluation fails.

use crate::model::{MESSAGE_BYTES_MAX, one_line};
use crate::os::file::is_full;
use std::io;
use std::time::Duration;

/// Why an evaluation has no jobs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvaluateError {
    /// The evaluator could not be run.
    #[error("cannot run the evaluator `{0}`: {1}")]
    Run(String, #[source] io::Error),
    /// A file of the checkout could not be read or copied.
    #[error("cannot {0}: {1}")]
    Checkout(String, #[source] io::Error),
    /// The evaluator's output cannot be used.
    #[error("the evaluator's output, {0}")]
    Refused(String),
    /// The evaluator reports that it failed.
    #[error("{0}")]
    Reported(String),
    /// The evaluator took too long.
    #[error(
        "the evaluator did not end within {} s; its `timeout` can be set in the specification",
        .0.as_secs()
    )]
    Timeout(Duration),
    /// The evaluator's jobs could not be checked in the time that was left.
    #[error(
        "the time limit was over before all jobs were checked; name fewer source patterns, or raise \
         `timeout` of the evaluator or `evaluation-time` of the server"
    )]
    Late,
    /// The evaluator printed too much.
    #[error("the evaluator printed more than {0}")]
    Output(String),
    /// The evaluator exceeded a limit of memory, processes, files or disk.
    #[error("the evaluator {0}")]
    Limit(String),
    /// The evaluator failed. `last_words` is a colon and the last line of the evaluator's log, or empty.
    #[error("the evaluator ended with {how}{last_words}")]
    Ended { how: String, last_words: String },
}

impl EvaluateError {
    /// Adds the place in the output to an error about the output.
    pub(super) fn at(self, place: impl FnOnce() -> String) -> Self {
        match self {
            Self::Refused(message) => format!("{}: {message}", place()).into(),
            other => other,
        }
    }

    /// Whether a child process failed, and not what it printed.
    pub(crate) fn is_of_process(&self) -> bool {
        matches!(self, Self::Run(..) | Self::Ended { .. })
    }

    /// Whether the server itself met a full disk. There may be room again by now.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Run(_, error) | Self::Checkout(_, error) if is_full(error))
    }
}

impl From<String> for EvaluateError {
    fn from(message: String) -> Self {
        Self::Refused(one_line(&message, MESSAGE_BYTES_MAX))
    }
}

impl From<&str> for EvaluateError {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}
