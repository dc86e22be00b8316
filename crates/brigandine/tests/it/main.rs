//! Whole-server tests: the real program, real git repositories, real processes.
//!
//! A test waits for what a process says or for its end, never for time; every wait has a limit.

mod command;
mod engine;
mod hostile;
mod layout;
mod support;
mod weather;
