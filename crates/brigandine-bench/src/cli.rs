//! The command line.

use std::path::PathBuf;

use brigandine::{Sandbox, number};
use clap::{Args, Parser, Subcommand};

/// Measures Brigandine: what builds cost, what pages cost, what grows
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure pages, API and figures on many builds, idle and while builds change
    Site(Site),
    /// Measure what a build that does nothing costs on this machine
    Builds(Builds),
    /// Push many revisions, with everything that comes and goes meanwhile; status 1 if anything grows
    Pushes(Pushes),
    /// Measure pages while strangers hold as many connections as they get; status 1 if they are slow or
    /// the server's memory grows
    Strangers(Strangers),
    /// Measure the bytes that an open overview costs while builds start and end; status 1 if they are too many
    Viewer(Viewer),
    /// Measure pages while many read and change builds, the database is copied, and another process
    /// reads it for long; status 1 if pages are slow, an answer is wrong, or a log says `locked`
    Crowd(Crowd),
    /// Measure the comparison of two large evaluations that share most of their builds
    Comparison(Comparison),
    /// The server that `site` and `strangers` measure
    #[command(hide = true)]
    Server {
        /// Its state directory
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
    /// The process of `crowd` that holds a read transaction until its standard input ends
    #[command(hide = true)]
    Hold {
        /// The state directory of the server
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Site {
    /// Measure this state directory, an imported one for example; it is changed: some 230,000 builds
    /// are added, and some of them end. Without it, or when it is empty, sample builds are made
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Sample builds to make
    #[arg(long, value_name = "N", default_value = "100000", value_parser = number::<u32>(1000, 100_000_000))]
    pub(crate) builds: u32,
    /// Kept connections
    #[arg(long, value_name = "N", default_value = "8", value_parser = number::<u16>(1, 512))]
    pub(crate) connections: u16,
    /// Seconds of each run
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Runs of each request; medians are printed
    #[arg(long, value_name = "N", default_value = "3", value_parser = number::<u32>(1, 99))]
    pub(crate) repeat: u32,
    /// Only what has one of these in its name, separated by `;`: requests, `bulk`, `register`
    #[arg(long, value_name = "TEXTS", value_delimiter = ';')]
    pub(crate) only: Vec<String>,
    /// Instead: measure so many starts, until the first page, on an empty state and on --state
    #[arg(long, value_name = "N", value_parser = number::<u32>(1, 1000))]
    pub(crate) startup: Option<u32>,
    /// Instead: compare figures that --json wrote; status 1 if any grows faster than the logarithm of the
    /// number of builds, or does not list as much in each of them
    #[arg(long, value_name = "FILE", num_args = 2.., conflicts_with = "startup")]
    pub(crate) compare: Vec<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Builds {
    /// Builds to run
    #[arg(long, value_name = "N", default_value = "2000", value_parser = number::<u32>(1, 100_000))]
    pub(crate) count: u32,
    /// Builds at once
    #[arg(long, value_name = "N", default_value = "4", value_parser = number::<u16>(1, 4096))]
    pub(crate) max_jobs: u16,
    /// How the builds are isolated
    #[arg(long, value_name = "HOW", value_enum, default_value = "off")]
    pub(crate) sandbox: Sandbox,
    /// Single builds to start for the latency figure
    #[arg(long, value_name = "N", default_value = "200", value_parser = number::<u32>(1, 10_000))]
    pub(crate) triggers: u32,
    /// Keep the state here instead of a temporary directory; must be empty or absent
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Pushes {
    /// Revisions to push to each of two repositories, over a path and over a `file://` URL
    #[arg(long, value_name = "N", default_value = "1000", value_parser = number::<u32>(20, 1_000_000))]
    pub(crate) pushes: u32,
    /// Descriptors that the server may have open (`ulimit -n`)
    #[arg(long, value_name = "N", default_value = "128", value_parser = number::<u32>(64, 1_000_000))]
    pub(crate) descriptors: u32,
    /// Print the figures as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Strangers {
    /// Connections of the strangers, for each kind
    #[arg(long, value_name = "N", default_value = "1100", value_parser = number::<u16>(1, 20_000))]
    pub(crate) connections: u16,
    /// Addresses that the strangers have
    #[arg(long, value_name = "N", default_value = "1", value_parser = number::<u8>(1, 90))]
    pub(crate) clients: u8,
    /// Seconds of each kind
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Print the figures as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Viewer {
    /// Specifications on the overview
    #[arg(long, value_name = "N", default_value = "500", value_parser = number::<u16>(1, 5000))]
    pub(crate) specifications: u16,
    /// Starts and ends of builds in each second
    #[arg(long, value_name = "N", default_value = "50", value_parser = number::<u16>(2, 500))]
    pub(crate) changes: u16,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Print the figures as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Crowd {
    /// Clients that cancel and restart a build of their own in turn, each once a second
    #[arg(long, value_name = "N", default_value = "64", value_parser = number::<u16>(1, 200))]
    pub(crate) writers: u16,
    /// Clients that request a page or a list each second
    #[arg(long, value_name = "N", default_value = "200", value_parser = number::<u16>(1, 400))]
    pub(crate) readers: u16,
    /// Sample builds to make
    #[arg(long, value_name = "N", default_value = "100000", value_parser = number::<u32>(1000, 100_000_000))]
    pub(crate) builds: u32,
    /// Seconds of the measurement
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Print the figures as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Comparison {
    /// Jobs of each evaluation
    #[arg(long, value_name = "N", default_value = "50000", value_parser = number::<u32>(10, 1_000_000))]
    pub(crate) jobs: u32,
    /// Requests of each kind
    #[arg(long, value_name = "N", default_value = "50", value_parser = number::<u32>(1, 10_000))]
    pub(crate) requests: u32,
    /// Print the figures as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|seconds| (0.05..=600.0).contains(seconds));
    found.ok_or_else(|| "a number of seconds from 0.05 to 600 is expected".to_owned())
}
