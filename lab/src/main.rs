//! The lab: experiments that show failures, and measurements of Lockkeeper and its peers.

mod bench;
mod compare;
mod data;
mod durability;
mod experiment;
mod files;
mod hold;
mod machine;
mod peer;
mod place;
mod plot;
mod progress;
mod report;
mod stored;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An error with a message for people.
pub(crate) type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Parser)]
#[command(about = "Experiments and measurements of Lockkeeper beside its peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows a failure, and that Lockkeeper does not have it; `all` for every experiment.
    Experiment {
        /// Its name, or `all`; `list` prints the names.
        name: String,
        /// Where the plots go.
        #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/out"))]
        out: PathBuf,
    },
    /// Measures one workload on several peers in turn.
    Bench(bench::Options),
    /// Draws what a file holds.
    Plot {
        /// Written by `bench --json` or `report`.
        file: PathBuf,
        /// Where the plots go.
        #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/out"))]
        out: PathBuf,
    },
    /// Measures everything and writes docs/measurements.md with its plots.
    Report(report::Options),
    /// Compares two files: ratios, and which of them are more than noise.
    Compare {
        /// Measured before the change.
        old: PathBuf,
        /// Measured after it.
        new: PathBuf,
        /// Whose figures.
        #[arg(long, default_value = "lockkeeper")]
        peer: String,
    },
    /// Measures one peer of this binary: a job on standard input, figures on standard output.
    #[command(hide = true)]
    Measure,
    /// Holds the write lock of a file when it is told to on standard input.
    #[command(hide = true)]
    Hold { file: PathBuf },
    /// A process of an experiment that is killed.
    #[command(hide = true)]
    Victim { way: String, file: PathBuf },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Experiment { name, out } => experiment::run(&name, &out),
        Command::Bench(options) => bench::run(&options),
        Command::Plot { file, out } => data::Run::load(&file).and_then(|run| {
            for name in report::plots(&run, &out)? {
                println!("{}", out.join(name).display());
            }
            Ok(())
        }),
        Command::Report(options) => report::run(&options),
        Command::Compare { old, new, peer } => compare::run(&old, &new, &peer),
        Command::Measure => measure::serve(peer::measure),
        Command::Hold { file } => hold::run(&file),
        Command::Victim { way, file } => experiment::victim(&way, &file),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}
