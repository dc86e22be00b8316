//! The commands as a shell sees them: output, errors, exit status.

mod check;
mod demo;
pub(crate) mod serve;
mod state;
