//! The command line.

mod accounts;
mod change;
mod keeping;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::config::server::parse_listen;
use crate::config::{LogFormat, Sandbox};
use crate::model::{BuildId, BuildStatus, EvaluationId, version};
pub(crate) use accounts::{CreateToken, OneUser, Token, User};
pub(crate) use change::{Asked, Audit, Change, Comment, Keep, Server};
pub(crate) use keeping::{Backup, Export, Import, ImportOf, Reload, Restore};
pub use values::number;
pub(crate) use values::{State, usual_state};
use values::{build, evaluation, interval, time};

/// Shown under `brigandine --help`.
const EXIT_CODES: &str = "\
Exit status:
  0  done
  1  what was asked for failed: a file has mistakes, an evaluation or build
     failed, a required task of the server exited, no server is ready (status)
  2  the command line is wrong
  3  not found: no such specification, build or state directory
  4  a build that was waited for was canceled (wait, evaluate --wait,
     log --follow)
  5  the time given by --timeout is over (wait, evaluate --wait)

RUST_LOG chooses what is traced (for example `info`, `brigandine=debug`).
Traces go to standard error, answers to standard output.";

/// A self-hosted continuous-integration server in one binary.
#[derive(Debug, Parser)]
#[command(name = "brigandine", version = version(), after_help = EXIT_CODES, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a sample project being built, in a state directory of its own; needs no network
    Demo(Demo),
    /// Run the server
    Serve(Serve),
    /// Add, list, show or remove specifications
    #[command(subcommand)]
    Spec(Spec),
    /// Add, list, change or remove the people who may log in
    #[command(subcommand)]
    User(User),
    /// Make, list or revoke the tokens by which programs may make changes over HTTP
    #[command(subcommand)]
    Token(Token),
    /// Check configuration, specification and job-list files without using them
    Check(Check),
    /// Look at a specification's inputs now and evaluate them if they are new
    Evaluate(Evaluate),
    /// Print a build log; with --follow until the build ends, whose result is the exit status
    Log(Log),
    /// Wait until builds have ended; the exit status is their result
    ///
    /// Status 0: all succeeded; 1: one failed, or no server runs; 3: one is not there; 4: none failed,
    /// and one was canceled; 5: the time is over. Each build is printed when it has ended.
    Wait(Wait),
    /// Say whether the server does its work, and what it does; status 1 if no server runs or it is not ready
    Status(Status),
    /// List builds: pending ones, then finished ones, latest first
    Builds(Builds),
    /// Import a history that `export` wrote, or the builds of another server, into a new state directory
    ///
    /// The file's contents say what it is: a history of this version or an older one, or a database of Cuirass. It is only
    /// read. An import that was interrupted goes on when the command is given again. Logs and outputs are not in a
    /// history; `backup` has them.
    Import(Import),
    /// Print the whole history as JSON lines: specifications, evaluations, builds and all that belongs to them
    ///
    /// The first line says what follows, and every other line is a row of a table. All of it is from one moment, while a
    /// server goes on. `import` reads it again. Logs and outputs are files, and not in it.
    Export(Export),
    /// Cancel builds that wait or run, and wait for their ends; or evaluations
    ///
    /// Of an evaluation, builds that another evaluation wants are not canceled, and running ones are not waited for.
    Cancel(Change),
    /// Build failed or canceled builds once more, and the builds that failed because of them; of evaluations,
    /// all that failed
    Restart(Change),
    /// Put builds in front of the queue, with the builds that they need; of evaluations, all that waits
    Bump(Change),
    /// Keep evaluations against retention
    Keep(Keep),
    /// Comment on builds or evaluations; their pages show it
    Comment(Comment),
    /// List which changes were asked for, by whom and why; the latest first
    Audit(Audit),
    /// Delete evaluations that need not be kept, with their builds, build logs and outputs
    ///
    /// `keep` in a specification says which evaluations are kept, or else `[keep]` in the server's configuration; by
    /// default all are. Pending builds, the newest evaluation of a specification, its newest that succeeded, and the
    /// one that its inputs are at are never deleted. A running server prunes every hour, and when this command tells it
    /// to.
    Prune(Prune),
    /// Let the running server read its configuration and its specification files again, as SIGHUP does
    ///
    /// The server takes all of it or nothing: where a file has mistakes, everything stays as it was, and the command says
    /// why and ends with status 1. What only a restart changes, such as `listen`, is named.
    Reload(Reload),
    /// Copy the database, the logs and the outputs into a new directory, beside a running server
    ///
    /// The copy is what the database was at one moment, with the files that it names. It appears under its name only
    /// when it is whole and on the disk. The configuration and the file with the token are not in it.
    Backup(Backup),
    /// Put a backup into an empty state directory
    ///
    /// The backup is checked before and after it is copied. No server may use the directory. The next server migrates
    /// the database if need be, says what it restored, and schedules again what ran when the backup was made.
    Restore(Restore),
    /// Print a script with which a shell completes this command line
    ///
    /// For bash: `brigandine completions bash > /usr/share/bash-completion/completions/brigandine`. The first lines of the
    /// script for another shell say where it belongs, or that shell's manual does.
    Completions(Completions),
    /// Print the manual page, or write one for each command
    Man(Man),
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write brigandine.1 and a page for each command into this directory instead, such as
    /// /usr/local/share/man/man1
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Keep the demo's state here instead of a temporary directory; must be empty or absent
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Address to answer at; the next free port is taken if this one is in use
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = parse_listen)]
    pub(crate) listen: SocketAddr,
    /// End when everything is built; status 0 if the outcome is the expected one
    #[arg(long)]
    pub(crate) exit: bool,
    /// With --exit: print the summary as JSON
    #[arg(long, requires = "exit")]
    pub(crate) json: bool,
    /// Builds at once
    #[arg(long, value_name = "N", value_parser = number::<u16>(1, 4096))]
    pub(crate) max_jobs: Option<u16>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Serve {
    /// Configuration file (TOML); options of the command line win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Directory with the database, build logs and outputs [default: brigandine-state]
    #[arg(long, value_name = "DIR", env = "BRIGANDINE_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// Address to answer at [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", value_parser = parse_listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// Time between two looks at a specification's inputs, such as 90s or 5m [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub(crate) interval: Option<Duration>,
    /// Builds at once [default: number of processors]
    #[arg(long, value_name = "N", value_parser = number::<u16>(1, 4096))]
    pub(crate) max_jobs: Option<u16>,
    /// Load these specifications at start; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) specifications: Vec<PathBuf>,
    /// Let loaded specifications replace stored ones of the same name
    #[arg(long)]
    pub(crate) replace: bool,
    /// Handle every specification once, build everything, end; status 1 if a fetch, an evaluation or one of
    /// its builds failed
    #[arg(long)]
    pub(crate) one_shot: bool,
    /// Isolate builds with bubblewrap; without a value: do not start if it is absent
    #[arg(long, value_enum, value_name = "HOW", num_args = 0..=1, default_missing_value = "require")]
    pub(crate) sandbox: Option<Sandbox>,
    /// On SIGTERM let running builds end instead of cutting them
    #[arg(long)]
    pub(crate) drain: bool,
    /// How trace lines are written [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Spec {
    /// Add the specifications of a file
    Add {
        #[command(flatten)]
        state: State,
        /// Specification file (TOML)
        file: PathBuf,
        /// Replace stored specifications of the same name
        #[arg(long)]
        replace: bool,
        /// Print what was new, changed and unchanged as JSON
        #[arg(long)]
        json: bool,
    },
    /// List specifications with the state of their last evaluation
    List {
        #[command(flatten)]
        state: State,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one specification
    Show {
        #[command(flatten)]
        state: State,
        /// Its name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at the inputs of specifications from now on
    Enable {
        #[command(flatten)]
        state: State,
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        #[command(flatten)]
        asked: Asked,
    },
    /// No longer look at the inputs of specifications; what is registered is built
    Disable {
        #[command(flatten)]
        state: State,
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Remove a specification; its evaluations and builds stay
    Remove {
        #[command(flatten)]
        state: State,
        /// Its name
        name: String,
        /// Delete its evaluations and builds too
        #[arg(long)]
        delete_history: bool,
    },
}

#[derive(Debug, Args)]
#[group(skip)]
#[command(group(ArgGroup::new("files").required(true).multiple(true)))]
pub(crate) struct Check {
    /// Specification files
    #[arg(value_name = "FILE", group = "files")]
    pub(crate) specifications: Vec<PathBuf>,
    /// A server configuration; the specification files it names are checked too
    #[arg(long, value_name = "FILE", group = "files")]
    pub(crate) config: Option<PathBuf>,
    /// A job list, as `brigandine.toml` in a repository
    #[arg(long, value_name = "FILE", group = "files")]
    pub(crate) jobs: Vec<PathBuf>,
    /// Print the problems as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Evaluate {
    #[command(flatten)]
    pub(crate) state: State,
    /// Name of the specification
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) server: Server,
    /// Wait for its builds as well; the exit status is theirs, as of `brigandine wait`
    #[arg(long, conflicts_with = "server")]
    pub(crate) wait: bool,
    /// Wait for the builds at most this long, such as 90s or 1h30m
    #[arg(long, value_name = "TIME", value_parser = time, requires = "wait")]
    pub(crate) timeout: Option<Duration>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Print the outcome as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[group(skip)]
#[command(group(ArgGroup::new("what").required(true)))]
pub(crate) struct Wait {
    #[command(flatten)]
    pub(crate) state: State,
    /// Numbers of builds
    #[arg(value_name = "BUILD", value_parser = build, group = "what")]
    pub(crate) builds: Vec<BuildId>,
    /// All builds of this evaluation instead, and itself
    #[arg(long, visible_alias = "eval", value_name = "ID", value_parser = evaluation, group = "what")]
    pub(crate) evaluation: Option<EvaluationId>,
    /// Wait at most this long, such as 90s or 1h30m; 0 only asks
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) timeout: Option<Duration>,
    /// Print the result as JSON, and nothing before
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[group(skip)]
#[command(group(ArgGroup::new("whose").required(true)))]
pub(crate) struct Log {
    #[command(flatten)]
    pub(crate) state: State,
    /// Number of the build
    #[arg(value_name = "BUILD", value_parser = build, group = "whose")]
    pub(crate) build: Option<BuildId>,
    /// The log of this evaluation instead
    #[arg(long, visible_alias = "eval", value_name = "ID", value_parser = evaluation, group = "whose")]
    pub(crate) evaluation: Option<EvaluationId>,
    /// The log of this attempt at the build [default: the last one]
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["evaluation", "follow"])]
    pub(crate) attempt: Option<i64>,
    /// Go on printing until it ends; the exit status is its result, as of `brigandine wait`
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Directory with the database, build logs and outputs [default: that of --config; or else
    /// brigandine-state here, or that of /etc/brigandine/brigandine.toml]
    #[arg(long, value_name = "DIR", env = "BRIGANDINE_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// The server's configuration, for its `[keep]` and its state directory; that of a server that runs is
    /// known without it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) state: State,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Builds {
    #[command(flatten)]
    pub(crate) state: State,
    /// Only builds of this specification
    #[arg(long, value_name = "NAME")]
    pub(crate) spec: Option<String>,
    /// Only builds of this evaluation
    #[arg(long, visible_alias = "eval", value_name = "ID", value_parser = evaluation)]
    pub(crate) evaluation: Option<EvaluationId>,
    /// Only this job
    #[arg(long, value_name = "NAME")]
    pub(crate) job: Option<String>,
    /// Only builds for this system
    #[arg(long, value_name = "SYSTEM")]
    pub(crate) system: Option<String>,
    /// Only builds of this status: scheduled, started, succeeded, failed, failed-dependency,
    /// failed-other, canceled
    #[arg(long, value_name = "STATUS")]
    pub(crate) status: Option<BuildStatus>,
    /// How many at most
    #[arg(long, short, value_name = "N", default_value_t = 20, value_parser = number::<u16>(1, 1000))]
    pub(crate) number: u16,
    /// Print JSON: as /api/latestbuilds does, and the status, reason and times of the table
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
