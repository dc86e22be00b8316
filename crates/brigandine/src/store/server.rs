//! Opening the database file, and the identity of its state directory.

use super::database::{Database, DatabaseError, Transaction};
use super::query::Query;
use super::schema::{self, SchemaError};
use crate::os::folder::room;
use crate::os::state_dir::{MANIFEST, StateDir};
use rustix::fs::Access;
use rustix::io::Errno;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time between two trace lines about a long migration.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Why a state directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state directory cannot be made.
    #[error("cannot make the state directory {0}: {1}")]
    Directory(PathBuf, #[source] std::io::Error),
    /// The database cannot be opened.
    #[error("cannot open {0}: {1}")]
    Database(PathBuf, #[source] DatabaseError),
    /// The directory or the file cannot be written.
    #[error(
        "{0} cannot be written ({1}), and SQLite writes beside a database even to read it: give the command as the \
         server's user, or copy the whole state directory to a disk that can be written"
    )]
    ReadOnly(PathBuf, #[source] std::io::Error),
    /// An import into the state directory has not ended.
    #[error(
        "an import has not ended: {0} is there; run `brigandine import` again with the same file, or remove it to give \
         the import up"
    )]
    Importing(PathBuf),
    /// The directory is a backup.
    #[error(
        "{0} is a backup, and whoever uses its database changes it: `brigandine restore {0} --state DIR` puts it into a \
         state directory; a copy of a backup becomes one when its {manifest} is removed",
        manifest = MANIFEST
    )]
    Backup(PathBuf),
    /// A restore into the state directory has not ended.
    #[error(
        "a restore has not ended: {0} is there; empty the directory, and run `brigandine restore` again"
    )]
    Restoring(PathBuf),
    /// The file is not Brigandine's, or not of this version.
    #[error("cannot use {0}: {1}")]
    Schema(PathBuf, #[source] SchemaError),
    /// The file is empty or gone, although there are build logs or outputs.
    #[error(
        "{0} is empty or gone, but there are build logs or outputs beside it (or its -wal): put the file back, with the \
         -wal that it had; or put a backup in its place, and remove the -wal and -shm that are there, which are not the \
         backup's; to begin anew, move the whole state directory away"
    )]
    Emptied(PathBuf),
    /// An older file could not be copied before its migration.
    #[error(
        "the database is of an older version, and cannot be copied to {0} before it is changed: {1}"
    )]
    Copy(PathBuf, #[source] DatabaseError),
    /// There is no room for the copy that is made before a migration.
    #[error(
        "the database is of an older version, and there is no room for a copy of it at {target} before it is changed: \
         it takes {needed} bytes, and {free} are free; make room and start again"
    )]
    NoRoom {
        /// Where the copy would be.
        target: PathBuf,
        /// The bytes that the copy would take.
        needed: u64,
        /// The bytes that are free.
        free: u64,
    },
}

impl OpenError {
    /// Whether starting a server of this version would solve the problem.
    pub(crate) fn is_for_a_server(&self) -> bool {
        use SchemaError::{Empty, Older, Unindexed};
        matches!(self, Self::Schema(_, Empty | Older(_) | Unindexed(_)))
    }
}

/// How long a call of a command waits while another program has the database locked.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a call of a server waits while another program has the database locked. Afterwards the server shows on its
/// pages that it waits, and repeats the call.
const SERVER_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the database of a state directory for the server that has locked the directory. A missing file is created. An
/// older file is copied and then migrated. Nothing is recovered.
///
/// # Errors
/// The file belongs to another program or to a newer version, or is empty although there are results; an import has not
/// ended; there is no room for the copy. The file is not changed.
///
/// # Cancel safety
/// Dropped during the migration: SQLite undoes the step or index that was being made. Earlier ones stay, and the next
/// opening continues from there.
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
        // After a server was killed, the WAL has writes of the newer schema. SQLite would apply them to the copy.
        let [wal, index] = StateDir::new(state).wal();
        tracing::warn!(
            "the database was brought from schema {before} to {}; to go back, stop the server, remove {} and {}, copy \
             {} to {}, and start the older program: what is stored from now on is lost then; once the new version runs \
             well, remove that copy",
            schema::VERSION,
            wal.display(),
            index.display(),
            copied.display(),
            path.display()
        );
    }
    Ok(database)
}

/// Opens the database of a state directory for a command. Other processes may have it open. The schema is not changed.
///
/// # Errors
/// There is no database, it is not of this version, or an import into it has not ended.
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

/// Refuses files that SQLite must not open at all: it would take an empty file for a new database, and delete the WAL
/// beside it; and it would change the database of a backup, whose digest then is another one.
fn check_files(state: &Path) -> Result<(), OpenError> {
    if StateDir::new(state).manifest().exists() {
        return Err(OpenError::Backup(state.to_owned()));
    }
    let unfinished = StateDir::new(state).import();
    if unfinished.exists() {
        return Err(OpenError::Importing(unfinished));
    }
    if let Some(unfinished) = StateDir::new(state).unfinished_restore() {
        return Err(OpenError::Restoring(unfinished));
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
    for path in [state, &path] {
        // Opening the database reports what else may be wrong.
        let may = rustix::fs::access(path, Access::WRITE_OK);
        if let Err(error @ (Errno::ROFS | Errno::ACCESS)) = may {
            return Err(OpenError::ReadOnly(path.to_owned(), error.into()));
        }
    }
    Ok(())
}

/// Whether there are build logs or outputs. If so, there were tables that name them.
fn has_results(state: &Path) -> bool {
    let any = |folder: PathBuf, is: fn(&std::fs::DirEntry) -> bool| {
        let found = std::fs::read_dir(folder);
        found.is_ok_and(|found| found.flatten().any(|entry| is(&entry)))
    };
    // An empty folder is no result: it may be the empty output, which exists from the beginning.
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

/// Copies a database file of an older version to a new file beside it, and returns the path of the copy.
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
    let free = path.parent().map_or(u64::MAX, room);
    if free < needed {
        return Err(OpenError::NoRoom { target, needed, free });
    }
    progress.set(format!("a copy of schema {version} is made at {}", target.display()));
    let failed = |error| OpenError::Copy(target.clone(), error);
    database.backup(&target).await.map_err(failed)?;
    // The same mode as the database has.
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&target, private)
        .map_err(|error| OpenError::Directory(target.clone(), error))?;
    Ok(target)
}

/// Runs `work`, and logs its progress every [`HEARTBEAT`].
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

/// Updates SQLite's statistics of tables that have grown, in bounded time. Called when the server is idle.
pub(crate) async fn optimize(database: &Database) -> Result<(), DatabaseError> {
    let done = database
        .exclusive(|conn| Ok(conn.execute_batch("PRAGMA analysis_limit = 200; PRAGMA optimize;")));
    if let Err(error) = done.await? {
        // The important queries name their index, so they do not depend on the statistics.
        tracing::warn!(%error, "the planner's statistics could not be brought up to date");
    }
    Ok(())
}

/// The identity of a state directory, and how the last server left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    /// Identifies the state directory in the environment of every child process.
    pub(crate) state_id: String,
    /// Whether the last server was killed instead of stopped.
    pub(crate) killed: bool,
}

/// Notes that a server runs now. If the state has no id yet, `new_id` becomes its id.
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

/// Notes that the server stopped in an orderly way. If a build or an evaluation is still stored as started, because its
/// end could not be stored, the next server recovers as after a server that was killed.
pub(crate) fn note_stop(tx: &Transaction) -> rusqlite::Result<()> {
    // `status < 0` is the condition of the index `build_queue`.
    let sql = "UPDATE server SET stopped =
           NOT EXISTS (SELECT 1 FROM build WHERE status < 0 AND status = -1)
           AND NOT EXISTS (SELECT 1 FROM evaluation WHERE status = -1)
         WHERE id = 1";
    tx.execute(sql, [])?;
    Ok(())
}
