//! What all peers share: the workloads, the clock, the statistics and the protocol.
//!
//! This crate does not depend on SQLite, so binaries that link different versions of SQLite can all use it. A binary
//! implements [`Peer`] for the library that it measures, and passes it to [`run`]. The lab starts the binary, writes
//! one [`Job`] to its standard input, and reads one [`Figures`] from its output.

mod holder;
mod job;
mod latency;
mod peer;
mod process;
mod random;
mod serve;
pub mod sql;
mod stats;
mod tally;
mod workload;

pub use holder::Holder;
pub use job::{Figures, Job, Synchronous, Workload, Written};
pub use latency::{Latencies, Summary};
pub use peer::{Outcome, Page, Peer};
pub use process::cpu_ms;
pub use random::{Random, person};
pub use serve::{Answer, serve};
pub use stats::{jain, median, spread};
pub use tally::{Phase, Phases, Tally};
pub use workload::{BULK_MAX, Lateness, Ticker, run, runtime};
