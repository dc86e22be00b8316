//! Traits over connections, snapshots and transactions, for functions that take any of them.
//!
//! Each method is written once, here; the methods of [`Snapshot`] and [`Transaction`] call these.

use rusqlite::types::FromSql;
use rusqlite::{Connection, Name, Params, Result, Row, ToSql};

use super::blob::Blob;
use super::link::Link;
use super::pragma;
use super::statement::{Inner, Statement};
use crate::ffi::RowCounts;
#[cfg(doc)]
use crate::{Snapshot, Transaction};

/// The connection behind a [`Queryable`].
#[derive(Clone, Copy, Debug)]
pub enum Source<'c> {
    /// The connection of a call, which is guarded: what the call may not do is refused.
    Call(&'c Link),
    /// A connection without guards, as `setup` and exclusive calls get it.
    Bare(&'c Connection),
}

/// Seals [`Queryable`] and [`Executor`]: users cannot name this trait, so they cannot implement the two.
pub trait Sealed {
    /// The connection of this value.
    fn source(&self) -> Source<'_>;
}

impl<'c> Source<'c> {
    fn conn(self) -> &'c Connection {
        match self {
            Self::Call(link) => link.session.conn(),
            Self::Bare(conn) => conn,
        }
    }

    /// The connection, for a method that reads the schema without a statement.
    fn for_schema(self) -> Result<&'c Connection> {
        if let Self::Call(link) = self {
            link.before_statement(true)?;
            link.refresh_schema();
            link.callbacks.note_direct_read("", None);
        }
        Ok(self.conn())
    }
}

/// What can be queried: a [`Snapshot`], a [`Transaction`], and rusqlite's `Connection` as `setup` and `exclusive`
/// give it.
///
/// Use it for functions that take any of these types; each type also has these methods itself. They do what rusqlite's
/// methods of the same name do, but the `query_…` methods take their statements from the cache. The trait is sealed:
/// later versions may add methods.
///
/// # Examples
/// ```
/// use lockkeeper::{Database, Queryable};
///
/// fn names(db: &impl Queryable) -> lockkeeper::rusqlite::Result<Vec<String>> {
///     db.prepare_cached("SELECT name FROM account ORDER BY name")?
///         .query_map([], |row| row.get(0))?
///         .collect()
/// }
///
/// let db = Database::blocking_open(":memory:")?;
/// db.blocking_write(|tx| {
///     tx.execute_batch("CREATE TABLE account (name TEXT); INSERT INTO account VALUES ('Ada')")?;
///     assert_eq!(names(tx)?, ["Ada"]);
///     Ok(())
/// })?;
/// assert_eq!(db.blocking_read(|snapshot| names(snapshot))?, ["Ada"]);
/// assert_eq!(db.blocking_exclusive(|conn| names(conn))?, ["Ada"]);
/// # Ok::<_, lockkeeper::Error>(())
/// ```
pub trait Queryable: Sealed {
    /// Prepares a statement; see [`Snapshot::prepare`].
    ///
    /// # Errors
    /// SQLite's.
    fn prepare(&self, sql: &str) -> Result<Statement<'_>> {
        match self.source() {
            Source::Call(link) => Statement::prepare(link, sql),
            Source::Bare(conn) => Ok(Statement::bare(Inner::Bare(conn.prepare(sql)?))),
        }
    }

    /// Prepares a statement, or takes it from the connection's cache; see [`Snapshot::prepare_cached`].
    ///
    /// # Errors
    /// SQLite's.
    fn prepare_cached(&self, sql: &str) -> Result<Statement<'_>> {
        match self.source() {
            Source::Call(link) => Statement::prepare_cached(link, sql),
            Source::Bare(conn) => Ok(Statement::bare(Inner::BareCached(conn.prepare_cached(sql)?))),
        }
    }

    /// Opens a blob; see [`Snapshot::blob_open`].
    ///
    /// # Errors
    /// SQLite's.
    fn blob_open<D: Name, N: Name>(
        &self,
        schema: D,
        table: N,
        column: N,
        rowid: i64,
        read_only: bool,
    ) -> Result<Blob<'_>> {
        match self.source() {
            Source::Call(link) => Blob::open(link, schema, table, column, rowid, read_only),
            Source::Bare(conn) => {
                conn.blob_open(schema, table, column, rowid, read_only).map(Blob::bare)
            }
        }
    }

    /// Whether there is such a column; see [`Snapshot::column_exists`].
    ///
    /// # Errors
    /// SQLite's.
    fn column_exists<N: Name>(&self, schema: Option<N>, table: N, column: N) -> Result<bool> {
        self.source().for_schema()?.column_exists(schema, table, column)
    }

    /// Whether there is such a table; see [`Snapshot::table_exists`].
    ///
    /// # Errors
    /// SQLite's.
    fn table_exists<N: Name>(&self, schema: Option<N>, table: N) -> Result<bool> {
        self.source().for_schema()?.table_exists(schema, table)
    }

    /// Whether no transaction is open; see [`Snapshot::is_autocommit`].
    fn is_autocommit(&self) -> bool {
        self.source().conn().is_autocommit()
    }

    /// Runs a query and maps its first row.
    ///
    /// # Errors
    /// SQLite's; `QueryReturnedNoRows` when there is no row.
    fn query_row<T, P, F>(&self, sql: &str, params: P, f: F) -> Result<T>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> Result<T>,
    {
        self.prepare_cached(sql)?.query_row(params, f)
    }

    /// Runs a query and maps its only row.
    ///
    /// # Errors
    /// SQLite's; also when there is no row or more than one.
    fn query_one<T, P, F>(&self, sql: &str, params: P, f: F) -> Result<T>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> Result<T>,
    {
        self.prepare_cached(sql)?.query_one(params, f)
    }

    /// Runs a query and maps its first row by a function with errors of another type.
    ///
    /// # Errors
    /// What `f` returned; SQLite's; `QueryReturnedNoRows` when there is no row.
    fn query_row_and_then<T, E, P, F>(
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
        self.prepare_cached(sql)?.query_row_and_then(params, f)
    }

    /// The value of a PRAGMA.
    ///
    /// # Errors
    /// SQLite's; `QueryReturnedNoRows` when there is no row.
    fn pragma_query_value<T, F>(&self, schema: Option<&str>, name: &str, f: F) -> Result<T>
    where
        F: FnOnce(&Row<'_>) -> Result<T>,
    {
        self.prepare(&pragma::text(schema, name, "")?)?.query_row([], f)
    }

    /// The value of a PRAGMA, converted to `T`.
    ///
    /// # Errors
    /// As [`Queryable::pragma_query_value`]; also when the value is of another type.
    fn pragma_query_one<T: FromSql>(&self, schema: Option<&str>, name: &str) -> Result<T> {
        self.pragma_query_value(schema, name, |row| row.get(0))
    }

    /// Runs `f` for each row of a PRAGMA.
    ///
    /// # Errors
    /// SQLite's; what `f` returned.
    fn pragma_query<F>(&self, schema: Option<&str>, name: &str, mut f: F) -> Result<()>
    where
        F: FnMut(&Row<'_>) -> Result<()>,
    {
        each_row(self.prepare(&pragma::text(schema, name, "")?)?, &mut f)
    }

    /// Runs `f` for each row of a PRAGMA with an argument, such as `table_info`.
    ///
    /// # Errors
    /// SQLite's; what `f` returned.
    fn pragma<F, V>(&self, schema: Option<&str>, name: &str, value: V, mut f: F) -> Result<()>
    where
        F: FnMut(&Row<'_>) -> Result<()>,
        V: ToSql,
    {
        let argument = format!("({})", pragma::literal(&value)?);
        each_row(self.prepare(&pragma::text(schema, name, &argument)?)?, &mut f)
    }
}

/// What can be queried and written: a [`Transaction`], and rusqlite's `Connection` as `setup` and `exclusive` give it.
///
/// Use it for functions that take either type; see [`Queryable`]. The trait is sealed.
///
/// # Examples
/// ```
/// use lockkeeper::{Database, Executor};
///
/// fn add(db: &impl Executor, name: &str) -> lockkeeper::rusqlite::Result<i64> {
///     db.execute("INSERT INTO account (name) VALUES (?1)", [name])?;
///     Ok(db.last_insert_rowid())
/// }
///
/// let db = Database::blocking_open(":memory:")?;
/// db.blocking_write(|tx| {
///     tx.execute_batch("CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT)")?;
///     assert_eq!(add(tx, "Ada")?, 1);
///     Ok(())
/// })?;
/// assert_eq!(db.blocking_exclusive(|conn| add(conn, "Grace"))?, 2);
/// # Ok::<_, lockkeeper::Error>(())
/// ```
pub trait Executor: Queryable {
    /// Executes one statement; see [`Transaction::execute`].
    ///
    /// # Errors
    /// SQLite's; an error also when the text holds several statements or returns rows.
    fn execute<P: Params>(&self, sql: &str, params: P) -> Result<usize> {
        self.prepare_cached(sql)?.execute(params)
    }

    /// Executes the statements of `sql` one after another; see [`Transaction::execute_batch`].
    ///
    /// # Errors
    /// SQLite's, for the first statement that fails.
    fn execute_batch(&self, sql: &str) -> Result<()> {
        match self.source() {
            Source::Call(link) => Statement::run_batch(link, sql),
            Source::Bare(conn) => conn.execute_batch(sql),
        }
    }

    /// The row id of the last row that was inserted; see [`Transaction::last_insert_rowid`].
    fn last_insert_rowid(&self) -> i64 {
        self.source().conn().last_insert_rowid()
    }

    /// The number of rows that the last statement changed; see [`Transaction::changes`].
    fn changes(&self) -> u64 {
        let conn = self.source().conn();
        match self.source() {
            Source::Call(link) => {
                link.callbacks.counters.changes(conn.total_changes(), conn.changes())
            }
            Source::Bare(_) => conn.changes(),
        }
    }

    /// The number of rows that were changed so far; see [`Transaction::total_changes`].
    fn total_changes(&self) -> u64 {
        let total = self.source().conn().total_changes();
        match self.source() {
            Source::Call(link) => link.callbacks.counters.total(total),
            Source::Bare(_) => total,
        }
    }

    /// Sets a PRAGMA; see [`Transaction::pragma_update`].
    ///
    /// # Errors
    /// SQLite's.
    fn pragma_update<V: ToSql>(&self, schema: Option<&str>, name: &str, value: V) -> Result<()> {
        let argument = format!(" = {}", pragma::literal(&value)?);
        self.prepare(&pragma::text(schema, name, &argument)?)?.run()
    }

    /// Sets a PRAGMA and maps the row that it returns.
    ///
    /// # Errors
    /// SQLite's; `QueryReturnedNoRows` when the PRAGMA returns no row.
    fn pragma_update_and_check<F, T, V>(
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
        let argument = format!(" = {}", pragma::literal(&value)?);
        self.prepare(&pragma::text(schema, name, &argument)?)?.query_row([], f)
    }
}

fn each_row(mut statement: Statement<'_>, f: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<()> {
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        f(row)?;
    }
    Ok(())
}

/// Implements the traits for rusqlite's `Connection`, as `setup` and `exclusive` give it, and for its transactions.
macro_rules! bare {
    ($($name:ty),*) => {$(
        impl Sealed for $name {
            fn source(&self) -> Source<'_> {
                Source::Bare(self)
            }
        }

        impl Queryable for $name {}

        impl Executor for $name {}
    )*};
}

bare!(Connection, rusqlite::Transaction<'_>, rusqlite::Savepoint<'_>);
