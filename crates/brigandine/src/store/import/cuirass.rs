//! Cuirass's SQLite databases as a source of an import.
//!
//! Two schemas of summer 2018 are known (builds keyed by their derivation; builds beside a table of derivations), and
//! later schemas as far as they add columns to these: builds with ids of their own, evaluations with checkouts, outputs
//! keyed by their path. The tables and columns tell which schema a database has, because its version number says
//! little. A database with an unknown table or column is refused, and the error names it: ignoring it silently might
//! lose data.

use super::source::{
    CuirassBuild, CuirassError, CuirassEvaluation, CuirassInput, CuirassSpecification, LeftOut,
    Result, Source,
};
use super::unplaced;
use crate::model::{BuildStatus, Weather};
use crate::store::derivations::derivation_key;
use crate::store::query::{Columns, Query, read};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags, Row};
use std::collections::{HashMap, HashSet};
use std::path::Path;

fn unknown<T>(what: impl Into<String>) -> Result<T> {
    Err(CuirassError::Unknown(what.into()))
}

/// Tables that are read: name, required columns, optional columns.
const TABLES: &[(&str, &str, &str)] = &[
    (
        "Specifications",
        "name load_path_inputs package_path_inputs proc_input proc_file proc proc_args",
        "build_outputs priority",
    ),
    ("Inputs", "specification name url load_path branch tag revision no_compile_p", ""),
    (
        "Evaluations",
        "id specification",
        "commits in_progress status timestamp checkouttime evaltime",
    ),
    (
        "Builds",
        "derivation evaluation log status timestamp starttime stoptime",
        "id job_name system nix_name priority max_silent timeout weather last_status worker",
    ),
    ("Outputs", "name path", "derivation build"),
];

/// Optional tables that are read: name, required columns.
const OPTIONAL: &[(&str, &str)] = &[
    ("Derivations", "derivation evaluation job_name system nix_name"),
    ("Checkouts", "specification revision evaluation input directory timestamp"),
];

/// A table that says nothing about builds, so its rows are not even counted.
const SCHEMA_VERSION: &str = "SchemaVersion";

/// A database of Cuirass, opened read-only.
pub(super) struct Cuirass {
    conn: Connection,
    /// The query for the builds above an id.
    builds: String,
    /// Whether outputs refer to their build by its id; otherwise by its derivation.
    outputs_by_build: bool,
    /// Whether checkouts are in a table of their own; otherwise in a column of the evaluations.
    has_checkouts: bool,
    /// The query for the evaluations.
    evaluations: String,
    /// The query for the specifications.
    specifications: String,
}

type Names = HashSet<String>;

impl Cuirass {
    /// Opens a database of Cuirass. The import changes nothing in it, and nothing in its directory unless another
    /// program has the database open.
    ///
    /// # Errors
    /// The database cannot be read, is not one of Cuirass, or has an unknown table or column.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let conn = connect(path)?;
        let tables: Names = conn.values(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
            [],
        )?;
        for table in &tables {
            let known = TABLES.iter().map(|(name, ..)| name);
            let known = known.chain(OPTIONAL.iter().map(|(name, _)| name));
            let known = known.copied().chain(unplaced::tables()).chain([SCHEMA_VERSION]);
            if !known.into_iter().any(|known| known == table) {
                return unknown(format!(
                    "it has a table `{table}`, which no known version of Cuirass has"
                ));
            }
        }
        let mut columns_of = HashMap::new();
        for (table, required, optional) in TABLES {
            if !tables.contains(*table) {
                return unknown(format!("it has no table `{table}`, so it is not Cuirass's"));
            }
            columns_of.insert(*table, columns(&conn, table, required, optional)?);
        }
        for (table, required) in OPTIONAL {
            if tables.contains(*table) {
                columns(&conn, table, required, "")?;
            }
        }
        let builds = select_builds(&columns_of["Builds"], &tables)?;
        let outputs_by_build = columns_of["Outputs"].contains("build");
        if !outputs_by_build && !columns_of["Outputs"].contains("derivation") {
            return unknown("its table `Outputs` has neither a column `build` nor `derivation`");
        }
        let has_checkouts = !columns_of["Evaluations"].contains("commits");
        if has_checkouts && !tables.contains("Checkouts") {
            return unknown(
                "its evaluations have no column `commits`, and there is no `Checkouts`",
            );
        }
        let evaluations = select_evaluations(&columns_of["Evaluations"]);
        let specifications = select_specifications(&columns_of["Specifications"]);
        Ok(Self { conn, builds, outputs_by_build, has_checkouts, evaluations, specifications })
    }
}

impl Source for Cuirass {
    fn size(&self) -> Result<(i64, i64)> {
        let id = if self.builds.starts_with("SELECT b.id") { "id" } else { "rowid" };
        let sql = format!("SELECT count(*), ifnull(max({id}), 0) FROM Builds");
        Ok(self.conn.query_row(&sql, [], |row| row.try_into())?)
    }

    fn outputs(&self) -> Result<i64> {
        Ok(self.conn.query_row("SELECT count(*) FROM Outputs", [], |row| row.get(0))?)
    }

    fn left_out(&self) -> Result<Vec<LeftOut>> {
        unplaced::count(&self.conn)
    }

    fn specifications(&self) -> Result<Vec<CuirassSpecification>> {
        let mut found: Vec<CuirassSpecification> = self.conn.all(&self.specifications, [], |row| {
            let columns = &mut Columns::of(row);
            Ok(read!(columns: CuirassSpecification {
                name, load_path_inputs, package_path_inputs, proc_input, proc_file, proc, proc_args,
                build_outputs, priority; inputs: Vec::new()
            }))
        })?;
        for specification in &mut found {
            let sql =
                "SELECT name, url, ifnull(load_path, ''), ifnull(no_compile_p, 0) <> 0, branch,
                 tag, revision FROM Inputs WHERE specification = ?1 ORDER BY rowid";
            specification.inputs = self.conn.all(sql, [&specification.name], |row| {
                let columns = &mut Columns::of(row);
                Ok(read!(columns: CuirassInput {
                    name, url, load_path, no_compile, branch, tag, revision
                }))
            })?;
        }
        Ok(found)
    }

    fn evaluations(&self) -> Result<Vec<CuirassEvaluation>> {
        let mut all: Vec<CuirassEvaluation> = self.conn.all(&self.evaluations, [], |row| {
            let columns = &mut Columns::of(row);
            let (id, specification) = (columns.take()?, columns.take()?);
            let commits: String = columns.take()?;
            let checkouts = commits.split_whitespace().map(|c| (None, c.to_owned())).collect();
            Ok(read!(columns: CuirassEvaluation {
                status, timestamp, checkout_at, finished_at; id, specification, checkouts
            }))
        })?;
        if self.has_checkouts {
            for evaluation in &mut all {
                let sql =
                    "SELECT input, revision FROM Checkouts WHERE evaluation = ?1 ORDER BY rowid";
                evaluation.checkouts = self.conn.all(sql, [evaluation.id], |row| row.try_into())?;
            }
        }
        Ok(all)
    }

    /// In every database that Cuirass itself wrote, outputs are stored in the order of their builds. So outputs and
    /// builds are read in parallel, and outputs are looked up by key only for builds for which none were found. With
    /// `careful` they are looked up for every build.
    fn builds(
        &self,
        after: i64,
        careful: bool,
        take: &mut dyn FnMut(CuirassBuild) -> bool,
    ) -> Result<()> {
        let key = if self.outputs_by_build { "build" } else { "derivation" };
        let mut lookup = self
            .conn
            .prepare(&format!("SELECT name, path FROM Outputs WHERE {key} = ?1 ORDER BY name"))?;
        // Outputs are read in parallel with the builds only if the builds are read from the first one on.
        let mut beside = self.conn.prepare(&format!(
            "SELECT CAST({key} AS TEXT), name, path FROM Outputs ORDER BY rowid"
        ))?;
        let mut beside = if after == 0 && !careful { Some(beside.query([])?) } else { None };
        let mut next = pull(beside.as_mut())?;
        let mut statement = self.conn.prepare(&self.builds)?;
        let mut rows = statement.query([after])?;
        while let Some(row) = rows.next()? {
            let mut build = build_from_row(row)?;
            let id = build.id.to_string();
            let key = if self.outputs_by_build { &id } else { &build.derivation };
            while let Some((_, name, path)) = next.take_if(|(of, ..)| of == key) {
                build.outputs.push((name, path));
                next = pull(beside.as_mut())?;
            }
            if build.outputs.is_empty() {
                let found = lookup.query_map([key], |row| row.try_into())?;
                build.outputs = found.collect::<rusqlite::Result<_>>()?;
            }
            if !take(build) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The characters that are not percent-encoded in a URI of SQLite.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'_').remove(b'-');

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let in_use = std::fs::metadata(Path::new(&wal)).is_ok_and(|wal| wal.len() > 0);
    let name = percent_encode(path.as_os_str().as_encoded_bytes(), PLAIN);
    let mode = if in_use { "mode=ro" } else { "immutable=1" };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(format!("file:{name}?{mode}"), flags)
}

/// The query for the builds above an id. The columns of `Builds` decide its text.
fn select_builds(columns: &Names, tables: &Names) -> Result<String> {
    let has = |column: &str| columns.contains(column);
    let id = if has("id") { "b.id" } else { "b.rowid" };
    let (names, join) = if has("job_name") {
        ("b.job_name, b.system, b.nix_name", "")
    } else if tables.contains("Derivations") {
        (
            "d.job_name, d.system, d.nix_name",
            " LEFT JOIN Derivations AS d
             ON d.derivation = b.derivation AND d.evaluation = b.evaluation",
        )
    } else {
        return unknown("its builds have no column `job_name`, and there is no `Derivations`");
    };
    let or_zero = |column: &str| {
        if has(column) { format!("ifnull(b.{column}, 0)") } else { "0".to_owned() }
    };
    let weather = if has("weather") { "ifnull(b.weather, -1)" } else { "-1" };
    // Cuirass builds the lowest priority first, this server the highest.
    Ok(format!(
        "SELECT {id}, b.derivation, ifnull(b.evaluation, -1), {names}, b.status, {weather}, b.timestamp,
         b.starttime, b.stoptime, -{}, {}, {}, b.log <> '' FROM Builds AS b{join}
         WHERE {id} > ?1 ORDER BY {id}",
        or_zero("priority"),
        or_zero("timeout"),
        or_zero("max_silent"),
    ))
}

/// The query for the specifications. The columns of `Specifications` decide its text.
fn select_specifications(columns: &Names) -> String {
    let outputs = if columns.contains("build_outputs") { "build_outputs" } else { "NULL" };
    let priority = if columns.contains("priority") { "-ifnull(priority, 0)" } else { "0" };
    format!(
        "SELECT name, load_path_inputs, package_path_inputs, proc_input, proc_file, proc, proc_args,
         {outputs}, {priority} FROM Specifications ORDER BY rowid"
    )
}

/// The query for the evaluations. The columns of `Evaluations` decide its text.
fn select_evaluations(columns: &Names) -> String {
    let has = |column: &str| columns.contains(column);
    let or_zero = |column: &str| {
        if has(column) { format!("ifnull({column}, 0)") } else { "0".to_owned() }
    };
    let status = if has("status") {
        "status"
    } else if has("in_progress") {
        "CASE WHEN in_progress THEN -1 ELSE 0 END"
    } else {
        "0"
    };
    format!(
        "SELECT id, ifnull(specification, ''), {}, {status}, {}, {}, {} FROM Evaluations ORDER BY id",
        if has("commits") { "commits" } else { "''" },
        or_zero("timestamp"),
        or_zero("checkouttime"),
        or_zero("evaltime"),
    )
}

fn build_from_row(row: &Row<'_>) -> Result<CuirassBuild> {
    let columns = &mut Columns::of(row);
    let (id, derivation): (i64, String) = (columns.take()?, columns.take()?);
    let (evaluation, job) = (columns.take()?, columns.take()?);
    // Without a row in `Derivations` the three are NULL.
    let (system, nix_name): (Option<String>, Option<String>) = (columns.take()?, columns.take()?);
    let (system, nix_name) = (system.unwrap_or_default(), nix_name.unwrap_or_default());
    let code = columns.take()?;
    let Some(status) = BuildStatus::from_code(code) else {
        return unknown(format!("build {id} has status {code}, which is not known"));
    };
    let code = columns.take()?;
    let Some(weather) = Weather::from_code(code) else {
        return unknown(format!("build {id} has weather {code}, which is not known"));
    };
    Ok(read!(columns: CuirassBuild {
        timestamp, started_at, stopped_at, priority, timeout_s, max_silent_s, has_log;
        id, derivation_key: derivation_key(&derivation), derivation, evaluation, job, system,
        nix_name, status, weather, outputs: Vec::new()
    }))
}

fn pull(rows: Option<&mut rusqlite::Rows<'_>>) -> Result<Option<(String, String, String)>> {
    let Some(rows) = rows else { return Ok(None) };
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some((row.get(0)?, row.get(1)?, row.get(2)?)))
}

/// The columns of a table. Fails if a required column is missing or an unknown one is there.
fn columns(conn: &Connection, table: &str, required: &str, optional: &str) -> Result<Names> {
    let columns: Names = conn.values("SELECT name FROM pragma_table_info(?1)", [table])?;
    for column in required.split(' ') {
        if !columns.contains(column) {
            return unknown(format!("its table `{table}` has no column `{column}`"));
        }
    }
    for column in &columns {
        if !required.split(' ').chain(optional.split(' ')).any(|known| known == column) {
            return unknown(format!(
                "its table `{table}` has a column `{column}`, which no known version has"
            ));
        }
    }
    Ok(columns)
}
