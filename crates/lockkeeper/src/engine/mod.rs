//! What the threads and the handles of one database share: calls as they wait, what lives between two calls,
//! and the [`Core`](core::Core) that has it all.
//!
//! `core.rs` is on top: nothing else here, and nothing below this folder, knows it.

pub(crate) mod call;
pub(crate) mod core;
pub(crate) mod foreign_commits;
pub(crate) mod held;
pub(crate) mod item;
pub(crate) mod lease_state;
pub(crate) mod serve_read;
pub(crate) mod short;
pub(crate) mod stops;
pub(crate) mod turns;
pub(crate) mod wakeup_watch;
pub(crate) mod write_call;
