//! The commands as a shell sees them: output, errors, exit status.

mod check;
mod demo;
mod serve;
mod state;
