//! Measures Brigandine. The server runs in this program's own process, or in another process of this program.

mod builds;
mod cli;
mod client;
mod comparison;
mod crowd;
mod figures;
mod growth;
mod measuring;
mod output;
mod process;
mod pushes;
mod samples;
mod server;
mod site;
mod startup;
mod statistics;
mod strangers;
mod viewer;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use process::PRODUCT;

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
        cli::Command::Viewer(arguments) => viewer::run(&arguments),
        cli::Command::Crowd(arguments) => crowd::run(&arguments),
        cli::Command::Comparison(arguments) => comparison::run(&arguments),
        cli::Command::Hold { state } => crowd::hold_until_told(&state),
        cli::Command::Server { state } => server::run(&state),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
