#![cfg_attr(feature = "sqlite", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "sqlite"),
    doc = "Threads that own a resource, behind a bounded fair queue."
)]

#[cfg(feature = "sqlite")]
mod blob;
#[cfg(feature = "sqlite")]
mod builder;
#[cfg(feature = "sqlite")]
mod client;
#[cfg(feature = "sqlite")]
mod config;
#[cfg(feature = "sqlite")]
mod connection;
#[cfg(feature = "sqlite")]
mod counters;
#[cfg(feature = "sqlite")]
mod database;
#[cfg(feature = "sqlite")]
mod engine;
#[cfg(feature = "sqlite")]
mod error;
#[cfg(all(feature = "metrics", feature = "sqlite"))]
mod export;
#[cfg(feature = "sqlite")]
mod feed;
#[cfg(feature = "sqlite")]
mod ffi;
#[cfg(feature = "sqlite")]
mod file;
#[cfg(any(feature = "sqlite", loom))]
mod gate;
#[cfg(feature = "sqlite")]
mod guard;
#[cfg(feature = "sqlite")]
mod holders;
#[cfg(feature = "sqlite")]
mod instance;
#[cfg(feature = "sqlite")]
mod interrupt;
#[cfg(feature = "sqlite")]
mod migrate;
#[cfg(feature = "sqlite")]
mod opener;
#[cfg(feature = "sqlite")]
mod path;
#[cfg(feature = "sqlite")]
mod place;
#[cfg(feature = "sqlite")]
mod pragma;
mod process;
#[cfg(feature = "sqlite")]
mod queryable;
#[cfg(feature = "sqlite")]
mod reader;
#[cfg(feature = "sqlite")]
mod record;
#[cfg(feature = "sqlite")]
mod relay;
#[cfg(feature = "sqlite")]
mod setup;
#[cfg(feature = "sqlite")]
mod shared;
#[cfg(feature = "sqlite")]
mod slow;
#[cfg(feature = "sqlite")]
mod statement;
#[cfg(feature = "sqlite")]
mod stats;
mod sync;
#[cfg(feature = "sqlite")]
mod temporary;
#[cfg(feature = "sqlite")]
mod transaction;
#[cfg(feature = "sqlite")]
mod wal;
#[cfg(feature = "sqlite")]
mod words;
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
pub use blob::Blob;
#[cfg(feature = "sqlite")]
pub use builder::{Builder, Open};
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
#[cfg(feature = "sqlite")]
pub use feed::{CallChanges, Change, Changes, Commit, RowChange, RowKind, TableChange, Watch};
#[cfg(feature = "sqlite")]
pub use holders::{Holder, HolderKind};
#[cfg(feature = "sqlite")]
pub use migrate::Migrations;
#[cfg(feature = "sqlite")]
pub use path::absolute_path;
#[cfg(feature = "sqlite")]
pub use queryable::{Executor, Queryable};
pub use queue::{Closed, Phase, Priority, Refused, RefusedReason};
/// The SQLite bindings that this crate is built on, in the version it uses.
#[cfg(feature = "sqlite")]
pub use rusqlite;
#[cfg(feature = "sqlite")]
pub use shared::WeakDatabase;
#[cfg(feature = "sqlite")]
pub use statement::Statement;
#[cfg(feature = "sqlite")]
pub use stats::{CallStats, ClientStats, Distribution, LaneStats, Slow, Stats, Work};
#[cfg(feature = "sqlite")]
pub use transaction::{Snapshot, Transaction};
