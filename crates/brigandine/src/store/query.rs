//! How the store queries: for one row or all of them, and how a row becomes a value.
//!
//! Each SQL text is prepared once per connection and stays in the connection's cache.

use lockkeeper::Queryable;
use rusqlite::types::{FromSql, Type};
use rusqlite::{ErrorCode, Params, Result, Row};
use serde::de::DeserializeOwned;

/// Queries that snapshots, transactions and plain connections can make.
pub(super) trait Query: Queryable {
    /// The first row; `None`: there is none.
    fn first<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        rusqlite::OptionalExtension::optional(self.query_row(sql, values, read))
    }

    /// All rows.
    fn all<T, C: FromIterator<T>>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<C> {
        self.prepare_cached(sql)?.query_map(values, read)?.collect()
    }

    /// The first column of the first row; `None`: there is no row.
    fn value<T: FromSql>(&self, sql: &str, values: impl Params) -> Result<Option<T>> {
        self.first(sql, values, |row| row.get(0))
    }

    /// The first column of all rows.
    fn values<T: FromSql, C: FromIterator<T>>(&self, sql: &str, values: impl Params) -> Result<C> {
        self.all(sql, values, |row| row.get(0))
    }
}

impl<Q: Queryable> Query for Q {}

/// Reads the columns of a row, from left to right.
pub(super) struct Columns<'r, 's> {
    row: &'r Row<'s>,
    next: usize,
}

impl<'r, 's> Columns<'r, 's> {
    pub(super) const fn of(row: &'r Row<'s>) -> Self {
        Self { row, next: 0 }
    }

    /// The value of the next column.
    pub(super) fn take<T: FromSql>(&mut self) -> Result<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }

    /// The value that the next column stores as JSON.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        let (column, text) = (self.next, self.take::<String>()?);
        serde_json::from_str(&text).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
        })
    }
}

/// A struct whose first fields are read from the next columns of [`Columns`], in this order. The other fields follow
/// after a `;`, as in a struct expression.
macro_rules! read {
    ($columns:ident: $of:ident { $($field:ident),+ $(; $($rest:tt)*)? }) => {
        $of { $($field: $columns.take()?,)+ $($($rest)*)? }
    };
}

pub(super) use read;

/// Whether an error concerns only the statement that failed: its values break a rule of the schema, or it read a value
/// that this server does not understand. The same statement would fail again, and other statements may succeed.
///
/// All other errors concern the whole database: it is locked, full, damaged, or does not answer.
pub(crate) fn is_refusal(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        // An error of rusqlite, about a row or a value.
        None => true,
        Some(code) => matches!(
            code,
            ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::ParameterOutOfRange
                | ErrorCode::Unknown
        ),
    }
}

/// A count as an integer of SQLite.
pub(super) fn integer(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
