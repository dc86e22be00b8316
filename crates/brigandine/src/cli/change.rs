//! The arguments of commands that change builds, and of the list of changes.

use clap::Args;

use super::values::{State, build, evaluation, number};
use crate::model::{BuildId, EvaluationId, TARGETS_MAX};

#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    pub(crate) state: State,
    /// Numbers of the builds, at most 1000
    #[arg(value_name = "BUILD", value_parser = build, required = true, num_args = 1..=TARGETS_MAX)]
    pub(crate) ids: Vec<BuildId>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Print what became of each as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) state: State,
    /// Only changes of this build
    #[arg(long, value_name = "ID", value_parser = build)]
    pub(crate) build: Option<BuildId>,
    /// Only changes of this evaluation and of its builds
    #[arg(long, visible_alias = "eval", value_name = "ID", value_parser = evaluation)]
    pub(crate) evaluation: Option<EvaluationId>,
    /// Only changes of this specification, of its evaluations and of their builds
    #[arg(long, value_name = "NAME")]
    pub(crate) spec: Option<String>,
    /// How many at most
    #[arg(long, short, value_name = "N", default_value_t = 20, value_parser = number::<u16>(1, 1000))]
    pub(crate) number: u16,
    /// Print JSON, as /api/v1/audit does
    #[arg(long)]
    pub(crate) json: bool,
}
