//! Imports the builds of a Cuirass database into a new file, which becomes the server's database.
//!
//! ```text
//! none → tables, specifications, evaluations → slices of builds → outputs checked → indexes,
//! triggers, statistics → renamed to the database
//! ```
//!
//! Each arrow is a transaction (for a slice of builds, for an index) that also stores how far the import is. So a
//! killed import that is started again continues from there. The file has a rollback journal, because almost every page
//! is new and new pages are not journaled. It has no indexes while it is filled, because an index that is made
//! afterwards takes SQLite a single sort. The database itself appears by a rename: whole, or not at all.

mod begin;
mod cuirass;
mod history;
mod outcome;
mod sample;
mod slice;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod unplaced;

pub(crate) use history::{ImportedHistory, import_history};
pub use outcome::{ImportError, Imported, Step};
pub use sample::mix;
pub use source::{CuirassError, LeftOut};

use super::query::Query;
use super::schema;
use crate::model::Timestamp;
use crate::os::file::open_regular;
use crate::os::folder::make_private;
use crate::os::state_dir::StateDir;
use begin::begin;
use cuirass::Cuirass;
use rusqlite::{Connection, params};
use sample::Sample;
use slice::Slice;
use source::{CuirassBuild, Open, Source};
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc;
use target::{finish, open_target, put_in_place};

/// The most builds of one transaction.
const SLICE: usize = 100_000;
/// The most builds that the reading thread sends in one batch.
const BATCH: usize = 500;
/// The most batches that wait in the channel.
const BATCHES_MAX: usize = 16;

/// Makes a state directory with `builds` sample builds, by an import from a generated source.
///
/// # Errors
/// The errors of [`import_cuirass`].
pub fn make_sample(
    builds: i64,
    state: &Path,
    now: Timestamp,
    progress: &dyn Fn(Step),
) -> Result<Imported, ImportError> {
    import(
        &|| Ok(Box::new(Sample::new(builds)) as Box<dyn Source>),
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
/// The source is not changed. What a failed import has stored stays for the next attempt; no server opens that file as
/// a database.
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
    make_private(state).map_err(|error| ImportError::File(state.to_owned(), error))?;
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
        done.outputs = look_up_outputs(&mut conn, &*cuirass, &of, &path, source)?;
    }
    progress(Step::Other("what has no place here".to_owned()));
    done.left_out = cuirass.left_out().map_err(from)?;
    if outputs > done.outputs {
        let (rows, what) = (outputs - done.outputs, "outputs of builds that were not imported");
        done.left_out.push(LeftOut { table: "Outputs", column: None, rows, what });
    }
    schema::make_indexes(&conn, &|text| progress(Step::Other(text)))
        .map_err(|error| ImportError::Schema(path.clone(), error))?;
    progress(Step::Other("statistics".to_owned()));
    finish(&conn).map_err(failed)?;
    drop(conn);
    put_in_place(&path, &database, state)?;
    Ok(Imported { specifications, evaluations: of.len(), ..done })
}

/// How a database of SQLite begins.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// What a file is, by how it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An SQLite database, which only Cuirass's can be.
    Cuirass,
    /// A history that `brigandine export` wrote.
    History,
}

/// Reads what a file is that is to be imported.
///
/// # Errors
/// The file cannot be read, or is neither.
pub(crate) fn kind_of(source: &Path) -> Result<Kind, ImportError> {
    let mut begins = Vec::new();
    open_regular(source)
        .and_then(|file| file.take(100).read_to_end(&mut begins))
        .map_err(|error| ImportError::File(source.to_owned(), error))?;
    match begins.as_slice() {
        // Where SQLite's header has the application's number.
        begins
            if begins.starts_with(SQLITE) && begins.get(68..72) == Some(&schema::OWN_MARK[..]) =>
        {
            Err(ImportError::Own(source.to_owned()))
        }
        begins if begins.starts_with(SQLITE) => Ok(Kind::Cuirass),
        begins if begins.starts_with(b"{\"brigandine\":") => Ok(Kind::History),
        _ => Err(ImportError::Unknown(source.to_owned())),
    }
}

fn specifications_of(conn: &Connection) -> rusqlite::Result<HashMap<i64, i64>> {
    conn.all("SELECT id, specification_id FROM evaluation", [], |row| row.try_into())
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

/// Reads the builds on a new thread, and stores them in slices on this thread.
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
    std::thread::scope(|scope| {
        // The receiver is dropped when this closure returns an error, before the scope waits for the reader. So the
        // reader's next send fails.
        let (sender, batches) = mpsc::sync_channel::<Vec<CuirassBuild>>(BATCHES_MAX);
        let reader = std::thread::Builder::new()
            .name("brigandine-import".to_owned())
            .spawn_scoped(scope, move || -> Result<(), CuirassError> {
                let cuirass = open()?;
                let mut batch = Vec::with_capacity(BATCH);
                cuirass.builds(after, false, &mut |build| {
                    batch.push(build);
                    // Sending fails if the storing thread has ended; then reading ends too.
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

/// Stores the outputs that were not found in the order of their builds, in one transaction.
fn look_up_outputs(
    conn: &mut Connection,
    cuirass: &dyn Source,
    of: &HashMap<i64, i64>,
    path: &Path,
    source: &Path,
) -> Result<i64, ImportError> {
    let failed = |error| ImportError::Target(path.to_owned(), error);
    let tx = conn.transaction().map_err(failed)?;
    let mut stored = Ok(0);
    cuirass
        .builds(0, true, &mut |build| {
            if build.place(of).is_none() {
                return true;
            }
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
