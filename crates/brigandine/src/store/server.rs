//! The file itself, and who its state directory is.

use super::database::{Database, DatabaseError, Transaction};
use super::schema::{self, SchemaError};
use crate::os::state_dir::StateDir;
use rusqlite::params;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A step that takes longer is told about, and again each time as much has passed.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Why a state directory cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Its directory cannot be made.
    Directory(PathBuf, std::io::Error),
    /// The database cannot be opened.
    Database(PathBuf, DatabaseError),
    /// An import into it has not ended.
    Importing(PathBuf),
    /// It is not ours, or not of this version.
    Schema(PathBuf, SchemaError),
    /// It is empty or gone, and what it told of is there.
    Emptied(PathBuf),
    /// No copy can be made of an older one before it is changed.
    Copy(PathBuf, DatabaseError),
    /// There is no room for that copy.
    NoRoom {
        /// Where it would be.
        target: PathBuf,
        /// Its bytes.
        needed: u64,
        /// Bytes that there are.
        free: u64,
    },
}

impl OpenError {
    /// Whether a server of this version, when it has started, has made what is missing.
    pub(crate) fn is_for_a_server(&self) -> bool {
        match self {
            Self::Schema(_, error) => matches!(
                error,
                SchemaError::Empty | SchemaError::Older(_) | SchemaError::Unindexed(_)
            ),
            _ => false,
        }
    }
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
            Self::Emptied(path) => write!(
                f,
                "{} is empty or gone, but there are build logs or outputs beside it (or its -wal): put the file back, \
                 from a backup if need be; to begin anew, move the whole state directory away",
                path.display()
            ),
            Self::Copy(path, error) => write!(
                f,
                "the database is of an older version, and cannot be copied to {} before it is changed: {error}",
                path.display()
            ),
            Self::NoRoom { target, needed, free } => write!(
                f,
                "the database is of an older version, and there is no room for a copy of it at {} before it is \
                 changed: it takes {needed} bytes, and {free} are free; make room and start again",
                target.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory(_, error) => Some(error),
            Self::Database(_, error) => Some(error),
            Self::Copy(_, error) => Some(error),
            Self::Importing(_) | Self::Emptied(_) | Self::NoRoom { .. } => None,
            Self::Schema(_, error) => Some(error),
        }
    }
}

/// How long a command waits for whoever has the database locked.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for a call of a server, which tells of it on its pages, and makes the call again.
const PATIENCE_OF_SERVER: Duration = Duration::from_secs(5);

/// Opens the database of a state directory for the server that has its lock: made, and migrated to this version if
/// need be. An older one is copied first, so that there is a way back. Nothing is recovered.
///
/// # Errors
/// The file is not ours, not yet or not any more; an import into it has not ended; it is empty, and should not be;
/// there is no room for the copy. The file is as it was.
///
/// # Cancel safety
/// Dropped while the file is migrated: the step or index that was being made is
/// undone, those before it stay, and the next opening goes on from there.
pub(crate) async fn open(state: &Path) -> Result<Database, OpenError> {
    std::fs::create_dir_all(state)
        .map_err(|error| OpenError::Directory(state.to_owned(), error))?;
    check_files(state)?;
    let path = StateDir::new(state).database();
    let failed = |error| OpenError::Database(path.clone(), error);
    let database = Database::open(&path, true, PATIENCE_OF_SERVER).await.map_err(failed)?;
    for warning in database.warnings() {
        tracing::warn!(file = %path.display(), "{warning}");
    }
    let before = version(&database, &path).await?;
    if before == 0 && has_results(state) {
        return Err(OpenError::Emptied(path));
    }
    let progress = Arc::new(schema::Progress::default());
    let copied = match before {
        0 | schema::VERSION => None,
        older => Some(told(&progress, copy(&database, &path, older, &progress)).await?),
    };
    let shared = Arc::clone(&progress);
    let migrated = database.exclusive(move |conn| Ok(schema::migrate(conn, &shared)));
    let migrated = told(&progress, migrated.into_future()).await.map_err(failed)?;
    migrated.map_err(|error| OpenError::Schema(path.clone(), error))?;
    if let Some(copied) = copied {
        tracing::warn!(
            copy = %copied.display(),
            "the database was brought from schema {before} to {}; as it was before it is in the copy: to go back, \
             stop the server, put the copy in the place of {}, and start the older program; else remove it",
            schema::VERSION,
            path.display()
        );
    }
    Ok(database)
}

/// Opens the database of a state directory for a command. Others may have it open; its schema is left as it is.
///
/// # Errors
/// There is none, it is not of this version, or an import into it has not ended.
pub async fn open_as_it_is(state: &Path) -> Result<Database, OpenError> {
    check_files(state)?;
    let path = StateDir::new(state).database();
    let failed = |error| OpenError::Database(path.clone(), error);
    let database = Database::open(&path, false, PATIENCE).await.map_err(failed)?;
    let schema = |error| OpenError::Schema(path.clone(), error);
    match version(&database, &path).await? {
        schema::VERSION => {
            let list = database.read(|s| {
                let mut statement = s.prepare_cached(schema::INDEXES)?;
                statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()
            });
            match schema::first_missing(&list.await.map_err(failed)?) {
                None => Ok(database),
                Some(name) => Err(schema(SchemaError::Unindexed(name))),
            }
        }
        0 if has_results(state) => Err(OpenError::Emptied(path)),
        0 => Err(schema(SchemaError::Empty)),
        older => Err(schema(SchemaError::Older(i64::try_from(older).unwrap_or(i64::MAX)))),
    }
}

/// Looks at what must not be opened at all: SQLite takes a file of no bytes for a new database, and deletes the WAL
/// beside it.
fn check_files(state: &Path) -> Result<(), OpenError> {
    let unfinished = StateDir::new(state).import();
    if unfinished.exists() {
        return Err(OpenError::Importing(unfinished));
    }
    let path = StateDir::new(state).database();
    let is_empty = path.metadata().map_or_else(
        |error| error.kind() == std::io::ErrorKind::NotFound,
        |metadata| metadata.is_file() && metadata.len() == 0,
    );
    let [wal, _] = StateDir::new(state).wal();
    let has_wal = wal.metadata().is_ok_and(|metadata| metadata.len() > 0);
    if is_empty && (has_wal || has_results(state)) {
        return Err(OpenError::Emptied(path));
    }
    Ok(())
}

/// Whether there are build logs or outputs, which come after the tables that name them.
fn has_results(state: &Path) -> bool {
    let any = |folder: PathBuf, is: fn(&std::fs::DirEntry) -> bool| {
        let found = std::fs::read_dir(folder);
        found.is_ok_and(|found| found.flatten().any(|entry| is(&entry)))
    };
    // The digest of nothing is there from the start.
    let is_output = |entry: &std::fs::DirEntry| {
        std::fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_some())
    };
    let (logs, outputs) = (StateDir::new(state).logs(), StateDir::new(state).outputs());
    any(logs.join("build"), |_| true)
        || any(logs.join("evaluation"), |_| true)
        || any(outputs, is_output)
}

async fn version(database: &Database, path: &Path) -> Result<usize, OpenError> {
    let read = database.read(|s| s.query_row(schema::MARKS, [], schema::marks)).await;
    let marks = read.map_err(|error| OpenError::Database(path.to_owned(), error))?;
    schema::judge(marks).map_err(|error| OpenError::Schema(path.to_owned(), error))
}

/// Makes a copy of an older file beside it, and says where.
async fn copy(
    database: &Database,
    path: &Path,
    version: usize,
    progress: &schema::Progress,
) -> Result<PathBuf, OpenError> {
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let target = beside(&format!(".schema-{version}"));
    let bytes = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    let needed = bytes(path) + bytes(&beside("-wal"));
    let free = path.parent().and_then(|state| rustix::fs::statvfs(state).ok());
    let free = free.map_or(u64::MAX, |found| found.f_bavail.saturating_mul(found.f_frsize));
    if free < needed {
        return Err(OpenError::NoRoom { target, needed, free });
    }
    progress.set(format!("a copy of schema {version} is made at {}", target.display()));
    let failed = |error| OpenError::Copy(target.clone(), error);
    database.backup(&target).await.map_err(failed)?;
    // As the database itself. That of the directory keeps others out as well.
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&target, private)
        .map_err(|error| OpenError::Directory(target.clone(), error))?;
    Ok(target)
}

/// Waits for a long work, and says meanwhile how far it is.
async fn told<T>(progress: &schema::Progress, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let began = Instant::now();
    loop {
        match tokio::time::timeout(HEARTBEAT, &mut work).await {
            Ok(done) => return done,
            Err(_) => {
                let (what, seconds) = (progress.text(), began.elapsed().as_secs());
                tracing::info!(seconds, "migrating the database: {what}");
            }
        }
    }
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
