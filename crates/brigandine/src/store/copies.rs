//! Copies of the database, for backups: how they are made beside a server, read, and given to a new state directory.

use super::database::{Database, DatabaseError};
use super::query::Query;
use super::schema::{self, SchemaError};
use crate::model::{BuildId, EvaluationId};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The build logs of one build, as the database names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BuildLogs {
    /// The build.
    pub(crate) id: BuildId,
    /// The number of the last attempt.
    pub(crate) attempt: i64,
    /// Whether the last attempt has not ended. The next server that uses the database starts it again.
    pub(crate) is_running: bool,
    /// Whether the database names a log of the last attempt.
    pub(crate) is_named: bool,
}

/// Copies the database of a state directory to the new file `to`, beside the writes of a server. `progress` is called
/// with the pages that are copied, and with those of the whole database.
///
/// # Errors
/// The database cannot be read, or the copy not be written. There is no file `to` then.
///
/// # Cancel safety
/// Dropped: the copy is given up soon, and there is no file `to`.
pub(crate) async fn copy_database(
    database: &Database,
    to: &Path,
    progress: impl Fn(u64, u64) + Send + 'static,
) -> Result<(), DatabaseError> {
    let copied = database.backup(to).progress(move |step| progress(step.pages, step.of));
    copied.await.map(drop)
}

/// Copies the database of a backup to the new file `to`, and checks every page of the copy. Blocks.
///
/// # Errors
/// The file is damaged, or the copy cannot be written, or `stop` turned true. There is no file `to` then.
pub(crate) fn copy_back(
    from: &Path,
    to: &Path,
    stop: &Arc<AtomicBool>,
    progress: impl Fn(u64, u64) + Send + 'static,
) -> Result<(), DatabaseError> {
    let restore = lockkeeper::Restore::new(from, to).stop_when(Arc::clone(stop));
    restore.progress(move |step| progress(step.pages, step.of)).blocking_run().map(drop)
}

/// A copy of a database that no server uses.
pub(crate) struct DatabaseCopy {
    conn: Connection,
    schema: usize,
}

impl DatabaseCopy {
    /// Opens a copy. Its file becomes readable for its owner alone. Blocks, as all methods do.
    ///
    /// # Errors
    /// The file is not a database of Brigandine, or of a newer version.
    pub(crate) fn open(path: &Path) -> Result<Self, SchemaError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        let schema = schema::judge(conn.query_row(schema::MARKS, [], schema::marks)?)?;
        // The mode is changed by path, because only SQLite may open the file.
        let private = std::fs::Permissions::from_mode(0o600);
        let _ = std::fs::set_permissions(path, private);
        if schema == 0 { Err(SchemaError::Empty) } else { Ok(Self { conn, schema }) }
    }

    /// The version of its schema.
    pub(crate) const fn schema(&self) -> usize {
        self.schema
    }

    /// The number of rows of each table.
    pub(crate) fn rows(&self) -> rusqlite::Result<BTreeMap<String, i64>> {
        let tables: Vec<String> = self.conn.values(schema::TABLES, [])?;
        let count = |table: String| {
            let sql = format!("SELECT count(*) FROM \"{}\"", table.replace('"', "\"\""));
            let rows = self.conn.query_row(&sql, [], |row| row.get(0))?;
            Ok((table, rows))
        };
        tables.into_iter().map(count).collect()
    }

    /// The logs of the first builds after `after` that have been started, at most `limit` builds.
    pub(crate) fn build_logs(
        &self,
        after: BuildId,
        limit: u32,
    ) -> rusqlite::Result<Vec<BuildLogs>> {
        self.conn.all(
            "SELECT id, attempt, status = -1, log_path <> '' FROM build
             WHERE id > ?1 AND attempt > 0 ORDER BY id LIMIT ?2",
            (after, limit),
            |row| {
                Ok(BuildLogs {
                    id: row.get(0)?,
                    attempt: row.get(1)?,
                    is_running: row.get(2)?,
                    is_named: row.get(3)?,
                })
            },
        )
    }

    /// The first evaluations after `after` that have a log, at most `limit`.
    pub(crate) fn evaluation_logs(
        &self,
        after: EvaluationId,
        limit: u32,
    ) -> rusqlite::Result<Vec<EvaluationId>> {
        self.conn.values(
            "SELECT id FROM evaluation WHERE id > ?1 AND log_path <> '' ORDER BY id LIMIT ?2",
            (after, limit),
        )
    }

    /// The first paths after `after` of outputs in the state directory, at most `limit`.
    pub(crate) fn outputs(&self, after: &str, limit: u32) -> rusqlite::Result<Vec<String>> {
        self.conn.values(
            "SELECT DISTINCT path FROM output
             WHERE substr(path, 1, 8) = 'outputs/' AND path > ?1 ORDER BY path LIMIT ?2",
            (after, limit),
        )
    }

    /// Gives the copy to a new state directory. The processes of the server from which the copy was made have the id of
    /// the old one in their environment, and a server of the new directory must not end them.
    pub(crate) fn set_identity(&self, state_id: &str) -> rusqlite::Result<()> {
        self.conn.execute("UPDATE server SET state_id = ?1", [state_id]).map(drop)
    }
}
