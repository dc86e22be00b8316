//! The commands as a shell sees them: output, errors, exit status.

mod check;
mod demo;
mod pages;
mod probes;
pub(crate) mod serve;
mod state;
