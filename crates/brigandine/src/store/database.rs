//! The database handle of the server: Lockkeeper's, with the client whose lane its calls take.

pub use lockkeeper::{Error as DatabaseError, Snapshot, Transaction};
use rusqlite::config::DbConfig;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

/// A handle for one part of the server. Clones share the part's lane.
#[derive(Debug, Clone)]
pub struct Database {
    whole: lockkeeper::Database,
    client: lockkeeper::Client,
}

impl Database {
    /// Opens the file, creating it if that is allowed. What is acknowledged is on the disk. `patience` is how long a
    /// call waits for another program that has the file locked.
    pub(crate) async fn open(
        path: &Path,
        create: bool,
        patience: Duration,
    ) -> Result<Self, DatabaseError> {
        let whole = lockkeeper::Database::builder(path)
            .create_if_missing(create)
            .synchronous(lockkeeper::Synchronous::Full)
            .busy_timeout(patience)
            // Each connection has as much; the kernel keeps what does not fit, and a page from it
            // costs two microseconds.
            .page_cache_bytes(6 << 20)
            // Plans do not depend on values: otherwise, once there are samples of the columns
            // (`ANALYZE`), each new value makes SQLite prepare the statement again, which takes
            // five times as long as the statement.
            .setup(|connection| {
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
            })
            .open()
            .await?;
        let client = whole.client("main");
        Ok(Self { whole, client })
    }

    /// The same database in a lane of its own.
    pub fn client(&self, name: &str) -> Self {
        Self { whole: self.whole.clone(), client: self.whole.client(name) }
    }

    /// The same database in a lane of its own, for work that can wait for everybody else's.
    pub(crate) fn background(&self, name: &str) -> Self {
        let client = self.whole.client(name);
        client.set_priority(lockkeeper::Priority::Low);
        Self { whole: self.whole.clone(), client }
    }

    /// What is risky about the file or SQLite, in words.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.whole.warnings()
    }

    /// Closes it for all clients, after the calls that are waiting.
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
