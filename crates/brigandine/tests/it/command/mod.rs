//! The commands as a shell sees them: output, errors, exit status.

mod accounts;
mod backup;
mod check;
mod demo;
mod history;
mod interrupted;
mod pages;
mod probes;
mod reload;
mod remote;
pub(crate) mod serve;
mod state;
