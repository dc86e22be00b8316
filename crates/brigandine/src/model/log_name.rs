//! Where a log is: of a build, of an evaluation.

use super::{BuildId, EvaluationId};
use crate::os::state_dir::LOGS;

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogName {
    /// Of one start of a build.
    Build(BuildId, i64),
    /// Of an evaluator.
    Evaluation(EvaluationId),
}

impl LogName {
    /// The plain file, relative to the state directory.
    pub fn path(self) -> String {
        match self {
            Self::Build(id, attempt) => {
                format!("{LOGS}/build/{}/{id}-{attempt}.log", id.get() / 1000)
            }
            Self::Evaluation(id) => format!("{LOGS}/evaluation/{id}.log"),
        }
    }
}
