//! The settings of a server: its files, and the command line that wins over them.

use std::path::{PathBuf, absolute};

use super::Failure;
use crate::cli;
use crate::config::{self, Config};
use crate::model::Specification;

/// The configuration from the file. Options of the command line replace its values.
pub(super) fn configuration(arguments: &cli::Serve) -> Result<Config, Failure> {
    let mut config = match &arguments.config {
        None => Config::default(),
        Some(path) => config::read(path, config::server::parse)?,
    };
    config.file =
        arguments.config.as_ref().map(|path| absolute(path).unwrap_or_else(|_| path.clone()));
    if let Some(state) = &arguments.state {
        config.state.clone_from(state);
    }
    config.listen = arguments.listen.unwrap_or(config.listen);
    config.interval = arguments.interval.unwrap_or(config.interval);
    config.max_jobs = arguments.max_jobs.map_or(config.max_jobs, usize::from);
    config.sandbox = arguments.sandbox.unwrap_or(config.sandbox);
    config.format = arguments.log_format.unwrap_or(config.format);
    config.replace |= arguments.replace;
    config.drain |= arguments.drain;
    config.specifications.extend(arguments.specifications.iter().cloned());
    Ok(config)
}

/// The specifications of all files, each with the path of its file.
///
/// # Errors
/// All mistakes in the files.
pub(super) fn specifications(files: &[PathBuf]) -> Result<Vec<(PathBuf, Specification)>, Failure> {
    let mut all: Vec<(PathBuf, Specification)> = Vec::new();
    let mut problems = config::Diagnostics::default();
    for path in files {
        match config::read(path, config::specification::parse) {
            Ok(placed) => {
                all.extend(placed.into_iter().map(|placed| (path.clone(), placed.specification)));
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(all) } else { Err(problems.into()) }
}
