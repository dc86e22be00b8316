//! The file names of build logs and evaluator logs.

use super::{BuildId, EvaluationId};
use crate::os::state_dir::LOGS;

/// A log, as a name for its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogName {
    /// The build log of an attempt, by the build and the attempt's number.
    Build(BuildId, i64),
    /// The log of an evaluator.
    Evaluation(EvaluationId),
}

impl LogName {
    /// The path of the uncompressed file, relative to the state directory.
    pub fn path(self) -> String {
        match self {
            Self::Build(id, attempt) => {
                format!("{LOGS}/build/{}/{id}-{attempt}.log", id.get() / 1000)
            }
            Self::Evaluation(id) => format!("{LOGS}/evaluation/{id}.log"),
        }
    }
}
