//! Why an evaluation fails.

use super::check::Refusal;
use std::io;
use std::time::Duration;

/// Why an evaluation gave no jobs.
#[derive(Debug)]
pub(crate) enum EvaluateError {
    /// The evaluator could not be run.
    Run(String, io::Error),
    /// What it needs of the checkout could not be read or copied.
    Checkout(String, io::Error),
    /// What it said cannot be used.
    Refused(String),
    /// It says itself that it failed.
    Reported(String),
    /// It took too long.
    Timeout(Duration),
    /// Its jobs could not be checked in the time that was left.
    Late,
    /// It said too much.
    Output(String),
    /// It took too much of the machine.
    Limit(String),
    /// It ended badly.
    Ended {
        /// How.
        how: String,
        /// The last line of its log.
        last_words: String,
    },
}

impl std::fmt::Display for EvaluateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Run(program, error) => write!(f, "cannot run the evaluator `{program}`: {error}"),
            Self::Checkout(what, error) => write!(f, "cannot {what}: {error}"),
            Self::Refused(message) => write!(f, "the evaluator's output, {message}"),
            Self::Reported(message) => f.write_str(message),
            Self::Timeout(limit) => write!(
                f,
                "the evaluator did not end within {} s; \
                 its `timeout` can be set in the specification",
                limit.as_secs()
            ),
            Self::Late => f.write_str(
                "the time limit was over before all jobs were checked; name fewer source patterns, \
                 or raise `timeout` of the evaluator or `evaluation-time` of the server",
            ),
            Self::Output(limit) => write!(f, "the evaluator printed more than {limit}"),
            Self::Limit(message) => write!(f, "the evaluator {message}"),
            Self::Ended { how, last_words } if last_words.is_empty() => {
                write!(f, "the evaluator ended with {how}")
            }
            Self::Ended { how, last_words } => {
                write!(f, "the evaluator ended with {how}: {last_words}")
            }
        }
    }
}

impl std::error::Error for EvaluateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Run(_, error) | Self::Checkout(_, error) => Some(error),
            _ => None,
        }
    }
}

impl EvaluateError {
    /// Whether the server itself met a full disk. It may have room again by now.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Run(_, error) | Self::Checkout(_, error) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

impl From<Refusal> for EvaluateError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Line(message) => Self::Refused(message),
            Refusal::Reported(message) => Self::Reported(message),
            Refusal::Late => Self::Late,
        }
    }
}
