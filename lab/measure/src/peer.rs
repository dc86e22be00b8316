//! The calls that a peer must implement.

use std::future::Future;
use std::time::Duration;

/// The result of a call; the error is a message for people.
pub type Outcome<T> = Result<T, String>;

/// The contents of a page, as far as they show whether its five queries agree.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Page {
    /// The counter of builds in the project's row.
    pub builds: i64,
    /// The sum of the counts of all statuses.
    pub counted: i64,
    /// The number of rows in the list of the latest builds.
    pub latest: usize,
    /// The mean duration of the latest hundred builds.
    pub mean: f64,
    /// The id of the last failed build.
    pub failed: i64,
}

impl Page {
    /// Whether the five queries saw different states of the database.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.builds != self.counted
    }
}

/// A way to use SQLite from async tasks. Clones share everything.
///
/// Each method is written as the peer's documentation advises: statements are cached if the peer has a cache, several
/// statements are one transaction, and blocking work runs where the peer wants it.
pub trait Peer: Clone + Send + Sync + 'static {
    /// The handle of one client. Most peers do not distinguish clients and return a clone.
    #[must_use]
    fn client(&self, _name: &str) -> Self {
        self.clone()
    }

    /// Inserts one row. The row is committed when the future resolves.
    fn insert(&self, name: String) -> impl Future<Output = Outcome<()>> + Send;

    /// Reads one row by key.
    fn lookup(&self, name: String) -> impl Future<Output = Outcome<i64>> + Send;

    /// Reads every row.
    fn scan(&self) -> impl Future<Output = Outcome<i64>> + Send;

    /// Runs a query that never ends.
    fn endless(&self) -> impl Future<Output = Outcome<i64>> + Send;

    /// Runs the smallest possible query.
    fn one(&self) -> impl Future<Output = Outcome<i64>> + Send;

    /// Inserts rows with ascending keys in one transaction, until there are `rows` of them or `limit` has passed.
    fn bulk(&self, rows: u64, limit: Duration) -> impl Future<Output = Outcome<u64>> + Send;

    /// Adds a build and raises the project's counter, in one transaction.
    fn add_build(&self, project: i64, status: i64) -> impl Future<Output = Outcome<()>> + Send;

    /// Reads a project's page in one read transaction.
    fn page(&self, project: String) -> impl Future<Output = Outcome<Page>> + Send;
}
