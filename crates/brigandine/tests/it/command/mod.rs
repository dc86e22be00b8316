//! The commands as a shell sees them: output, errors, exit status.

mod bench;
mod check;
mod demo;
pub(crate) mod serve;
mod state;
