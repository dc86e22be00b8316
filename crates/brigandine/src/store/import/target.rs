//! The file into which an import stores, until it becomes the database.

use super::outcome::ImportError;
use crate::store::schema;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// Opens the file, or makes it.
pub(super) fn open_target(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::default())?;
    // The import checks references itself, once per build, with its map of the evaluations. SQLite would check six
    // references per build.
    conn.execute_batch(
        "PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = OFF;
         PRAGMA cache_size = -262144; PRAGMA temp_store = FILE; PRAGMA threads = 1;
         PRAGMA locking_mode = EXCLUSIVE;",
    )?;
    Ok(conn)
}

/// Makes the finished file `path` the database of the state directory.
pub(super) fn put_in_place(path: &Path, database: &Path, state: &Path) -> Result<(), ImportError> {
    let failed = |error| ImportError::File(path.to_owned(), error);
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(failed)?;
    std::fs::rename(path, database).map_err(failed)?;
    std::fs::File::open(state).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Makes triggers and statistics, and drops the table that stores how far the import is.
pub(super) fn finish(conn: &Connection) -> rusqlite::Result<()> {
    schema::make_triggers(conn)?;
    conn.execute_batch(
        "PRAGMA analysis_limit = 1000; ANALYZE; DROP TABLE import;
         PRAGMA journal_mode = DELETE;",
    )
}
