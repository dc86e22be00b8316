//! The library's own statements, prepared once for each connection.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_int};
use std::ptr::{self, NonNull};

use rusqlite::{Connection, Error, ffi};

/// Names the library's own statements; the order is that of [`TEXTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sql {
    BeginImmediate,
    Begin,
    Commit,
    Rollback,
    Savepoint,
    Release,
    RollbackTo,
    /// Begins a savepoint of the caller's own, inside the savepoint of the call.
    Nest,
    Unnest,
    RollbackToNest,
    /// Reads the schema table's first page, which takes the snapshot of a transaction.
    Pin,
    /// Its value changes when another connection has committed.
    DataVersion,
}

pub(super) const TEXTS: [&CStr; 12] = [
    c"BEGIN IMMEDIATE",
    c"BEGIN",
    c"COMMIT",
    c"ROLLBACK",
    c"SAVEPOINT lockkeeper_call",
    c"RELEASE lockkeeper_call",
    c"ROLLBACK TO lockkeeper_call",
    c"SAVEPOINT lockkeeper_nested",
    c"RELEASE lockkeeper_nested",
    c"ROLLBACK TO lockkeeper_nested",
    c"SELECT 1 FROM sqlite_schema LIMIT 1",
    c"PRAGMA data_version",
];

/// The library's own statements.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) fixed: [Prepared; TEXTS.len()],
    pub(super) schemas: Vec<Schema>,
}

/// The schema of the main or an attached file.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) name: CString,
    pub(super) is_writable: bool,
    /// `PRAGMA schema_version`: another value than before means that the schema has changed.
    pub(super) version: Prepared,
    /// Reads the schema table, which makes SQLite load a schema that has changed.
    pub(super) load: Prepared,
    pub(super) seen: Cell<Option<i64>>,
}

impl Schema {
    pub(super) fn new(conn: &Connection, name: &str) -> Result<Self, Error> {
        let quoted = name.replace('"', "\"\"");
        let is_writable = !conn.is_readonly(name)?;
        let prepare = |sql: String| Prepared::new(conn, &CString::new(sql)?);
        Ok(Self {
            name: CString::new(name)?,
            is_writable,
            version: prepare(format!("PRAGMA \"{quoted}\".schema_version"))?,
            load: prepare(format!("SELECT 1 FROM \"{quoted}\".sqlite_schema LIMIT 1"))?,
            seen: Cell::new(None),
        })
    }
}

#[derive(Debug)]
pub(super) struct Prepared(NonNull<ffi::sqlite3_stmt>);

// SAFETY: rusqlite refuses to open a connection on a SQLite compiled single-threaded, and in the
// other modes a statement may move between threads as long as one thread at a time uses it. A
// `Prepared` is owned by its `Session`, which is not `Sync`, and moves with its connection only.
unsafe impl Send for Prepared {}

impl Prepared {
    pub(super) fn new(conn: &Connection, sql: &CStr) -> Result<Self, Error> {
        let mut statement = ptr::null_mut();
        // SAFETY: the handle is open as long as `conn` is borrowed; `sql` ends with a NUL, which
        // -1 tells SQLite to look for; both out pointers are valid or null as the C API allows.
        let code = unsafe {
            let flags = ffi::SQLITE_PREPARE_PERSISTENT;
            let (db, text) = (conn.handle(), sql.as_ptr());
            ffi::sqlite3_prepare_v3(db, text, -1, flags, &raw mut statement, ptr::null_mut())
        };
        match NonNull::new(statement) {
            Some(statement) if code == ffi::SQLITE_OK => Ok(Self(statement)),
            _ => Err(failure(conn, code)),
        }
    }

    /// Steps once and resets; returns the first column of the row, if there is one.
    pub(super) fn integer(&self) -> Option<i64> {
        // SAFETY: as in `run`; the column is read while the statement stands on its row.
        unsafe {
            let row = ffi::sqlite3_step(self.0.as_ptr()) == ffi::SQLITE_ROW;
            let value = row.then(|| ffi::sqlite3_column_int64(self.0.as_ptr(), 0));
            ffi::sqlite3_reset(self.0.as_ptr());
            value
        }
    }

    /// Steps once and resets; a row that is returned is ignored.
    pub(super) fn run(&self, conn: &Connection) -> Result<(), Error> {
        // SAFETY: the statement is not finalized before `self` is dropped, and this thread has the
        // session to itself.
        let code = unsafe { ffi::sqlite3_step(self.0.as_ptr()) };
        let result = match code {
            ffi::SQLITE_DONE | ffi::SQLITE_ROW => Ok(()),
            code => Err(failure(conn, code)),
        };
        // SAFETY: as above. The code repeats the error of the step, which `result` already holds.
        unsafe { ffi::sqlite3_reset(self.0.as_ptr()) };
        result
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: `Session` finalizes its statements before it closes or hands out its connection, so the statement is
        // still valid, and it is not used afterwards.
        unsafe { ffi::sqlite3_finalize(self.0.as_ptr()) };
    }
}

pub(super) fn failure(conn: &Connection, code: c_int) -> Error {
    // SAFETY: the handle is open; the message is copied before anything else is called on it.
    let message = unsafe {
        let text = ffi::sqlite3_errmsg(conn.handle());
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    Error::SqliteFailure(ffi::Error::new(code), message)
}
