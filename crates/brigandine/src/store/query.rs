//! How the store asks: for one row or all of them, and a row as a value.
//!
//! Each text is prepared once per connection and kept in the connection's cache.

use lockkeeper::Queryable;
use rusqlite::types::{FromSql, Type};
use rusqlite::{Params, Result, Row};
use serde::de::DeserializeOwned;

/// Queries of snapshots, transactions and plain connections.
pub(super) trait Query: Queryable {
    /// The first row, if there is one.
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

    /// The first column of the first row, if there is one.
    fn value<T: FromSql>(&self, sql: &str, values: impl Params) -> Result<Option<T>> {
        self.first(sql, values, |row| row.get(0))
    }

    /// The first column of all rows.
    fn values<T: FromSql, C: FromIterator<T>>(&self, sql: &str, values: impl Params) -> Result<C> {
        self.all(sql, values, |row| row.get(0))
    }
}

impl<Q: Queryable> Query for Q {}

/// The columns of a row, one after another.
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

    /// The value that the next column holds as JSON.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        let (column, text) = (self.next, self.take::<String>()?);
        serde_json::from_str(&text).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
        })
    }
}

/// A struct whose first fields are the next columns of [`Columns`], in this order. Behind a `;` stand the other fields
/// as in a struct expression.
macro_rules! read {
    ($columns:ident: $of:ident { $($field:ident),+ $(; $($rest:tt)*)? }) => {
        $of { $($field: $columns.take()?,)+ $($($rest)*)? }
    };
}

pub(super) use read;

/// A count as an integer of SQLite.
pub(super) fn integer(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
