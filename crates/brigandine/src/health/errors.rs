//! What the errors of the database mean for the server: whether it waits, and for whom.

use crate::store::{self, DatabaseError};
use lockkeeper::ErrorKind;
use rusqlite::ErrorCode;

/// What an error of the database says to an operator, with what finds its cause.
pub(super) fn words(error: &DatabaseError) -> String {
    let text = error.to_string();
    match error.is_busy() {
        true => format!("{text} (`fuser -v brigandine.db` says which has it open)"),
        false => text,
    }
}

/// Whether an error of the database is temporary: the disk is full or does not answer, or another program has the file
/// locked.
pub(crate) fn passes(error: &DatabaseError) -> bool {
    let cause = error.call().or(error.sqlite());
    match error.kind() {
        ErrorKind::Busy
        | ErrorKind::DiskFull
        | ErrorKind::NotApplied
        | ErrorKind::Overloaded
        | ErrorKind::RolledBack
        | ErrorKind::Timeout(_)
        | ErrorKind::Unknown
        | ErrorKind::WritesStopped => true,
        ErrorKind::Call | ErrorKind::Faulted | ErrorKind::Open | ErrorKind::Sqlite => {
            cause.is_some_and(passes_in_sqlite)
        }
        _ => false,
    }
}

/// Like [`passes`], but for an error of SQLite.
pub(crate) fn passes_in_sqlite(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
        )
    )
}

/// Whether the database refuses this one call, and would refuse it again, while other calls may succeed.
pub(crate) fn is_refusal(error: &DatabaseError) -> bool {
    matches!(error.kind(), ErrorKind::Call | ErrorKind::ForeignKey)
        && error.call().is_none_or(store::is_refusal)
}

/// Whether an error is a temporary one that every call would get now, because the file is locked, full or out of reach.
pub(crate) fn is_for_all(error: &DatabaseError) -> bool {
    let is_io =
        |error: &rusqlite::Error| error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
    // An I/O error may concern the pages of a single row.
    passes(error) && !error.call().is_some_and(is_io)
}

/// Whether an error means that no later call can succeed.
pub(crate) fn is_last(error: &DatabaseError) -> bool {
    error.is_closed() || error.is_replaced() || error.is_corrupt()
}
