//! Status codes: the numbers of Cuirass, and no others.

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

            /// The value with this number, if there is one.
            pub const fn from_code(code: i64) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }

            /// The name in messages and on command lines.
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
        /// Waits for its dependencies or for room.
        Scheduled = -2 "scheduled",
        /// An executor runs it.
        Started = -1 "started",
        /// Has all its outputs.
        Succeeded = 0 "succeeded",
        /// Its command failed.
        Failed = 1 "failed",
        /// Never started, because a dependency failed.
        FailedDependency = 2 "failed-dependency",
        /// Failed for another reason: a time limit, silence, a missing product, an error of the server.
        FailedOther = 3 "failed-other",
        /// Ended on request, or without its derivation.
        Canceled = 4 "canceled",
    }
}

codes! {
    /// The status of an evaluation.
    EvaluationStatus {
        /// The evaluator runs.
        Started = -1 "started",
        /// Its jobs are registered.
        Succeeded = 0 "succeeded",
        /// The evaluator failed, or its output is invalid; nothing is registered.
        Failed = 1 "failed",
        /// The server stopped it.
        Aborted = 2 "aborted",
    }
}

codes! {
    /// The result of a build compared with the previous finished build of the same job.
    Weather {
        /// Not finished, or canceled.
        Unknown = -1 "unknown",
        /// Succeeded, and did not before.
        NewSuccess = 0 "new-success",
        /// Failed, and did not before.
        NewFailure = 1 "new-failure",
        /// Succeeded, as before.
        StillSucceeding = 2 "still-succeeding",
        /// Failed, as before.
        StillFailing = 3 "still-failing",
    }
}

impl BuildStatus {
    /// Whether the build has ended.
    pub const fn is_finished(self) -> bool {
        self.code() >= 0
    }

    /// Whether the build has its outputs.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Succeeded)
    }

    /// Whether the build failed. A canceled build did not.
    pub const fn is_broken(self) -> bool {
        matches!(self, Self::Failed | Self::FailedDependency | Self::FailedOther)
    }
}

impl Weather {
    /// The weather of a build that ends as `status` when the one before it ended as `previous`.
    pub const fn of(previous: Option<BuildStatus>, status: BuildStatus) -> Self {
        let before = match previous {
            Some(previous) => previous.is_success(),
            // The result of a job's first build counts as a change either way.
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
