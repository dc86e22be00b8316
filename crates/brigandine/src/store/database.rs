//! The database handle of the server: Lockkeeper's handle together with a client. Each client has a lane, which is a
//! queue of its own for the calls that wait.

pub use lockkeeper::{Error as DatabaseError, Snapshot, Transaction};
use rusqlite::config::DbConfig;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

/// A database handle for one part of the server. The calls of all its clones wait in the same lane.
#[derive(Debug, Clone)]
pub struct Database {
    whole: lockkeeper::Database,
    client: lockkeeper::Client,
}

impl Database {
    /// Opens the file, and creates it first if `create` is set and the file is missing. A write is on the disk before
    /// the caller gets its answer. While another program has the file locked, a call waits up to `busy_timeout`.
    pub(crate) async fn open(
        path: &Path,
        create: bool,
        busy_timeout: Duration,
    ) -> Result<Self, DatabaseError> {
        let whole = lockkeeper::Database::builder(path)
            .create_if_missing(create)
            .synchronous(lockkeeper::Synchronous::Full)
            .busy_timeout(busy_timeout)
            // The cache size of each connection. The kernel caches the other pages; reading a page from there takes two
            // microseconds.
            .page_cache_bytes(6 << 20)
            // Makes plans independent of values. Otherwise, after `ANALYZE` has sampled the columns, SQLite prepares a
            // statement again for each new value, which takes five times as long as running the statement.
            .setup(|connection| {
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
            })
            .open()
            .await?;
        let client = whole.client("main");
        Ok(Self { whole, client })
    }

    /// The same database, with a new lane.
    pub fn client(&self, name: &str) -> Self {
        Self { whole: self.whole.clone(), client: self.whole.client(name) }
    }

    /// The same database, with a new lane for work that lets the calls of all other lanes go first.
    pub(crate) fn background(&self, name: &str) -> Self {
        let client = self.whole.client(name);
        client.set_priority(lockkeeper::Priority::Low);
        Self { whole: self.whole.clone(), client }
    }

    /// Warnings about risks of the file or of SQLite, as text for an operator.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.whole.warnings()
    }

    /// What the database does and has done since it was opened. Asks the file system for the size of the WAL.
    pub(crate) fn stats(&self) -> lockkeeper::Stats {
        self.whole.stats()
    }

    /// Closes the database for all clients, after the waiting calls have run.
    pub async fn close(&self) -> Result<(), DatabaseError> {
        self.whole.close().await.map(drop)
    }
}

impl Deref for Database {
    type Target = lockkeeper::Client;

    fn deref(&self) -> &lockkeeper::Client {
        &self.client
    }
}
