//! Imports a history that `brigandine export` wrote, of this schema version or an older one.
//!
//! The lines are stored as they are, in tables of the schema version in which they were written. Then this file is
//! migrated as an older database is. The file's first line counts the rows, so a file that was cut is noticed.

use super::outcome::{ImportError, Step};
use super::target::{finish, open_target, put_in_place};
use crate::os::file::open_regular;
use crate::os::folder::make_private;
use crate::os::state_dir::StateDir;
use crate::store::history::{FORMAT, Header, KIND, Table, tables};
use crate::store::query::{Query, integer, is_refusal};
use crate::store::schema;
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};
use serde::Serialize;
use serde_json::Map;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path};

/// The most rows of one transaction.
const SLICE: usize = 50_000;
/// The most bytes of one line.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// Columns with paths of files below the state directory. Such a path must not lead out of it.
const PATHS: [(&str, &str); 4] =
    [("evaluation", "log_path"), ("build", "log_path"), ("product", "path"), ("leftover", "path")];

/// What was imported from a history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ImportedHistory {
    /// The number of rows of each table.
    pub(crate) rows: BTreeMap<String, i64>,
    /// The schema version in which the history was written.
    pub(crate) schema: usize,
    /// How many rows an earlier, interrupted import had stored.
    pub(crate) resumed_at: i64,
}

/// The file with the history, and where the reading is.
struct Lines<'path> {
    path: &'path Path,
    file: BufReader<std::fs::File>,
    /// The number of the last line that was read.
    number: u64,
    /// The bytes of the lines that were read.
    offset: u64,
    line: Vec<u8>,
}

impl<'path> Lines<'path> {
    fn open(path: &'path Path) -> Result<Self, ImportError> {
        let failed = |error| ImportError::File(path.to_owned(), error);
        let file = BufReader::with_capacity(1 << 20, open_regular(path).map_err(failed)?);
        Ok(Self { path, file, number: 0, offset: 0, line: Vec::new() })
    }

    fn wrong(&self, why: impl Into<String>) -> ImportError {
        ImportError::Line(self.path.to_owned(), self.number, why.into())
    }

    /// Reads the next line. `false`: there is none.
    fn next(&mut self) -> Result<bool, ImportError> {
        self.line.clear();
        let read = (&mut self.file).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line);
        let bytes = read.map_err(|error| ImportError::File(self.path.to_owned(), error))?;
        if bytes == 0 {
            return Ok(false);
        }
        self.number += 1;
        self.offset += bytes as u64;
        if self.line.last() != Some(&b'\n') {
            let why = match bytes as u64 == LINE_BYTES_MAX {
                true => format!("it has more than {} MiB", LINE_BYTES_MAX >> 20),
                false => "the file ends in the middle of it".to_owned(),
            };
            return Err(self.wrong(why));
        }
        Ok(true)
    }

    /// Reads the first line.
    fn header(&mut self) -> Result<Header, ImportError> {
        if !self.next()? {
            return Err(self.wrong("the file is empty"));
        }
        let header: Header = serde_json::from_slice(&self.line).map_err(|error| {
            self.wrong(format!("it is not the first line of a history: {error}"))
        })?;
        if header.brigandine != KIND {
            return Err(self.wrong("it is not the first line of a history"));
        }
        if header.format > FORMAT || header.schema > schema::VERSION || header.schema == 0 {
            let Header { format, schema: found, .. } = header;
            return Err(self.wrong(format!(
                "a newer program wrote the file (format {format}, schema {found}); import it with that program, or a \
                 later one"
            )));
        }
        Ok(header)
    }

    /// Goes on where an interrupted import stood.
    fn seek(&mut self, rows: i64, offset: i64) -> Result<(), ImportError> {
        let at = u64::try_from(offset).unwrap_or(0);
        let sought = self.file.seek(SeekFrom::Start(at));
        sought.map_err(|error| ImportError::File(self.path.to_owned(), error))?;
        // The first line is no row.
        (self.number, self.offset) = (u64::try_from(rows).unwrap_or(0) + 1, at);
        Ok(())
    }
}

/// Imports the history in the file `source` into the new state directory `state`.
///
/// # Errors
/// The source is not changed. What an interrupted import has stored stays for the next attempt; no server opens that file
/// as a database. If the history itself is wrong, nothing stays.
pub(crate) fn import_history(
    source: &Path,
    state: &Path,
    progress: &dyn Fn(Step),
) -> Result<ImportedHistory, ImportError> {
    make_private(state).map_err(|error| ImportError::File(state.to_owned(), error))?;
    let (database, path) = (StateDir::new(state).database(), StateDir::new(state).import());
    if database.exists() {
        return Err(ImportError::Present(database));
    }
    let mut lines = Lines::open(source)?;
    let header = lines.header()?;
    let done = import_lines(source, lines, header, state, progress);
    if matches!(done, Err(ImportError::Line(..) | ImportError::Unfit(..))) {
        // No attempt with this file gets further, and the right file would be refused as another one.
        let mut journal = path.clone().into_os_string();
        journal.push("-journal");
        let _ = std::fs::remove_file(journal);
        std::fs::remove_file(&path).map_err(|error| ImportError::File(path, error))?;
    }
    done
}

fn import_lines(
    source: &Path,
    mut lines: Lines<'_>,
    header: Header,
    state: &Path,
    progress: &dyn Fn(Step),
) -> Result<ImportedHistory, ImportError> {
    let (database, path) = (StateDir::new(state).database(), StateDir::new(state).import());
    let real =
        source.canonicalize().map_err(|error| ImportError::File(source.to_owned(), error))?;
    let bytes = source.metadata().map_or(0, |file| file.len());
    let identity = format!("{}, {bytes} bytes", real.display());
    let failed = |error| ImportError::Target(path.clone(), error);
    let mut conn = open_target(&path).map_err(failed)?;
    let resumed_at = begin(&mut conn, &identity, &header, &path)?;
    let version = conn.query_row(schema::MARKS, [], schema::marks).map_err(failed)?;
    let version =
        schema::judge(version).map_err(|error| ImportError::Schema(path.clone(), error))?;
    // Otherwise an interrupted import has stored everything, and was migrating the file.
    if version == header.schema {
        store(&mut conn, &mut lines, &header, &path, progress)?;
        progress(Step::Other("every row is checked".to_owned()));
        if let Some(why) = check(&conn, &header).map_err(failed)? {
            return Err(ImportError::Unfit(source.to_owned(), why));
        }
        progress(Step::Other("the tables are migrated".to_owned()));
        schema::make_triggers_of(&conn, version).map_err(failed)?;
    }
    let migration = schema::Progress::default();
    schema::migrate(&mut conn, &migration)
        .map_err(|error| ImportError::Schema(path.clone(), error))?;
    progress(Step::Other("statistics".to_owned()));
    finish(&conn).map_err(failed)?;
    drop(conn);
    put_in_place(&path, &database, state)?;
    Ok(ImportedHistory { rows: header.rows, schema: header.schema, resumed_at })
}

/// Makes the tables, unless an interrupted import has made them already. Returns the number of rows that it has stored.
fn begin(
    conn: &mut Connection,
    identity: &str,
    header: &Header,
    path: &Path,
) -> Result<i64, ImportError> {
    let failed = |error| ImportError::Target(path.to_owned(), error);
    let there: bool = conn
        .query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
        .map_err(failed)?;
    if there {
        let (known, rows): (String, i64) = conn
            .query_row("SELECT source, builds FROM import WHERE id = 1", [], |row| row.try_into())
            .map_err(failed)?;
        if known != identity {
            return Err(ImportError::Other(path.to_owned(), known));
        }
        return Ok(rows);
    }
    let tx = conn.transaction().map_err(failed)?;
    schema::make_tables_of(&tx, header.schema)
        .map_err(|error| ImportError::Schema(path.to_owned(), error))?;
    super::begin::note_source(&tx, identity).map_err(failed)?;
    tx.commit().map_err(failed)?;
    Ok(0)
}

/// Stores the lines that are not stored yet, in slices.
fn store(
    conn: &mut Connection,
    lines: &mut Lines<'_>,
    header: &Header,
    path: &Path,
    progress: &dyn Fn(Step),
) -> Result<(), ImportError> {
    let failed = |error| ImportError::Target(path.to_owned(), error);
    let (mut rows, offset): (i64, i64) = conn
        .query_row("SELECT builds, last_build FROM import", [], |row| row.try_into())
        .map_err(failed)?;
    if rows > 0 {
        lines.seek(rows, offset)?;
    }
    let total = header.rows.values().sum();
    let known: HashMap<String, (Table, String)> = tables(&*conn)
        .map_err(failed)?
        .into_iter()
        .map(|table| (table.name.clone(), (table.clone(), table.insert())))
        .collect();
    let mut over = false;
    while !over {
        let tx = conn.transaction().map_err(failed)?;
        let mut stored = 0;
        while stored < SLICE {
            if !lines.next()? {
                over = true;
                break;
            }
            row(&tx, lines, &known, path)?;
            stored += 1;
        }
        rows += integer(stored);
        let offset = i64::try_from(lines.offset).unwrap_or(i64::MAX);
        tx.execute("UPDATE import SET builds = ?1, last_build = ?2", params![rows, offset])
            .map_err(failed)?;
        tx.commit().map_err(failed)?;
        progress(Step::Rows(rows, total));
    }
    Ok(())
}

/// Stores the row in the current line.
fn row(
    tx: &Connection,
    lines: &Lines<'_>,
    known: &HashMap<String, (Table, String)>,
    path: &Path,
) -> Result<(), ImportError> {
    let parsed: Map<String, serde_json::Value> = serde_json::from_slice(&lines.line)
        .map_err(|error| lines.wrong(format!("it is no row: {error}")))?;
    let mut parsed = parsed.into_iter();
    let (Some((name, serde_json::Value::Object(mut found))), None) = (parsed.next(), parsed.next())
    else {
        return Err(lines.wrong("it is no row: a table with its columns is expected"));
    };
    let Some((table, sql)) = known.get(&name) else {
        return Err(lines.wrong(format!("there is no table `{}`", name.escape_debug())));
    };
    let mut values = Vec::with_capacity(table.columns.len());
    for column in &table.columns {
        let value = match found.remove(column) {
            Some(serde_json::Value::Null) => Value::Null,
            Some(serde_json::Value::Number(number)) => match number.as_i64() {
                Some(number) => Value::Integer(number),
                None => return Err(lines.wrong(format!("`{column}` is no whole number"))),
            },
            Some(serde_json::Value::String(text)) => Value::Text(text),
            Some(_) => return Err(lines.wrong(format!("`{column}` is no text and no number"))),
            None => return Err(lines.wrong(format!("`{column}` of `{name}` is missing"))),
        };
        if let Value::Text(text) = &value
            && PATHS.contains(&(name.as_str(), column.as_str()))
            && leads_out(text)
        {
            return Err(lines.wrong(format!("`{column}` leads out of the state directory")));
        }
        values.push(value);
    }
    if let Some((column, _)) = found.iter().next() {
        let column = column.escape_debug();
        return Err(lines.wrong(format!("`{name}` has no column `{column}`")));
    }
    let stored = tx.prepare_cached(sql).and_then(|mut it| it.execute(params_from_iter(values)));
    stored.map(drop).map_err(|error| match is_refusal(&error) {
        true => lines.wrong(error.to_string()),
        // The disk is full, for example.
        false => ImportError::Target(path.to_owned(), error),
    })
}

/// Whether a path, relative to the state directory, leads to something that is not in it.
fn leads_out(path: &str) -> bool {
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    !Path::new(path).components().all(inside)
}

/// Checks that all rows are there and fit together. `Some`: they do not, and why.
fn check(conn: &Connection, header: &Header) -> rusqlite::Result<Option<String>> {
    for table in tables(conn)? {
        let (found, wanted) = (table.count(conn)?, header.rows.get(&table.name).copied());
        if Some(found) != wanted {
            let (name, wanted) = (&table.name, wanted.unwrap_or(0));
            return Ok(Some(format!(
                "it has {found} rows of `{name}`, and its first line says {wanted}; was it cut off?"
            )));
        }
    }
    let sql = "SELECT \"table\", rowid, parent FROM pragma_foreign_key_check LIMIT 1";
    let broken: Option<(String, Option<i64>, String)> =
        conn.first(sql, [], |row| row.try_into())?;
    if let Some((table, row, parent)) = broken {
        let row = row.map_or_else(String::new, |row| format!(" {row}"));
        let why = format!("`{table}`{row} refers to a row of `{parent}` that is not there");
        return Ok(Some(why));
    }
    if header.rows.contains_key("build_count") {
        let sql = "SELECT status FROM (
             SELECT status, specification_id, system, count(*) AS builds FROM build GROUP BY 1, 2, 3
             EXCEPT SELECT status, specification_id, system, builds FROM build_count)
           UNION ALL SELECT 0 WHERE (SELECT count(*) FROM build) <>
             (SELECT ifnull(sum(builds), 0) FROM build_count) LIMIT 1";
        if conn.value::<i64>(sql, [])?.is_some() {
            return Ok(Some("its `build_count` does not count its builds".to_owned()));
        }
    }
    Ok(None)
}
