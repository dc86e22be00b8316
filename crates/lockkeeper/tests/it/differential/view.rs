//! Two views of a transaction for the interpreter: the library's transaction, and a plain connection.

use std::sync::mpsc;

use lockkeeper::Transaction;
use rusqlite::{Connection, Params, ffi};

use super::batch::{Message, ask_to_cancel};
use super::program::{Failure, LOST, code};

pub(crate) type Sql<T> = rusqlite::Result<T>;

/// What the interpreter needs from a transaction.
pub(crate) trait View {
    fn execute(&self, sql: &str, params: impl Params) -> Sql<usize>;
    fn script(&self, sql: &str) -> Sql<()>;
    fn rows(&self, sql: &str, params: impl Params) -> Sql<Vec<String>>;
    fn last_row(&self) -> i64;
    /// Prepares an insert of a row, runs `between`, and only then fetches the row that the insert returns.
    fn lazily(
        &self,
        id: i64,
        between: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Vec<String>, Failure>;
    fn savepoint(&self, f: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure>;
    fn leak(&self, sql: &str);
    fn cancel(&self, call: usize);
}

pub(crate) const LAZY: &str = "INSERT INTO tree (k, v) VALUES ('lazy' || ?1, ?1) RETURNING k";

pub(crate) fn text(row: &rusqlite::Row<'_>) -> Sql<String> {
    let mut text = String::new();
    for column in 0..row.as_ref().column_count() {
        text += &format!("{:?} ", row.get_ref(column)?);
    }
    Ok(text)
}

pub(crate) fn fetch(mut rows: rusqlite::Rows<'_>) -> Sql<Vec<String>> {
    let mut texts = Vec::new();
    while let Some(row) = rows.next()? {
        texts.push(text(row)?);
    }
    Ok(texts)
}

/// The library's transaction.
pub(crate) struct Real<'t> {
    pub(crate) tx: &'t Transaction,
    pub(crate) messages: &'t mpsc::Sender<Message>,
}

impl View for Real<'_> {
    fn execute(&self, sql: &str, params: impl Params) -> Sql<usize> {
        self.tx.execute(sql, params)
    }

    fn script(&self, sql: &str) -> Sql<()> {
        self.tx.execute_batch(sql)
    }

    fn rows(&self, sql: &str, params: impl Params) -> Sql<Vec<String>> {
        fetch(self.tx.prepare_cached(sql)?.query(params)?)
    }

    fn last_row(&self) -> i64 {
        self.tx.last_insert_rowid()
    }

    fn lazily(
        &self,
        id: i64,
        between: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Vec<String>, Failure> {
        let mut statement = self.tx.prepare(LAZY)?;
        let rows = statement.query([id])?;
        between()?;
        let fetched = fetch(rows);
        if fetched.is_err() {
            // The error of a fetch after the transaction was lost varies. So another statement is run, whose error is
            // always the same.
            self.rows("SELECT 1", [])?;
        }
        Ok(fetched?)
    }

    fn savepoint(&self, f: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        self.tx.savepoint(|_| f())
    }

    fn leak(&self, sql: &str) {
        if let Ok(mut statement) = self.tx.prepare(sql) {
            if let Ok(mut rows) = statement.query([]) {
                let _ = rows.next().map(drop);
                std::mem::forget(rows);
            }
            std::mem::forget(statement);
        }
    }

    fn cancel(&self, call: usize) {
        ask_to_cancel(self.messages, call);
    }
}

/// A plain connection, with the library's rule added that no statement runs after the transaction was lost.
///
/// It caches no statements. If a statement was compiled while `defer_foreign_keys` was on and runs when it is off, it
/// may fail without undoing its row.
pub(crate) struct Plain<'c>(pub(crate) &'c Connection);

pub(crate) fn lost(conn: &Connection) -> Sql<()> {
    match conn.is_autocommit() {
        true => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(LOST), None)),
        false => Ok(()),
    }
}

impl View for Plain<'_> {
    fn execute(&self, sql: &str, params: impl Params) -> Sql<usize> {
        let mut statement = self.0.prepare(sql)?;
        lost(self.0)?;
        statement.execute(params)
    }

    fn script(&self, sql: &str) -> Sql<()> {
        for sql in sql.split(';').filter(|sql| !sql.trim().is_empty()) {
            let mut statement = self.0.prepare(sql)?;
            lost(self.0)?;
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
        }
        Ok(())
    }

    fn rows(&self, sql: &str, params: impl Params) -> Sql<Vec<String>> {
        let mut statement = self.0.prepare(sql)?;
        lost(self.0)?;
        fetch(statement.query(params)?)
    }

    fn last_row(&self) -> i64 {
        self.0.last_insert_rowid()
    }

    fn lazily(
        &self,
        id: i64,
        between: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Vec<String>, Failure> {
        let mut statement = self.0.prepare(LAZY)?;
        lost(self.0)?;
        let rows = statement.query([id])?;
        between()?;
        lost(self.0)?;
        Ok(fetch(rows)?)
    }

    fn savepoint(&self, f: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        lost(self.0)?;
        self.0.execute_batch("SAVEPOINT model")?;
        let result = f();
        if self.0.is_autocommit() {
            result?;
            return Ok(lost(self.0)?);
        }
        if result.is_err() {
            self.0.execute_batch("ROLLBACK TO model")?;
        }
        self.0.execute_batch("RELEASE model")?;
        result
    }

    fn leak(&self, sql: &str) {
        // The library resets a leaked statement when the call ends, so here the statement is not leaked.
        if let Ok(mut statement) = self.0.prepare(sql)
            && lost(self.0).is_ok()
            && let Ok(mut rows) = statement.query([])
        {
            let _ = rows.next().map(drop);
        }
    }

    fn cancel(&self, _: usize) {}
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self { seen: Vec::new(), code: Some(code(&error)) }
    }
}
