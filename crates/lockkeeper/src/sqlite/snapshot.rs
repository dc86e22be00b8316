//! [`Snapshot`], which the closure of a read gets: one state of the database.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rusqlite::types::FromSql;
use rusqlite::{Name, Params, Result, Row, ToSql};

use super::blob::Blob;
use super::link::Link;
use super::pragma::quoted;
use super::queryable::{Queryable, Sealed, Source};
use super::statement::Statement;
#[cfg(doc)]
use super::transaction::Transaction;
use crate::changes::interest::Reads;
use crate::queue;

/// One state of the database: all statements of a read see the same state.
///
/// It offers rusqlite's reading methods. Statements have the columns of the current schema, also when they come from
/// the cache. Transaction control, `ATTACH`, and `PRAGMA`s whose effect would outlive the call are refused when the
/// statement is prepared.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) link: Link,
}

impl Snapshot {
    /// Prepares a statement.
    ///
    /// # Errors
    /// SQLite's; `AuthorizationForStatementDenied` for what calls may not do; `ReadOnly` for a
    /// statement that writes, in a read.
    pub fn prepare(&self, sql: &str) -> Result<Statement<'_>> {
        Queryable::prepare(self, sql)
    }

    /// Prepares a statement, or takes it from the connection's cache. When the statement is dropped, it goes back to
    /// the cache.
    ///
    /// # Errors
    /// As [`Snapshot::prepare`].
    pub fn prepare_cached(&self, sql: &str) -> Result<Statement<'_>> {
        Queryable::prepare_cached(self, sql)
    }

    /// Runs a query and maps its first row. The statement comes through the connection's cache.
    ///
    /// # Errors
    /// SQLite's; `QueryReturnedNoRows` when there is no row.
    pub fn query_row<T, P, F>(&self, sql: &str, params: P, f: F) -> Result<T>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> Result<T>,
    {
        Queryable::query_row(self, sql, params, f)
    }

    /// Runs a query and maps its only row. The statement comes through the connection's cache.
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

    /// Runs a query and maps its first row by a function whose errors may be of another type. The statement comes
    /// through the connection's cache.
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
    /// `schema` is `"main"`, or the name of an attached file. In a write, the blob can be written unless `read_only` is
    /// `true`; in a read, `read_only` must be `true`. While a blob is open for writing, the call cannot begin or end a
    /// savepoint ([`Transaction::savepoint`]). The change feed reports a write into a blob as a change of the table,
    /// without rows, and [`Transaction::changes`] does not count it.
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
        Queryable::blob_open(self, schema, table, column, rowid, read_only)
    }

    /// The value of a PRAGMA. If `schema` is `None`, that of the main file.
    ///
    /// # Errors
    /// SQLite's.
    pub fn pragma_query_value<T, F>(&self, schema: Option<&str>, name: &str, f: F) -> Result<T>
    where
        F: FnOnce(&Row<'_>) -> Result<T>,
    {
        Queryable::pragma_query_value(self, schema, name, f)
    }

    /// The value of a PRAGMA, converted to `T`.
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
    /// SQLite's; what `f` returned; `AuthorizationForStatementDenied` if the argument would change the connection.
    pub fn pragma<F, V>(&self, schema: Option<&str>, name: &str, value: V, f: F) -> Result<()>
    where
        F: FnMut(&Row<'_>) -> Result<()>,
        V: ToSql,
    {
        Queryable::pragma(self, schema, name, value, f)
    }

    /// Whether there is such a column. If `schema` is `None`, all schemas are searched.
    ///
    /// # Errors
    /// SQLite's.
    pub fn column_exists<N: Name>(&self, schema: Option<N>, table: N, column: N) -> Result<bool> {
        Queryable::column_exists(self, schema, table, column)
    }

    /// Whether there is such a table. If `schema` is `None`, all schemas are searched. Views do not count.
    ///
    /// # Errors
    /// SQLite's.
    pub fn table_exists<N: Name>(&self, schema: Option<N>, table: N) -> Result<bool> {
        Queryable::table_exists(self, schema, table)
    }

    /// `true`: the call has no transaction any more, because an earlier statement (`OR ROLLBACK`) rolled it back as a
    /// whole. In all other cases a call has a transaction.
    pub fn is_autocommit(&self) -> bool {
        self.link.is_lost()
    }

    /// Why this call should stop: its caller is gone, its deadline passed, or the database is aborted. `None`: it can
    /// go on. For loops that run long outside of SQLite.
    pub fn should_stop(&self) -> Option<queue::Interrupt> {
        queue::interrupt()
    }

    /// Runs `f` and returns what its statements read.
    pub(crate) fn noting_reads<T>(&self, f: impl FnOnce() -> T) -> (T, Reads) {
        // Done first, so that the library's own reads of the schema are not noted as reads of `f`.
        self.link.refresh_schema();
        let callbacks = &self.link.callbacks;
        callbacks.note_reads(true);
        let value = catch_unwind(AssertUnwindSafe(f));
        let reads = callbacks.note_reads(false);
        (value.unwrap_or_else(|panic| resume_unwind(panic)), reads)
    }

    /// The tables for which `name` stands: the table itself, or, if it is a view, the tables that the view reads.
    pub(crate) fn tables_of(&self, name: &str) -> Result<Reads> {
        let look = |from: String| {
            let sql = format!("SELECT * FROM {from}");
            let (prepared, reads) = self.noting_reads(|| self.prepare(&sql).map(drop));
            prepared.map(|()| reads)
        };
        let found = look(quoted(name, '"'));
        match name.split_once('.') {
            // A table of an attached file.
            Some((schema, table)) if found.is_err() => {
                look(format!("{}.{}", quoted(schema, '"'), quoted(table, '"')))
            }
            _ => found,
        }
    }
}

impl Sealed for Snapshot {
    fn source(&self) -> Source<'_> {
        Source::Call(&self.link)
    }
}

impl Queryable for Snapshot {}
