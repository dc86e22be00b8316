//! Builds: the builder's loop (`turns.rs`), the life of one build (`state.rs`), where a job runs (`dispatch/`) and how
//! it runs (`executors/`).

mod builder;
mod dispatch;
mod end;
mod executors;
mod refusals;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod turns;

pub(crate) use builder::{Builder, BuilderSettings, Stop};
pub(crate) use dispatch::DispatchEvent;
pub(crate) use dispatch::local::LocalDispatcher;
pub(crate) use executors::{Allowed, LocalExecutor};
