//! The only `unsafe` of the crate: what rusqlite does not offer.
//!
//! - The library's own statements (`BEGIN IMMEDIATE`, `SAVEPOINT`, ...) live here, outside the
//!   caller's statement cache: the authorizer that denies them to calls runs at prepare time only,
//!   so a call that found one in a shared cache could run it.
//! - `sqlite3_db_status(SQLITE_DBSTATUS_DEFERRED_FKS)` tells whether a call left a deferred
//!   foreign key violated; rusqlite has no wrapper for it.
//! - The statements and blobs of calls belong to the session, which lends them: one that a call forgets is still
//!   finalized. SQLite lists every statement of a connection, those of its virtual tables too, and
//!   nothing tells whose one is; whoever finalizes what it lists frees memory that FTS5 frees again.
//! - Statements that `setup` or an exclusive call leaked through the bare connection are finalized at
//!   closing where it is certain that no virtual table has any.
//! - The header of the WAL is read through the connection's own file; nothing else tells whether the
//!   WAL has started over.
//! - What a connection counts of the rows that it changed, so that a call is told of its own only.
//! - A page that the kernel empties in a forked child tells the child from its parent.
//! - The closure of a call that blocks its caller stays on the caller's stack; nothing in safe Rust lends it to another
//!   thread that lives on.
//! - The update hook is put on and taken off between two calls; rusqlite asks for `&mut Connection`.
//! - The busy handler and the WAL hook carry state, which rusqlite offers from 0.41 on only; and its older builds
//!   share one lock among the page caches of all connections, which SQLite's compile options tell.
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
pub(crate) use counts::{RowCounts, count_by_call};
pub(crate) use hooks::{RowSink, Watcher, shares_page_caches};
pub(crate) use lent::{Lent, LentBlob};
pub(crate) use prepared::Sql;
pub(crate) use process_id::process_id;
pub(crate) use session::Session;
pub(crate) use wal_file::{Checkpoint, WalSalts, first_bytes};
