//! The binary's side of the protocol: one job comes in and one answer goes out, each as one line.

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::{Figures, Job};

/// The answer of a binary.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The results of the measurement.
    Figures(Box<Figures>),
    /// The reason why nothing could be measured.
    Failed(String),
}

/// Reads the job, measures, prints the answer, and ends the process without waiting for its threads, because some peers
/// leave queries running that never end.
pub fn serve(measure: impl FnOnce(&Job) -> Result<Figures, String>) -> ! {
    let mut line = String::new();
    let answer = match std::io::stdin().read_line(&mut line) {
        Ok(_) => serde_json::from_str::<Job>(&line)
            .map_err(|error| format!("the job cannot be read: {error}"))
            .and_then(|job| measure(&job)),
        Err(error) => Err(format!("standard input cannot be read: {error}")),
    };
    let answer = match answer {
        Ok(figures) => Answer::Figures(Box::new(figures)),
        Err(error) => Answer::Failed(error),
    };
    let text = serde_json::to_string(&answer).unwrap_or_else(|error| {
        format!("{{\"failed\":\"the figures cannot be written: {error}\"}}")
    });
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    std::process::exit(i32::from(written.is_err()));
}
