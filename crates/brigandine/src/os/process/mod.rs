//! Child processes, each below a supervisor of its own.
//!
//! Every process that the server starts (git, evaluators, builds) goes through [`Supervisors::spawn`], which returns a
//! [`Running`]. Its owner decides when the program ends: dropping it kills the program and all its descendants.
//! `supervisor.rs` says how.
//!
//! A program gets the variables that its [`Command`](std::process::Command) names and its three standard descriptors,
//! and nothing else of the server's.
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | runs | the program or one of its descendants may be alive | [`Running::ended`] |
//! | ended | no descendant of the program is alive | – |
//!
//! - PROC1: a program's parent is a supervisor, never the server, so a program that looks up its parent in `/proc`
//!   reads nothing of the server's.
//! - PROC2: [`Running::ended`] returns only once the kernel has no descendant of the program left.

mod capture;
mod cgroup;
mod fork_server;
mod launch;
mod limits;
mod marked;
mod namespace;
mod order;
mod path;
mod running;
mod serve;
mod spawn;
mod supervisor;
#[cfg(test)]
mod tests;
mod tree;
mod user;

pub(crate) use capture::{CaptureError, Captured, capture, describe, was_killed};
pub(crate) use cgroup::Cgroups;
pub(crate) use fork_server::{is_supervisor, supervise};
pub(crate) use launch::{End, find};
pub(crate) use limits::{Bounds, Limits};
pub(crate) use marked::{Marked, STATE_VARIABLE, kill_marked, passed_on};
pub(crate) use running::{LEFTOVER, Running, input_pipe, output_pipe};
pub(crate) use spawn::{Program, Streams, Supervisors};
pub(crate) use user::{Shown, User};
