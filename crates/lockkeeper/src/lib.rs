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

/// The closures in the types of [`Write`] and [`Read`], for code that spells these types.
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

#[cfg(feature = "sqlite")]
pub use builder::{Builder, Open};
#[cfg(feature = "sqlite")]
pub use changes::change::{CallChanges, Change, Commit, RowChange, RowKind, TableChange};
#[cfg(feature = "sqlite")]
pub use changes::feed::{Changes, Watch};
#[cfg(feature = "sqlite")]
pub use client::backup::{Backup, BackupProgress, BackupReport, Restore, blocking_restore};
#[cfg(feature = "sqlite")]
pub use client::exclusive::Exclusive;
#[cfg(feature = "sqlite")]
pub use client::handle::Client;
#[cfg(feature = "sqlite")]
pub use client::lease::{AcquireLease, Lease, LeaseCall};
#[cfg(feature = "sqlite")]
pub use client::live::Live;
#[cfg(feature = "sqlite")]
pub use client::read::{Read, SubmittedRead};
#[cfg(feature = "sqlite")]
pub use client::snapshot::{AcquireSnapshot, HeldSnapshot};
#[cfg(feature = "sqlite")]
pub use client::stop::{StopWrites, StoppedWrites};
#[cfg(feature = "sqlite")]
pub use client::write::{SubmittedWrite, Write, WriteAndSnapshot};
#[cfg(feature = "sqlite")]
pub use config::{NetworkFiles, Synchronous};
#[cfg(feature = "sqlite")]
pub use database::{Close, Database};
#[cfg(feature = "sqlite")]
pub use error::{Error, ErrorKind};
#[cfg(all(feature = "metrics", feature = "sqlite"))]
pub use export::Exporter;
pub use queue::{Closed, Phase, Priority, Refused, RefusedReason};
/// The SQLite bindings that this crate is built on, in the version it uses.
#[cfg(feature = "sqlite")]
pub use rusqlite;
#[cfg(feature = "sqlite")]
pub use shared::WeakDatabase;
#[cfg(feature = "sqlite")]
pub use sqlite::blob::Blob;
#[cfg(feature = "sqlite")]
pub use sqlite::migrate::Migrations;
#[cfg(feature = "sqlite")]
pub use sqlite::path::absolute_path;
#[cfg(feature = "sqlite")]
pub use sqlite::queryable::{Executor, Queryable};
#[cfg(feature = "sqlite")]
pub use sqlite::snapshot::Snapshot;
#[cfg(feature = "sqlite")]
pub use sqlite::statement::Statement;
#[cfg(feature = "sqlite")]
pub use sqlite::transaction::Transaction;
#[cfg(feature = "sqlite")]
pub use stats::holders::{Holder, HolderKind};
#[cfg(feature = "sqlite")]
pub use stats::{CallStats, ClientStats, Distribution, LaneStats, Slow, Stats, Work};
