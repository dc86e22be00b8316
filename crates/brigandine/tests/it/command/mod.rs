//! The commands as a shell sees them: output, errors, exit status.

mod check;
mod demo;
mod probes;
pub(crate) mod serve;
mod state;
