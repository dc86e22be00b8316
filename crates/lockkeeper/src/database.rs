//! `Database`: one writer queue, one reader queue, and the order in which they open and close.
//!
//! Opening: the writer first, because it creates the file and switches it to WAL; then the readers.
//! Closing is the reverse: readers, connections of short reads, held snapshots, and the writer's
//! connection last, which removes the WAL.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::Location;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use rusqlite::Connection;

use crate::backup::Backup;
use crate::config::{Config, NetworkFiles, Synchronous};
use crate::error::{Error, ErrorKind};
use crate::exclusive::Exclusive;
use crate::feed::{Changes, Feed, Live, Watch};
use crate::holders::{Board, Origin};
use crate::job::{Many, Meta, Once, ReaderItem, WriterItem};
use crate::lease::{self, Leases};
use crate::migrate::Migrations;
use crate::queue::{
    self, Alarm, Clock, Closed, Closing, Domain, Lane, Mutex, Pool, PoolConfig, Priority, Queue,
    Receiver, Refused, block_on, lock,
};
use crate::read::Read;
use crate::reader::Reader;
use crate::short::ShortReads;
use crate::snapshot::Held;
use crate::snapshots::Snapshots;
use crate::stats::{ClientStats, LaneStats, Meters, Slow, Stats};
use crate::transaction::{Snapshot, Transaction};
use crate::write::{SubmittedWrite, Write};
use crate::writer::Writer;

/// Read transactions, after a batch of writes, after which a reader yields the processor.
pub(crate) const DEFERENCE: u8 = 16;

/// What the threads and the handles of one database share.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) domain: Domain,
    pub(crate) writer: Arc<Queue<WriterItem>>,
    pub(crate) readers: Arc<Queue<ReaderItem>>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) short: ShortReads,
    pub(crate) feed: Arc<Feed>,
    pub(crate) meters: Meters,
    /// The writer is told from time to time to look whether another process has committed something.
    look: AtomicBool,
    next_look: Mutex<Option<Alarm>>,
    /// Read transactions after which readers still yield the processor: raised by each batch of
    /// the writer to [`DEFERENCE`], lowered by the readers. A hint; nothing else rests on it.
    pub(crate) deference: AtomicU8,
    /// Held snapshots, to be released on close. Bounded by `snapshots_max`.
    held: Mutex<HeldList>,
    /// The lease that the writer serves, to be ended by an abort. One at most.
    pub(crate) lease: Mutex<Option<Arc<lease::Shared>>>,
    /// Owned by [`Parts`]; the pool's factory holds the core.
    reader_pool: OnceLock<Weak<Pool<Reader, Error>>>,
    /// The process that opened the database.
    pid: u32,
    /// What its owner should know; set once, by the writer's thread before it opens the file.
    pub(crate) warnings: OnceLock<Vec<String>>,
}

#[derive(Default)]
struct HeldList {
    list: Vec<Weak<Held>>,
    count: usize,
}

/// A place among the held snapshots; given up when dropped, unless kept.
pub(crate) struct Room<'c>(Option<&'c Core>);

impl Room<'_> {
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(core) = self.0 {
            core.snapshot_released();
        }
    }
}

impl Core {
    pub(crate) fn check_process(&self) -> Result<(), ErrorKind> {
        match std::process::id() == self.pid {
            true => Ok(()),
            false => Err(ErrorKind::Forked),
        }
    }

    pub(crate) fn check_for_stall(&self) {
        if let Some(pool) = self.reader_pool.get().and_then(Weak::upgrade) {
            pool.check_for_stall();
        }
    }

    /// Has the writer look for commits of other processes as long as somebody listens.
    pub(crate) fn keep_looking(self: &Arc<Self>) {
        if self.look.load(Ordering::Relaxed) || self.config.is_memory() {
            return;
        }
        if let Some(interval) = self.config.look_interval
            && !self.look.swap(true, Ordering::SeqCst)
        {
            self.look_after(interval);
        }
    }

    fn look_after(self: &Arc<Self>, interval: Duration) {
        let core = Arc::downgrade(self);
        let alarm = self.clock.set(queue::after(interval), move || {
            if let Some(core) = core.upgrade() {
                core.look_now(interval);
            }
        });
        let before = lock(&self.next_look).replace(alarm);
        drop(before);
    }

    fn look_now(self: &Arc<Self>, interval: Duration) {
        if !self.feed.is_watched() {
            self.look.store(false, Ordering::SeqCst);
            // Somebody may have subscribed in between, and have seen the flag still up.
            if self.feed.is_watched() {
                self.keep_looking();
            }
            return;
        }
        // No room: the writer is busy, and looks at the beginning of each batch anyway.
        drop(self.writer.try_push(queue::MAIN, WriterItem::Look));
        self.look_after(interval);
    }

    pub(crate) fn snapshot_room(&self) -> Result<Room<'_>, Error> {
        let mut held = lock(&self.held);
        if held.count >= self.config.snapshots_max {
            let detail = format!("{} are held; drop some, or raise `snapshots_max`", held.count);
            return Err(Error::new(ErrorKind::TooManySnapshots).detail(detail));
        }
        held.count += 1;
        Ok(Room(Some(self)))
    }

    pub(crate) fn register(&self, snapshot: &Arc<Held>) {
        let mut held = lock(&self.held);
        held.list.retain(|other| other.strong_count() > 0);
        held.list.push(Arc::downgrade(snapshot));
    }

    pub(crate) fn snapshot_released(&self) {
        lock(&self.held).count -= 1;
    }

    /// Has a connection kept or closed by a reader thread; here, when there is none any more.
    pub(crate) fn retire(&self, conn: Box<Snapshot>) {
        // A refusal hands the connection back, and dropping it closes it.
        drop(self.readers.push(queue::MAIN, ReaderItem::Retire(conn)));
    }

    /// Ends held snapshots and reads older than `age`, so that the WAL can start over.
    pub(crate) fn cut_readers(&self, age: Duration) {
        let held: Vec<_> = lock(&self.held).list.iter().filter_map(Weak::upgrade).collect();
        let mut cut = 0;
        for snapshot in held.iter().filter(|snapshot| snapshot.age() >= age) {
            cut += u64::from(snapshot.release(ErrorKind::SnapshotExpired));
        }
        cut += self.config.board.cut_reads(age);
        self.meters.readers_cut.fetch_add(cut, Ordering::Relaxed);
    }

    /// Asks the reads on held snapshots to stop. A reader may run several one after another, and
    /// the queue knows only the first.
    fn abort_snapshots(&self) {
        let held: Vec<_> = lock(&self.held).list.iter().filter_map(Weak::upgrade).collect();
        held.iter().for_each(|snapshot| snapshot.abort());
    }

    /// Ends the lease that the writer waits for. To be called after the writer's queue was aborted.
    fn abort_lease(&self) {
        let lease = lock(&self.lease).clone();
        if let Some(lease) = lease {
            lease.end(ErrorKind::Canceled);
        }
    }

    /// Blocks until no connection but the caller's is open.
    pub(crate) fn wait_for_readers(&self) {
        self.readers.close();
        let _ = block_on(self.readers.gone());
        self.short.close();
        let held = std::mem::take(&mut lock(&self.held).list);
        for snapshot in held.iter().filter_map(Weak::upgrade) {
            snapshot.release(ErrorKind::Closed);
        }
    }
}

struct Parts {
    core: Arc<Core>,
    writer_pool: Arc<Pool<Writer, Error>>,
    reader_pool: Arc<Pool<Reader, Error>>,
}

impl Closing for Parts {
    fn is_forked(&self) -> bool {
        self.core.check_process().is_err()
    }

    fn close(&self) {
        self.core.readers.close();
        self.core.writer.close();
    }

    fn abort(&self) {
        self.core.readers.abort();
        self.core.writer.abort();
        self.core.abort_snapshots();
        self.core.abort_lease();
    }

    fn gone(&self) -> Receiver<()> {
        // The writer waits for the readers before it leaves.
        self.core.writer.gone()
    }

    fn join(&self) {
        self.reader_pool.join();
        self.writer_pool.join();
    }

    fn clock(&self) -> &Clock {
        &self.core.clock
    }
}

/// Closes the database when the last handle goes.
struct Shutdown(Arc<Parts>);

impl Drop for Shutdown {
    fn drop(&mut self) {
        match self.0.core.check_process() {
            Ok(()) => self.0.close(),
            // The threads, and perhaps locks, are the parent's.
            Err(_) => self.0.core.short.forget(),
        }
    }
}

/// An open database. Cheap to clone; derefs to its main [`Client`], which has the calls.
///
/// `E` is the error type of the closures, see [`Client::with_error`].
///
/// When the last handle (clients and unsubmitted calls included) goes, the database serves what was
/// accepted and closes; that never blocks. Use [`Database::close`] to wait for it.
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
}

/// A client of a database: its calls take turns with those of the other clients.
///
/// Clients of one name share a lane. See [`Database::client`].
pub struct Client<E = rusqlite::Error> {
    pub(crate) inner: Arc<Inner>,
    error: PhantomData<fn() -> E>,
}

pub(crate) struct Inner {
    pub(crate) writes: Arc<Lane<WriterItem>>,
    pub(crate) reads: Arc<Lane<ReaderItem>>,
    shutdown: Arc<Shutdown>,
    /// The client's name; `None`: the database's own handle.
    label: Option<Arc<str>>,
}

impl Inner {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.shutdown.0.core
    }
}

impl<E> Clone for Database<E> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone() }
    }
}

impl<E> Clone for Client<E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), error: PhantomData }
    }
}

impl<E> Deref for Database<E> {
    type Target = Client<E>;

    fn deref(&self) -> &Client<E> {
        &self.client
    }
}

impl<E> fmt::Debug for Database<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("config", &self.client.inner.core().config).finish()
    }
}

impl<E> fmt::Debug for Client<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("lane", &self.inner.writes.id).finish_non_exhaustive()
    }
}

impl Database {
    /// Opens, or creates, the database file at `path` with the defaults of [`Database::builder`].
    ///
    /// The path `:memory:` opens a database in memory: the same calls, on one connection.
    ///
    /// # Errors
    /// [`ErrorKind::Open`], [`ErrorKind::Corrupt`] or [`ErrorKind::Busy`], with the path and a hint.
    /// [`ErrorKind::AlreadyOpen`] if this process has the file open, also by a link;
    /// [`ErrorKind::NetworkFileSystem`] and [`ErrorKind::SqliteVersion`] where files get damaged.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened, in the background.
    #[track_caller]
    pub fn open(path: impl AsRef<Path>) -> impl Future<Output = Result<Self, Error>> + Send {
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

    /// Starts to describe how the database at `path` is to be opened.
    #[track_caller]
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder { config: Config::new(path.as_ref()) }
    }
}

impl<E: Send + 'static> Database<E> {
    /// What was found doubtful when the database was opened, for the operator's eyes; usually nothing.
    pub fn warnings(&self) -> Vec<String> {
        self.client.inner.core().warnings.get().cloned().unwrap_or_default()
    }

    /// The client called `name`: a lane of its own in both queues.
    ///
    /// Lanes share the writer and the readers by deficit round robin over running time. However
    /// many calls one client has waiting, another's single call waits for one batch at most.
    pub fn client(&self, name: &str) -> Client<E> {
        let core = self.client.inner.core();
        let inner = Inner {
            writes: Lane::named(&core.writer, name),
            reads: Lane::named(&core.readers, name),
            shutdown: Arc::clone(&self.client.inner.shutdown),
            label: Some(name.into()),
        };
        Client { inner: Arc::new(inner), error: PhantomData }
    }

    /// A handle whose closures return `Result<T, F>` and whose calls return `Result<T, Error<F>>`.
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
        Database { client: self.client.with_error() }
    }

    /// What the database has done since it was opened, and what it is doing. Takes a few locks for a
    /// moment and asks the file system for the size of the WAL; cheap enough for once a second.
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
        let core = self.client.inner.core();
        let mut clients: Vec<ClientStats> = Vec::new();
        for lane in core.writer.lane_figures() {
            let writes = LaneStats { waiting: lane.waiting, taken: lane.taken, run: lane.run };
            clients.push(ClientStats { name: lane.name, writes, reads: LaneStats::default() });
        }
        for lane in core.readers.lane_figures() {
            let reads = LaneStats { waiting: lane.waiting, taken: lane.taken, run: lane.run };
            match clients.iter_mut().find(|client| client.name == lane.name) {
                Some(client) => client.reads = reads,
                None => clients.push(ClientStats {
                    name: lane.name,
                    writes: LaneStats::default(),
                    reads,
                }),
            }
        }
        Stats {
            wal_bytes: core.config.wal_bytes(),
            oldest_reader: core.config.board.oldest_reader(),
            writing: core.config.board.writing(),
            snapshots: lock(&core.held).count,
            clients,
            ..core.meters.read()
        }
    }

    /// Stops intake, serves what was accepted, closes every connection and joins every thread.
    ///
    /// Calls that waited for room get [`ErrorKind::Closed`]. With [`Close::deadline`], what is not
    /// served by then is aborted: waiting calls are refused, running ones interrupted.
    ///
    /// # Errors
    /// [`ErrorKind::Nested`] from inside a call; [`ErrorKind::Forked`] in a forked child.
    ///
    /// # Cancel safety
    /// Once polled, the close goes on when the future is dropped.
    pub fn close(&self) -> Close {
        self.close_with(false)
    }

    /// As [`Database::close`], but refuses what waits and interrupts what runs.
    pub fn abort(&self) -> Close {
        self.close_with(true)
    }

    fn close_with(&self, abort: bool) -> Close {
        let parts = Arc::clone(&self.client.inner.shutdown.0);
        let domain = parts.core.domain;
        Close { inner: queue::Close::new(parts, abort), domain }
    }

    /// Closes and blocks this thread until everything has ended.
    ///
    /// # Errors
    /// As [`Database::close`].
    pub fn blocking_close(&self) -> Result<Closed, Error> {
        block_on(self.close())
    }
}

/// A close under way; see [`Database::close`].
#[must_use = "closing begins when the future is polled"]
#[derive(Debug)]
pub struct Close {
    inner: queue::Close,
    domain: Domain,
}

impl Close {
    /// Aborts what has not been served after `patience`.
    pub fn deadline(self, patience: Duration) -> Self {
        Self { inner: self.inner.deadline(patience), domain: self.domain }
    }
}

impl Future for Close {
    type Output = Result<Closed, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Err(error) = queue::ancestry_for(self.domain) {
            return Poll::Ready(Err(error.into()));
        }
        Pin::new(&mut self.inner).poll(context).map(|closed| match closed {
            Closed::Forked => Err(Error::new(ErrorKind::Forked)),
            closed => Ok(closed),
        })
    }
}

impl<E> Client<E> {
    /// What a call of this client carries.
    pub(crate) fn meta(&self, place: &'static Location<'static>) -> Meta {
        Meta::new(Origin { client: self.inner.label.clone(), place })
    }
}

impl<E: Send + 'static> Client<E> {
    /// This client's share of the running time, relative to the others'. Default: 1.
    pub fn weight(self, weight: u32) -> Self {
        let core = self.inner.core();
        core.writer.set_weight(self.inner.writes.id, weight);
        core.readers.set_weight(self.inner.reads.id, weight);
        self
    }

    /// Whether this client's calls go first or last. Low ones are served in at least every ninth
    /// batch. Default: [`Priority::High`].
    pub fn priority(self, priority: Priority) -> Self {
        let core = self.inner.core();
        core.writer.set_priority(self.inner.writes.id, priority);
        core.readers.set_priority(self.inner.reads.id, priority);
        self
    }

    /// This client with closures that return another error; see [`Database::with_error`].
    pub fn with_error<F: Send + 'static>(&self) -> Client<F> {
        Client { inner: Arc::clone(&self.inner), error: PhantomData }
    }

    /// Runs `f` on the writer connection inside a transaction that it may share with other calls.
    ///
    /// A client's writes run one at a time in submission order. `Ok` keeps what `f` wrote, `Err` or
    /// a panic undoes it, and neither touches a neighbour. The call is answered after the commit:
    /// at [`Synchronous::Full`] it is then on the disk. No reader sees anything in between. When
    /// this client's share of the queue is full the future waits for room.
    ///
    /// `f` may run more than once: when SQLite gives up the whole transaction because of another
    /// call (interrupt, full disk, `OR ROLLBACK`), the calls before it are run again. Only the last
    /// run's effects are kept. Use [`Client::write_once`] where that is not acceptable.
    ///
    /// Never wait for anything inside `f`; there is only one writer.
    ///
    /// # Errors
    /// `f`'s own error ([`Error::into_call`]), or why it was not stored ([`Error::kind`]).
    ///
    /// # Panics
    /// Resumes a panic of `f` on the caller; its writes are undone and the writer lives on.
    ///
    /// # Cancel safety
    /// Dropped while waiting: `f` never runs and its place is free at once. Dropped while running:
    /// `f` is interrupted and undone, or completes; either way the transaction is whole. A caller
    /// that retries should make `f` idempotent.
    ///
    /// # Examples
    /// ```
    /// # futures_lite::future::block_on(async {
    /// # let db = lockkeeper::Database::open(":memory:").await?;
    /// # db.write(|tx| tx.execute_batch("CREATE TABLE input (id INTEGER PRIMARY KEY, name TEXT)")).await?;
    /// let sql = "INSERT INTO input (name) VALUES (?1) RETURNING id";
    /// let id = db.write(move |tx| tx.query_row(sql, ["packages"], |row| row.get::<_, i64>(0))).await?;
    /// assert_eq!(id, 1);
    /// # Ok::<_, lockkeeper::Error>(()) }).unwrap();
    /// ```
    #[track_caller]
    pub fn write<T, F>(&self, f: F) -> Write<Many<F>, T, E>
    where
        F: FnMut(&Transaction) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        Write::new(self.clone(), Many(f))
    }

    /// As [`Client::write`], for closures that can run only once.
    ///
    /// # Errors
    /// As [`Client::write`]; also [`ErrorKind::NotApplied`] when the call was undone through no
    /// fault of its own. Nothing of it is stored then, and making it again is right.
    ///
    /// # Panics
    /// As [`Client::write`].
    ///
    /// # Cancel safety
    /// As [`Client::write`].
    #[track_caller]
    pub fn write_once<T, F>(&self, f: F) -> Write<Once<F>, T, E>
    where
        F: FnOnce(&Transaction) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        Write::new(self.clone(), Once(Some(f)))
    }

    /// Submits `f` as [`Client::write`] does, at once, if there is room; otherwise hands it back.
    /// The answer is awaited; dropping it cancels the write.
    ///
    /// # Errors
    /// [`Refused`] holds `f` and the reason.
    #[track_caller]
    pub fn try_write<T, F>(&self, f: F) -> Result<SubmittedWrite<Many<F>, T, E>, Refused<F>>
    where
        F: FnMut(&Transaction) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        SubmittedWrite::new(self.clone(), Many(f))
            .map_err(|Refused { reason, call }| Refused { reason, call: call.0 })
    }

    /// Runs `f` as [`Client::write`] does and blocks this thread until it is answered.
    ///
    /// Inside a write of the same database it runs at once, in a savepoint of that write.
    ///
    /// # Errors
    /// As [`Client::write`].
    ///
    /// # Panics
    /// As [`Client::write`]. Blocking an async executor's thread is not noticed.
    #[track_caller]
    pub fn blocking_write<T, F>(&self, f: F) -> Result<T, Error<E>>
    where
        F: FnMut(&Transaction) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        crate::write::blocking(self.clone(), f)
    }

    /// Runs `f` on a snapshot of the database: all its statements see one state, which holds every
    /// write that was answered before this call was made.
    ///
    /// It runs on a reader thread; reads wait neither for the writer nor, as long as there are
    /// readers left, for each other. `f` may run again after a [`Read::short`] attempt.
    ///
    /// # Errors
    /// `f`'s own error, or why it did not run to its end.
    ///
    /// # Panics
    /// Resumes a panic of `f` on the caller.
    ///
    /// # Cancel safety
    /// Dropped while waiting: `f` never runs. Dropped while running: its statement is interrupted.
    #[track_caller]
    pub fn read<T, F>(&self, f: F) -> Read<Many<F>, T, E>
    where
        F: FnMut(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        Read::new(self.clone(), Many(f), None)
    }

    /// As [`Client::read`], for closures that can run only once.
    ///
    /// # Errors
    /// As [`Client::read`].
    ///
    /// # Panics
    /// As [`Client::read`].
    ///
    /// # Cancel safety
    /// As [`Client::read`].
    #[track_caller]
    pub fn read_once<T, F>(&self, f: F) -> Read<Once<F>, T, E>
    where
        F: FnOnce(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        Read::new(self.clone(), Once(Some(f)), None)
    }

    /// Runs `f` as [`Client::read`] does and blocks this thread until it is answered.
    ///
    /// Inside a write of the same database it runs at once, and sees what that write has done.
    ///
    /// # Errors
    /// As [`Client::read`].
    ///
    /// # Panics
    /// As [`Client::read`].
    #[track_caller]
    pub fn blocking_read<T, F>(&self, f: F) -> Result<T, Error<E>>
    where
        F: FnMut(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        block_on(self.read(f))
    }

    /// Runs `f` on the writer connection outside any transaction, between two batches.
    ///
    /// For `VACUUM`, `ATTACH`, `PRAGMA`s of the connection, and migration crates that begin their
    /// own transactions. Calls of this client made before it have been committed when it begins;
    /// calls made after it begin when it has ended. Readers go on. A transaction that `f` leaves
    /// open is rolled back; foreign keys and the busy handler are restored.
    ///
    /// # Errors
    /// As [`Client::write`], without a guarantee about what `f` stored.
    ///
    /// # Panics
    /// As [`Client::write`].
    ///
    /// # Cancel safety
    /// Dropped while waiting: `f` never runs. Dropped while running: its statement is interrupted.
    #[track_caller]
    pub fn exclusive<T, F>(&self, f: F) -> Exclusive<F, T, E>
    where
        F: FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        Exclusive::new(self.clone(), f)
    }

    /// Runs `f` as [`Client::exclusive`] does and blocks this thread until it is answered.
    ///
    /// # Errors
    /// As [`Client::exclusive`].
    ///
    /// # Panics
    /// As [`Client::exclusive`].
    #[track_caller]
    pub fn blocking_exclusive<T, F>(&self, f: F) -> Result<T, Error<E>>
    where
        F: FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        block_on(self.exclusive(f))
    }

    /// The stream of commits from now on: which calls changed which rows of which tables.
    ///
    /// A commit is in the stream before its calls are answered, in order, with its number; a call that
    /// failed is not in it. What SQLite cannot say more of is a table alone
    /// ([`TableChange::rows`](crate::TableChange::rows)); what nobody can say more of is
    /// [`Change::Unknown`](crate::Change::Unknown), commits of other processes among them, which
    /// are noticed within [`Builder::other_processes`]. A subscriber that stops taking loses detail, and
    /// is told so by [`Change::Lagged`](crate::Change::Lagged); it never slows the writer.
    ///
    /// The stream does not keep the database open.
    ///
    /// # Examples
    /// ```
    /// # futures_lite::future::block_on(async {
    /// # let db = lockkeeper::Database::open(":memory:").await?;
    /// # db.write(|tx| tx.execute_batch("CREATE TABLE note (text TEXT)")).await?;
    /// let mut changes = db.changes();
    /// db.write(|tx| tx.execute("INSERT INTO note VALUES ('milk')", [])).await?;
    /// let Some(lockkeeper::Change::Commit(commit)) = changes.next().await else { panic!() };
    /// let note = &commit.calls()[0].tables()[0];
    /// assert_eq!((note.table(), note.rows().unwrap()[0].rowid), ("note", 1));
    /// # Ok::<_, lockkeeper::Error>(()) }).unwrap();
    /// ```
    pub fn changes(&self) -> Changes {
        let core = self.inner.core();
        let changes = Changes::new(&core.feed);
        core.keep_looking();
        changes
    }

    /// Tells when one of these tables may have changed; no table: any.
    ///
    /// Names are compared without case; a table of an attached file is `schema.table`; a view never
    /// changes, name the tables under it. However much happens meanwhile, the next answer is one.
    pub fn watch<N: Into<String>>(&self, tables: impl IntoIterator<Item = N>) -> Watch {
        let core = self.inner.core();
        let watch = Watch::new(&core.feed, tables);
        core.keep_looking();
        watch
    }

    /// Runs `query` now, and again whenever one of these tables may have changed; no table: any.
    ///
    /// A stream of results. Changes that come while a run is under way, or while nobody asks for the
    /// next result, lead to one more run, so a burst of commits costs two runs at most, and the last
    /// state is always delivered.
    ///
    /// # Examples
    /// ```
    /// # futures_lite::future::block_on(async {
    /// # let db = lockkeeper::Database::open(":memory:").await?;
    /// # db.write(|tx| tx.execute_batch("CREATE TABLE note (text TEXT)")).await?;
    /// let mut count = db.live(["note"], |s| {
    ///     s.query_row("SELECT count(*) FROM note", [], |row| row.get::<_, i64>(0))
    /// });
    /// assert_eq!(count.next().await.unwrap()?, 0);
    /// db.write(|tx| tx.execute("INSERT INTO note VALUES ('milk')", [])).await?;
    /// assert_eq!(count.next().await.unwrap()?, 1);
    /// # Ok::<_, lockkeeper::Error>(()) }).unwrap();
    /// ```
    pub fn live<T, F, N>(&self, tables: impl IntoIterator<Item = N>, query: F) -> Live<T, E>
    where
        F: Fn(&Snapshot) -> Result<T, E> + Send + Sync + 'static,
        T: Send + 'static,
        N: Into<String>,
    {
        let live = Live::new(self.clone(), tables, Arc::new(query));
        self.inner.core().keep_looking();
        live
    }

    /// Copies the present state to the file `to`, while reads and writes go on.
    ///
    /// The copy is one whole file in the state of one commit; it is checked (`integrity_check`), synced,
    /// and then renamed to `to`, where an older backup may be. It runs on a reader thread and takes
    /// nothing from the writer but the disk's time, so it ends however much is written; but the WAL
    /// cannot start over until it has ended, and grows by what is written meanwhile. On a memory
    /// database everybody waits for it.
    ///
    /// # Errors
    /// [`ErrorKind::Backup`], [`ErrorKind::DiskFull`] or [`ErrorKind::Corrupt`]: `to` is as it was before.
    ///
    /// # Cancel safety
    /// Dropping the future stops the copy and removes what there is of it.
    ///
    /// # Examples
    /// ```
    /// # futures_lite::future::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (file, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
    /// let db = lockkeeper::Database::open(&file).await?;
    /// let report = db.backup(&copy).progress(|p| eprintln!("{} of {}", p.pages, p.of)).await?;
    /// assert_eq!(report.bytes, std::fs::metadata(&copy).unwrap().len());
    /// # Ok::<_, lockkeeper::Error>(()) }).unwrap();
    /// ```
    pub fn backup(&self, to: impl AsRef<Path>) -> Backup<E> {
        Backup::new(self.clone(), to.as_ref())
    }

    /// Takes the writer for a transaction that stays open across awaits, until it is committed,
    /// dropped, held for too long ([`Leases::hold_max`]) or left idle for too long
    /// ([`Leases::idle_max`]).
    ///
    /// It takes its turn like a write. While it lasts **every other write of the program waits**: those
    /// of one caller at 10 ms per await are enough to bring a busy service to a hundred writes a second.
    /// So it is for what cannot be done otherwise: a dialogue with somebody who must see a part of it
    /// before the rest can be said, a migration tool, a shell. If all that is awaited can be had
    /// before, await it first and use [`Client::write`]; if it only has to be undone later, write what
    /// undoes it. Never await a write of the same database while holding a lease: it waits for the
    /// lease, and the lease for it, until the lease expires. Readers never wait (in a memory database
    /// they do: it has one connection).
    ///
    /// # Errors
    /// As [`Client::write`], when the turn or another process's lock is waited for in vain.
    ///
    /// # Cancel safety
    /// Dropping the future gives the lease back, if it was given.
    ///
    /// # Examples
    /// ```
    /// # futures_lite::future::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = lockkeeper::Database::open(dir.path().join("app.db")).await?;
    /// # db.write(|tx| tx.execute_batch("CREATE TABLE seat (id INTEGER PRIMARY KEY)")).await?;
    /// # async fn customer_agrees() -> bool { true }
    /// let mut lease = db.lease().await?;
    /// lease.run(|tx| tx.execute("INSERT INTO seat VALUES (7)", [])).await?;
    /// if customer_agrees().await {
    ///     lease.commit().await?;
    /// }
    /// let n: i64 = db.read(|s| s.query_row("SELECT count(*) FROM seat", [], |row| row.get(0))).await?;
    /// assert_eq!(n, 1);
    /// # Ok::<_, lockkeeper::Error>(()) }).unwrap();
    /// ```
    #[track_caller]
    pub fn lease(&self) -> Leases<E> {
        Leases::new(self.clone())
    }

    /// Takes a snapshot that stays the same across awaits, until it is dropped or too old.
    ///
    /// While it is held, the WAL cannot start over; keep it for a page, not for a session.
    ///
    /// # Errors
    /// [`ErrorKind::TooManySnapshots`], closed, or why no connection could be opened.
    ///
    /// # Cancel safety
    /// Dropping the future releases the snapshot, if it was taken.
    #[track_caller]
    pub fn snapshot(&self) -> Snapshots<E> {
        Snapshots::new(self.clone())
    }
}

/// How a database is to be opened; see [`Database::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    pub(crate) config: Config,
}

impl Builder {
    /// Reader threads that are always there. Default: one per core, 2 to 8.
    pub fn readers(mut self, threads: usize) -> Self {
        self.config.readers = threads;
        self
    }

    /// Reader threads at most, long reads included; at least as many as [`Builder::readers`].
    /// Default: two per core, at least 16.
    pub fn readers_max(mut self, threads: usize) -> Self {
        self.config.readers_max = threads;
        self
    }

    /// Calls that each client may have accepted and waiting in each queue. Default: 1,024.
    pub fn queue_capacity(mut self, calls: usize) -> Self {
        self.config.queue_capacity = calls;
        self
    }

    /// When a commit reaches the disk. Default: [`Synchronous::Full`].
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.config.synchronous = synchronous;
        self
    }

    /// How long a call waits for another process's lock. Default: 30 seconds.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.config.busy_timeout = timeout;
        self
    }

    /// Page cache of each connection, in bytes. Default: 16 MiB.
    pub fn page_cache_bytes(mut self, bytes: usize) -> Self {
        self.config.page_cache_bytes = bytes;
        self
    }

    /// Prepared statements that each connection keeps. Default: 128.
    pub fn statement_cache(mut self, statements: usize) -> Self {
        self.config.statement_cache = statements;
        self
    }

    /// Runs on every connection when it is opened, also when one is opened again: functions,
    /// collations, `ATTACH`, keys, `PRAGMA`s. May be given several times. The commit, authorizer,
    /// progress, busy, update and WAL hooks belong to the library, which sets its own afterwards.
    /// Attached files that can be written are brought into WAL mode, which stays with the file.
    pub fn setup(
        mut self,
        f: impl Fn(&Connection) -> rusqlite::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.config.setup.push(Arc::new(f));
        self
    }

    /// Ceilings of one commit: calls, running time, and bytes that it adds to the WAL (estimated
    /// from the commits before it). A batch ends after the call that reaches one. Default: 1,024
    /// calls, 5 ms, 16 MiB.
    pub fn batch_max(mut self, calls: usize, time: Duration, wal_bytes: u64) -> Self {
        self.config.batch_calls_max = calls.max(1);
        self.config.batch_time_max = time;
        self.config.batch_wal_bytes_max = wal_bytes;
        self
    }

    /// Size to which the WAL may grow under load before the writer folds it back, without waiting for
    /// anybody. Default: 32 MiB. With [`u64::MAX`] here and as [`Builder::wal_bytes_max`], it is folded
    /// back when the database is closed and not before.
    pub fn checkpoint_wal_bytes(mut self, bytes: u64) -> Self {
        self.config.checkpoint_wal_bytes = bytes;
        self
    }

    /// Size that the WAL exceeds by one batch at most, whatever readers do. Default: 64 MiB.
    ///
    /// At this size the writer waits for the readers of old states, and has held snapshots and reads
    /// older than 100 ms end with [`ErrorKind::SnapshotExpired`]. Readers of other processes, and
    /// closures that wait for something outside SQLite, cannot be moved: the WAL then grows on, and
    /// [`Stats::wal_over_max`] counts it.
    pub fn wal_bytes_max(mut self, bytes: u64) -> Self {
        self.config.wal_bytes_max = bytes.max(1);
        self
    }

    /// The age at which a held snapshot is released. Default: 60 seconds.
    pub fn snapshot_age_max(mut self, age: Duration) -> Self {
        self.config.snapshot_age_max = age;
        self
    }

    /// Snapshots that may be held at once. Default: 64.
    ///
    /// Dropping the last clone of one frees its place at once. A snapshot whose future was dropped
    /// while a reader thread was taking it frees its place when that thread has noticed.
    pub fn snapshots_max(mut self, snapshots: usize) -> Self {
        self.config.snapshots_max = snapshots;
        self
    }

    /// Brings the schema up to date on the writer's connection, before any reader is opened.
    ///
    /// `open` then fails with [`ErrorKind::ForeignFile`] or [`ErrorKind::NewerFile`], before anything
    /// was changed, or with [`ErrorKind::Migration`] when a step failed, which undoes that step alone.
    /// A step that has begun is not stopped by dropping the opening future.
    pub fn migrations(mut self, migrations: Migrations) -> Self {
        self.config.migrations = Some(migrations);
        self
    }

    /// Sheds calls under overload, so that those that are accepted keep their latency. Default: never.
    ///
    /// Once every call of a client has waited longer than `target` for ten times as long, its calls
    /// that did are refused with [`ErrorKind::Overloaded`] instead of run, until none has for as
    /// long. Waiting for room counts. For callers that do not slow down, such as requests from
    /// outside; a fixed number of tasks that wait for each answer slows down by itself.
    pub fn shed_after(mut self, target: Duration) -> Self {
        self.config.shed_after = Some(target);
        self
    }

    /// What to do with a file on a network file system. Default: [`NetworkFiles::Refuse`].
    pub fn network_files(mut self, what: NetworkFiles) -> Self {
        self.config.network_files = what;
        self
    }

    /// Changes that wait for a subscriber of [`Client::changes`] at most, rows counted one by one;
    /// beyond, it is told that it lagged. Default: 65,536.
    pub fn feed_capacity(mut self, changes: usize) -> Self {
        self.config.feed_capacity = changes;
        self
    }

    /// How often to look for commits of other processes, while somebody listens to changes and
    /// nothing is written here (each batch of writes looks anyway); `None`: never otherwise. Default:
    /// 200 ms.
    pub fn other_processes(mut self, interval: Option<Duration>) -> Self {
        self.config.look_interval = interval;
        self
    }

    /// Whether to keep statistics. Default: yes. Without them [`Database::stats`] is empty but for what
    /// is under way, and the error of a write that timed out does not say who held it up.
    pub fn statistics(mut self, on: bool) -> Self {
        self.config.statistics = on;
        self
    }

    /// Calls `f` after each call that waited or ran at least `threshold` (short reads apart): a slow
    /// log. It tells waiting from running, and scans, sorts and automatic indexes of the statements.
    ///
    /// `f` runs on the thread that ran the call, and what comes after it waits: write a line, no more.
    /// With the feature `tracing` each such call is also a warning of the target `lockkeeper::slow`.
    pub fn on_slow(
        mut self,
        threshold: Duration,
        f: impl Fn(&Slow) + Send + Sync + 'static,
    ) -> Self {
        self.config.on_slow = Some((threshold, Arc::new(f)));
        self
    }

    /// The SQLite VFS to use, by name.
    pub fn vfs(mut self, name: &str) -> Self {
        self.config.vfs = Some(name.to_owned());
        self
    }

    /// Runs first on each thread of the database; the place to pin it or to set its priority.
    pub fn on_thread_start(mut self, f: impl Fn() + Send + Sync + 'static) -> Self {
        self.config.on_thread_start = Some(Arc::new(f));
        self
    }

    /// Opens the database.
    ///
    /// # Errors
    /// As [`Database::open`]; [`ErrorKind::Config`] for a setting that makes no sense.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened, in the background.
    pub async fn open(self) -> Result<Database, Error> {
        let (database, writer_built) = self.start()?;
        writer_built.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Faulted)))?;
        // The file is there and in WAL mode: now readers can open it.
        for built in database.start_readers()? {
            built.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Faulted)))?;
        }
        Ok(database)
    }

    /// Opens the database, blocking this thread.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn blocking_open(self) -> Result<Database, Error> {
        block_on(self.open())
    }

    fn start(self) -> Result<(Database, Receiver<Result<(), Error>>), Error> {
        let mut config = self.config;
        check(&config)?;
        config.readers_max = config.readers_max.max(config.readers);
        config.board = Arc::new(Board::default());
        if config.is_memory() {
            // They serve copies only.
            config.readers = 1;
        }
        let domain = Domain::new();
        let clock = Arc::new(Clock::new());
        let core = Arc::new(Core {
            domain,
            writer: Arc::new(Queue::new(config.queue_capacity, domain, config.shed_after)),
            readers: Arc::new(Queue::new(config.queue_capacity, domain, config.shed_after)),
            clock: Arc::clone(&clock),
            short: ShortReads::new(config.readers.max(2)),
            feed: Arc::new(Feed::new(config.feed_capacity)),
            meters: Meters::default(),
            look: AtomicBool::new(false),
            next_look: Mutex::new(None),
            deference: AtomicU8::new(0),
            held: Mutex::new(HeldList::default()),
            lease: Mutex::new(None),
            reader_pool: OnceLock::new(),
            pid: std::process::id(),
            warnings: OnceLock::new(),
            config,
        });
        let on_start = core.config.on_thread_start.clone();
        let name = String::from("lockkeeper-writer");
        let writer = PoolConfig { name, min: 1, max: 1, spin: true, on_start: on_start.clone() };
        let for_writer = Arc::clone(&core);
        let writer_pool =
            Pool::new(Arc::clone(&core.writer), writer, Arc::clone(&clock), move || {
                Writer::open(Arc::clone(&for_writer))
            });
        let readers = PoolConfig {
            name: String::from("lockkeeper-read"),
            min: core.config.readers,
            max: core.config.readers_max,
            // On few cores a spinning reader takes time from the callers it waits for.
            spin: false,
            on_start,
        };
        let for_readers = Arc::clone(&core);
        let reader_pool = Pool::new(Arc::clone(&core.readers), readers, clock, move || {
            Reader::open(Arc::clone(&for_readers))
        });
        let _ = core.reader_pool.set(Arc::downgrade(&reader_pool));
        let mut built = writer_pool.start().map_err(not_started)?;
        let built = built.pop().ok_or_else(|| Error::new(ErrorKind::Faulted))?;
        let inner = Inner {
            writes: Lane::main(Arc::clone(&core.writer)),
            reads: Lane::main(Arc::clone(&core.readers)),
            shutdown: Arc::new(Shutdown(Arc::new(Parts { core, writer_pool, reader_pool }))),
            label: None,
        };
        let client = Client { inner: Arc::new(inner), error: PhantomData };
        Ok((Database { client }, built))
    }
}

impl Database {
    fn start_readers(&self) -> Result<Vec<Receiver<Result<(), Error>>>, Error> {
        self.client.inner.shutdown.0.reader_pool.start().map_err(not_started)
    }
}

fn check(config: &Config) -> Result<(), Error> {
    let wrong = |detail: &'static str| Err(Error::new(ErrorKind::Config).detail(detail));
    if config.queue_capacity == 0 {
        return wrong("queue_capacity is 0, so no call could be accepted; give at least 1");
    }
    if config.readers == 0 {
        return wrong("readers is 0, so no read could be served; give at least 1");
    }
    Ok(())
}

fn not_started(error: queue::StartError<Error>) -> Error {
    match error {
        queue::StartError::Build(error) => error,
        other => Error::new(ErrorKind::Faulted).detail(other.to_string()),
    }
}

/// Resumes a panic, or passes the result on.
pub(crate) fn unwind<T>(outcome: Result<T, Box<dyn Any + Send>>) -> T {
    match outcome {
        Ok(value) => value,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}
