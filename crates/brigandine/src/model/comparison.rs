//! How the jobs of two evaluations differ.

use super::{BuildId, BuildStatus};

/// A way in which a job of an evaluation differs from the same job of another evaluation, or a reason to look at it.
///
/// A job may have several: a new job that fails is new and newly failing. So the newly failing jobs and those that still
/// fail are all that fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobChange {
    /// The job fails, and does not fail in the other evaluation.
    NewlyFailing,
    /// The job fails in both evaluations.
    StillFailing,
    /// The job succeeds, and fails in the other evaluation.
    Fixed,
    /// The other evaluation does not have the job.
    New,
    /// Only the other evaluation has the job.
    Removed,
    /// The job's build was canceled.
    Canceled,
}

impl JobChange {
    /// Every way, in the order in which people want to see them.
    pub const ALL: [Self; 6] = [
        Self::NewlyFailing,
        Self::StillFailing,
        Self::Fixed,
        Self::New,
        Self::Removed,
        Self::Canceled,
    ];

    /// The names of all ways, in the order of [`JobChange::ALL`].
    pub const NAMES: [&'static str; 6] =
        ["newly-failing", "still-failing", "fixed", "new", "removed", "canceled"];

    /// The name in addresses and in JSON.
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Whether a job differs in this way, whose builds have these statuses: `now` in the evaluation, `before` in the
    /// other one. `None`: that evaluation does not have the job.
    pub fn fits(self, now: Option<BuildStatus>, before: Option<BuildStatus>) -> bool {
        let fails = now.is_some_and(BuildStatus::is_broken);
        let failed = before.is_some_and(BuildStatus::is_broken);
        match self {
            Self::NewlyFailing => fails && !failed,
            Self::StillFailing => fails && failed,
            Self::Fixed => now == Some(BuildStatus::Succeeded) && failed,
            Self::New => now.is_some() && before.is_none(),
            Self::Removed => now.is_none() && before.is_some(),
            Self::Canceled => now == Some(BuildStatus::Canceled),
        }
    }
}

impl std::str::FromStr for JobChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|change| change.as_str() == text)
            .ok_or_else(|| format!("unknown change `{text}`; known are {}", Self::NAMES.join(", ")))
    }
}

/// A job of an evaluation, compared with the same job of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedJob {
    /// The job's name.
    pub name: String,
    /// The job's build. If the job is removed, its build in the other evaluation.
    pub build: BuildId,
    /// The status of this build.
    pub status: BuildStatus,
    /// Whether only the other evaluation has the job.
    pub removed: bool,
    /// The job's build in the other evaluation, with its status; `None`: only one of the evaluations has the job.
    pub before: Option<(BuildId, BuildStatus)>,
}
