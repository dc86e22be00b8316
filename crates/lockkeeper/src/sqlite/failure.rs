//! Errors of SQLite with messages that tell the caller what to do instead.

use rusqlite::ffi;

pub(super) fn sqlite(code: i32, message: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(message.to_owned()))
}

/// The error for a `VACUUM` in a call: every call runs in a transaction, in which SQLite refuses `VACUUM`.
pub(super) fn vacuum_in_call() -> rusqlite::Error {
    sqlite(
        ffi::SQLITE_ERROR,
        "VACUUM cannot run in a transaction, as every call is; use `exclusive`",
    )
}

/// Replaces SQLite's "busy", which suggests a retry that would not help, by a message that says what helps.
pub(super) fn explain_busy(error: rusqlite::Error) -> rusqlite::Error {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy) => sqlite(
            ffi::SQLITE_MISUSE,
            "a savepoint cannot begin or end while a blob is open for writing, or a statement that writes \
             stands on a row; drop it first",
        ),
        _ => error,
    }
}

/// Replaces SQLite's "not authorized" by a message that says what calls may not do, and what to use instead.
pub(super) fn explain_denial(error: rusqlite::Error) -> rusqlite::Error {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::AuthorizationForStatementDenied) => sqlite(
            ffi::SQLITE_AUTH,
            "not allowed inside a call: transactions and savepoints belong to the library (use \
             `tx.savepoint`), ATTACH, checkpoints and PRAGMAs of the connection belong into `setup` or \
             `exclusive`",
        ),
        _ => error,
    }
}
