//! The file itself: whose it is, which version it has, how it gets to this one.

use super::{Database, DatabaseError, Transaction};
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};

/// "BRGD": tells Brigandine's files from others.
const APPLICATION_ID: i64 = 1_112_688_452;

/// Forward only, each in one transaction, each sets the version.
const MIGRATIONS: &[&str] = &[include_str!("../../migrations/0001_initial.sql")];

/// Why a file cannot be used.
#[derive(Debug)]
pub(crate) enum SchemaError {
    /// It belongs to another program.
    Foreign(i64),
    /// A newer Brigandine wrote it.
    Newer(i64),
    /// SQLite refused a step.
    Sqlite(rusqlite::Error),
}

impl std::fmt::Display for SchemaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Foreign(id) => write!(
                f,
                "the file belongs to another program (application id {id}); \
                 name another state directory"
            ),
            Self::Newer(version) => write!(
                f,
                "the file has schema version {version}, and this program knows {} at most; \
                 use the newer program that wrote it",
                MIGRATIONS.len()
            ),
            Self::Sqlite(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SchemaError {}

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Why a state directory cannot be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// Its directory cannot be made.
    Directory(PathBuf, std::io::Error),
    /// The database cannot be opened.
    Database(PathBuf, DatabaseError),
    /// It is not ours, or not yet.
    Schema(PathBuf, SchemaError),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path, error) => {
                write!(f, "cannot make the state directory {}: {error}", path.display())
            }
            Self::Database(path, error) => write!(f, "cannot open {}: {error}", path.display()),
            Self::Schema(path, error) => write!(f, "cannot use {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory(_, error) => Some(error),
            Self::Database(_, error) => Some(error),
            Self::Schema(_, error) => Some(error),
        }
    }
}

/// Opens the database of a state directory, made and brought to this version if need be. Others
/// may have it open; nothing is recovered.
pub(crate) async fn open(state: &Path) -> Result<Database, OpenError> {
    std::fs::create_dir_all(state)
        .map_err(|error| OpenError::Directory(state.to_owned(), error))?;
    let path = state.join("brigandine.db");
    let failed = |error| OpenError::Database(path.clone(), error);
    let database = Database::open(&path).await.map_err(failed)?;
    let migrated = database.exclusive(|conn| Ok(migrate(conn))).await.map_err(failed)?;
    migrated.map_err(|error| OpenError::Schema(path.clone(), error))?;
    Ok(database)
}

/// Brings an empty or older file to this version, one transaction per step.
fn migrate(conn: &mut Connection) -> Result<(), SchemaError> {
    let number = |name: &str| conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
    let (application_id, version): (i64, i64) =
        (number("application_id")?, number("user_version")?);
    let empty: bool =
        conn.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))?;
    if application_id != APPLICATION_ID && !(empty && application_id == 0) {
        return Err(SchemaError::Foreign(application_id));
    }
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        return Err(SchemaError::Newer(version));
    }
    for step in &MIGRATIONS[done..] {
        let transaction = conn.transaction()?;
        transaction.execute_batch(step)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Who a state directory is, and how the last server left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    /// Stands in the environment of every child process.
    pub(crate) state_id: String,
    /// Whether the last server was killed rather than stopped.
    pub(crate) killed: bool,
}

/// Notes that a server runs now; `new_id` becomes the state's id if it has none yet.
pub(crate) fn note_start(tx: &Transaction, new_id: &str) -> rusqlite::Result<Started> {
    let known: Option<(String, bool)> = tx
        .prepare_cached("SELECT state_id, stopped FROM server WHERE id = 1")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .next()
        .transpose()?;
    match known {
        Some((state_id, stopped)) => {
            tx.prepare_cached("UPDATE server SET stopped = 0 WHERE id = 1")?.execute([])?;
            Ok(Started { state_id, killed: !stopped })
        }
        None => {
            tx.prepare_cached("INSERT INTO server (id, state_id, stopped) VALUES (1, ?1, 0)")?
                .execute(params![new_id])?;
            Ok(Started { state_id: new_id.to_owned(), killed: false })
        }
    }
}

/// Notes an orderly shutdown.
pub(crate) fn note_stop(tx: &Transaction) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE server SET stopped = 1 WHERE id = 1")?.execute([])?;
    Ok(())
}
