//! The parts that the threads and the handles of one database share: calls in their queues, objects that outlive a
//! call, and the [`Core`](core::Core), which holds all shared parts.
//!
//! Only `serve_read.rs` and the modules outside of `engine/` use `core.rs`.

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
