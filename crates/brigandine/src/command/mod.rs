//! The commands, one file each: what they ask of the rest and how they print it.

pub(crate) mod check;

use std::process::ExitCode;

/// What was asked for failed.
pub(crate) const FAILED: u8 = 1;
/// No such specification, build or state directory.
pub(crate) const NOT_FOUND: u8 = 3;

/// Why a command ended otherwise than well: a message for standard error and an exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    /// What was asked for failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: FAILED }
    }

    /// What was asked for is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: NOT_FOUND }
    }

    /// Prints the message and gives the status.
    pub(crate) fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("{}", self.message);
        }
        ExitCode::from(self.status)
    }
}
