//! How figures and failures are printed.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;

/// Why a measurement failed, for people.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// Prints the message and gives the status.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("brigandine-bench: {}", self.0);
        ExitCode::FAILURE
    }
}

/// A failure with the message of an error.
pub(crate) fn failed(error: impl Display) -> Failure {
    Failure(error.to_string())
}

pub(crate) fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => say(&text),
        Err(error) => eprintln!("brigandine-bench: {error}"),
    }
}

/// Prints a line; a reader that has gone is no error.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
