//! [`Transaction`], which the closure of a write gets: a [`Snapshot`] that can also be written.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rusqlite::{Params, Result, Row, ToSql};

use super::failure::explain_busy;
use super::link::Link;
use super::queryable::{Executor, Queryable, Sealed, Source};
use super::snapshot::Snapshot;
use crate::error::Error;
use crate::ffi::Sql;

/// The transaction of a write. It derefs to [`Snapshot`], so that a function which only reads can take either.
///
/// No other call uses the transaction while a call runs. What the call wrote is kept or undone as a whole, even if the
/// call shares its commit with other calls. There is no `commit`: if the closure returns `Ok`, its writes are kept, and
/// they are stored before the call is answered. Temporary objects that a call makes are dropped when the call ends; in
/// a lease, when the lease ends.
#[derive(Debug)]
pub struct Transaction {
    snapshot: Snapshot,
}

impl Deref for Transaction {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl Transaction {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self { snapshot }
    }

    pub(crate) fn link_mut(&mut self) -> &mut Link {
        &mut self.snapshot.link
    }

    /// Executes one statement and returns the number of rows that it changed. The statement is taken from the
    /// connection's cache, or prepared and put there.
    ///
    /// # Errors
    /// SQLite's; an error also when the text holds several statements or returns rows.
    pub fn execute<P: Params>(&self, sql: &str, params: P) -> Result<usize> {
        Executor::execute(self, sql, params)
    }

    /// Executes the statements of `sql` one after another; rows are ignored.
    ///
    /// # Errors
    /// SQLite's, for the first statement that fails; the statements before it were executed, and are undone if the call
    /// returns the error.
    pub fn execute_batch(&self, sql: &str) -> Result<()> {
        Executor::execute_batch(self, sql)
    }

    /// The row id of the last row that this call inserted; 0: it has inserted none.
    ///
    /// A row that existed before (`OR IGNORE`, `ON CONFLICT`) does not count; `RETURNING` returns its id. The calls of
    /// a lease count as one call. The SQL function `last_insert_rowid()` returns the same id.
    pub fn last_insert_rowid(&self) -> i64 {
        Executor::last_insert_rowid(self)
    }

    /// The number of rows that the last statement of this call changed. The SQL function `changes()` returns the same
    /// number.
    pub fn changes(&self) -> u64 {
        Executor::changes(self)
    }

    /// The number of rows that this call has changed so far. The SQL function `total_changes()` returns the same
    /// number.
    pub fn total_changes(&self) -> u64 {
        Executor::total_changes(self)
    }

    /// Sets a PRAGMA that belongs to the file and to this transaction, such as `user_version`.
    ///
    /// # Errors
    /// `AuthorizationForStatementDenied` for PRAGMAs of the connection.
    pub fn pragma_update<V: ToSql>(
        &self,
        schema: Option<&str>,
        name: &str,
        value: V,
    ) -> Result<()> {
        Executor::pragma_update(self, schema, name, value)
    }

    /// As [`Transaction::pragma_update`], for PRAGMAs that return a row.
    ///
    /// # Errors
    /// As [`Transaction::pragma_update`]; `QueryReturnedNoRows` for a PRAGMA that returns no row.
    pub fn pragma_update_and_check<F, T, V>(
        &self,
        schema: Option<&str>,
        name: &str,
        value: V,
        f: F,
    ) -> Result<T>
    where
        F: FnOnce(&Row<'_>) -> Result<T>,
        V: ToSql,
    {
        Executor::pragma_update_and_check(self, schema, name, value, f)
    }

    /// Runs `f` in a savepoint. If `f` returns an error or panics, what `f` wrote is undone, and what the call wrote
    /// before stays.
    ///
    /// # Errors
    /// What `f` returned; SQLite's, if the savepoint cannot begin or end.
    pub fn savepoint<T, E: From<rusqlite::Error>>(
        &self,
        f: impl FnOnce(&Self) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.nested(|| f(self))?
    }

    /// Whether a write is running on this connection. False in a read of a memory database, in an exclusive call, and
    /// in a destructor or waker that runs between two calls.
    pub(crate) fn in_write_call(&self) -> bool {
        self.link.in_call() && !self.link.read_only.get() && !self.link.is_lost()
    }

    /// Runs a read inside the running write.
    pub(crate) fn read_nested<T, E: 'static>(
        &self,
        f: impl FnOnce(&Snapshot) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, Error<E>> {
        self.link.read_only.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| f(self)));
        self.link.read_only.set(false);
        result.unwrap_or_else(|panic| resume_unwind(panic)).map_err(Error::of_call)
    }

    /// Runs `f` in a savepoint of its own inside the call. The outer error is that of the savepoint; then the writes of
    /// `f` are undone.
    pub(crate) fn nested<T, E>(
        &self,
        f: impl FnOnce() -> std::result::Result<T, E>,
    ) -> Result<std::result::Result<T, E>> {
        let recorder = &self.link.callbacks.recorder;
        let mark = recorder.is_on().then(|| recorder.mark(self.link.session.conn()));
        self.link.before_statement(false)?;
        self.link.run_in_call(Sql::Nest).map_err(explain_busy)?;
        let result = catch_unwind(AssertUnwindSafe(f));
        let kept = match &result {
            Ok(Ok(_)) => self.unnest(true).map(|()| true),
            _ => Ok(false),
        };
        // If the rollback fails, the whole call is undone, or its transaction is lost already.
        if !matches!(kept, Ok(true))
            && self.unnest(false).is_ok()
            && let Some(mark) = mark
        {
            recorder.undo(mark);
        }
        kept.map(|_| result.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    /// Ends the savepoint of [`Transaction::nested`]; `keep`: what was written in it is kept, otherwise it is undone.
    fn unnest(&self, keep: bool) -> Result<()> {
        if keep {
            self.link.before_statement(true)?;
        } else if self.link.is_lost() {
            // The whole transaction is gone: nothing is left to undo.
            return Ok(());
        } else {
            self.link.run_in_call(Sql::RollbackToNest)?;
            if self.link.callbacks.temp_schema.virtual_made.get() {
                // TEMP4: the batch ends with this call, and the connection is replaced.
                self.link.stale.set(true);
            }
        }
        self.link.run_in_call(Sql::Unnest).map_err(explain_busy)
    }
}

impl Sealed for Transaction {
    fn source(&self) -> Source<'_> {
        self.snapshot.source()
    }
}

impl Queryable for Transaction {}

impl Executor for Transaction {}
