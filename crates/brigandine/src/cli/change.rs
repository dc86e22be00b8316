//! The arguments of commands that change builds and evaluations, and of the list of changes.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::values::{State, build, evaluation, number};
use crate::model::{BuildId, BuildStatus, EvaluationId};

/// The builds and evaluations to change.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group(ArgGroup::new("what").required(true).multiple(true)))]
pub(crate) struct Change {
    #[command(flatten)]
    pub(crate) state: State,
    /// Numbers of builds
    #[arg(value_name = "BUILD", value_parser = build, group = "what")]
    pub(crate) ids: Vec<BuildId>,
    /// This evaluation, or with --status some of its builds; may be given several times
    #[arg(long, visible_alias = "eval", value_name = "ID", value_parser = evaluation, group = "what")]
    pub(crate) evaluation: Vec<EvaluationId>,
    /// Of the evaluations, only builds of this status: scheduled, started, failed, failed-dependency,
    /// failed-other, canceled; may be given several times
    #[arg(long, value_name = "STATUS", value_delimiter = ',', requires = "evaluation")]
    pub(crate) status: Vec<BuildStatus>,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// The server to ask, if it is not the one of the state directory.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// Ask this server over HTTP instead of using the state directory, such as https://ci.example.org;
    /// the token is in BRIGANDINE_TOKEN or in the file of --token-file
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// File with the token for --server
    #[arg(long, value_name = "FILE", requires = "server")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Whom to ask, why, and how the outcome is printed.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Print what became of each as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Keep {
    #[command(flatten)]
    pub(crate) state: State,
    /// Numbers of evaluations
    #[arg(value_name = "EVALUATION", value_parser = evaluation, required = true)]
    pub(crate) ids: Vec<EvaluationId>,
    /// No longer keep them: retention deletes them as others
    #[arg(long)]
    pub(crate) undo: bool,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

#[derive(Debug, Args)]
#[group(skip)]
#[command(group(ArgGroup::new("what").required(true).multiple(true)))]
pub(crate) struct Comment {
    #[command(flatten)]
    pub(crate) state: State,
    /// Numbers of builds
    #[arg(value_name = "BUILD", value_parser = build, group = "what")]
    pub(crate) ids: Vec<BuildId>,
    /// This evaluation; may be given several times
    #[arg(long, visible_alias = "eval", value_name = "ID", value_parser = evaluation, group = "what")]
    pub(crate) evaluation: Vec<EvaluationId>,
    /// The comment, at most 2000 bytes
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) message: String,
    #[command(flatten)]
    pub(crate) server: Server,
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
    #[command(flatten)]
    pub(crate) server: Server,
    /// Print JSON, as /api/v1/audit does
    #[arg(long)]
    pub(crate) json: bool,
}
