//! Brigandine, the server for continuous integration, as a library: for its own program and for `brigandine-bench`.

mod api;
mod app;
mod auth;
mod backup;
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
mod measure;
pub mod model;
mod monitor;
mod openapi;
mod os;
mod outputs;
mod probes;
mod retention;
mod site;
pub mod store;
mod web;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use app::{App, AppError};
pub use auth::{Provider, Token};
pub use cli::number;
pub use command::runtime;
pub use config::{Config, Sandbox, Web as WebConfig};
pub use os::ffi::give_back;
pub use os::state_dir::StateDir;
pub use site::Web;
pub use web::COMPARED;

/// Begins a program that runs a server. The program calls this before anything else.
///
/// The server starts its own program for its helper processes too. `Some`: this process is a helper and has done its
/// work, or it cannot continue and has printed why. The program then exits with the status.
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
    // Files of builds must get the same modes whatever umask the server was started with.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if let Err(error) = os::ffi::close_on_exec() {
        eprintln!("brigandine: cannot keep inherited descriptors from other programs: {error}");
        return Some(ExitCode::FAILURE);
    }
    evaluate::jobs::is_evaluator().then(evaluate::jobs::main)
}

/// Runs the program `brigandine` with these arguments. The first one is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    use cli::Command;
    use command::block_on;
    let done = match cli::Cli::parse_from(arguments).command {
        Command::Demo(arguments) => block_on(command::demo::run(&arguments)),
        Command::Serve(arguments) => block_on(command::serve::run(&arguments)),
        Command::Spec(arguments) => block_on(command::spec::run(arguments)),
        Command::User(arguments) => block_on(command::user::run(arguments)),
        Command::Token(arguments) => block_on(command::token::run(arguments)),
        Command::Import(arguments) => block_on(command::import::run(arguments)),
        Command::Check(arguments) => command::check::run(&arguments),
        Command::Evaluate(arguments) => block_on(command::evaluate::run(&arguments)),
        Command::Log(arguments) => block_on(command::log::run(&arguments)),
        Command::Wait(arguments) => block_on(command::wait::run(&arguments)),
        Command::Cancel(arguments) => block_on(command::change::cancel(&arguments)),
        Command::Restart(arguments) => block_on(command::change::restart(&arguments)),
        Command::Bump(arguments) => block_on(command::change::bump(&arguments)),
        Command::Keep(arguments) => block_on(command::change::keep(&arguments)),
        Command::Comment(arguments) => block_on(command::change::comment(&arguments)),
        Command::Audit(arguments) => block_on(command::audit::run(&arguments)),
        Command::Prune(arguments) => block_on(command::prune::run(&arguments)),
        Command::Backup(arguments) => block_on(command::backup::create(&arguments)),
        Command::Restore(arguments) => block_on(command::backup::restore(&arguments)),
        Command::Export(arguments) => block_on(command::export::run(&arguments)),
        Command::Reload(arguments) => block_on(command::reload::run(&arguments)),
        Command::Completions(arguments) => command::pages::completions(&arguments),
        Command::Man(arguments) => command::pages::man(&arguments),
        Command::Status(arguments) => block_on(command::status::run(&arguments)),
        Command::Builds(arguments) => block_on(command::builds::run(&arguments)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
