//! Cuirass's SQLite databases, as they are read: which schema it is, and its rows as plain values.
//!
//! Known are the two schemas of summer 2018 (builds keyed by their derivation; builds beside a table
//! of derivations) and later ones as far as they add columns to these: builds with ids of their own,
//! evaluations with checkouts, outputs keyed by their path. What a schema is made of decides, since
//! its number says little; a table or column that is not known is refused by its name, because
//! leaving it out silently might lose what somebody needs.

use crate::model::BuildStatus;
use crate::store::derivations::derivation_key;
use rusqlite::{Connection, OpenFlags, Row};
use std::collections::HashSet;
use std::path::Path;

/// Why a database cannot be imported.
#[derive(Debug)]
pub enum CuirassError {
    /// It cannot be read.
    Sqlite(rusqlite::Error),
    /// It is no database of Cuirass, or of a kind that is not known; the text says what stands out.
    Unknown(String),
}

impl std::fmt::Display for CuirassError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(error) => error.fmt(f),
            Self::Unknown(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for CuirassError {}

impl From<rusqlite::Error> for CuirassError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

type Result<T> = std::result::Result<T, CuirassError>;

fn unknown<T>(what: impl Into<String>) -> Result<T> {
    Err(CuirassError::Unknown(what.into()))
}

/// Tables that are read, with the columns that must and those that may be there.
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

/// Tables that may be there and are read.
const OPTIONAL: &[(&str, &str)] = &[
    ("Derivations", "derivation evaluation job_name system nix_name"),
    ("Checkouts", "specification revision evaluation input directory timestamp"),
];

/// Tables that hold nothing that is kept: what Cuirass remembers of its own work.
const LEFT_OUT: &[&str] = &["Stamps", "Events", "Metrics", "Workers", "SchemaVersion"];

/// A database of Cuirass, open for reading alone.
pub(crate) struct Cuirass {
    conn: Connection,
    builds: String,
    outputs_by_build: bool,
    has_checkouts: bool,
    evaluations: String,
}

/// A specification, as Cuirass has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CuirassSpecification {
    pub(crate) name: String,
    pub(crate) load_path_inputs: String,
    pub(crate) package_path_inputs: String,
    pub(crate) proc_input: String,
    pub(crate) proc_file: String,
    pub(crate) proc: String,
    pub(crate) proc_args: String,
    pub(crate) inputs: Vec<CuirassInput>,
}

/// An input of a specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CuirassInput {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) branch: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) revision: Option<String>,
}

/// An evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CuirassEvaluation {
    pub(crate) id: i64,
    pub(crate) specification: String,
    /// Revisions, in the order of the inputs, with the inputs' names where they are known.
    pub(crate) checkouts: Vec<(Option<String>, String)>,
    pub(crate) status: i64,
    /// 0 when the database does not say.
    pub(crate) timestamp: i64,
    pub(crate) checkout_at: i64,
    pub(crate) finished_at: i64,
}

/// A build with its outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CuirassBuild {
    pub(crate) id: i64,
    pub(crate) derivation: String,
    pub(crate) derivation_key: i64,
    pub(crate) evaluation: i64,
    pub(crate) job: String,
    pub(crate) system: String,
    pub(crate) nix_name: String,
    pub(crate) status: BuildStatus,
    pub(crate) timestamp: i64,
    pub(crate) started_at: i64,
    pub(crate) stopped_at: i64,
    pub(crate) priority: i64,
    pub(crate) timeout_s: i64,
    pub(crate) max_silent_s: i64,
    pub(crate) has_log: bool,
    pub(crate) outputs: Vec<(String, String)>,
}

impl Cuirass {
    /// Opens a database of Cuirass; nothing of it is changed, not even its directory, unless another
    /// program has it open.
    ///
    /// # Errors
    /// It cannot be read, is not Cuirass's, or holds something that is not known.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        let in_use = std::fs::metadata(Path::new(&wal)).is_ok_and(|wal| wal.len() > 0);
        let mut uri = String::from("file:");
        for byte in path.as_os_str().as_encoded_bytes() {
            if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
                uri.push(char::from(*byte));
            } else {
                uri.push_str(&format!("%{byte:02X}"));
            }
        }
        uri.push_str(if in_use { "?mode=ro" } else { "?immutable=1" });
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(uri, flags)?;
        let tables = tables(&conn)?;
        for table in &tables {
            let known = TABLES.iter().map(|(name, ..)| name);
            let known = known.chain(OPTIONAL.iter().map(|(name, _)| name)).chain(LEFT_OUT);
            if !known.into_iter().any(|known| known == table) {
                return unknown(format!(
                    "it has a table `{table}`, which no known version of Cuirass has"
                ));
            }
        }
        let mut columns_of_builds = HashSet::new();
        let mut columns_of_evaluations = HashSet::new();
        let mut columns_of_outputs = HashSet::new();
        for (table, required, optional) in TABLES {
            if !tables.contains(*table) {
                return unknown(format!("it has no table `{table}`, so it is not Cuirass's"));
            }
            let columns = columns(&conn, table, required, optional)?;
            match *table {
                "Builds" => columns_of_builds = columns,
                "Evaluations" => columns_of_evaluations = columns,
                "Outputs" => columns_of_outputs = columns,
                _ => {}
            }
        }
        for (table, required) in OPTIONAL {
            if tables.contains(*table) {
                columns(&conn, table, required, "")?;
            }
        }
        let has = |column: &str| columns_of_builds.contains(column);
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
        let builds = format!(
            "SELECT {id}, b.derivation, b.evaluation, {names}, b.status, b.timestamp, b.starttime,
             b.stoptime, {}, {}, {}, b.log <> '' FROM Builds AS b{join}
             WHERE {id} > ?1 ORDER BY {id}",
            or_zero("priority"),
            or_zero("timeout"),
            or_zero("max_silent"),
        );
        let outputs_by_build = columns_of_outputs.contains("build");
        if !outputs_by_build && !columns_of_outputs.contains("derivation") {
            return unknown("its table `Outputs` has neither a column `build` nor `derivation`");
        }
        let has = |column: &str| columns_of_evaluations.contains(column);
        let or = |column: &str, otherwise: &str| {
            if has(column) { format!("ifnull({column}, 0)") } else { otherwise.to_owned() }
        };
        let has_checkouts = !has("commits");
        if has_checkouts && !tables.contains("Checkouts") {
            return unknown(
                "its evaluations have no column `commits`, and there is no `Checkouts`",
            );
        }
        let status = if has("status") {
            "status".to_owned()
        } else if has("in_progress") {
            "CASE WHEN in_progress THEN -1 ELSE 0 END".to_owned()
        } else {
            "0".to_owned()
        };
        let evaluations = format!(
            "SELECT id, specification, {}, {status}, {}, {}, {} FROM Evaluations ORDER BY id",
            if has_checkouts { "''" } else { "commits" },
            or("timestamp", "0"),
            or("checkouttime", "0"),
            or("evaltime", "0"),
        );
        Ok(Self { conn, builds, outputs_by_build, has_checkouts, evaluations })
    }

    /// How many builds there are, and the highest id.
    pub(crate) fn size(&self) -> Result<(i64, i64)> {
        let id = if self.builds.starts_with("SELECT b.id") { "id" } else { "rowid" };
        let sql = format!("SELECT count(*), ifnull(max({id}), 0) FROM Builds");
        Ok(self.conn.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// All specifications with their inputs.
    pub(crate) fn specifications(&self) -> Result<Vec<CuirassSpecification>> {
        let mut inputs = self.conn.prepare(
            "SELECT name, url, branch, tag, revision FROM Inputs WHERE specification = ?1
             ORDER BY rowid",
        )?;
        let mut statement = self.conn.prepare(
            "SELECT name, load_path_inputs, package_path_inputs, proc_input, proc_file, proc,
             proc_args FROM Specifications ORDER BY rowid",
        )?;
        let all = statement.query_map([], |row| {
            Ok(CuirassSpecification {
                name: row.get(0)?,
                load_path_inputs: row.get(1)?,
                package_path_inputs: row.get(2)?,
                proc_input: row.get(3)?,
                proc_file: row.get(4)?,
                proc: row.get(5)?,
                proc_args: row.get(6)?,
                inputs: Vec::new(),
            })
        })?;
        let mut found = Vec::new();
        for specification in all {
            let mut specification = specification?;
            let rows = inputs.query_map([&specification.name], |row| {
                Ok(CuirassInput {
                    name: row.get(0)?,
                    url: row.get(1)?,
                    branch: row.get(2)?,
                    tag: row.get(3)?,
                    revision: row.get(4)?,
                })
            })?;
            specification.inputs = rows.collect::<rusqlite::Result<_>>()?;
            found.push(specification);
        }
        Ok(found)
    }

    /// All evaluations, by id.
    pub(crate) fn evaluations(&self) -> Result<Vec<CuirassEvaluation>> {
        let mut statement = self.conn.prepare(&self.evaluations)?;
        let rows = statement.query_map([], |row| {
            let commits: String = row.get(2)?;
            Ok(CuirassEvaluation {
                id: row.get(0)?,
                specification: row.get(1)?,
                checkouts: commits.split_whitespace().map(|c| (None, c.to_owned())).collect(),
                status: row.get(3)?,
                timestamp: row.get(4)?,
                checkout_at: row.get(5)?,
                finished_at: row.get(6)?,
            })
        })?;
        let mut all: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
        if self.has_checkouts {
            let mut statement = self.conn.prepare(
                "SELECT input, revision FROM Checkouts WHERE evaluation = ?1 ORDER BY rowid",
            )?;
            for evaluation in &mut all {
                let rows = statement
                    .query_map([evaluation.id], |row| Ok((Some(row.get(0)?), row.get(1)?)))?;
                evaluation.checkouts = rows.collect::<rusqlite::Result<_>>()?;
            }
        }
        Ok(all)
    }

    /// Hands over the builds above `after`, by id, with their outputs, until `take` says false.
    ///
    /// Outputs lie in the order of their builds in every database that Cuirass itself wrote, so
    /// they are read side by side, and looked up where there are none. Whoever finds fewer than
    /// [`Cuirass::outputs`] in the end asks again with `careful`, and each is looked up.
    pub(crate) fn builds(
        &self,
        after: i64,
        careful: bool,
        mut take: impl FnMut(CuirassBuild) -> bool,
    ) -> Result<()> {
        let key = if self.outputs_by_build { "build" } else { "derivation" };
        let mut lookup = self
            .conn
            .prepare(&format!("SELECT name, path FROM Outputs WHERE {key} = ?1 ORDER BY name"))?;
        // Where the outputs of the next build begin; a database that is read from its beginning
        // needs no lookup for that.
        let mut beside = self.conn.prepare(&format!(
            "SELECT CAST({key} AS TEXT), name, path FROM Outputs ORDER BY rowid"
        ))?;
        let mut beside = if after == 0 && !careful { Some(beside.query([])?) } else { None };
        let mut next = pull(beside.as_mut())?;
        let mut statement = self.conn.prepare(&self.builds)?;
        let mut rows = statement.query([after])?;
        while let Some(row) = rows.next()? {
            let mut build = self.build(row)?;
            let id = build.id.to_string();
            let key = if self.outputs_by_build { &id } else { &build.derivation };
            while let Some((of, ..)) = &next
                && of == key
            {
                if let Some((_, name, path)) = next.take() {
                    build.outputs.push((name, path));
                }
                next = pull(beside.as_mut())?;
            }
            if build.outputs.is_empty() {
                let found = lookup.query_map([key], |row| Ok((row.get(0)?, row.get(1)?)))?;
                build.outputs = found.collect::<rusqlite::Result<_>>()?;
            }
            if !take(build) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// How many outputs there are.
    pub(crate) fn outputs(&self) -> Result<i64> {
        Ok(self.conn.query_row("SELECT count(*) FROM Outputs", [], |row| row.get(0))?)
    }

    fn build(&self, row: &Row<'_>) -> Result<CuirassBuild> {
        let id: i64 = row.get(0)?;
        let derivation: String = row.get(1)?;
        let Some(job) = row.get::<_, Option<String>>(3)? else {
            return unknown(format!("build {id}: `Derivations` does not have {derivation}"));
        };
        let code: i64 = row.get(6)?;
        let Some(status) = BuildStatus::from_code(code) else {
            return unknown(format!("build {id} has status {code}, which is not known"));
        };
        Ok(CuirassBuild {
            id,
            derivation_key: derivation_key(&derivation),
            derivation,
            evaluation: row.get(2)?,
            job,
            system: row.get(4)?,
            nix_name: row.get(5)?,
            status,
            timestamp: row.get(7)?,
            started_at: row.get(8)?,
            stopped_at: row.get(9)?,
            priority: row.get(10)?,
            timeout_s: row.get(11)?,
            max_silent_s: row.get(12)?,
            has_log: row.get(13)?,
            outputs: Vec::new(),
        })
    }
}

fn pull(rows: Option<&mut rusqlite::Rows<'_>>) -> Result<Option<(String, String, String)>> {
    let Some(rows) = rows else { return Ok(None) };
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some((row.get(0)?, row.get(1)?, row.get(2)?)))
}

fn tables(conn: &Connection) -> Result<HashSet<String>> {
    let mut statement = conn.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn columns(
    conn: &Connection,
    table: &str,
    required: &str,
    optional: &str,
) -> Result<HashSet<String>> {
    let mut statement = conn.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let rows = statement.query_map([table], |row| row.get(0))?;
    let columns: HashSet<String> = rows.collect::<rusqlite::Result<_>>()?;
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
