//! The file itself, and who its state directory is.

use super::schema::{self, SchemaError};
use super::{Database, DatabaseError, Transaction};
use rusqlite::params;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A step that takes longer is told about, and again each time as much has passed.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Why a state directory cannot be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// Its directory cannot be made.
    Directory(PathBuf, std::io::Error),
    /// The database cannot be opened.
    Database(PathBuf, DatabaseError),
    /// An import into it has not ended.
    Importing(PathBuf),
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
            Self::Importing(path) => write!(
                f,
                "an import has not ended: {} is there; run `brigandine import` again with the \
                 same file, or remove it to give the import up",
                path.display()
            ),
            Self::Schema(path, error) => write!(f, "cannot use {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory(_, error) => Some(error),
            Self::Database(_, error) => Some(error),
            Self::Importing(_) => None,
            Self::Schema(_, error) => Some(error),
        }
    }
}

/// Opens the database of a state directory, made and brought to this version if need be. Others
/// may have it open; nothing is recovered.
///
/// # Errors
/// The file is not ours, not yet or not any more, or an import into it has not ended.
///
/// # Cancel safety
/// Dropped while the file is brought to this version: the step or index that was being made is
/// undone, those before it stay, and the next opening goes on from there.
pub(crate) async fn open(state: &Path) -> Result<Database, OpenError> {
    std::fs::create_dir_all(state)
        .map_err(|error| OpenError::Directory(state.to_owned(), error))?;
    let unfinished = state.join(super::IMPORT_FILE);
    if unfinished.exists() {
        return Err(OpenError::Importing(unfinished));
    }
    let path = state.join(super::DATABASE_FILE);
    let failed = |error| OpenError::Database(path.clone(), error);
    let database = Database::open(&path).await.map_err(failed)?;
    for warning in database.warnings() {
        tracing::warn!(file = %path.display(), "{warning}");
    }
    let progress = Arc::new(schema::Progress::default());
    let shared = Arc::clone(&progress);
    let migrated = database.exclusive(move |conn| Ok(schema::migrate(conn, &shared)));
    tokio::pin!(migrated);
    let began = Instant::now();
    let migrated = loop {
        match tokio::time::timeout(HEARTBEAT, &mut migrated).await {
            Ok(migrated) => break migrated,
            Err(_) => {
                let (what, seconds) = (progress.text(), began.elapsed().as_secs());
                tracing::info!(seconds, "the database is brought to this version: {what}");
            }
        }
    };
    let migrated = migrated.map_err(failed)?;
    migrated.map_err(|error| OpenError::Schema(path.clone(), error))?;
    Ok(database)
}

/// Lets the planner look at the tables that have grown, in bounded time; for quiet moments.
pub(crate) async fn optimize(database: &Database) -> Result<(), DatabaseError> {
    let done = database
        .exclusive(|conn| Ok(conn.execute_batch("PRAGMA analysis_limit = 200; PRAGMA optimize;")));
    if let Err(error) = done.await? {
        // Statistics are a help and no more: what is hot names its index.
        tracing::warn!(%error, "the planner's statistics could not be brought up to date");
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
