//! The caller's `setup`, and what it may not leave on a connection.
//!
//! With some settings the library cannot serve calls, and SQLite's errors would come late and name something else: with
//! `query_only`, every write would fail because "the database is read-only"; with a small limit, opening would fail
//! with "out of memory". So these settings are checked after `setup` and refused by name. Foreign keys are switched on
//! again, and an open transaction is rolled back.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;

use crate::config::{Callback, Config, Setup};
use crate::error::{Error, ErrorKind};
use crate::place::Role;
use crate::queue::panic_text;

/// The smallest limits with which the library's own statements and SQLite's `VACUUM` work (the tests measure them),
/// plus room for the needs of later versions of SQLite.
const LIMITS: [(Limit, i32); 6] = [
    (Limit::SQLITE_LIMIT_LENGTH, 1000),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 1000),
    (Limit::SQLITE_LIMIT_COLUMN, 20),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 20),
    (Limit::SQLITE_LIMIT_VDBE_OP, 250),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 4),
];

/// PRAGMAs with which the writer could not serve writes.
const OFF_ON_THE_WRITER: [(&str, &str); 2] = [
    (
        "query_only",
        "`setup` sets `query_only` on the writer's connection, which could then write nothing; leave it \
         out (readers cannot write anyway), or open the database with `Builder::read_only`",
    ),
    (
        "count_changes",
        "`setup` sets `count_changes`, with which every INSERT, UPDATE and DELETE returns a row, and \
         `execute` fails; leave it OFF: `execute` returns the number",
    ),
];

/// Runs the caller's `setup`, and refuses settings with which no call could be served.
pub(crate) fn run(conn: &Connection, config: &Config, role: Role) -> Result<(), Error> {
    run_all(conn, &config.setup, role)?;
    if !config.setup.is_empty() {
        check(conn, config, role)?;
    }
    keep_keys(conn).map_err(|error| Error::sqlite_error(ErrorKind::Open, error).detail(AFTER))
}

/// Runs the functions of `setup` on a connection.
pub(crate) fn run_all(conn: &Connection, all: &[Callback<Setup>], role: Role) -> Result<(), Error> {
    for setup in all {
        match catch_unwind(AssertUnwindSafe(|| (setup.f)(conn))) {
            Ok(set_up) => set_up.map_err(|error| explain(error, role))?,
            Err(panic) => {
                let detail = format!("the caller's setup panicked: {}", panic_text(&*panic));
                return Err(Error::new(ErrorKind::Faulted).detail(detail));
            }
        }
    }
    Ok(())
}

const AFTER: &str = "after the caller's setup";

/// Switches foreign keys on, as the library promises. An open transaction is rolled back first, because inside a
/// transaction SQLite would ignore the PRAGMA.
fn keep_keys(conn: &Connection) -> rusqlite::Result<()> {
    if !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK")?;
    }
    match conn.pragma_query_value(None, "foreign_keys", |row| row.get(0))? {
        true => Ok(()),
        false => conn.execute_batch("PRAGMA foreign_keys = ON"),
    }
}

fn explain(error: rusqlite::Error, role: Role) -> Error {
    let wrote = error.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly);
    let detail = match wrote && role != Role::Writer {
        true => {
            "in the caller's setup, which runs on every connection, and those of readers cannot write; \
             write in a call, or in `Builder::migrations`"
        }
        false => "in the caller's setup",
    };
    Error::sqlite_error(ErrorKind::Open, error).detail(detail)
}

/// Checks the settings. The limits come first, because with too small limits no statement could ask for the other
/// settings.
fn check(conn: &Connection, config: &Config, role: Role) -> Result<(), Error> {
    let failed = |error| Error::sqlite_error(ErrorKind::Open, error).detail(AFTER);
    let refused = |detail: String| Err(Error::new(ErrorKind::Config).detail(detail));
    for (limit, least) in LIMITS {
        let is = conn.limit(limit).map_err(failed)?;
        if is < least {
            return refused(format!(
                "`setup` sets {limit:?} to {is}, with which the library's own statements cannot run; \
                 give at least {least}"
            ));
        }
    }
    if conn.db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE).map_err(failed)? {
        return refused(String::from(
            "`setup` leaves SQLITE_DBCONFIG_RESET_DATABASE on, with which the file counts as empty; switch it off",
        ));
    }
    let writers_own = if role == Role::Writer { &OFF_ON_THE_WRITER[..] } else { &[] };
    for (name, refusal) in writers_own {
        if conn.pragma_query_value(None, name, |row| row.get(0)).map_err(failed)? {
            return refused(String::from(*refusal));
        }
    }
    if config.is_memory() {
        return Ok(());
    }
    let text = |name| conn.pragma_query_value(None, name, |row| row.get::<_, String>(0));
    if text("locking_mode").map_err(failed)? == "exclusive" {
        return refused(String::from(
            "`setup` sets `locking_mode` to EXCLUSIVE, with which one connection keeps all others from the \
             file; leave it NORMAL",
        ));
    }
    // The journal mode was WAL before `setup` ran.
    let mode = text("journal_mode").map_err(failed)?;
    match role == Role::Writer && mode != "wal" {
        true => refused(format!(
            "`setup` sets `journal_mode` to {}, with which readers and the writer keep each other out; leave it \
             WAL",
            mode.to_uppercase()
        )),
        false => Ok(()),
    }
}
