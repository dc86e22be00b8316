//! Opening the database file, and the identity of its state directory.

use super::database::{Database, DatabaseError, Transaction};
use super::query::Query;
use super::schema::{self, SchemaError};
use crate::os::state_dir::StateDir;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two lines about a long migration.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Why a state directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directory cannot be made.
    #[error("cannot make the state directory {0}: {1}")]
    Directory(PathBuf, #[source] std::io::Error),
    /// The database cannot be opened.
    #[error("cannot open {0}: {1}")]
    Database(PathBuf, #[source] DatabaseError),
    /// An import into it has not ended.
    #[error(
        "an import has not ended: {0} is there; run `brigandine import` again with the same file, or remove it to give \
         the import up"
    )]
    Importing(PathBuf),
    /// The file is not ours, or not of this version.
    #[error("cannot use {0}: {1}")]
    Schema(PathBuf, #[source] SchemaError),
    /// The file is empty or gone, and its build logs or outputs are there.
    #[error(
        "{0} is empty or gone, but there are build logs or outputs beside it (or its -wal): put the file back, from a \
         backup if need be; to begin anew, move the whole state directory away"
    )]
    Emptied(PathBuf),
    /// An older file could not be copied before its migration.
    #[error(
        "the database is of an older version, and cannot be copied to {0} before it is changed: {1}"
    )]
    Copy(PathBuf, #[source] DatabaseError),
    /// There is no room for that copy.
    #[error(
        "the database is of an older version, and there is no room for a copy of it at {target} before it is changed: \
         it takes {needed} bytes, and {free} are free; make room and start again"
    )]
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
    /// Whether the start of a server of this version mends it.
    pub(crate) fn is_for_a_server(&self) -> bool {
        use SchemaError::{Empty, Older, Unindexed};
        matches!(self, Self::Schema(_, Empty | Older(_) | Unindexed(_)))
    }
}

/// How long a call of a command waits for another program that has the database locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a server, which shows on its pages that it waits, and repeats the call.
const SERVER_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the database of a state directory for the server that has its lock. A missing file is created, an older one
/// is copied and then migrated. Nothing is recovered.
///
/// # Errors
/// The file belongs to another program or to a newer version; an import into it has not ended; it is empty, and should
/// not be; there is no room for the copy. The file is as it was.
///
/// # Cancel safety
/// Dropped during the migration: SQLite undoes the step or index that was being made, those before it stay, and the
/// next opening goes on from there.
pub(crate) async fn open(state: &Path) -> Result<Database, OpenError> {
    std::fs::create_dir_all(state)
        .map_err(|error| OpenError::Directory(state.to_owned(), error))?;
    check_files(state)?;
    let path = StateDir::new(state).database();
    let failed = |error| OpenError::Database(path.clone(), error);
    let database = Database::open(&path, true, SERVER_BUSY_TIMEOUT).await.map_err(failed)?;
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
        older => Some(with_progress(&progress, copy(&database, &path, older, &progress)).await?),
    };
    let shared = Arc::clone(&progress);
    let migrated = database.exclusive(move |conn| Ok(schema::migrate(conn, &shared)));
    let migrated = with_progress(&progress, migrated.into_future()).await.map_err(failed)?;
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

/// Opens the database of a state directory for a command. Other processes may have it open; its schema stays.
///
/// # Errors
/// There is none, it is not of this version, or an import into it has not ended.
pub async fn open_as_it_is(state: &Path) -> Result<Database, OpenError> {
    check_files(state)?;
    let path = StateDir::new(state).database();
    let failed = |error| OpenError::Database(path.clone(), error);
    let database = Database::open(&path, false, BUSY_TIMEOUT).await.map_err(failed)?;
    let schema = |error| OpenError::Schema(path.clone(), error);
    match version(&database, &path).await? {
        schema::VERSION => {
            let indexes = database.read(|s| s.values::<String, Vec<_>>(schema::INDEXES, []));
            match schema::first_missing(&indexes.await.map_err(failed)?) {
                None => Ok(database),
                Some(name) => Err(schema(SchemaError::Unindexed(name))),
            }
        }
        0 if has_results(state) => Err(OpenError::Emptied(path)),
        0 => Err(schema(SchemaError::Empty)),
        older => Err(schema(SchemaError::Older(i64::try_from(older).unwrap_or(i64::MAX)))),
    }
}

/// Refuses files that must not be opened at all: SQLite takes a file of no bytes for a new database, and deletes the
/// WAL beside it.
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

/// Whether there are build logs or outputs: then there were tables that name them.
fn has_results(state: &Path) -> bool {
    let any = |folder: PathBuf, is: fn(&std::fs::DirEntry) -> bool| {
        let found = std::fs::read_dir(folder);
        found.is_ok_and(|found| found.flatten().any(|entry| is(&entry)))
    };
    // An empty folder is no output: that of the digest of nothing is there from the start.
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

/// Copies an older file to a name beside it, which is returned.
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
    // The mode of the database itself.
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&target, private)
        .map_err(|error| OpenError::Directory(target.clone(), error))?;
    Ok(target)
}

/// Runs a long step, and logs how far it is meanwhile.
async fn with_progress<T>(progress: &schema::Progress, work: impl Future<Output = T>) -> T {
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

/// Brings SQLite's statistics of tables that have grown up to date, in bounded time; for quiet moments.
pub(crate) async fn optimize(database: &Database) -> Result<(), DatabaseError> {
    let done = database
        .exclusive(|conn| Ok(conn.execute_batch("PRAGMA analysis_limit = 200; PRAGMA optimize;")));
    if let Err(error) = done.await? {
        // The queries that matter name their index, whatever the statistics say.
        tracing::warn!(%error, "the planner's statistics could not be brought up to date");
    }
    Ok(())
}

/// The identity of a state directory, and how the last server left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    /// Stands in the environment of every child process.
    pub(crate) state_id: String,
    /// Whether the last server was killed rather than stopped.
    pub(crate) killed: bool,
}

/// Notes that a server runs now; `new_id` becomes the state's id if it has none yet.
pub(crate) fn note_start(tx: &Transaction, new_id: &str) -> rusqlite::Result<Started> {
    let sql = "SELECT state_id, stopped FROM server WHERE id = 1";
    let known: Option<(String, bool)> = tx.first(sql, [], |row| row.try_into())?;
    if let Some((state_id, stopped)) = known {
        tx.execute("UPDATE server SET stopped = 0 WHERE id = 1", [])?;
        return Ok(Started { state_id, killed: !stopped });
    }
    tx.execute("INSERT INTO server (id, state_id, stopped) VALUES (1, ?1, 0)", [new_id])?;
    Ok(Started { state_id: new_id.to_owned(), killed: false })
}

/// Notes an orderly shutdown.
pub(crate) fn note_stop(tx: &Transaction) -> rusqlite::Result<()> {
    tx.execute("UPDATE server SET stopped = 1 WHERE id = 1", [])?;
    Ok(())
}
