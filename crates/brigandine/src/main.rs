//! The Brigandine server: arguments, configuration, `run`; nothing else.

mod api;
mod app;
mod bench;
mod build;
mod cli;
mod command;
mod config;
mod evaluate;
mod http;
mod input;
mod log;
mod model;
mod monitor;
mod process;
mod store;
mod web;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let outcome = match cli::Cli::parse().command {
        cli::Command::EvaluateJobs => return evaluate::jobs::main(),
        cli::Command::BenchBuilds(arguments) => bench::run(&arguments),
        cli::Command::Check(arguments) => command::check::run(&arguments),
        other => Err(command::Failure::failed(format!("{other:?}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
