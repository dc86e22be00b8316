//! The state of the batch whose transaction is open.

use rusqlite::ErrorCode;

use crate::engine::write_call::WriteCall;
use crate::sqlite::link::Link;

/// The batch whose transaction is open. If the transaction is lost, `replay.rs` runs these calls again.
pub(super) struct OpenBatch {
    /// Calls of this batch that have run and wait for the commit. Bound: `batch_calls_max`.
    pub(super) ran: Vec<Box<dyn WriteCall>>,
    /// The call that lost the transaction, if unstored writes may have caused its failure (WRITE1).
    pub(super) loser: Option<Box<dyn WriteCall>>,
    /// Whether the last call has succeeded and is stored by the next commit.
    pub(super) kept: bool,
    /// Whether a call of this batch has written, so that later calls need savepoints (WRITE2).
    pub(super) dirty: bool,
    /// Whether every call in `ran` may run again.
    pub(super) all_repeatable: bool,
}

impl Default for OpenBatch {
    fn default() -> Self {
        Self { ran: Vec::new(), loser: None, kept: false, dirty: false, all_repeatable: true }
    }
}

impl OpenBatch {
    /// Notes that a new transaction has begun.
    pub(super) fn begin(&mut self) {
        self.dirty = false;
        self.all_repeatable = true;
    }
}

/// What the run of a call means for its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The batch goes on: the call is in `ran`, or it was answered and has left no changes.
    Going,
    /// The call was answered and undone by rolling back the transaction, which held no other writes.
    Restart,
    /// The transaction is lost, and the calls in `ran` are undone. `alone`: each of them runs again in a transaction of
    /// its own.
    Lost { alone: bool },
}

/// Whether the last call itself, or a request to stop it, lost the transaction. If so, the earlier calls probably
/// succeed together in one transaction.
pub(super) fn is_own_doing(link: &Link) -> bool {
    let code = rusqlite::ffi::Error::new(link.session.last_code()).code;
    matches!(
        code,
        ErrorCode::OperationInterrupted
            | ErrorCode::ConstraintViolation
            | ErrorCode::OperationAborted
    )
}

/// Copies an error of SQLite for each of several callers, since `rusqlite::Error` is not `Clone`.
pub(super) fn copy_of(error: &rusqlite::Error) -> rusqlite::Error {
    let code = error.sqlite_error().copied();
    let code = code.unwrap_or(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR));
    let message = match error {
        rusqlite::Error::SqliteFailure(_, message) => message.clone(),
        other => Some(other.to_string()),
    };
    rusqlite::Error::SqliteFailure(code, message)
}
