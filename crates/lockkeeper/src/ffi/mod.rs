//! The only `unsafe` of the crate: what rusqlite does not offer.
//!
//! - `prepared.rs`: the library's own statements (`BEGIN IMMEDIATE`, `SAVEPOINT`, ...), outside the caller's statement
//!   cache. The authorizer denies these statements to calls, but SQLite asks it only when a statement is prepared: a
//!   call that found one of them in a shared cache could run it.
//! - `lent.rs`: statements and blobs of calls, which the session owns and lends, so that it can finalize those that a
//!   call leaks. SQLite's list of statements cannot be used for that: it also holds the statements of virtual tables,
//!   and if they are finalized, FTS5 frees their memory a second time.
//! - `close.rs`: closing a connection on which `setup` or an exclusive call leaked statements. They are finalized if it
//!   is certain that no virtual table owns them.
//! - `wal_file.rs`: the header of the WAL, read through the connection's own file. Only this header shows that the WAL
//!   has started over.
//! - `counts.rs`: the SQL functions that count changed rows, which start from 0 in each call.
//! - `process_id.rs`: a page that the kernel empties in a forked child, which tells the child from its parent.
//! - `borrow.rs`: the closure of a call that blocks its caller stays on the caller's stack. Safe Rust cannot lend it to
//!   a thread that outlives the call.
//! - `hooks.rs`: the update hook, which is set and removed between two calls, where rusqlite would need the connection
//!   exclusively; the busy handler and the WAL hook, which carry state, as rusqlite offers only from 0.41 on; and
//!   whether all page caches share one lock.
//! - `session.rs`: `SQLITE_DBSTATUS_DEFERRED_FKS`, which says whether a deferred foreign key is violated; the last row
//!   id; and the mark by which a session recognizes its connection.
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
