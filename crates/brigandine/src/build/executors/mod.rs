//! How a job runs: as a command (`command.rs`).

mod command;
mod directory;
mod kept;
mod watch;

pub(crate) use command::{Allowed, LocalExecutor};
