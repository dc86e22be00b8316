//! Tests of the whole server: the real program, real git repositories, real processes.
//!
//! A test waits until a process prints something or ends, and never just for some time. Every wait has a time limit.

mod command;
mod engine;
mod hostile;
mod layout;
mod support;
mod weather;
