//! Measures Brigandine. The server is the real one, in this program's own process or in another of this program.

mod builds;
mod cli;
mod client;
mod figures;
mod growth;
mod measured;
mod measuring;
mod output;
mod pushes;
mod samples;
mod server;
mod site;
mod startup;
mod strangers;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use output::{Failure, failed};

/// The first argument by which this program is the server that it measures, with the arguments of `brigandine`.
const PRODUCT: &str = "brigandine";

fn main() -> ExitCode {
    if let Some(status) = brigandine::begin() {
        return status;
    }
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|word| word == PRODUCT) {
        return brigandine::run(arguments.into_iter().skip(1));
    }
    let outcome = match cli::Cli::parse_from(arguments).command {
        cli::Command::Site(arguments) => site::run(&arguments),
        cli::Command::Builds(arguments) => builds::run(&arguments),
        cli::Command::Pushes(arguments) => pushes::run(&arguments),
        cli::Command::Strangers(arguments) => strangers::run(&arguments),
        cli::Command::Server { state } => {
            runtime().and_then(|runtime| runtime.block_on(server::run(&state)))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Threads as the server has them.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 8))
        .thread_name("brigandine")
        .enable_all()
        .build()
        .map_err(failed)
}
