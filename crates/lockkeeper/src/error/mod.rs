//! The public error.
//!
//! - ERR1: the message holds the cause, and says nothing twice. The `Display` of an [`Error`] ends with the message of
//!   SQLite's or the closure's error, so its `source` is the source of that error.
//! - ERR2: `Error<E>` is a `std::error::Error` whenever `E` can be printed. So `?` also converts it where `E` does not
//!   implement that trait itself, such as the errors of anyhow and eyre, and boxed errors.

mod kind;

use std::any::Any;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use rusqlite::ErrorCode;

use crate::queue::CallError;

pub use kind::ErrorKind;

/// Why a call failed. Unless the kind is [`ErrorKind::Unknown`], nothing that the call wrote was stored.
///
/// `E` is the error of the caller's own closures, `rusqlite::Error` unless the handle was made by
/// [`Client::with_error`](crate::Client::with_error); it passes through untouched, see
/// [`Error::into_call`] and [`Error::flatten`].
///
/// `Display` says what failed and why (`UNIQUE constraint failed: account.name`). It prints an `E` in its alternate form
/// (`{:#}`), in which anyhow and eyre show a whole chain; [`source`](std::error::Error::source) goes on from there. The
/// sources of the caller's own error type are not known here: let its `Display` name its cause, or use `flatten`.
///
/// # Examples
/// With `?`, whatever the error type of the program is:
/// ```
/// use anyhow::Context;
///
/// fn store(db: &lockkeeper::Database) -> anyhow::Result<()> {
///     db.blocking_write(|tx| tx.execute_batch("CREATE TABLE t (x UNIQUE)"))?;
///     db.with_error::<anyhow::Error>().blocking_write(|tx| {
///         tx.execute("INSERT INTO t VALUES (1), (1)", []).context("while importing")?;
///         Ok(())
///     })?;
///     Ok(())
/// }
///
/// let db = lockkeeper::Database::blocking_open(":memory:").unwrap();
/// let error = store(&db).unwrap_err();
/// assert!(error.to_string().starts_with("while importing: UNIQUE constraint failed: t.x"));
/// ```
pub struct Error<E = rusqlite::Error>(Box<Repr<E>>);

struct Repr<E> {
    kind: ErrorKind,
    /// What the caller's closure returned.
    call: Option<E>,
    /// What SQLite answered to a statement of the library.
    sqlite: Option<rusqlite::Error>,
    detail: Option<Cow<'static, str>>,
    /// What can be done about the cause, if SQLite's message does not say it.
    hint: Option<&'static str>,
}

impl<E> Error<E> {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Repr { kind, call: None, sqlite: None, detail: None, hint: None }))
    }

    pub(crate) fn sqlite_error(kind: ErrorKind, error: rusqlite::Error) -> Self {
        let hint = hint_for(&error);
        Self(Box::new(Repr { kind, call: None, sqlite: Some(error), detail: None, hint }))
    }

    /// The error of one of the library's own statements.
    pub(crate) fn of_own(error: rusqlite::Error) -> Self {
        Self::sqlite_error(kind_of_own(&error), error)
    }

    /// The error of a call that did not run because its connection could not be opened again; `self` says why. The
    /// error of a lost file keeps its kind.
    pub(crate) fn faulted(mut self) -> Self {
        if !self.is_replaced() {
            self.0.kind = ErrorKind::Faulted;
        }
        self
    }

    /// The error of a write in a database that was opened read-only.
    pub(crate) fn read_only() -> Self {
        let detail =
            "the database was opened for reading alone (`Builder::read_only` or `immutable`)";
        Self::new(ErrorKind::ReadOnly).detail(detail)
    }

    pub(crate) fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The error that the closure returned; `None`: it returned none.
    pub fn call(&self) -> Option<&E> {
        self.0.call.as_ref()
    }

    /// The closure's own error as the closure returned it.
    ///
    /// # Errors
    /// This error itself, if the closure returned none.
    pub fn into_call(mut self) -> Result<E, Self> {
        match self.0.call.take() {
            Some(error) => Ok(error),
            None => Err(self),
        }
    }

    /// What SQLite said when the library itself failed (in `BEGIN`, `COMMIT`, while opening).
    pub fn sqlite(&self) -> Option<&rusqlite::Error> {
        self.0.sqlite.as_ref()
    }

    pub(crate) fn into_sqlite(self) -> Option<rusqlite::Error> {
        self.0.sqlite
    }

    /// Another process kept the lock; nothing was stored.
    pub fn is_busy(&self) -> bool {
        self.0.kind == ErrorKind::Busy
    }

    /// The database is closed; nothing ran.
    pub fn is_closed(&self) -> bool {
        self.0.kind == ErrorKind::Closed
    }

    /// The call was stopped: by its deadline, an abort, its snapshot's age, or the end of its lease.
    pub fn is_interrupted(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Timeout(_)
                | ErrorKind::Canceled
                | ErrorKind::SnapshotExpired
                | ErrorKind::LeaseExpired
        )
    }

    /// The deadline passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Timeout(_))
    }

    /// The file is damaged, or is not a database.
    pub fn is_corrupt(&self) -> bool {
        self.0.kind == ErrorKind::Corrupt
    }

    /// The file was deleted or replaced under the program: see [`ErrorKind::Replaced`].
    pub fn is_replaced(&self) -> bool {
        self.0.kind == ErrorKind::Replaced
    }

    /// Nothing was stored, and the same call may well succeed when it is made again.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Busy
                | ErrorKind::Timeout(_)
                | ErrorKind::NotApplied
                | ErrorKind::SnapshotExpired
                | ErrorKind::LeaseExpired
                | ErrorKind::TooManySnapshots
                | ErrorKind::Overloaded
                | ErrorKind::WritesStopped
        )
    }

    /// Changes the closure's error, if there is one.
    pub fn map_call<F>(self, f: impl FnOnce(E) -> F) -> Error<F> {
        let Repr { kind, call, sqlite, detail, hint } = *self.0;
        Error(Box::new(Repr { kind, call: call.map(f), sqlite, detail, hint }))
    }

    /// The same error for closures of another error type; the closure's own error is dropped.
    pub(crate) fn without_call<F>(self) -> Error<F> {
        let Repr { kind, sqlite, detail, hint, .. } = *self.0;
        Error(Box::new(Repr { kind, call: None, sqlite, detail, hint }))
    }
}

impl<E: From<Error>> Error<E> {
    /// Turns this error into the caller's error type: the closure's own error as it was returned, or else this error,
    /// converted by `From`. If the call was stopped (`is_interrupted`), the result is always this error, whatever the
    /// closure returned.
    ///
    /// # Examples
    /// With these three `From` implementations `?` is enough:
    /// ```
    /// use lockkeeper::{Database, rusqlite};
    ///
    /// #[derive(Debug)]
    /// enum Shop {
    ///     SoldOut,
    ///     Sql(rusqlite::Error),
    ///     Database(lockkeeper::Error),
    /// }
    /// impl From<rusqlite::Error> for Shop {
    ///     fn from(error: rusqlite::Error) -> Self { Shop::Sql(error) }
    /// }
    /// impl From<lockkeeper::Error> for Shop {
    ///     fn from(error: lockkeeper::Error) -> Self { Shop::Database(error) }
    /// }
    /// impl From<lockkeeper::Error<Shop>> for Shop {
    ///     fn from(error: lockkeeper::Error<Shop>) -> Self { error.flatten() }
    /// }
    ///
    /// fn buy(db: &Database<Shop>) -> Result<(), Shop> {
    ///     db.blocking_write(|tx| match tx.execute("DELETE FROM ticket WHERE id = 1", [])? {
    ///         0 => Err(Shop::SoldOut),
    ///         _ => Ok(()),
    ///     })?;
    ///     Ok(())
    /// }
    ///
    /// let db = Database::blocking_open(":memory:").unwrap().with_error::<Shop>();
    /// assert!(matches!(buy(&db), Err(Shop::Sql(_)))); // there is no such table
    /// db.blocking_write(|tx| Ok(tx.execute_batch("CREATE TABLE ticket (id)")?)).unwrap();
    /// assert!(matches!(buy(&db), Err(Shop::SoldOut)));
    /// db.blocking_close().unwrap();
    /// assert!(matches!(buy(&db), Err(Shop::Database(error)) if error.is_closed()));
    /// ```
    pub fn flatten(self) -> E {
        if self.is_interrupted() {
            return E::from(self.without_call());
        }
        self.into_call().unwrap_or_else(|error| E::from(error.without_call()))
    }
}

impl<E: 'static> Error<E> {
    /// The error of a closure that returned `error`.
    pub(crate) fn of_call(error: E) -> Self {
        let kind = rusqlite_in(&error).map_or(ErrorKind::Call, kind_of_call);
        Self::of_call_as(kind, error)
    }

    /// The error of a closure that returned `error`, with the kind `kind`, because `error` does not tell it.
    pub(crate) fn of_call_as(kind: ErrorKind, error: E) -> Self {
        let hint = rusqlite_in(&error).and_then(hint_for);
        Self(Box::new(Repr { kind, call: Some(error), sqlite: None, detail: None, hint }))
    }
}

/// `error` as a `dyn Error`, if its type is rusqlite's error or a boxed error.
fn known<E: 'static>(error: &E) -> Option<&(dyn StdError + 'static)> {
    type Shared = Box<dyn StdError + Send + Sync>;
    type Sent = Box<dyn StdError + Send>;
    let any: &dyn Any = error;
    if let Some(error) = any.downcast_ref::<rusqlite::Error>() {
        return Some(error);
    }
    if let Some(error) = any.downcast_ref::<Shared>() {
        return Some(&**error);
    }
    any.downcast_ref::<Sent>().map(|error| &**error as &(dyn StdError + 'static))
}

/// The next error of a chain.
fn below<'e>(error: &&'e (dyn StdError + 'static)) -> Option<&'e (dyn StdError + 'static)> {
    let error: &'e (dyn StdError + 'static) = *error;
    error.source()
}

/// The error of SQLite that `error` is, or that caused `error`; `None`: no such error is known.
fn rusqlite_in<E: 'static>(error: &E) -> Option<&rusqlite::Error> {
    std::iter::successors(known(error), below).find_map(|error| error.downcast_ref())
}

/// A hint that SQLite's message lacks: if SQLite cannot open a file, its message does not say why.
fn hint_for(error: &rusqlite::Error) -> Option<&'static str> {
    let cannot_open = error.sqlite_error_code() == Some(ErrorCode::CannotOpen);
    (cannot_open && are_descriptors_exhausted()).then_some(
        "the process has no file descriptor left: raise its limit (`ulimit -n`), or close files",
    )
}

/// Whether this process, or the machine, has no file descriptors left for another file and its WAL.
///
/// The check opens a pair of sockets, because the library opens no file itself (`sqlite/preflight.rs`).
pub(crate) fn are_descriptors_exhausted() -> bool {
    #[cfg(unix)]
    // ENFILE and EMFILE, which have these numbers on every Unix that Rust knows.
    return std::os::unix::net::UnixStream::pair()
        .is_err_and(|error| matches!(error.raw_os_error(), Some(23 | 24)));
    // On other systems this is not known.
    #[cfg(not(unix))]
    return false;
}

/// The kind of an error that a closure returned.
fn kind_of_call(error: &rusqlite::Error) -> ErrorKind {
    match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly) => ErrorKind::ReadOnly,
        Some(ErrorCode::DiskFull) => ErrorKind::DiskFull,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
        _ => ErrorKind::Call,
    }
}

/// The kind of an error of the library's own statements.
pub(crate) fn kind_of_own(error: &rusqlite::Error) -> ErrorKind {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Busy,
        _ => match kind_of_call(error) {
            // `ErrorKind::ReadOnly` would mean a write in a read, but here SQLite cannot write the file.
            ErrorKind::Call | ErrorKind::ReadOnly => ErrorKind::Sqlite,
            kind => kind,
        },
    }
}

impl<E> From<CallError> for Error<E> {
    fn from(error: CallError) -> Self {
        Self::new(match error {
            CallError::Closed => ErrorKind::Closed,
            CallError::Aborted => ErrorKind::Canceled,
            CallError::Timeout(phase) => ErrorKind::Timeout(phase),
            CallError::Nested => ErrorKind::Nested,
            CallError::Faulted => ErrorKind::Faulted,
            CallError::Forked => ErrorKind::Forked,
            CallError::Overloaded => ErrorKind::Overloaded,
        })
    }
}

impl<E: fmt::Debug> fmt::Debug for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind);
        if let Some(error) = &self.0.call {
            out.field("call", error);
        }
        if let Some(error) = &self.0.sqlite {
            out.field("sqlite", error);
        }
        if let Some(detail) = &self.0.detail {
            out.field("detail", detail);
        }
        out.finish()
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Repr { kind, call, sqlite, detail, hint } = &*self.0;
        let cause = call.as_ref().map(|error| format!("{error:#}"));
        let cause = cause.or_else(|| sqlite.as_ref().map(ToString::to_string));
        let mut shown = match (kind, &cause) {
            (ErrorKind::Call, Some(cause)) => cause.clone(),
            _ => kind.to_string(),
        };
        let parts = [detail.as_deref(), cause.as_deref(), *hint];
        for part in parts.into_iter().flatten() {
            // ERR1
            if !shown.contains(part) {
                shown.push_str(": ");
                shown.push_str(part);
            }
        }
        f.write_str(&shown)
    }
}

impl<E: fmt::Debug + fmt::Display + 'static> StdError for Error<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let cause: &dyn StdError = match (&self.0.call, &self.0.sqlite) {
            (Some(error), _) => known(error)?,
            (None, Some(error)) => error,
            (None, None) => return None,
        };
        // ERR1: the message of the cause is printed already.
        let shown = cause.to_string();
        std::iter::successors(cause.source(), below).find(|error| error.to_string() != shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
    }

    /// `Sqlite` is the kind of an error that fits no other kind. The test makes the errors itself, because SQLite does
    /// not fail on request.
    #[test]
    fn a28_sqlite_when_the_library_was_refused_for_a_reason_without_a_kind() {
        let own = |code| kind_of_own(&failure(code));
        assert_eq!(own(rusqlite::ffi::SQLITE_IOERR), ErrorKind::Sqlite);
        assert_eq!(own(rusqlite::ffi::SQLITE_NOMEM), ErrorKind::Sqlite);
        assert_eq!(own(rusqlite::ffi::SQLITE_BUSY), ErrorKind::Busy);
        assert_eq!(own(rusqlite::ffi::SQLITE_FULL), ErrorKind::DiskFull);
        assert_eq!(own(rusqlite::ffi::SQLITE_NOTADB), ErrorKind::Corrupt);
        let error: Error =
            Error::sqlite_error(ErrorKind::Sqlite, failure(rusqlite::ffi::SQLITE_IOERR));
        assert!(!error.is_retryable());
        let said = failure(rusqlite::ffi::SQLITE_IOERR).to_string();
        assert_eq!(error.to_string(), format!("SQLite failed: {said}"));
    }
}
