//! The arguments of the commands that keep a server and its state directory: `reload`, `backup`, `restore`, `export`,
//! `import`.

use super::values::State;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Backup {
    #[command(flatten)]
    pub(crate) state: State,
    /// The new directory in which the backup is made
    #[arg(value_name = "BACKUP")]
    pub(crate) target: PathBuf,
    /// Leave out the logs of builds and evaluations
    #[arg(long)]
    pub(crate) no_logs: bool,
    /// Leave out the outputs of builds
    #[arg(long)]
    pub(crate) no_outputs: bool,
    /// Print what was copied as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) state: State,
    /// The backup: a directory that `brigandine backup` made
    #[arg(value_name = "BACKUP")]
    pub(crate) backup: PathBuf,
    /// Print what was restored as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    pub(crate) state: State,
    /// Print what was changed as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) state: State,
    /// Write into this new file instead, which has its name only when it is whole
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Import {
    #[command(subcommand)]
    pub(crate) of: Option<ImportOf>,
    #[command(flatten)]
    pub(crate) state: State,
    /// The file: a history, or a database of Cuirass
    #[arg(value_name = "FILE", required = true)]
    pub(crate) file: Option<PathBuf>,
    /// Print what was imported as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImportOf {
    /// Import a Cuirass database into a new state directory; builds keep their numbers
    ///
    /// Both schemas of summer 2018 are known, and later ones as far as they add to them. The file is
    /// only read. An import that was interrupted goes on when the command is given again. Imported
    /// specifications are disabled, and builds that were waiting stay in the queue: this server does
    /// not know how to build them. What this server has no place for is counted and named at the end.
    Cuirass {
        #[command(flatten)]
        state: State,
        /// Cuirass's database, such as /var/lib/cuirass/cuirass.db
        file: PathBuf,
        /// Print what was imported as JSON
        #[arg(long)]
        json: bool,
    },
}
