//! What a peer must be able to do.

use std::future::Future;
use std::time::Duration;

/// A failed call says why.
pub type Outcome<T> = Result<T, String>;

/// What the page shows; enough to see that its five queries agree.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Page {
    /// The counter in the project's row.
    pub builds: i64,
    /// The counts of all statuses together.
    pub counted: i64,
    /// Rows in the list of the latest.
    pub latest: usize,
    /// Mean time of the latest hundred.
    pub mean: f64,
    /// The last failure.
    pub failed: i64,
}

impl Page {
    /// The five queries saw different states.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.builds != self.counted
    }
}

/// A way to use SQLite from async tasks. Clones share everything.
///
/// Each method is written as the peer's documentation advises: statements cached where there is a
/// cache, several statements in one transaction, blocking work where the peer wants it.
pub trait Peer: Clone + Send + Sync + 'static {
    /// The handle of one client; most peers know no clients and give a clone.
    #[must_use]
    fn client(&self, _name: &str) -> Self {
        self.clone()
    }

    /// Inserts one row, stored when it answers.
    fn insert(&self, name: String) -> impl Future<Output = Outcome<()>> + Send;

    /// Reads one row by key.
    fn lookup(&self, name: String) -> impl Future<Output = Outcome<i64>> + Send;

    /// Looks at every row.
    fn scan(&self) -> impl Future<Output = Outcome<i64>> + Send;

    /// Runs a query that never ends.
    fn endless(&self) -> impl Future<Output = Outcome<i64>> + Send;

    /// Asks the least.
    fn one(&self) -> impl Future<Output = Outcome<i64>> + Send;

    /// Inserts rows with ascending keys in one transaction, until there are enough or time is up.
    fn bulk(&self, rows: u64, limit: Duration) -> impl Future<Output = Outcome<u64>> + Send;

    /// Adds a build and counts it, in one transaction.
    fn add_build(&self, project: i64, status: i64) -> impl Future<Output = Outcome<()>> + Send;

    /// Reads a project's page in one read transaction.
    fn page(&self, project: String) -> impl Future<Output = Outcome<Page>> + Send;
}
