#![cfg_attr(feature = "sqlite", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "sqlite"),
    doc = "Threads that own a resource, behind a bounded fair queue."
)]

#[cfg(feature = "sqlite")]
mod builder;
#[cfg(feature = "sqlite")]
mod changes;
#[cfg(feature = "sqlite")]
mod client;
#[cfg(feature = "sqlite")]
mod config;
#[cfg(feature = "sqlite")]
mod database;
#[cfg(feature = "sqlite")]
mod engine;
#[cfg(feature = "sqlite")]
mod error;
#[cfg(all(feature = "metrics", feature = "sqlite"))]
mod export;
#[cfg(feature = "sqlite")]
mod ffi;
#[cfg(any(feature = "sqlite", loom))]
mod gate;
#[cfg(feature = "sqlite")]
mod place;
mod process;
#[cfg(feature = "sqlite")]
mod reader;
#[cfg(feature = "sqlite")]
mod shared;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod stats;
mod sync;
#[cfg(feature = "sqlite")]
mod wal;
#[cfg(feature = "sqlite")]
mod writer;

/// The types of the closures in [`Write`] and [`Read`], for code that spells out these types.
#[cfg(feature = "sqlite")]
pub mod closure {
    pub use crate::client::read::Repeatable;
    pub use crate::engine::call::{Body, Many, Once};
}

#[cfg_attr(
    not(feature = "sqlite"),
    expect(dead_code, unused_imports, reason = "some of it is for the database layer alone")
)]
pub mod queue;

#[cfg(all(feature = "metrics", feature = "sqlite"))]
pub use export::Exporter;
pub use queue::{Closed, Phase, Priority, Refused, RefusedReason};
/// The SQLite bindings that this crate is built on, in the version it uses.
#[cfg(feature = "sqlite")]
pub use rusqlite;
#[cfg(feature = "sqlite")]
pub use {
    builder::{Builder, Open},
    changes::change::{CallChanges, Change, Commit, RowChange, RowKind, TableChange},
    changes::feed::{Changes, Watch},
    client::backup::{Backup, BackupProgress, BackupReport, Restore, blocking_restore},
    client::exclusive::Exclusive,
    client::handle::Client,
    client::lease::{AcquireLease, Lease, LeaseCall},
    client::live::Live,
    client::read::{Read, SubmittedRead},
    client::snapshot::{AcquireSnapshot, HeldSnapshot},
    client::stop::{StopWrites, StoppedWrites},
    client::write::{SubmittedWrite, Write, WriteAndSnapshot},
    config::{NetworkFiles, Synchronous},
    database::{Close, Database},
    error::{Error, ErrorKind},
    shared::WeakDatabase,
    sqlite::blob::Blob,
    sqlite::migrate::Migrations,
    sqlite::path::absolute_path,
    sqlite::queryable::{Executor, Queryable},
    sqlite::snapshot::Snapshot,
    sqlite::statement::Statement,
    sqlite::transaction::Transaction,
    stats::holders::{Holder, HolderKind},
    stats::{CallStats, ClientStats, Distribution, LaneStats, Slow, Stats, Work},
};
