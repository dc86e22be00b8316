//! The promises of the library. Each promise has tests named for it: `a05_…` tests promise A5 of the contract.
//! There is a module for each behaviour. `LOCKKEEPER_LONG=1` runs the long forms.

#![expect(
    clippy::disallowed_methods,
    reason = "tests wait for plain channels and threads, and compare with raw connections"
)]

mod backup;
mod bad_use;
mod bare;
mod batch;
mod batch_edges;
mod between_calls;
mod blobs;
mod borrowed;
mod busy;
mod cancel;
mod cancel_write;
mod checked;
mod circles;
mod closing;
mod columns;
mod crash;
mod differential;
mod endings;
mod errors;
mod extremes;
mod fairness;
mod faults;
mod feed;
mod feed_model;
mod fork;
mod fuzz;
mod guards;
mod held;
mod leases;
mod live;
mod machine;
mod messages;
mod migrations;
mod names;
mod nested;
mod opening;
mod overlap;
mod panics;
mod pragmas;
mod processes;
mod queries;
mod reads;
mod replaced;
mod resource;
mod runtimes;
mod scheduler;
mod setup;
mod shapes;
mod shared;
mod snapshots;
mod stats;
mod steady;
mod stop;
mod targets;
mod turns;
mod twice;
mod wal;

mod support;
