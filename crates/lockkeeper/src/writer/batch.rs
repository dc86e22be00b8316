//! What the writer knows of the batch whose transaction is open.

use rusqlite::ErrorCode;

use crate::engine::write_call::WriteCall;
use crate::sqlite::link::Link;

/// The batch whose transaction is open. Calls that are left here by a transaction that was lost are run again
/// (`replay.rs`).
pub(super) struct OpenBatch {
    /// Calls of this batch that have run and wait for the commit.
    pub(super) ran: Vec<Box<dyn WriteCall>>,
    /// The call that lost the transaction, if it may have failed on unstored writes (WRITE1).
    pub(super) loser: Option<Box<dyn WriteCall>>,
    /// The call that was run last waits in `ran` for its commit, and has succeeded.
    pub(super) kept: bool,
    /// A call of this batch has written: later ones need savepoints (WRITE2).
    pub(super) dirty: bool,
    /// Every call in `ran` may run again.
    pub(super) all_repeatable: bool,
}

impl Default for OpenBatch {
    fn default() -> Self {
        Self { ran: Vec::new(), loser: None, kept: false, dirty: false, all_repeatable: true }
    }
}

impl OpenBatch {
    /// A transaction was begun, in which nothing has run.
    pub(super) fn begin(&mut self) {
        self.dirty = false;
        self.all_repeatable = true;
    }
}

/// What became of a call that was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It is in `ran`, or was answered and left nothing behind.
    Going,
    /// It was answered, and undone by rolling back the transaction, which held nothing else.
    Restart,
    /// The transaction is gone, and with it the calls in `ran`.
    Lost { alone: bool },
}

/// Whether the transaction was lost by something that this call did or that was done to it alone,
/// so that the calls before it may well be run again together.
pub(super) fn is_own_doing(link: &Link) -> bool {
    let code = rusqlite::ffi::Error::new(link.session.last_code()).code;
    matches!(
        code,
        ErrorCode::OperationInterrupted
            | ErrorCode::ConstraintViolation
            | ErrorCode::OperationAborted
    )
}

/// `rusqlite::Error` is not `Clone`, but SQLite's own failures are told to several callers.
pub(super) fn copy_of(error: &rusqlite::Error) -> rusqlite::Error {
    let code = error.sqlite_error().copied();
    let code = code.unwrap_or(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR));
    let message = match error {
        rusqlite::Error::SqliteFailure(_, message) => message.clone(),
        other => Some(other.to_string()),
    };
    rusqlite::Error::SqliteFailure(code, message)
}
