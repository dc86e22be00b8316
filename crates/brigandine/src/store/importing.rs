//! Builds of a Cuirass database become ours, in a file of its own beside the database.
//!
//! ```text
//! none → tables, specifications, evaluations → slices of builds → outputs checked → indexes,
//! triggers, statistics → renamed to the database
//! ```
//!
//! Each arrow is a transaction (a slice of builds, an index) that stores with itself how far it
//! got, so an import that was killed goes on where it stood when it is started again. The file has
//! a rollback journal, since almost every page is new and needs none; and no indexes while it is
//! filled, since one that is made afterwards is sorted once. The database itself appears by a
//! rename, whole or not at all.

use super::cuirass::{
    Cuirass, CuirassBuild, CuirassError, CuirassEvaluation, CuirassSpecification,
};
use super::schema::{self, SchemaError};
use crate::model::{BuildStatus, Evaluator, Input, Reference, Specification, Timestamp};
use crate::os::state_dir::StateDir;
use rusqlite::{Connection, OpenFlags, params};
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

/// Builds of one transaction.
const SLICE: usize = 100_000;
/// Builds handed over at once by the thread that reads, and how many such batches may wait.
const BATCH: usize = 500;
const BATCHES_MAX: usize = 16;

/// Why an import ended.
#[derive(Debug)]
pub enum ImportError {
    /// The state directory has a database.
    Present(PathBuf),
    /// The file that an earlier import left is of another source.
    Other(PathBuf, String),
    /// The source cannot be read or understood.
    Source(PathBuf, CuirassError),
    /// The new file.
    Target(PathBuf, rusqlite::Error),
    /// The new file's schema.
    Schema(PathBuf, SchemaError),
    /// A directory or a rename.
    File(PathBuf, std::io::Error),
}

impl std::fmt::Display for ImportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Present(path) => write!(
                f,
                "there is a database already: {}; builds keep their numbers, so they are imported \
                 into a new state directory only: name one with --state",
                path.display()
            ),
            Self::Other(path, source) => write!(
                f,
                "{} was begun from another database ({source}); remove it to begin anew",
                path.display()
            ),
            Self::Source(path, error) => write!(f, "cannot import {}: {error}", path.display()),
            Self::Target(path, error) => write!(
                f,
                "cannot write {}: {error}; what is stored stays, and the same command goes on \
                 from there",
                path.display()
            ),
            Self::Schema(path, error) => write!(f, "cannot make {}: {error}", path.display()),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ImportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Present(_) | Self::Other(..) => None,
            Self::Source(_, error) => Some(error),
            Self::Target(_, error) => Some(error),
            Self::Schema(_, error) => Some(error),
            Self::File(_, error) => Some(error),
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This many of so many builds are stored.
    Builds(i64, i64),
    /// Something else, in words.
    Other(String),
}

/// What was imported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Specifications.
    pub specifications: usize,
    /// Evaluations.
    pub evaluations: usize,
    /// Builds.
    pub builds: i64,
    /// Outputs.
    pub outputs: i64,
    /// Builds that ran and are scheduled now.
    pub rescheduled: i64,
    /// Builds whose log Cuirass has as a file of its own, which stays where it is.
    pub logs: i64,
    /// Builds that an interrupted import had stored.
    pub resumed_at: i64,
}

/// Where an import comes from.
pub(super) trait Source {
    /// How many builds there are, and the highest id.
    fn size(&self) -> Result<(i64, i64), CuirassError>;
    /// How many outputs there are.
    fn outputs(&self) -> Result<i64, CuirassError>;
    /// All specifications.
    fn specifications(&self) -> Result<Vec<CuirassSpecification>, CuirassError>;
    /// All evaluations, by id.
    fn evaluations(&self) -> Result<Vec<CuirassEvaluation>, CuirassError>;
    /// Hands over the builds above `after`, by id; see [`Cuirass::builds`].
    fn builds(
        &self,
        after: i64,
        careful: bool,
        take: &mut dyn FnMut(CuirassBuild) -> bool,
    ) -> Result<(), CuirassError>;
}

/// Opens a source; each thread has its own.
type Open<'o> = &'o (dyn Fn() -> Result<Box<dyn Source>, CuirassError> + Sync);

impl Source for Cuirass {
    fn size(&self) -> Result<(i64, i64), CuirassError> {
        self.size()
    }

    fn outputs(&self) -> Result<i64, CuirassError> {
        self.outputs()
    }

    fn specifications(&self) -> Result<Vec<CuirassSpecification>, CuirassError> {
        self.specifications()
    }

    fn evaluations(&self) -> Result<Vec<CuirassEvaluation>, CuirassError> {
        self.evaluations()
    }

    fn builds(
        &self,
        after: i64,
        careful: bool,
        take: &mut dyn FnMut(CuirassBuild) -> bool,
    ) -> Result<(), CuirassError> {
        self.builds(after, careful, take)
    }
}

/// Makes a state directory with `builds` sample builds, as an import would.
///
/// # Errors
/// As [`import_cuirass`].
pub fn make_sample(
    builds: i64,
    state: &Path,
    now: Timestamp,
    progress: &dyn Fn(Step),
) -> Result<Imported, ImportError> {
    import(
        &|| Ok(Box::new(super::sample::Sample::new(builds)) as Box<dyn Source>),
        Path::new("sample"),
        "the sample",
        state,
        now,
        progress,
    )
}

/// Imports the Cuirass database `source` into the new state directory `state`.
///
/// # Errors
/// Nothing of the source is changed; what is stored of an import that failed stays for the next
/// attempt, and no server takes it for a database.
pub(crate) fn import_cuirass(
    source: &Path,
    state: &Path,
    now: Timestamp,
    progress: &dyn Fn(Step),
) -> Result<Imported, ImportError> {
    let real =
        source.canonicalize().map_err(|error| ImportError::File(source.to_owned(), error))?;
    let open = || Ok(Box::new(Cuirass::open(source)?) as Box<dyn Source>);
    import(&open, source, &real.display().to_string(), state, now, progress)
}

fn import(
    open: Open<'_>,
    source: &Path,
    name: &str,
    state: &Path,
    now: Timestamp,
    progress: &dyn Fn(Step),
) -> Result<Imported, ImportError> {
    std::fs::create_dir_all(state).map_err(|error| ImportError::File(state.to_owned(), error))?;
    let (database, path) = (StateDir::new(state).database(), StateDir::new(state).import());
    if database.exists() {
        return Err(ImportError::Present(database));
    }
    let from = |error| ImportError::Source(source.to_owned(), error);
    let cuirass = open().map_err(from)?;
    let (total, last) = cuirass.size().map_err(from)?;
    let identity = format!("{name}, {total} builds up to {last}");
    let failed = |error| ImportError::Target(path.clone(), error);
    let mut conn = open_target(&path).map_err(failed)?;
    begin(&mut conn, &*cuirass, &identity, now, &path, source)?;
    let specifications = cuirass.specifications().map_err(from)?.len();
    let of: HashMap<i64, i64> = specifications_of(&conn).map_err(failed)?;
    let mut done = progress_of(&conn).map_err(failed)?;
    done.resumed_at = done.builds;
    progress(Step::Builds(done.builds, total));
    copy(&mut conn, (open, source), &of, &mut done, total, &path, progress)?;
    let outputs = cuirass.outputs().map_err(from)?;
    if outputs != done.outputs {
        progress(Step::Other("outputs that do not lie beside their builds".to_owned()));
        done.outputs = look_up_outputs(&mut conn, &*cuirass, &path, source)?;
    }
    schema::make_indexes(&conn, &|text| progress(Step::Other(text)))
        .map_err(|error| ImportError::Schema(path.clone(), error))?;
    progress(Step::Other("statistics".to_owned()));
    finish(&conn).map_err(failed)?;
    drop(conn);
    let filed = |error| ImportError::File(path.clone(), error);
    std::fs::File::open(&path).and_then(|file| file.sync_all()).map_err(filed)?;
    std::fs::rename(&path, &database).map_err(filed)?;
    std::fs::File::open(state).and_then(|directory| directory.sync_all()).map_err(filed)?;
    Ok(Imported { specifications, evaluations: of.len(), ..done })
}

fn open_target(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::default())?;
    // References are checked here, by looking them up among the evaluations, rather than six times
    // for each build.
    conn.execute_batch(
        "PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = OFF;
         PRAGMA cache_size = -262144; PRAGMA temp_store = FILE; PRAGMA threads = 1;
         PRAGMA locking_mode = EXCLUSIVE;",
    )?;
    Ok(conn)
}

/// Tables, specifications and evaluations, unless an earlier import stored them.
fn begin(
    conn: &mut Connection,
    cuirass: &dyn Source,
    identity: &str,
    now: Timestamp,
    path: &Path,
    source: &Path,
) -> Result<(), ImportError> {
    let failed = |error| ImportError::Target(path.to_owned(), error);
    let from = |error| ImportError::Source(source.to_owned(), error);
    let there: bool = conn
        .query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
        .map_err(failed)?;
    if there {
        let known: String = conn
            .query_row("SELECT source FROM import WHERE id = 1", [], |row| row.get(0))
            .map_err(failed)?;
        if known != identity {
            return Err(ImportError::Other(path.to_owned(), known));
        }
        return Ok(());
    }
    let specifications = cuirass.specifications().map_err(from)?;
    let evaluations = cuirass.evaluations().map_err(from)?;
    let mut ids = HashMap::new();
    let tx = conn.transaction().map_err(failed)?;
    schema::make_tables(&tx).map_err(failed)?;
    tx.execute_batch(
        "CREATE TABLE import (id INTEGER PRIMARY KEY, source TEXT NOT NULL, builds INTEGER NOT NULL,
           last_build INTEGER NOT NULL, outputs INTEGER NOT NULL, rescheduled INTEGER NOT NULL,
           logs INTEGER NOT NULL) STRICT",
    )
    .map_err(failed)?;
    tx.execute("INSERT INTO import VALUES (1, ?1, 0, 0, 0, 0, 0)", [identity]).map_err(failed)?;
    for specification in &specifications {
        let definition =
            translate(specification).map_err(|what| from(CuirassError::Unknown(what)))?;
        let id = super::specifications::insert(&tx, &definition, now).map_err(failed)?;
        ids.insert(specification.name.as_str(), id);
    }
    for evaluation in &evaluations {
        let Some(specification) = ids.get(evaluation.specification.as_str()) else {
            let CuirassEvaluation { id, specification, .. } = evaluation;
            let what = format!("evaluation {id} is of `{specification}`, which is not there");
            return Err(from(CuirassError::Unknown(what)));
        };
        let inputs = specifications
            .iter()
            .find(|specification| specification.name == evaluation.specification)
            .map_or(&[][..], |specification| &specification.inputs);
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        insert_evaluation(&tx, evaluation, *specification, &names).map_err(
            |error| match error {
                CuirassError::Sqlite(error) => failed(error),
                error => from(error),
            },
        )?;
    }
    tx.commit().map_err(failed)
}

/// What evaluates Guix is not here, so an imported specification rests until somebody replaces it;
/// nothing of what Cuirass knew is dropped.
fn translate(from: &CuirassSpecification) -> Result<Specification, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if from.name.is_empty() || !from.name.chars().all(plain) {
        return Err(format!(
            "the name of specification `{}` has other characters than letters, digits, `-`, `_`, \
             `.`; rename it in a copy of the database",
            from.name.escape_debug()
        ));
    }
    let text = |text: &str| serde_json::Value::String(text.to_owned());
    let arguments = [
        ("proc", text(&from.proc)),
        ("proc-args", text(&from.proc_args)),
        ("load-path-inputs", text(&from.load_path_inputs)),
        ("package-path-inputs", text(&from.package_path_inputs)),
    ];
    Ok(Specification {
        name: from.name.clone(),
        description: "imported from Cuirass".to_owned(),
        inputs: from
            .inputs
            .iter()
            .map(|input| Input {
                name: input.name.clone(),
                url: input.url.clone(),
                reference: match (&input.revision, &input.tag, &input.branch) {
                    (Some(revision), _, _) => Reference::Revision(revision.clone()),
                    (None, Some(tag), _) => Reference::Tag(tag.clone()),
                    (None, None, Some(branch)) => Reference::Branch(branch.clone()),
                    (None, None, None) => Reference::Head,
                },
                submodules: false,
                submodules_from: Vec::new(),
            })
            .collect(),
        evaluator: Evaluator::Command {
            input: Some(from.proc_input.clone()),
            command: vec![from.proc_file.clone()],
            arguments: arguments.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            timeout_s: None,
        },
        interval_s: None,
        keep: None,
        priority: 0,
        network: false,
        enabled: false,
    })
}

/// A time that is not known yet; the first builds of the evaluation tell.
const UNKNOWN_AT: i64 = 1;

fn insert_evaluation(
    tx: &Connection,
    evaluation: &CuirassEvaluation,
    specification: i64,
    inputs: &[&str],
) -> Result<(), CuirassError> {
    // One that was under way when the database was left is not under way here.
    let (status, message) = match evaluation.status {
        -1 => (2, "it had not ended when it was imported"),
        status @ 0..=2 => (status, ""),
        status => {
            let what = format!("evaluation {} has status {status}", evaluation.id);
            return Err(CuirassError::Unknown(what));
        }
    };
    let at = evaluation.timestamp.max(UNKNOWN_AT);
    let revisions: Vec<&str> = evaluation.checkouts.iter().map(|(_, r)| r.as_str()).collect();
    tx.prepare_cached(
        "INSERT INTO evaluation (id, specification_id, stamp, status, message, created_at,
         checkout_at, finished_at, log_path, scheduled, started, succeeded, failed,
         failed_dependency, failed_other, canceled)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, '', 0, 0, 0, 0, 0, 0, 0)",
    )?
    .execute(params![
        evaluation.id,
        specification,
        format!("cuirass {}: {}", evaluation.id, revisions.join(" ")),
        status,
        message,
        at,
        evaluation.checkout_at.max(at),
        evaluation.finished_at.max(at),
    ])?;
    for (position, (input, revision)) in evaluation.checkouts.iter().enumerate() {
        let name = input.as_deref().or_else(|| inputs.get(position).copied()).unwrap_or("input");
        tx.prepare_cached(
            "INSERT INTO checkout (evaluation_id, position, input, revision, subject, author,
             revision_at) VALUES (?1, ?2, ?3, ?4, '', '', 0)",
        )?
        .execute(params![
            evaluation.id,
            i64::try_from(position).unwrap_or(i64::MAX),
            name,
            revision
        ])?;
    }
    Ok(())
}

fn specifications_of(conn: &Connection) -> rusqlite::Result<HashMap<i64, i64>> {
    conn.prepare("SELECT id, specification_id FROM evaluation")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn progress_of(conn: &Connection) -> rusqlite::Result<Imported> {
    conn.query_row("SELECT builds, outputs, rescheduled, logs FROM import", [], |row| {
        Ok(Imported {
            builds: row.get(0)?,
            outputs: row.get(1)?,
            rescheduled: row.get(2)?,
            logs: row.get(3)?,
            ..Imported::default()
        })
    })
}

/// Reads on a thread of its own, stores slices on this one.
fn copy(
    conn: &mut Connection,
    (open, source): (Open<'_>, &Path),
    of: &HashMap<i64, i64>,
    done: &mut Imported,
    total: i64,
    path: &Path,
    progress: &dyn Fn(Step),
) -> Result<(), ImportError> {
    let failed = |error| ImportError::Target(path.to_owned(), error);
    let from = |error| ImportError::Source(source.to_owned(), error);
    let after: i64 =
        conn.query_row("SELECT last_build FROM import", [], |row| row.get(0)).map_err(failed)?;
    let (sender, batches) = mpsc::sync_channel::<Vec<CuirassBuild>>(BATCHES_MAX);
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .name("brigandine-import".to_owned())
            .spawn_scoped(scope, move || -> Result<(), CuirassError> {
                let cuirass = open()?;
                let mut batch = Vec::with_capacity(BATCH);
                cuirass.builds(after, false, &mut |build| {
                    batch.push(build);
                    // Refused when the writer has ended: then there is nothing to read for.
                    batch.len() < BATCH
                        || sender
                            .send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)))
                            .is_ok()
                })?;
                let _ = sender.send(batch);
                Ok(())
            })
            .map_err(|error| ImportError::File(source.to_owned(), error))?;
        let mut over = false;
        while !over {
            let tx = conn.transaction().map_err(failed)?;
            let mut slice = Slice::default();
            while slice.builds < SLICE {
                let Ok(batch) = batches.recv() else {
                    over = true;
                    break;
                };
                slice.store(&tx, batch, of).map_err(|error| match error {
                    CuirassError::Sqlite(error) => failed(error),
                    error => from(error),
                })?;
            }
            slice.end(&tx, done).map_err(failed)?;
            tx.commit().map_err(failed)?;
            progress(Step::Builds(done.builds, total));
        }
        match reader.join() {
            Ok(read) => read.map_err(from),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What one transaction gathers.
#[derive(Default)]
struct Slice {
    builds: usize,
    last_build: i64,
    outputs: i64,
    rescheduled: i64,
    logs: i64,
    /// By evaluation: how many of each status, from -2 on, and the first submission.
    evaluations: HashMap<i64, ([i64; 7], i64)>,
    counts: HashMap<(i64, i64), HashMap<String, i64>>,
    jobs: Vec<(i64, String, i64)>,
}

impl Slice {
    fn store(
        &mut self,
        tx: &Connection,
        batch: Vec<CuirassBuild>,
        of: &HashMap<i64, i64>,
    ) -> Result<(), CuirassError> {
        let mut insert = tx.prepare_cached(
            "INSERT INTO build (id, derivation, derivation_key, specification_id, evaluation_id,
             job, system, nix_name, priority, status, weather, backend, attempt, losses, waiting,
             message, timeout_s, max_silent_s, submitted_at, started_at, stopped_at, log_path,
             log_bytes, log_digest)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, -1, 1, 0, 0, 0, '', ?11, ?12, ?13,
             ?14, ?15, '', 0, '')",
        )?;
        let mut output =
            tx.prepare_cached("INSERT INTO output (build_id, name, path) VALUES (?1, ?2, ?3)")?;
        for mut build in batch {
            let Some(specification) = of.get(&build.evaluation) else {
                let CuirassBuild { id, evaluation, .. } = build;
                let what = format!("build {id} is of evaluation {evaluation}, which is not there");
                return Err(CuirassError::Unknown(what));
            };
            if build.status == BuildStatus::Started {
                // As Cuirass does when it starts: nobody runs it any more.
                build.status = BuildStatus::Scheduled;
                self.rescheduled += 1;
            }
            if build.status.is_finished() {
                // Cuirass gives some canceled builds no stop time.
                build.stopped_at =
                    build.stopped_at.max(build.started_at).max(build.timestamp).max(1);
            } else {
                (build.started_at, build.stopped_at) = (0, 0);
            }
            insert.execute(params![
                build.id,
                build.derivation,
                build.derivation_key,
                specification,
                build.evaluation,
                build.job,
                build.system,
                build.nix_name,
                build.priority,
                build.status,
                build.timeout_s.max(0),
                build.max_silent_s.max(0),
                build.timestamp,
                build.started_at,
                build.stopped_at,
            ])?;
            for (name, path) in &build.outputs {
                output.execute(params![build.id, name, path])?;
                self.outputs += 1;
            }
            let place = usize::try_from(build.status.code() + 2).unwrap_or(0);
            let (statuses, first) =
                self.evaluations.entry(build.evaluation).or_insert(([0; 7], i64::MAX));
            if let Some(count) = statuses.get_mut(place) {
                *count += 1;
            }
            *first = (*first).min(build.timestamp.max(UNKNOWN_AT));
            let systems = self.counts.entry((build.status.code(), *specification)).or_default();
            match systems.get_mut(&build.system) {
                Some(count) => *count += 1,
                None => drop(systems.insert(build.system, 1)),
            }
            self.logs += i64::from(build.has_log);
            self.builds += 1;
            self.last_build = build.id;
            self.jobs.push((build.evaluation, build.job, build.id));
        }
        Ok(())
    }

    fn end(mut self, tx: &Connection, done: &mut Imported) -> rusqlite::Result<()> {
        self.jobs.sort_unstable();
        let mut job = tx.prepare_cached(
            "INSERT INTO job (evaluation_id, name, build_id, reused) VALUES (?1, ?2, ?3, 0)",
        )?;
        for (evaluation, name, build) in self.jobs {
            job.execute(params![evaluation, name, build])?;
        }
        let mut evaluations = tx.prepare_cached(
            "UPDATE evaluation SET scheduled = scheduled + ?2, started = started + ?3,
             succeeded = succeeded + ?4, failed = failed + ?5,
             failed_dependency = failed_dependency + ?6, failed_other = failed_other + ?7,
             canceled = canceled + ?8,
             created_at = CASE WHEN created_at = 1 THEN ?9 ELSE created_at END,
             checkout_at = CASE WHEN checkout_at = 1 THEN ?9 ELSE checkout_at END,
             finished_at = CASE WHEN finished_at = 1 THEN ?9 ELSE finished_at END
             WHERE id = ?1",
        )?;
        for (id, ([a, b, c, d, e, f, g], first)) in &self.evaluations {
            evaluations.execute(params![id, a, b, c, d, e, f, g, first])?;
        }
        let mut count = tx.prepare_cached(
            "INSERT INTO build_count (status, specification_id, system, builds)
             VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (status, specification_id, system)
             DO UPDATE SET builds = builds + excluded.builds",
        )?;
        for ((status, specification), systems) in &self.counts {
            for (system, builds) in systems {
                count.execute(params![status, specification, system, builds])?;
            }
        }
        let builds = i64::try_from(self.builds).unwrap_or(i64::MAX);
        tx.prepare_cached(
            "UPDATE import SET builds = builds + ?1, last_build = max(last_build, ?2),
             outputs = outputs + ?3, rescheduled = rescheduled + ?4, logs = logs + ?5",
        )?
        .execute(params![
            builds,
            self.last_build,
            self.outputs,
            self.rescheduled,
            self.logs
        ])?;
        done.builds += builds;
        done.outputs += self.outputs;
        done.rescheduled += self.rescheduled;
        done.logs += self.logs;
        Ok(())
    }
}

/// Stores the outputs that did not lie beside their builds, in one transaction.
fn look_up_outputs(
    conn: &mut Connection,
    cuirass: &dyn Source,
    path: &Path,
    source: &Path,
) -> Result<i64, ImportError> {
    let failed = |error| ImportError::Target(path.to_owned(), error);
    let tx = conn.transaction().map_err(failed)?;
    let mut stored = Ok(0);
    cuirass
        .builds(0, true, &mut |build| {
            stored = tx
                .prepare_cached(
                    "INSERT OR IGNORE INTO output (build_id, name, path) VALUES (?1, ?2, ?3)",
                )
                .and_then(|mut insert| {
                    build.outputs.iter().try_fold(0, |sum, (name, path)| {
                        insert.execute(params![build.id, name, path]).map(|new| sum + new)
                    })
                });
            stored.is_ok()
        })
        .map_err(|error| ImportError::Source(source.to_owned(), error))?;
    stored.map_err(failed)?;
    let all: i64 =
        tx.query_row("SELECT count(*) FROM output", [], |row| row.get(0)).map_err(failed)?;
    tx.execute("UPDATE import SET outputs = ?1", [all]).map_err(failed)?;
    tx.commit().map_err(failed)?;
    Ok(all)
}

/// Triggers, statistics, and the end of the table that says how far it is.
fn finish(conn: &Connection) -> rusqlite::Result<()> {
    schema::make_triggers(conn)?;
    conn.execute_batch(
        "PRAGMA analysis_limit = 1000; ANALYZE; DROP TABLE import;
         PRAGMA journal_mode = DELETE;",
    )
}
