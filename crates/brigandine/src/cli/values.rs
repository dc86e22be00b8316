//! Arguments that several commands have, and how values are parsed.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::config::{self, packaged};
use crate::model::{BuildId, EvaluationId};

/// Where the state of the server is.
#[derive(Debug, Clone, Args)]
pub(crate) struct State {
    /// Directory with the database, build logs and outputs [default: brigandine-state here, or else
    /// that of /etc/brigandine/brigandine.toml]
    #[arg(
        long,
        value_name = "DIR",
        env = "BRIGANDINE_STATE",
        default_value_os_t = usual_state(),
        hide_default_value = true
    )]
    pub(crate) state: PathBuf,
}

/// The state directory of a command that is told none.
pub(crate) fn usual_state() -> PathBuf {
    packaged::usual_state(Path::new("."), Path::new(packaged::PACKAGED))
}

/// Parses a whole number from `least` to `most`. The error says what is expected.
pub fn number<T>(
    least: T,
    most: T,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    move |text| {
        let found = text.parse().ok().filter(|number| (least..=most).contains(number));
        found.ok_or_else(|| format!("a whole number from {least} to {most} is expected"))
    }
}

/// Parses the number of a row; the error is `help`.
fn row<T: FromStr + Ord>(text: &str, least: &T, help: &str) -> Result<T, String> {
    text.parse().ok().filter(|id| id >= least).ok_or_else(|| help.to_owned())
}

pub(super) fn build(text: &str) -> Result<BuildId, String> {
    let help = "a build is a number, as in `brigandine builds` and in the address of its page";
    row(text, &BuildId::new(1), help)
}

pub(super) fn evaluation(text: &str) -> Result<EvaluationId, String> {
    let help =
        "an evaluation is a number, as in `brigandine spec list` and in the address of its page";
    row(text, &EvaluationId::new(1), help)
}

const TIME_HELP: &str = "seconds or units, for example 90s, 5m, 1h30m";

pub(super) fn time(text: &str) -> Result<Duration, String> {
    let most = Duration::from_secs(366 * 86_400);
    let found = config::parse_duration(text).filter(|time| *time <= most);
    found.ok_or_else(|| TIME_HELP.to_owned())
}

pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match config::parse_duration(text) {
        Some(interval) if config::INTERVAL_RANGE.contains(&interval) => Ok(interval),
        Some(_) => Err("a time from 1s to 30d".to_owned()),
        None => Err(TIME_HELP.to_owned()),
    }
}
