//! What closures are given: [`Snapshot`] to read, [`Transaction`] to read and write.

use std::ops::Deref;

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::FromSql;
use rusqlite::{Batch, Name, Params, Result, Row, ToSql, ffi};

use crate::blob::Blob;
use crate::connection::{Guard, Link};
use crate::error::Error;
use crate::feed::Reads;
use crate::ffi::{RowCounts, Sql};
use crate::queryable::{Executor, Queryable};
use crate::queue;
use crate::record::Mark;
use crate::statement::Statement;

/// One state of the database: all statements of a read see the same one.
///
/// It offers rusqlite's reading methods. Statements have the columns of today's schema, also when they come
/// from the cache. Transaction control, `ATTACH` and `PRAGMA`s that would
/// outlive the call are refused when the statement is prepared.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) link: Link,
}

/// The transaction of a write; derefs to [`Snapshot`], so that functions which read can be given
/// either.
///
/// Every call has it to itself until it returns: what the call wrote is kept or undone as a whole,
/// also when it shares its commit with other calls. There is no `commit`: returning `Ok` keeps the
/// call's writes, and they are stored when the call is answered. Temporary objects that the call makes are
/// dropped when it ends, or when the lease ends of which it is a part.
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

impl Snapshot {
    pub(crate) fn new(link: Link) -> Self {
        Self { link }
    }

    /// Prepares a statement.
    ///
    /// # Errors
    /// SQLite's; `AuthorizationForStatementDenied` for what calls may not do; `ReadOnly` for a
    /// statement that writes, in a read.
    pub fn prepare(&self, sql: &str) -> Result<Statement<'_>> {
        self.link.before_prepare(sql);
        let statement = self.link.session.prepare_plain(sql).map_err(explain_denial)?;
        Statement::new(self, sql, statement, false)
    }

    /// Prepares a statement, or takes it from the connection's cache, to which it returns.
    ///
    /// # Errors
    /// As [`Snapshot::prepare`].
    pub fn prepare_cached(&self, sql: &str) -> Result<Statement<'_>> {
        if self.link.guard.is_noting_reads() {
            // What a cached statement reads was said when it was prepared.
            return self.prepare(sql);
        }
        self.link.before_prepare(sql);
        let statement = self.link.session.prepare_cached(sql).map_err(explain_denial)?;
        Statement::new(self, sql, statement, true)
    }

    /// Runs a query and maps its first row. Prepared through the cache.
    ///
    /// # Errors
    /// SQLite's; `QueryReturnedNoRows` when there is none.
    pub fn query_row<T, P, F>(&self, sql: &str, params: P, f: F) -> Result<T>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> Result<T>,
    {
        Queryable::query_row(self, sql, params, f)
    }

    /// Runs a query and maps its only row. Prepared through the cache.
    ///
    /// # Errors
    /// SQLite's; also when there is no row or more than one.
    pub fn query_one<T, P, F>(&self, sql: &str, params: P, f: F) -> Result<T>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> Result<T>,
    {
        Queryable::query_one(self, sql, params, f)
    }

    /// Runs a query and maps its first row by a function whose errors may be of another type. Prepared
    /// through the cache.
    ///
    /// # Errors
    /// What `f` returned; SQLite's; `QueryReturnedNoRows` when there is no row.
    pub fn query_row_and_then<T, E, P, F>(
        &self,
        sql: &str,
        params: P,
        f: F,
    ) -> std::result::Result<T, E>
    where
        E: From<rusqlite::Error>,
        P: Params,
        F: FnOnce(&Row<'_>) -> std::result::Result<T, E>,
    {
        Queryable::query_row_and_then(self, sql, params, f)
    }

    /// Opens the blob (or text) in `column` of the row `rowid`, to be read or written piece by piece.
    ///
    /// The schema is `"main"`, or the name of an attached file. A write may write into it unless
    /// `read_only`; in a read it must be `true`. While a blob is open for writing the call cannot begin or
    /// end a savepoint ([`Transaction::savepoint`]). What is written is reported by the change feed as the table
    /// alone. `changes` does not count it.
    ///
    /// # Errors
    /// SQLite's: there is no such row or column, no blob or text in it, or the table is a view, virtual or
    /// `WITHOUT ROWID`; for writing also when the column is part of an index or a key. `ReadOnly` for writing in a read.
    pub fn blob_open<D: Name, N: Name>(
        &self,
        schema: D,
        table: N,
        column: N,
        rowid: i64,
        read_only: bool,
    ) -> Result<Blob<'_>> {
        Blob::open(self, schema, table, column, rowid, read_only)
    }

    /// The value of a PRAGMA; without a schema that of the main file.
    ///
    /// # Errors
    /// SQLite's.
    pub fn pragma_query_value<T, F>(&self, schema: Option<&str>, name: &str, f: F) -> Result<T>
    where
        F: FnOnce(&Row<'_>) -> Result<T>,
    {
        Queryable::pragma_query_value(self, schema, name, f)
    }

    /// The value of a PRAGMA, as it is.
    ///
    /// # Errors
    /// As [`Snapshot::pragma_query_value`]; also when the value is of another type.
    pub fn pragma_query_one<T: FromSql>(&self, schema: Option<&str>, name: &str) -> Result<T> {
        Queryable::pragma_query_one(self, schema, name)
    }

    /// Runs `f` for each row of a PRAGMA.
    ///
    /// # Errors
    /// SQLite's; what `f` returned.
    pub fn pragma_query<F>(&self, schema: Option<&str>, name: &str, f: F) -> Result<()>
    where
        F: FnMut(&Row<'_>) -> Result<()>,
    {
        Queryable::pragma_query(self, schema, name, f)
    }

    /// Runs `f` for each row of a PRAGMA with an argument, such as `table_info`.
    ///
    /// # Errors
    /// SQLite's; what `f` returned; `AuthorizationForStatementDenied` where the argument would change the connection.
    pub fn pragma<F, V>(&self, schema: Option<&str>, name: &str, value: V, f: F) -> Result<()>
    where
        F: FnMut(&Row<'_>) -> Result<()>,
        V: ToSql,
    {
        Queryable::pragma(self, schema, name, value, f)
    }

    /// Whether there is such a column, in the schema or, without one, in any.
    ///
    /// # Errors
    /// SQLite's.
    pub fn column_exists<N: Name>(&self, schema: Option<N>, table: N, column: N) -> Result<bool> {
        self.before_look()?;
        self.link.session.conn().column_exists(schema, table, column)
    }

    /// Whether there is such a table, in the schema or, without one, in any. A view is none.
    ///
    /// # Errors
    /// SQLite's.
    pub fn table_exists<N: Name>(&self, schema: Option<N>, table: N) -> Result<bool> {
        self.before_look()?;
        self.link.session.conn().table_exists(schema, table)
    }

    /// A look at the schema without a statement.
    fn before_look(&self) -> Result<()> {
        self.before_statement(true)?;
        self.link.refresh_schema();
        self.link.guard.note_direct_read("", None);
        Ok(())
    }

    /// Whether the call has no transaction any more: an earlier statement (`OR ROLLBACK`) has undone it
    /// as a whole. Calls are never without one otherwise.
    pub fn is_autocommit(&self) -> bool {
        self.link.is_lost()
    }

    /// Why this call should stop, for loops that run long outside SQLite: its caller is gone, its
    /// deadline passed, or the database is aborted.
    pub fn should_stop(&self) -> Option<queue::Interrupt> {
        queue::interrupt()
    }

    /// Runs `f` and tells what its statements read.
    pub(crate) fn noting_reads<T>(&self, f: impl FnOnce() -> T) -> (T, Reads) {
        /// Ends the noting also when `f` panicked.
        struct End<'c>(&'c Guard);

        impl Drop for End<'_> {
            fn drop(&mut self) {
                let _ = self.0.note_reads(false);
            }
        }

        // Its reading of the schema is not the caller's.
        self.link.refresh_schema();
        let guard = &self.link.guard;
        guard.note_reads(true);
        let end = End(guard);
        let value = f();
        let reads = guard.note_reads(false);
        drop(end);
        (value, reads)
    }

    /// The tables that `name` stands for: itself, or those below it if it is a view.
    pub(crate) fn tables_of(&self, name: &str) -> Result<Reads> {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let look = |from: String| {
            let sql = format!("SELECT * FROM {from}");
            let (prepared, reads) = self.noting_reads(|| self.prepare(&sql).map(drop));
            prepared.map(|()| reads)
        };
        let found = look(quoted(name));
        match name.split_once('.') {
            // A table of an attached file.
            Some((schema, table)) if found.is_err() => {
                look(format!("{}.{}", quoted(schema), quoted(table)))
            }
            _ => found,
        }
    }

    pub(crate) fn check_may_write(&self) -> Result<()> {
        match self.link.read_only.get() {
            true => Err(sqlite(ffi::SQLITE_READONLY, "a write in a read; use `write`")),
            false => Ok(()),
        }
    }

    /// Takes a write that SQLite undid by itself off the count: a constraint ends the statement and
    /// undoes it alone (<https://www.sqlite.org/lang_conflict.html>), unless it is `FAIL`, which
    /// keeps and counts the rows before the one that failed. Where the row had both a deferred key and an
    /// immediate one violated, SQLite goes on counting the deferred one: the call must then be undone.
    pub(crate) fn after_write<T>(&self, changes_before: u64, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
            && self.link.session.conn().total_changes() == changes_before
            && !self.link.session.has_deferred_violation()
        {
            self.link.writes.set(self.link.writes.get().saturating_sub(1));
        }
        result
    }

    /// Checks, before each statement, that it still belongs to this call and its transaction.
    pub(crate) fn before_statement(&self, readonly: bool) -> Result<()> {
        if queue::interrupt().is_some() {
            return Err(sqlite(ffi::SQLITE_INTERRUPT, "the call was asked to stop"));
        }
        if self.link.is_lost() {
            return Err(sqlite(
                ffi::SQLITE_ABORT_ROLLBACK,
                "an earlier statement of this call rolled its transaction back",
            ));
        }
        if readonly {
            return Ok(());
        }
        self.check_may_write()?;
        if self.link.protect.get() && !self.link.saved.get() {
            self.link.run_in_call(Sql::Savepoint)?;
            self.link.saved.set(true);
        }
        self.link.writes.set(self.link.writes.get().saturating_add(1));
        Ok(())
    }
}

impl Transaction {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self { snapshot }
    }

    pub(crate) fn link_mut(&mut self) -> &mut Link {
        &mut self.snapshot.link
    }

    /// Executes one statement and returns the number of rows that it changed. Prepared through the
    /// cache.
    ///
    /// # Errors
    /// SQLite's; an error also when the text holds several statements or returns rows.
    pub fn execute<P: Params>(&self, sql: &str, params: P) -> Result<usize> {
        self.prepare_cached(sql)?.execute(params)
    }

    /// Executes the statements of `sql` one after another; rows are ignored.
    ///
    /// # Errors
    /// SQLite's, for the first statement that fails; the ones before it were executed, and are
    /// undone if the call returns the error.
    pub fn execute_batch(&self, sql: &str) -> Result<()> {
        self.link.before_prepare(sql);
        let mut batch = Batch::new(self.link.session.conn(), sql);
        while let Some(statement) = batch.next().map_err(explain_denial)? {
            let statement = self.link.session.keep_plain(statement);
            Statement::new(self, sql, statement, false)?.run()?;
        }
        Ok(())
    }

    /// The row id of the last row that this call inserted; 0: it has inserted none.
    ///
    /// A row that was there already (`OR IGNORE`, `ON CONFLICT`) is none; `RETURNING` tells its id. The
    /// calls of a lease count as one. In SQL `last_insert_rowid()` says the same.
    pub fn last_insert_rowid(&self) -> i64 {
        self.link.session.conn().last_insert_rowid()
    }

    /// The number of rows that the last statement of this call changed. In SQL `changes()` says the same.
    pub fn changes(&self) -> u64 {
        let conn = self.link.session.conn();
        self.link.guard.counters.changes(conn.total_changes(), conn.changes())
    }

    /// The number of rows that this call has changed so far. In SQL `total_changes()` says the same.
    pub fn total_changes(&self) -> u64 {
        self.link.guard.counters.total(self.link.session.conn().total_changes())
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

    /// As [`Transaction::pragma_update`], for PRAGMAs that answer with a row.
    ///
    /// # Errors
    /// As [`Transaction::pragma_update`]; `QueryReturnedNoRows` for one that answers with none.
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

    /// Runs `f` in a savepoint: an error or a panic undoes what `f` wrote and leaves the rest of the
    /// call.
    ///
    /// # Errors
    /// What `f` returned.
    pub fn savepoint<T, E: From<rusqlite::Error>>(
        &self,
        f: impl FnOnce(&Self) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.nested(|| f(self))?
    }
}

impl Transaction {
    /// Whether a write call of this connection is running (rather than a read of a memory database,
    /// an exclusive call, or a destructor or waker between two calls).
    pub(crate) fn in_write_call(&self) -> bool {
        self.link.in_call() && !self.link.read_only.get() && !self.link.is_lost()
    }

    /// Runs a read inside the running write.
    pub(crate) fn read_nested<T, E: 'static>(
        &self,
        f: impl FnOnce(&Snapshot) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, Error<E>> {
        /// Lets the call write again, also when the read panicked.
        struct WriteAgain<'c>(&'c Link);

        impl Drop for WriteAgain<'_> {
            fn drop(&mut self) {
                self.0.read_only.set(false);
            }
        }

        self.link.read_only.set(true);
        let _again = WriteAgain(&self.link);
        f(self).map_err(Error::of_call)
    }

    /// Runs `f` in a savepoint inside the call's; outer error: of the savepoint, and `f`'s writes
    /// are undone.
    pub(crate) fn nested<T, E>(
        &self,
        f: impl FnOnce() -> std::result::Result<T, E>,
    ) -> Result<std::result::Result<T, E>> {
        /// Undoes the savepoint unless it was kept, also when `f` panicked.
        struct Undo<'c>(&'c Transaction, bool, Option<Mark>);

        impl Drop for Undo<'_> {
            fn drop(&mut self) {
                if !self.1 {
                    // What fails here leaves the whole call to be undone, or to end as lost.
                    if self.0.unnest(false).is_ok()
                        && let Some(mark) = self.2
                    {
                        self.0.link.guard.recorder.undo(mark);
                    }
                }
            }
        }

        let recorder = &self.link.guard.recorder;
        let mark = recorder.is_on().then(|| recorder.mark(self.link.session.conn()));
        self.nest()?;
        let mut undo = Undo(self, false, mark);
        let result = f();
        if result.is_ok() {
            self.unnest(true)?;
            undo.1 = true;
        }
        Ok(result)
    }

    fn nest(&self) -> Result<()> {
        self.before_statement(false)?;
        self.link.run_in_call(Sql::Nest).map_err(explain_busy)
    }

    /// Keeps or undoes what was written since [`Transaction::nest`].
    fn unnest(&self, keep: bool) -> Result<()> {
        if keep {
            self.before_statement(true)?;
        } else if self.link.is_lost() {
            // The whole transaction is gone: nothing is left to undo.
            return Ok(());
        } else {
            self.link.run_in_call(Sql::RollbackToNest)?;
            if self.link.guard.temp_schema.virtual_made() {
                // O4 of `temporary.rs`: nothing else shares this transaction's end.
                self.link.stale.set(true);
            }
        }
        self.link.run_in_call(Sql::Unnest).map_err(explain_busy)
    }
}

pub(crate) fn sqlite(code: i32, message: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(message.to_owned()))
}

/// VACUUM cannot run in a transaction, and every call is one.
pub(crate) fn vacuum_in_call() -> rusqlite::Error {
    sqlite(
        ffi::SQLITE_ERROR,
        "VACUUM cannot run in a transaction, as every call is; use `exclusive`",
    )
}

/// SQLite says "busy", which to try again does not mend; say what it means here.
fn explain_busy(error: rusqlite::Error) -> rusqlite::Error {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy) => sqlite(
            ffi::SQLITE_MISUSE,
            "a savepoint cannot begin or end while a blob is open for writing, or a statement that writes \
             stands on a row; drop it first",
        ),
        _ => error,
    }
}

/// SQLite says "not authorized"; say what it means here.
fn explain_denial(error: rusqlite::Error) -> rusqlite::Error {
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
