//! Brigandine, the server for continuous integration, as a library: for its own program, for those that measure it,
//! and for tests that run it in their own process.

mod api;
mod app;
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
pub mod model;
mod monitor;
mod os;
mod outputs;
mod retention;
mod site;
pub mod store;
mod web;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use app::{App, AppError, Settings};
pub use config::{Sandbox, Web as WebConfig};
pub use http::Token;
pub use os::ffi::give_back;
pub use os::state_dir::StateDir;
pub use site::Web;
pub use web::COMPARED;

/// Begins a program that runs a server: to be called before anything else.
///
/// The server starts its own program as its helpers. `Some`: this process is one, and has done its work; or it
/// cannot go on, and said why.
pub fn begin() -> Option<ExitCode> {
    if os::process::is_supervisor() {
        os::process::supervise();
        return Some(ExitCode::SUCCESS);
    }
    if input::is_reader() {
        input::read();
        return Some(ExitCode::SUCCESS);
    }
    os::ffi::few_arenas();
    // The modes of what a build finds and leaves depend on nothing that the server was started with.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if let Err(error) = os::ffi::close_on_exec() {
        eprintln!("brigandine: cannot keep inherited descriptors from other programs: {error}");
        return Some(ExitCode::FAILURE);
    }
    evaluate::jobs::is_evaluator().then(evaluate::jobs::main)
}

/// The program `brigandine`, with these arguments, of which the first is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let outcome = match cli::Cli::parse_from(arguments).command {
        cli::Command::Demo(arguments) => command::demo::run(&arguments),
        cli::Command::Serve(arguments) => command::serve::run(&arguments),
        cli::Command::Spec(arguments) => command::spec::run(arguments),
        cli::Command::Import(arguments) => command::import::run(&arguments),
        cli::Command::Check(arguments) => command::check::run(&arguments),
        cli::Command::Evaluate(arguments) => command::evaluate::run(&arguments),
        cli::Command::Log(arguments) => command::log::run(&arguments),
        cli::Command::Wait(arguments) => command::wait::run(&arguments),
        cli::Command::Cancel(arguments) => command::change::cancel(&arguments),
        cli::Command::Restart(arguments) => command::change::restart(&arguments),
        cli::Command::Prune(arguments) => command::prune::run(&arguments),
        cli::Command::Builds(arguments) => command::builds::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
