//! The file names of logs.

use super::{BuildId, EvaluationId};
use crate::os::state_dir::LOGS;

/// A log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogName {
    /// The log of an attempt at a build.
    Build(BuildId, i64),
    /// The log of an evaluator.
    Evaluation(EvaluationId),
}

impl LogName {
    /// The file before compression, relative to the state directory.
    pub fn path(self) -> String {
        match self {
            Self::Build(id, attempt) => {
                format!("{LOGS}/build/{}/{id}-{attempt}.log", id.get() / 1000)
            }
            Self::Evaluation(id) => format!("{LOGS}/evaluation/{id}.log"),
        }
    }
}
