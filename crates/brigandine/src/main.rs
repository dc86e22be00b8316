//! The Brigandine server: arguments, configuration, `run`; nothing else.

mod api;
mod app;
mod bench;
mod build;
mod cli;
mod command;
mod config;
mod context;
mod evaluate;
mod health;
mod http;
mod input;
mod log;
mod model;
mod monitor;
mod os;
mod outputs;
mod retention;
mod site;
mod store;
mod web;
mod wire;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    if os::process::is_supervisor() {
        os::process::supervise();
        return ExitCode::SUCCESS;
    }
    if input::is_reader() {
        input::read();
        return ExitCode::SUCCESS;
    }
    os::ffi::few_arenas();
    // The modes of what a build finds and leaves depend on nothing that the server was started with.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if let Err(error) = os::ffi::close_on_exec() {
        eprintln!("brigandine: cannot keep inherited descriptors from other programs: {error}");
        return ExitCode::FAILURE;
    }
    let outcome = match cli::Cli::parse().command {
        cli::Command::Demo(arguments) => command::demo::run(&arguments),
        cli::Command::Serve(arguments) => command::serve::run(&arguments),
        cli::Command::Spec(arguments) => command::spec::run(arguments),
        cli::Command::Import(arguments) => command::import::run(&arguments),
        cli::Command::Bench(arguments) => bench::site::run(&arguments),
        cli::Command::BenchServer { state } => bench::site::serve(&state.state),
        cli::Command::BenchBuilds(arguments) => bench::run(&arguments),
        cli::Command::BenchPushes(arguments) => bench::pushes::run(&arguments),
        cli::Command::BenchStrangers(arguments) => bench::strangers::run(&arguments),
        cli::Command::Check(arguments) => command::check::run(&arguments),
        cli::Command::Evaluate(arguments) => command::evaluate::run(&arguments),
        cli::Command::Log(arguments) => command::log::run(&arguments),
        cli::Command::Wait(arguments) => command::wait::run(&arguments),
        cli::Command::Cancel(arguments) => command::change::cancel(&arguments),
        cli::Command::Restart(arguments) => command::change::restart(&arguments),
        cli::Command::Prune(arguments) => command::prune::run(&arguments),
        cli::Command::Builds(arguments) => command::builds::run(&arguments),
        cli::Command::EvaluateJobs => return evaluate::jobs::main(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
