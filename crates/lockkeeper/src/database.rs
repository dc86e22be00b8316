//! `Database`: one writer queue, one reader queue, and the order in which they open and close.
//!
//! Opening: the writer first, because it creates the file and switches it to WAL; then the readers.
//! Closing is the reverse: readers, connections of short reads, held snapshots, and the writer's
//! connection last, which removes the WAL.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::client::handle::{Client, Inner};
use crate::client::stop::{StopWrites, StoppedWrites};
use crate::config::Config;
use crate::engine::core::Core;
use crate::error::{Error, ErrorKind};
#[cfg(feature = "metrics")]
use crate::export::Exporter;
use crate::queue::{
    self, Awaited, Built, Circle, Clock, Closed, Closing, Domain, Look, Pool, PoolConfig, Receiver,
    StartError, Wait, block_on,
};
use crate::reader::Reader;
use crate::sqlite::instance;
use crate::sqlite::migrate::Migrations;
use crate::sqlite::preflight::{self, Machine};
use crate::stats::Stats;
use crate::sync::lock;
use crate::writer::Writer;

/// How long the writer thread looks for another call before it sleeps: long enough for a caller whose CPU is idle to
/// wake up and submit its next write. A single caller that waits for the disk each time gains nothing from a look.
const WRITER_LOOK: Look = Look {
    long: Duration::from_micros(150),
    short: Duration::from_micros(50),
    lone: Some(Duration::from_micros(50)),
};

/// How long a reader thread looks for another call before it sleeps. The thread yields to the callers that it has
/// answered, and most of them submit their next calls before it sleeps. A longer look would take CPU time from these
/// callers.
const READER_LOOK: Look =
    Look { long: Duration::from_micros(50), short: Duration::from_micros(5), lone: None };

/// The threads of an open database, and what they share with its handles.
struct Threads {
    core: Arc<Core>,
    writer_pool: Arc<Pool<Writer, Error>>,
    reader_pool: Arc<Pool<Reader, Error>>,
}

impl Closing for Threads {
    fn is_forked(&self) -> bool {
        self.core.check_process().is_err()
    }

    fn close(&self) {
        self.core.readers.close();
        self.core.writer.close();
    }

    fn abort(&self) {
        self.core.abort();
    }

    fn gone(&self) -> Receiver<()> {
        // The writer's thread ends last: it waits for the readers.
        self.core.writer.gone()
    }

    fn join(&self) {
        self.reader_pool.join();
        self.writer_pool.join();
    }

    fn clock(&self) -> &Clock {
        &self.core.clock
    }

    fn domain(&self) -> Domain {
        self.core.domain
    }
}

/// Closes the database when its last handle is dropped.
pub(crate) struct Shutdown(Arc<Threads>);

impl Shutdown {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        match self.0.core.check_process() {
            Ok(()) => self.0.close(),
            // In a forked child: threads and connections belong to the parent process.
            Err(_) => self.0.core.short.forget(),
        }
    }
}

/// An open database. Cheap to clone; derefs to its main [`Client`], which has the calls.
///
/// `E` is the error type of the closures, see [`Client::with_error`].
///
/// When the last handle is dropped (clients and unsubmitted calls are handles too), the database serves the calls that
/// were accepted, and closes. The drop never blocks; use [`Database::close`] to wait for the end.
///
/// # Examples
/// ```
/// # futures_lite::future::block_on(async {
/// let db = lockkeeper::Database::open(":memory:").await?;
/// db.write(|tx| tx.execute_batch("CREATE TABLE input (id INTEGER PRIMARY KEY, name TEXT)")).await?;
/// let name = String::from("packages");
/// let id = db
///     .write(move |tx| {
///         tx.prepare_cached("INSERT INTO input (name) VALUES (?1)")?.execute([&name])?;
///         Ok(tx.last_insert_rowid())
///     })
///     .await?;
/// let n: i64 = db.read(|s| s.query_row("SELECT count(*) FROM input", [], |row| row.get(0))).await?;
/// assert_eq!((id, n), (1, 1));
/// db.close().await?;
/// # Ok::<_, lockkeeper::Error>(()) }).unwrap();
/// ```
pub struct Database<E = rusqlite::Error> {
    client: Client<E>,
    pub(crate) shutdown: Arc<Shutdown>,
}

impl<E> Clone for Database<E> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), shutdown: Arc::clone(&self.shutdown) }
    }
}

// A panic inside a call leaves the database and its handles in a valid state; see `Client` in `client/handle.rs`.
impl<E> UnwindSafe for Database<E> {}
impl<E> RefUnwindSafe for Database<E> {}

impl<E> Deref for Database<E> {
    type Target = Client<E>;

    fn deref(&self) -> &Client<E> {
        &self.client
    }
}

impl<E> fmt::Debug for Database<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("config", &self.core().config).finish()
    }
}

impl<E> Database<E> {
    /// A database handle with the lanes of calls that name no client.
    pub(crate) fn of(shutdown: Arc<Shutdown>) -> Self {
        Self { client: Client::of(handle(&shutdown, None)), shutdown }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.client.inner.core
    }
}

/// A handle with the lanes of the client called `name`; `None`: with the lanes of calls that name no client.
fn handle(shutdown: &Arc<Shutdown>, name: Option<&str>) -> Arc<Inner> {
    let open: Arc<dyn Any + Send + Sync> = Arc::<Shutdown>::clone(shutdown);
    Inner::new(shutdown.core(), name, open)
}

impl<E: Send + 'static> Database<E> {
    /// Warnings for the operator about the database's file; usually none. The list has what was found when the database
    /// was opened, and what is found now: other hard links to the file, or that the file was deleted or replaced. This
    /// calls `stat`, but opens no file.
    pub fn warnings(&self) -> Vec<String> {
        let core = self.core();
        let mut warnings = core.warnings.get().cloned().unwrap_or_default();
        match core.opener.file.check() {
            Err(lost) => warnings.push(lost.to_string()),
            Ok(()) => warnings.extend(preflight::names(&core.opener.file)),
        }
        warnings
    }

    /// The client called `name`: a lane of its own in both queues.
    ///
    /// Lanes share the writer and the readers by deficit round robin over running time. However many calls one client
    /// has waiting, a single call of another client waits for one batch at most.
    pub fn client(&self, name: &str) -> Client<E> {
        Client::of(handle(&self.shutdown, Some(name)))
    }

    /// A handle whose closures return `Result<T, F>` and whose calls return `Result<T, Error<F>>`.
    ///
    /// `F` may be anything: an enum of your own (see [`Error::flatten`]), `anyhow::Error`, `eyre::Report`,
    /// `Box<dyn Error + Send + Sync>`.
    ///
    /// # Examples
    /// ```
    /// #[derive(Debug)]
    /// enum Bank { TooPoor, Sql(rusqlite::Error) }
    /// impl From<rusqlite::Error> for Bank {
    ///     fn from(error: rusqlite::Error) -> Self { Bank::Sql(error) }
    /// }
    /// let db = lockkeeper::Database::blocking_open(":memory:").unwrap().with_error::<Bank>();
    /// let error = db.blocking_write(|tx| {
    ///     let cents: i64 = tx.query_row("SELECT 5", [], |row| row.get(0))?;
    ///     if cents < 10 { Err(Bank::TooPoor) } else { Ok(cents) }
    /// });
    /// assert!(matches!(error.unwrap_err().into_call(), Ok(Bank::TooPoor)));
    /// ```
    pub fn with_error<F: Send + 'static>(&self) -> Database<F> {
        Database { client: self.client.with_error(), shutdown: Arc::clone(&self.shutdown) }
    }

    /// What the database has done since it was opened, and what it is doing. This takes a few locks for a moment and
    /// asks the file system for the size of the WAL. It is cheap enough to be called once a second.
    ///
    /// # Examples
    /// ```
    /// let db = lockkeeper::Database::blocking_open(":memory:").unwrap();
    /// db.blocking_write(|tx| tx.execute_batch("CREATE TABLE t (x)")).unwrap();
    /// let stats = db.stats();
    /// assert_eq!(stats.writes.run.count(), 1);
    /// println!("99 of 100 commits took at most {:?}", stats.commit.quantile_time(0.99));
    /// ```
    pub fn stats(&self) -> Stats {
        self.core().stats()
    }

    /// Hands the statistics to the recorder of the crate `metrics`, under the label `database = name`,
    /// whenever [`Exporter::export`] is called (feature `metrics`). One exporter per database; it does
    /// not keep the database open.
    ///
    /// # Examples
    /// ```
    /// // The program installs a recorder, such as that of `metrics-exporter-prometheus`.
    /// let recorder = metrics_util::debugging::DebuggingRecorder::new();
    /// let scrape = recorder.snapshotter();
    /// recorder.install().unwrap();
    ///
    /// let db = lockkeeper::Database::blocking_open(":memory:").unwrap();
    /// let mut exporter = db.exporter("app");
    /// db.blocking_write(|tx| tx.execute_batch("CREATE TABLE t (x)")).unwrap();
    /// assert!(exporter.export()); // before each scrape, or every few seconds
    /// let held = scrape.snapshot().into_vec();
    /// assert!(held.iter().any(|(key, ..)| key.key().name() == "lockkeeper_commit_seconds"));
    /// ```
    #[cfg(feature = "metrics")]
    pub fn exporter(&self, name: impl Into<String>) -> Exporter {
        Exporter::new(self.core(), name.into().into())
    }

    /// Refuses writes from now on, and waits until the writes that were made before are answered. Reads, snapshots,
    /// backups and the change feed go on.
    ///
    /// Every call of every client that could write fails immediately with [`ErrorKind::WritesStopped`], and nothing of
    /// it is stored. This waits for a lease that was taken before. When the future is ready, the WAL has been copied
    /// back into the file as far as readers of old states allow. Until the returned [`StoppedWrites`] is dropped, this
    /// process changes neither the file nor its WAL; then writes go on. If there are several [`StoppedWrites`], writes
    /// go on when the last of them is dropped.
    ///
    /// Use this to copy the whole directory with a tool of the system (copy the `-wal` as well, if it is not empty), or
    /// before a shutdown, while the program still answers reads. [`Database::close`] does not need this. Other
    /// processes are not stopped.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`]; [`ErrorKind::Replaced`]; [`ErrorKind::Nested`] from inside a call of this database,
    /// because this would wait for that call; [`ErrorKind::Forked`]. After an error, writes go on.
    ///
    /// # Cancel safety
    /// If the future is dropped, writes go on, as when the [`StoppedWrites`] is dropped. Nothing happens before the
    /// future is polled.
    ///
    /// # Examples
    /// ```
    /// use lockkeeper::{Database, ErrorKind};
    ///
    /// # futures_lite::future::block_on(async {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("app.db");
    /// # let copy = dir.path().join("copy.db");
    /// let db = Database::open(&path).await?;
    /// db.write(|tx| tx.execute_batch("CREATE TABLE t (x)")).await?;
    ///
    /// let stopped = db.stop_writes().await?;
    /// std::fs::copy(&path, &copy)?;
    /// let error = db.write(|tx| tx.execute("INSERT INTO t VALUES (1)", [])).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::WritesStopped);
    /// assert!(db.read(|s| s.table_exists(None, "t")).await?);
    ///
    /// drop(stopped);
    /// db.write(|tx| tx.execute("INSERT INTO t VALUES (1)", [])).await?;
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn stop_writes(&self) -> StopWrites {
        StopWrites::new(&self.client.inner)
    }

    /// As [`Database::stop_writes`], blocking this thread.
    ///
    /// # Errors
    /// As [`Database::stop_writes`].
    pub fn blocking_stop_writes(&self) -> Result<StoppedWrites, Error> {
        block_on(self.stop_writes())
    }

    /// Stops accepting calls, serves those that were accepted, closes every connection and joins every thread.
    ///
    /// Calls that waited for room get [`ErrorKind::Closed`]. With [`Close::deadline`], calls that are not served by
    /// then are aborted: waiting calls are refused, and running calls are interrupted.
    ///
    /// # Errors
    /// [`ErrorKind::Nested`] from inside a call; [`ErrorKind::Forked`] in a forked child. An error of SQLite
    /// ([`ErrorKind::DiskFull`], [`ErrorKind::Sqlite`], …): everything has ended and the writes that were answered
    /// are stored, but the WAL could not be copied back and is still needed beside the file. [`ErrorKind::Replaced`]:
    /// everything is closed, but the file was not in its place any more.
    ///
    /// # Cancel safety
    /// Once the future was polled, the close goes on even if the future is dropped.
    pub fn close(&self) -> Close {
        self.close_with(false)
    }

    /// As [`Database::close`], but refuses the calls that wait and interrupts those that run.
    pub fn abort(&self) -> Close {
        self.close_with(true)
    }

    fn close_with(&self, abort: bool) -> Close {
        let threads = Arc::clone(&self.shutdown.0);
        let core = Arc::clone(&threads.core);
        Close { inner: queue::Close::new(threads, abort), core }
    }

    /// As [`Database::close`], blocking this thread.
    ///
    /// # Errors
    /// As [`Database::close`].
    pub fn blocking_close(&self) -> Result<Closed, Error> {
        block_on(self.close())
    }
}

/// A close under way; see [`Database::close`].
#[must_use = "closing begins when the future is polled"]
pub struct Close {
    inner: queue::Close,
    core: Arc<Core>,
}

impl fmt::Debug for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Close").field(&self.inner).finish()
    }
}

impl Close {
    /// Aborts the calls that have not been served after `patience`.
    pub fn deadline(self, patience: Duration) -> Self {
        Self { inner: self.inner.deadline(patience), ..self }
    }
}

impl Future for Close {
    type Output = Result<Closed, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.inner).poll(context).map(|closed| match closed {
            Closed::Forked => Err(Error::new(ErrorKind::Forked)),
            Closed::Nested => Err(Error::new(ErrorKind::Nested)),
            closed => {
                let left = || lock(&self.core.wal_left).take();
                self.core.opener.file.lost().or_else(left).map_or(Ok(closed), Err)
            }
        })
    }
}

impl Database {
    /// Starts the writer's thread. The receiver gets a message when the writer has opened the file, or could not open
    /// it.
    pub(crate) fn start(
        mut config: Config,
        migrations: Option<Migrations>,
        machine: Machine,
    ) -> Result<(Self, Receiver<Built<Error>>), Error> {
        config.readers_max = config.readers_max.max(config.readers);
        if config.is_memory() {
            // In memory, reads run on the writer's connection. Readers only serve snapshots, which are copies of the
            // database.
            config.readers = 1;
        }
        let core = Core::new(config, migrations, machine);
        let on_start = core.config.on_thread_start.clone().map(|start| start.f);
        let name = String::from("lockkeeper-writer");
        let look = Some(WRITER_LOOK);
        let writer = PoolConfig { name, min: 1, max: 1, look, on_start: on_start.clone() };
        let for_writer = Arc::clone(&core);
        let writer_pool =
            Pool::new(Arc::clone(&core.writer), writer, Arc::clone(&core.clock), move || {
                Writer::open(Arc::clone(&for_writer))
            });
        let readers = PoolConfig {
            name: String::from("lockkeeper-read"),
            min: core.config.readers,
            max: core.config.readers_max,
            look: Some(READER_LOOK),
            on_start,
        };
        let for_readers = Arc::clone(&core);
        let reader_pool =
            Pool::new(Arc::clone(&core.readers), readers, Arc::clone(&core.clock), move || {
                Reader::open(Arc::clone(&for_readers))
            });
        // A weak reference, because the pool holds the core: strong references both ways would never be freed.
        let pool = Arc::downgrade(&reader_pool);
        let check_for_stall = move || {
            if let Some(pool) = pool.upgrade() {
                pool.check_for_stall();
            }
        };
        let _ = core.check_for_stall.set(Box::new(check_for_stall));
        let mut built = writer_pool.start().map_err(not_started)?;
        let built = built.pop().ok_or_else(|| Error::new(ErrorKind::Faulted))?;
        let shutdown = Shutdown(Arc::new(Threads { core, writer_pool, reader_pool }));
        Ok((Self::of(Arc::new(shutdown)), built))
    }

    /// Waits for the writer, which reports through `writer_built`, and then opens the readers.
    pub(crate) async fn opened(self, writer_built: Receiver<Built<Error>>) -> Result<Self, Error> {
        // If the database is opened inside a call, `setup` may wait for that call, and this waits for `setup`: a
        // circle, which the error reports.
        let domain = self.core().domain;
        let _wait = Wait::enter(|| Awaited::All(domain), true)
            .map_err(|Circle| Error::new(ErrorKind::Nested))?;
        writer_built.await.unwrap_or(Err(StartError::Faulted)).map_err(not_started)?;
        // The file exists and is in WAL mode, so readers can open it.
        let readers = self.shutdown.0.reader_pool.start().map_err(not_started)?;
        for built in readers {
            built.await.unwrap_or(Err(StartError::Faulted)).map_err(not_started)?;
        }
        // From now on other openers can share the instance (SH1 of `shared.rs`).
        instance::share(&self.core().writer, Arc::new(self.downgrade()));
        Ok(self)
    }
}

fn not_started(error: StartError<Error>) -> Error {
    match error {
        StartError::Build(error) => error,
        other => Error::new(ErrorKind::Faulted).detail(other.to_string()),
    }
}
