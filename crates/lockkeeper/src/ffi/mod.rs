//! The only `unsafe` of the crate: what rusqlite does not offer.
//!
//! - `prepared.rs`: the library's own statements (`BEGIN IMMEDIATE`, `SAVEPOINT`, ...), outside the caller's statement
//!   cache. The authorizer denies them to calls, but it runs only when a statement is prepared: a call that found one in a
//!   shared cache could run it.
//! - `lent.rs`: statements and blobs of calls, which the session owns and lends, so that it can finalize what a call
//!   forgets. SQLite's list of statements does not serve for that: it also has those of virtual tables, and finalizing
//!   these frees memory that FTS5 frees again.
//! - `close.rs`: closing a connection on which `setup` or an exclusive call leaked statements. They are finalized where it
//!   is certain that they are not those of a virtual table.
//! - `wal_file.rs`: the header of the WAL, read through the connection's own file. It alone shows that the WAL has started
//!   over.
//! - `counts.rs`: the SQL functions that count rows, for each call from 0.
//! - `process_id.rs`: a page that the kernel empties in a forked child, which tells the child from its parent.
//! - `borrow.rs`: the closure of a call that blocks its caller stays on the caller's stack. Safe Rust cannot lend it to a
//!   thread that lives on.
//! - `hooks.rs`: the update hook is set and removed between two calls, for which rusqlite wants `&mut Connection`; the busy
//!   handler and the WAL hook carry state, which rusqlite offers only from 0.41 on; whether all page caches share one lock.
//! - `session.rs`: `SQLITE_DBSTATUS_DEFERRED_FKS`, which says whether a deferred foreign key is violated; the last row id;
//!   and the mark by which a connection is known again.
#![expect(unsafe_code, reason = "SQLite's C interface; each block says why it is sound")]

mod borrow;
mod close;
mod counts;
mod hooks;
mod lent;
mod prepared;
mod process_id;
mod session;
mod wal_file;

pub(crate) use borrow::{Borrowed, View, lend, type_id};
pub(crate) use close::halt;
pub(crate) use counts::{RowCounts, count_by_call};
pub(crate) use hooks::{RowSink, Watcher, shares_page_caches};
pub(crate) use lent::{Lent, LentBlob};
pub(crate) use prepared::Sql;
pub(crate) use process_id::process_id;
pub(crate) use session::Session;
pub(crate) use wal_file::{Checkpoint, WalSalts, first_bytes};
