//! Status codes. They are the numbers of Cuirass.

use serde::{Serialize, Serializer};

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $code:literal $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$item])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The number in the database and in JSON.
            pub const fn code(self) -> i64 {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The value with this number; `None`: no value has it.
            pub const fn from_code(code: i64) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }

            /// The name in messages and on the command line.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|value| value.as_str()).collect();
                    format!("unknown status `{text}`; known are {}", known.join(", "))
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_i64(self.code())
            }
        }

        impl rusqlite::ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(self.code().into())
            }
        }

        impl rusqlite::types::FromSql for $name {
            fn column_result(
                value: rusqlite::types::ValueRef<'_>,
            ) -> rusqlite::types::FromSqlResult<Self> {
                let code = i64::column_result(value)?;
                Self::from_code(code).ok_or(rusqlite::types::FromSqlError::OutOfRange(code))
            }
        }
    };
}

codes! {
    /// The status of a build.
    BuildStatus {
        /// The build waits for its dependencies or for a free place.
        Scheduled = -2 "scheduled",
        /// An executor runs the build.
        Started = -1 "started",
        /// The build has all its outputs.
        Succeeded = 0 "succeeded",
        /// The build's command failed.
        Failed = 1 "failed",
        /// The build was never started, because a dependency failed.
        FailedDependency = 2 "failed-dependency",
        /// The build failed for another reason: a time limit, silence, a missing product, an error of the server.
        FailedOther = 3 "failed-other",
        /// The build was ended on request, or because its derivation is gone.
        Canceled = 4 "canceled",
    }
}

codes! {
    /// The status of an evaluation.
    EvaluationStatus {
        /// The evaluator is running.
        Started = -1 "started",
        /// The evaluator succeeded, and the jobs are registered.
        Succeeded = 0 "succeeded",
        /// The evaluator failed, or its output is invalid. No job is registered.
        Failed = 1 "failed",
        /// The server stopped the evaluation.
        Aborted = 2 "aborted",
    }
}

codes! {
    /// The result of a build compared with the previous finished build of the same job.
    Weather {
        /// The build has not finished, or was canceled.
        Unknown = -1 "unknown",
        /// The build succeeded, and the previous one did not, or there is none.
        NewSuccess = 0 "new-success",
        /// The build failed, and the previous one did not, or there is none.
        NewFailure = 1 "new-failure",
        /// The build succeeded, and so did the previous one.
        StillSucceeding = 2 "still-succeeding",
        /// The build failed, and so did the previous one.
        StillFailing = 3 "still-failing",
    }
}

impl BuildStatus {
    /// Whether the build has ended.
    pub const fn is_finished(self) -> bool {
        self.code() >= 0
    }

    /// Whether the build succeeded, so that it has its outputs.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Succeeded)
    }

    /// Whether the build failed. A canceled build did not fail.
    pub const fn is_broken(self) -> bool {
        matches!(self, Self::Failed | Self::FailedDependency | Self::FailedOther)
    }
}

impl Weather {
    /// The weather of a build that ends as `status`, after the job's previous build ended as `previous` (`None`: this
    /// is the first build).
    pub const fn of(previous: Option<BuildStatus>, status: BuildStatus) -> Self {
        let before = match previous {
            Some(previous) => previous.is_success(),
            // The result of a job's first build is a change, whatever it is.
            None => !status.is_success(),
        };
        match (before, status) {
            (_, BuildStatus::Scheduled | BuildStatus::Started | BuildStatus::Canceled) => {
                Self::Unknown
            }
            (true, BuildStatus::Succeeded) => Self::StillSucceeding,
            (false, BuildStatus::Succeeded) => Self::NewSuccess,
            (true, _) => Self::NewFailure,
            (false, _) => Self::StillFailing,
        }
    }
}
