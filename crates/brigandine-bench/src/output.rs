//! Prints figures and failures.

use std::error::Error;
use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;

/// Why a measurement failed, for people.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    /// Prints the message and returns the status.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("brigandine-bench: {}", self.0);
        ExitCode::FAILURE
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        failed(error)
    }
}

/// A failure with this message.
pub(crate) fn failed(message: impl Display) -> Failure {
    Failure(message.to_string())
}

pub(crate) fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => say(&text),
        Err(error) => eprintln!("brigandine-bench: {error}"),
    }
}

/// Prints a line. A closed pipe is not an error.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
