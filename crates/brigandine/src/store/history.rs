//! The whole history as JSON lines, written from one snapshot.
//!
//! ```text
//! {"brigandine":"history","format":1,"schema":5,"rows":{"attempt":9,"build":8,…}}
//! {"specification":{"id":1,"name":"hello",…}}
//! {"build":{"id":1,"derivation":"…",…}}
//! ```
//!
//! The first line says what follows. Every other line is a row: its table, and its columns as `schema.sql` of that
//! schema version describes them. Tables come in a fixed order, and rows in the order of their keys, so two databases
//! with the same rows give the same bytes. A column that SQLite computes from others is left out. So is the table
//! `server`: it is the identity of a state directory, which no other directory may have. So are accounts: their digests
//! are secrets, which a file for other programs must not have. A backup has them.
//!
//! Memory is bounded by one row, however many there are.

use super::database::Snapshot;
use super::query::Query;
use super::schema;
use rusqlite::Row;
use rusqlite::types::{Type, ValueRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The form of the lines. A program refuses a greater number.
pub(super) const FORMAT: u32 = 1;
/// What the first line calls the file.
pub(super) const KIND: &str = "history";
/// Tables that are not history: the identity, how far an import is, and the accounts, whose digests are secrets.
const LEFT_OUT: [&str; 6] = ["server", "import", "user", "user_role", "session", "token"];
/// The order of the tables: each after those to which it refers. Others follow by name.
const ORDER: [&str; 11] = [
    "specification",
    "evaluation",
    "checkout",
    "build",
    "definition",
    "job",
    "dependency",
    "attempt",
    "output",
    "product",
    "build_count",
];
/// The least number of rows between two reports.
const REPORT: i64 = 1000;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) brigandine: String,
    pub(super) format: u32,
    pub(super) schema: usize,
    /// The number of rows of each table.
    pub(super) rows: BTreeMap<String, i64>,
}

/// A table, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    /// The columns that are stored, without those that SQLite computes.
    pub(super) columns: Vec<String>,
    /// The columns of the primary key, in their order.
    keys: Vec<String>,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

impl Table {
    fn select(&self) -> String {
        let (columns, keys) = (list(&self.columns), list(&self.keys));
        format!("SELECT {columns} FROM {} ORDER BY {keys}", quoted(&self.name))
    }

    /// The statement that stores a row, with a parameter for each column.
    pub(super) fn insert(&self) -> String {
        let places: Vec<String> = (1..=self.columns.len()).map(|at| format!("?{at}")).collect();
        let (columns, places) = (list(&self.columns), places.join(", "));
        format!("INSERT INTO {} ({columns}) VALUES ({places})", quoted(&self.name))
    }

    /// The number of its rows.
    pub(super) fn count(&self, from: &impl Query) -> rusqlite::Result<i64> {
        let sql = format!("SELECT count(*) FROM {}", quoted(&self.name));
        Ok(from.value(&sql, [])?.unwrap_or(0))
    }
}

/// The tables of a database that are history, in the order in which they are written.
pub(super) fn tables(from: &impl Query) -> rusqlite::Result<Vec<Table>> {
    let names: Vec<String> = from.values(schema::TABLES, [])?;
    let mut tables = Vec::new();
    for name in names.into_iter().filter(|name| !LEFT_OUT.contains(&name.as_str())) {
        // Columns that SQLite computes are not listed.
        let sql = "SELECT name, pk FROM pragma_table_info(?1) ORDER BY cid";
        let columns: Vec<(String, i64)> = from.all(sql, [&name], |row| row.try_into())?;
        let mut keys: Vec<_> = columns.iter().filter(|(_, key)| *key > 0).collect();
        keys.sort_by_key(|(_, key)| *key);
        let keys = keys.into_iter().map(|(name, _)| name.clone()).collect();
        tables.push(Table {
            name,
            columns: columns.into_iter().map(|(name, _)| name).collect(),
            keys,
        });
    }
    // The sort keeps the order of names among the others.
    let place = |table: &Table| ORDER.iter().position(|name| *name == table.name);
    tables.sort_by_key(|table| place(table).unwrap_or(ORDER.len()));
    Ok(tables)
}

/// Why a history cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// The database cannot be read.
    #[error("the database cannot be read: {0}")]
    Read(#[from] rusqlite::Error),
    /// The lines cannot be written.
    #[error("the history cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Writes the history, and returns the number of rows of each table. `report` is called with the rows that are written,
/// and with all of them.
///
/// # Errors
/// What was written is not whole; the first line says how many rows there should be.
pub(crate) fn export(
    s: &Snapshot,
    out: &mut impl Write,
    report: &dyn Fn(i64, i64),
) -> Result<BTreeMap<String, i64>, ExportError> {
    write(s, schema::VERSION, out, report)
}

/// Writes the history of a database of this schema version.
pub(super) fn write(
    from: &impl Query,
    version: usize,
    out: &mut impl Write,
    report: &dyn Fn(i64, i64),
) -> Result<BTreeMap<String, i64>, ExportError> {
    let tables = tables(from)?;
    let mut rows = BTreeMap::new();
    for table in &tables {
        rows.insert(table.name.clone(), table.count(from)?);
    }
    let (mut done, total) = (0, rows.values().sum());
    let header =
        Header { brigandine: KIND.to_owned(), format: FORMAT, schema: version, rows: rows.clone() };
    serde_json::to_writer(&mut *out, &header).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    for table in &tables {
        let mut select = from.prepare_cached(&table.select())?;
        for line in select.query_map([], |row| line(table, row))? {
            out.write_all(&line?)?;
            done += 1;
            if done % REPORT == 0 {
                report(done, total);
            }
        }
    }
    out.flush()?;
    Ok(rows)
}

/// A row as a line.
fn line(table: &Table, row: &Row<'_>) -> rusqlite::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(256);
    line.push(b'{');
    text(&mut line, &table.name);
    line.extend_from_slice(b":{");
    for (at, column) in table.columns.iter().enumerate() {
        if at > 0 {
            line.push(b',');
        }
        text(&mut line, column);
        line.push(b':');
        match row.get_ref(at)? {
            ValueRef::Null => line.extend_from_slice(b"null"),
            ValueRef::Integer(number) => line.extend_from_slice(number.to_string().as_bytes()),
            ValueRef::Text(bytes) => {
                let found = std::str::from_utf8(bytes).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(error))
                })?;
                text(&mut line, found);
            }
            // The schema has no such column.
            other @ (ValueRef::Real(_) | ValueRef::Blob(_)) => {
                let name = column.clone();
                return Err(rusqlite::Error::InvalidColumnType(at, name, other.data_type()));
            }
        }
    }
    line.extend_from_slice(b"}}\n");
    Ok(line)
}

/// Appends a text as JSON.
fn text(line: &mut Vec<u8>, text: &str) {
    // Writing a text into memory cannot fail.
    let _ = serde_json::to_writer(line, text);
}
