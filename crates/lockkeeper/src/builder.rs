//! [`Builder`]: the settings of a database and their checks, and opening with these settings or with the defaults.

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rusqlite::Connection;

use crate::config::{Callback, Config, NetworkFiles, Synchronous};
use crate::database::Database;
use crate::error::{Error, ErrorKind};
use crate::place::Place;
use crate::queue::block_on;
use crate::sqlite::migrate::Migrations;
use crate::sqlite::path;
use crate::sqlite::preflight::Machine;
use crate::stats::Slow;
#[cfg(doc)]
use crate::{Client, Stats};

/// The settings with which a database will be opened; see [`Database::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing is opened until `open`"]
pub struct Builder {
    pub(crate) config: Config,
    pub(crate) migrations: Option<Migrations>,
    /// The settings that the caller has made. `open_shared` compares them with those of an open instance.
    pub(crate) made: BTreeSet<&'static str>,
    /// The properties of SQLite and of the machine against which the file is checked. Tests replace them.
    pub(crate) machine: Machine,
}

// The settings are values. The functions among them only run later, where their panics are caught.
impl UnwindSafe for Builder {}
impl RefUnwindSafe for Builder {}

impl Builder {
    /// Whether a file that does not exist is created. Default: yes.
    ///
    /// If not, opening a missing file fails with [`ErrorKind::NotFound`], which names the path, and no file is created.
    /// As in SQLite, an empty file is a database without tables. The setting has no effect on a database in memory.
    ///
    /// # Examples
    /// ```
    /// use lockkeeper::{Database, ErrorKind};
    ///
    /// let error = Database::builder("/nowhere/app.db").create_if_missing(false).blocking_open();
    /// assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
    /// ```
    pub fn create_if_missing(mut self, on: bool) -> Self {
        self.config.create_if_missing = on;
        self
    }

    /// Opens the file read-only. Default: no.
    ///
    /// Every call that could write (`write`, `exclusive`, `lease`, …) fails immediately with [`ErrorKind::ReadOnly`].
    /// No connection of this database can write, and none changes the file, its WAL or its journal mode. Reads,
    /// snapshots, backups, [`Client::changes`] and live queries work as usual, also while other processes write.
    /// Commits of other processes are noticed within the interval of [`Builder::other_processes`]. A file that does not
    /// exist is not created ([`ErrorKind::NotFound`]). With [`Builder::migrations`] nothing is migrated: a file that
    /// has not seen all steps is refused with [`ErrorKind::Migration`].
    ///
    /// A file in WAL mode is read through its `-wal` and `-shm`. If no connection has the file open, SQLite creates
    /// these two files; they are removed when the file is closed, if this process may write the file. If the two files
    /// neither exist nor can be created, opening fails with [`ErrorKind::Open`]; see [`Builder::immutable`]. Commits
    /// that a killed process has left in the WAL are read, and stay in the WAL.
    ///
    /// A database in memory cannot be opened read-only ([`ErrorKind::Config`]), because there would be nothing to read.
    ///
    /// # Examples
    /// ```
    /// use lockkeeper::{Database, ErrorKind};
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("app.db");
    /// # let db = Database::blocking_open(&path)?;
    /// # db.blocking_write(|tx| tx.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)"))?;
    /// # db.blocking_close()?;
    /// let db = Database::builder(&path).read_only(true).blocking_open()?;
    /// let n: i64 = db.blocking_read(|s| s.query_row("SELECT count(*) FROM t", [], |row| row.get(0)))?;
    /// assert_eq!(n, 1);
    /// let error = db.blocking_write(|tx| tx.execute("DELETE FROM t", [])).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::ReadOnly);
    /// # Ok::<_, lockkeeper::Error>(())
    /// ```
    pub fn read_only(self, on: bool) -> Self {
        self.set("read_only", |config| config.read_only = on)
    }

    /// Opens the file read-only, as [`Builder::read_only`] does, with your promise that **nothing changes it** while it is
    /// open. Default: no.
    ///
    /// For files on a read-only medium or in an image: SQLite takes no locks, looks for no changes, and needs no `-wal`
    /// and `-shm` (<https://www.sqlite.org/uri.html#uriimmutable>). If the promise is broken, reads return wrong rows
    /// or [`ErrorKind::Corrupt`]. A file whose WAL or journal is not empty is refused ([`ErrorKind::Open`]): the file
    /// is in use, or a program was killed while it wrote the file. The file may be on a network file system.
    pub fn immutable(self, on: bool) -> Self {
        self.set("immutable", |config| config.immutable = on)
    }

    /// The number of reader threads that always exist, 1 to 1,024. Default: one per core, but at least 2 and at most 8.
    pub fn readers(self, threads: usize) -> Self {
        self.set("readers", |config| config.readers = threads)
    }

    /// The most reader threads, including those that long reads occupy; raised to [`Builder::readers`] if it is
    /// smaller. Default: two per core, at least 16.
    pub fn readers_max(self, threads: usize) -> Self {
        self.set("readers_max", |config| config.readers_max = threads)
    }

    /// The number of accepted calls of each client that may wait in each of the two queues. Default: 1,024.
    pub fn queue_capacity(self, calls: usize) -> Self {
        self.set("queue_capacity", |config| config.queue_capacity = calls)
    }

    /// When a commit reaches the disk. Default: [`Synchronous::Full`].
    pub fn synchronous(self, synchronous: Synchronous) -> Self {
        self.set("synchronous", |config| config.synchronous = synchronous)
    }

    /// How long a call waits for another process's lock. Default: 30 seconds.
    pub fn busy_timeout(self, timeout: Duration) -> Self {
        self.set("busy_timeout", |config| config.busy_timeout = timeout)
    }

    /// The size of the page cache of each connection, in bytes. SQLite keeps at least a few pages, and at most 2 TiB.
    /// Default: 16 MiB.
    pub fn page_cache_bytes(self, bytes: usize) -> Self {
        self.set("page_cache_bytes", |config| config.page_cache_bytes = bytes)
    }

    /// The number of prepared statements that each connection keeps in its cache. Default: 128.
    pub fn statement_cache(self, statements: usize) -> Self {
        self.set("statement_cache", |config| config.statement_cache = statements)
    }

    /// Runs `f` on every connection when the connection is opened or replaced: for functions, collations, `ATTACH`,
    /// keys, `PRAGMA`s. Several functions can be given. The commit, authorizer, progress, busy, update and WAL hooks
    /// belong to the library, which sets its own afterwards. Attached files that can be written are switched to WAL
    /// mode, which the files keep. Every write locks them too. So an attached file that a `Database` of this process
    /// has open is refused ([`ErrorKind::AlreadyOpen`]), unless it is attached read-only (`ATTACH 'file:…?mode=ro' AS
    /// …`).
    ///
    /// `f` also runs on the connections of readers, which cannot write. So make tables and rows in
    /// [`Builder::migrations`] or in a call. Settings with which no call could be served are refused by name
    /// ([`ErrorKind::Config`]): `journal_mode` other than WAL, `locking_mode = EXCLUSIVE`, `query_only`,
    /// `count_changes`, and limits that are too small for the library's own statements. Foreign keys are switched on
    /// again afterwards. A backup is checked on a connection on which `f` has run.
    ///
    /// Temporary objects that `f` makes live, with their rows, as long as the connection. After an exclusive call or an
    /// I/O error the connection is replaced, and `f` makes the objects again, empty (`docs/design/state.md`).
    pub fn setup<F>(self, f: F) -> Self
    where
        F: Fn(&Connection) -> rusqlite::Result<()> + Send + Sync + 'static,
    {
        self.set("setup", |config| config.setup.push(Callback::new::<F>(Arc::new(f))))
    }

    /// The limits of one commit: its calls, their running time, and the bytes that the commit adds to the WAL
    /// (estimated from earlier commits). A batch ends after the call that reaches one of these limits. Default: 1,024
    /// calls, 5 ms, 16 MiB.
    pub fn batch_max(self, calls: usize, time: Duration, wal_bytes: u64) -> Self {
        self.set("batch_max", |config| {
            config.batch_calls_max = calls.max(1);
            config.batch_time_max = time;
            config.batch_wal_bytes_max = wal_bytes;
        })
    }

    /// The size in bytes to which the WAL may grow under load before it is copied back into the file. The copy does not
    /// wait for readers. Default: 32 MiB; at most half of [`Builder::wal_bytes_max`]. If both settings are
    /// [`u64::MAX`], the WAL is copied back only when the database is closed.
    pub fn checkpoint_wal_bytes(self, bytes: u64) -> Self {
        self.set("checkpoint_wal_bytes", |config| config.checkpoint_wal_bytes = bytes)
    }

    /// The maximum size of the WAL in bytes. Apart from the exceptions below, the WAL exceeds it by one batch at most,
    /// however long readers run. Default: 64 MiB.
    ///
    /// At this size the writer waits for readers of old states, and ends held snapshots and reads that are older than
    /// 100 ms with [`ErrorKind::SnapshotExpired`]. There are exceptions: the writer does not wait for backups, and it
    /// cannot end readers of other processes and closures that wait for something outside of SQLite. In these cases the
    /// WAL grows on, and [`Stats::wal_over_max`] counts that.
    pub fn wal_bytes_max(self, bytes: u64) -> Self {
        self.set("wal_bytes_max", |config| config.wal_bytes_max = bytes.max(1))
    }

    /// The age at which a held snapshot is released. Default: 60 seconds.
    pub fn snapshot_age_max(self, age: Duration) -> Self {
        self.set("snapshot_age_max", |config| config.snapshot_age_max = age)
    }

    /// The most snapshots that may be held at the same time. Default: 64.
    ///
    /// When the last clone of a snapshot is dropped, its place becomes free immediately. When the future of a snapshot
    /// is dropped while a reader thread is taking the snapshot, its place becomes free once that thread has noticed the
    /// drop.
    pub fn snapshots_max(self, snapshots: usize) -> Self {
        self.set("snapshots_max", |config| config.snapshots_max = snapshots)
    }

    /// Brings the schema up to date on the writer's connection, before any reader is opened.
    ///
    /// With migrations, `open` can also fail with [`ErrorKind::ForeignFile`] or [`ErrorKind::NewerFile`] before it
    /// changes anything, or with [`ErrorKind::Migration`] if a step fails. The failed step is undone; the steps before
    /// it stay. Dropping the opening future does not stop a step that has begun.
    pub fn migrations(mut self, migrations: Migrations) -> Self {
        self.migrations = Some(migrations);
        self
    }

    /// Sheds calls under overload, so that the calls that are accepted keep their latency. Default: never.
    ///
    /// A client is overloaded when, for ten times `target`, each of its calls has waited longer than `target`. From
    /// then on, its calls that have waited longer than `target` are refused with [`ErrorKind::Overloaded`] instead of
    /// being run. This ends when, for ten times `target`, no call of the client has waited longer than `target`. The
    /// time that a call waits for room is part of its wait. Use this for callers that do not slow down, such as
    /// requests from outside. A fixed number of tasks that wait for each answer slows down by itself.
    pub fn shed_after(self, target: Duration) -> Self {
        self.set("shed_after", |config| config.shed_after = Some(target))
    }

    /// What to do with a file on a network file system. Default: [`NetworkFiles::Refuse`].
    pub fn network_files(self, what: NetworkFiles) -> Self {
        self.set("network_files", |config| config.network_files = what)
    }

    /// The most changes that may wait for a subscriber of [`Client::changes`], where each row counts as one. A
    /// subscriber with more loses them and gets [`Change::Lagged`](crate::Change::Lagged). Default: 65,536.
    pub fn feed_capacity(self, changes: usize) -> Self {
        self.set("feed_capacity", |config| config.feed_capacity = changes)
    }

    /// The interval of checks for commits of other processes while the change feed has subscribers and nothing is
    /// written here; each batch of writes checks anyway. The shortest interval is 1 ms; `None`: only batches check.
    /// Default: 200 ms.
    pub fn other_processes(self, interval: Option<Duration>) -> Self {
        self.set("other_processes", |config| config.look_interval = interval)
    }

    /// Whether to keep statistics. Default: yes. Without statistics, [`Database::stats`] returns only what is under
    /// way, and the error of a write that timed out does not say which call held the writer.
    pub fn statistics(self, on: bool) -> Self {
        self.set("statistics", |config| config.statistics = on)
    }

    /// Calls `f` after each call, except for short reads, that waited or ran for at least `threshold`: a slow log. The
    /// report has the times of waiting and of running, and counts the scans, sorts and automatic indexes of the call's
    /// statements. A lease is one call, which runs for as long as the lease is held.
    ///
    /// `f` runs on the thread that ran the call, and the next calls wait for `f`: let it write a line, no more. With
    /// the feature `tracing` each such call is also logged as a warning with the target `lockkeeper::slow`.
    pub fn on_slow<F>(self, threshold: Duration, f: F) -> Self
    where
        F: Fn(&Slow) + Send + Sync + 'static,
    {
        self.set("on_slow", |config| {
            config.on_slow = Some((threshold, Callback::new::<F>(Arc::new(f))));
        })
    }

    /// The name of the SQLite VFS to use.
    pub fn vfs(self, name: &str) -> Self {
        self.set("vfs", |config| config.vfs = Some(name.to_owned()))
    }

    /// Runs `f` on each thread of the database before anything else, for example to pin the thread or to set its
    /// priority.
    pub fn on_thread_start<F>(self, f: F) -> Self
    where
        F: Fn() + Send + Sync + 'static,
    {
        self.set("on_thread_start", |config| {
            config.on_thread_start = Some(Callback::new::<F>(Arc::new(f)));
        })
    }

    /// Runs each write twice, to find closures that must not run more than once. For tests. Default: no.
    ///
    /// [`Client::write`] may run its closure again when another call loses the transaction, which happens too seldom to
    /// be seen in tests. With this setting each write is run, undone, and run again. The value, error or panic of the
    /// first run is dropped; that of the second run is the answer. Only one run is stored, published to subscribers and
    /// counted in the statistics. If the first run loses the transaction, the other calls of the batch run again too,
    /// as always. A call that was canceled or timed out in its first run has no second run; a deadline covers both
    /// runs. Closures that run once, such as those of [`Client::write_once`], of leases and of exclusive calls, are not
    /// affected. A write inside a write runs as often as the outer one.
    ///
    /// # Examples
    /// A closure that counts outside the database counts runs, not writes:
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicI64, Ordering};
    ///
    /// let db = lockkeeper::Database::builder(":memory:").run_writes_twice(true).blocking_open()?;
    /// db.blocking_write(|tx| tx.execute_batch("CREATE TABLE job (id INTEGER PRIMARY KEY)"))?;
    /// let added = Arc::new(AtomicI64::new(0));
    /// let count = Arc::clone(&added);
    /// db.blocking_write(move |tx| {
    ///     count.fetch_add(1, Ordering::Relaxed);
    ///     tx.execute("INSERT INTO job DEFAULT VALUES", [])
    /// })?;
    /// let stored = db.blocking_read(|s| {
    ///     s.query_row("SELECT count(*) FROM job", [], |row| row.get::<_, i64>(0))
    /// })?;
    /// // Caught: one job is stored, and two were counted. Return the number from the closure instead.
    /// assert_eq!((stored, added.load(Ordering::Relaxed)), (1, 2));
    /// # Ok::<_, lockkeeper::Error>(())
    /// ```
    pub fn run_writes_twice(self, on: bool) -> Self {
        self.set("run_writes_twice", |config| config.run_writes_twice = on)
    }

    /// Makes the setting called `name`.
    fn set(mut self, name: &'static str, set: impl FnOnce(&mut Config)) -> Self {
        set(&mut self.config);
        self.made.insert(name);
        self
    }

    /// Opens the database.
    ///
    /// # Errors
    /// As [`Database::open`]; [`ErrorKind::Config`] for a setting that makes no sense.
    ///
    /// # Cancel safety
    /// If the future is dropped, what it has opened is closed in the background.
    pub fn open(self) -> Open {
        let Self { config, migrations, machine, .. } = self;
        Open(Box::pin(async move {
            check(&config)?;
            let (database, writer_built) = Database::start(config, migrations, machine)?;
            database.opened(writer_built).await
        }))
    }

    /// Opens the database, blocking this thread.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn blocking_open(self) -> Result<Database, Error> {
        block_on(self.open())
    }
}

impl Database {
    /// Opens, or creates, the database file at `path` with the defaults of [`Database::builder`].
    ///
    /// The path `:memory:` opens a database in memory, which has the same calls, on one connection. URLs (`file:…`,
    /// `sqlite:…`) are refused; a file with such a name is opened as `./file:…`. A relative path is resolved
    /// against the directory that is current when this function is called. Symbolic links are followed.
    ///
    /// # Errors
    /// [`ErrorKind::Open`], [`ErrorKind::Corrupt`], [`ErrorKind::DiskFull`] or [`ErrorKind::Busy`], with the path and a
    /// hint. [`ErrorKind::AlreadyOpen`] if this process has the file open, even by another name;
    /// [`ErrorKind::NetworkFileSystem`] and [`ErrorKind::SqliteVersion`] where SQLite could damage the file or lose
    /// commits.
    ///
    /// # Cancel safety
    /// If the future is dropped, what it has opened is closed in the background.
    #[track_caller]
    pub fn open(path: impl AsRef<Path>) -> Open {
        Self::builder(path).open()
    }

    /// Opens the database file at `path`, blocking this thread.
    ///
    /// # Errors
    /// As [`Database::open`].
    #[track_caller]
    pub fn blocking_open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder(path).blocking_open()
    }

    /// A [`Builder`] with the default settings for the database at `path`.
    #[track_caller]
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        let config = Config::new(path::place(path.as_ref()));
        Builder { config, migrations: None, made: BTreeSet::new(), machine: Machine::default() }
    }
}

impl Migrations {
    /// Checks the list of steps, and runs them on an empty database in memory. Meant for a test of one line. Blocks
    /// this thread.
    ///
    /// This database has no [`setup`](crate::Builder::setup). To test steps that need functions or attached files of
    /// `setup`, open `:memory:` with both `setup` and the migrations.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: the application id is 0, or a step has no name, or two steps have the same name.
    /// [`ErrorKind::Migration`]: a step failed; the error says why.
    ///
    /// # Examples
    /// ```
    /// fn migrations() -> lockkeeper::Migrations {
    ///     lockkeeper::Migrations::new(i32::from_be_bytes(*b"shop"))
    ///         .sql("accounts", "CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT)")
    ///         .sql("index", "CREATE INDEX account_by_name ON account (nam)") // a typing error
    /// }
    ///
    /// // #[test] fn migrations_apply() { migrations().validate().unwrap() }
    /// let error = migrations().validate().unwrap_err();
    /// assert!(error.to_string().contains("step 2 (`index`) failed: no such column: nam"), "{error}");
    /// ```
    pub fn validate(&self) -> Result<(), Error> {
        self.check_list()?;
        let scratch = Database::builder(":memory:").readers(1).migrations(self.clone());
        scratch.blocking_open()?.blocking_close().map(drop)
    }
}

/// A database being opened; see [`Database::open`].
#[must_use = "opening begins when the future is polled"]
pub struct Open(Pin<Box<dyn Future<Output = Result<Database, Error>> + Send>>);

impl Future for Open {
    type Output = Result<Database, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").finish_non_exhaustive()
    }
}

/// The most readers. Each reader is a thread with a connection, and opening the database waits for all of them.
const READERS_MAX: usize = 1024;

pub(crate) fn check(config: &Config) -> Result<(), Error> {
    if let Place::Nowhere(why) = &config.place {
        return Err(Error::new(ErrorKind::Open).detail(why.clone()));
    }
    let wrong = |detail: &'static str| Err(Error::new(ErrorKind::Config).detail(detail));
    if config.is_memory() && config.is_read_only() {
        return wrong(
            "a database in memory begins empty, so read_only leaves nothing to read; name a file",
        );
    }
    if config.readers > READERS_MAX {
        let detail = format!(
            "readers is {}, and each is a thread that is always there; give 1 to {READERS_MAX}",
            config.readers
        );
        return Err(Error::new(ErrorKind::Config).detail(detail));
    }
    if config.queue_capacity == 0 {
        return wrong("queue_capacity is 0, so no call could be accepted; give at least 1");
    }
    if config.readers == 0 {
        return wrong("readers is 0, so no read could be served; give at least 1");
    }
    Ok(())
}
