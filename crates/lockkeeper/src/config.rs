//! The settings, their defaults, and the reasons for the defaults. These are plain values; the state that an open
//! database shares is in `sqlite/opener.rs`.

use std::any::TypeId;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::place::Place;
use crate::stats::Slow;

/// When a commit reaches the disk, as `PRAGMA synchronous` of SQLite defines it for WAL mode
/// (<https://www.sqlite.org/pragma.html#pragma_synchronous>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Synchronous {
    /// SQLite never syncs: a crash of the machine may lose commits or damage the file.
    Off,
    /// SQLite syncs at checkpoints: the file stays whole, but a power failure may lose the last commits.
    Normal,
    /// SQLite syncs each commit before its calls are answered. The default: group commit shares the sync among all
    /// calls of a batch, so it costs little.
    #[default]
    Full,
}

impl Synchronous {
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Normal => "NORMAL",
            Self::Full => "FULL",
        }
    }
}

/// What to do with a file on a network file system, where SQLite's WAL does not work: its index is in
/// shared memory, which another machine does not see (<https://www.sqlite.org/wal.html>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkFiles {
    /// Opening fails with [`ErrorKind::NetworkFileSystem`](crate::ErrorKind::NetworkFileSystem).
    #[default]
    Refuse,
    /// The file is opened, and [`Database::warnings`](crate::Database::warnings) says so. Use this only if no other
    /// machine ever opens the file.
    Warn,
}

pub(crate) type OnSlow = dyn Fn(&Slow) + Send + Sync;

pub(crate) type Setup = dyn Fn(&Connection) -> rusqlite::Result<()> + Send + Sync;

/// A function of the caller. Two functions are equal if they have the same type; closures have the same type if they
/// are written in the same place of the program.
pub(crate) struct Callback<F: ?Sized> {
    pub(crate) f: Arc<F>,
    written_at: TypeId,
}

impl<F: ?Sized> Callback<F> {
    /// `f`, whose type is `C`.
    pub(crate) fn new<C: 'static>(f: Arc<F>) -> Self {
        Self { f, written_at: TypeId::of::<C>() }
    }
}

impl<F: ?Sized> Clone for Callback<F> {
    fn clone(&self) -> Self {
        Self { f: Arc::clone(&self.f), written_at: self.written_at }
    }
}

impl<F: ?Sized> PartialEq for Callback<F> {
    fn eq(&self, other: &Self) -> bool {
        self.written_at == other.written_at
    }
}

impl<F: ?Sized> fmt::Debug for Callback<F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a function")
    }
}

/// Everything that [`Builder`](crate::Builder) collects.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) place: Place,
    pub(crate) vfs: Option<String>,
    /// Create the file if it does not exist.
    pub(crate) create_if_missing: bool,
    pub(crate) read_only: bool,
    /// The caller promises that nothing changes the file, so it is read without locks and WAL.
    pub(crate) immutable: bool,
    /// Whether an instance of the file that this process has open already may be shared.
    pub(crate) share: bool,
    pub(crate) readers: usize,
    pub(crate) readers_max: usize,
    pub(crate) queue_capacity: usize,
    pub(crate) synchronous: Synchronous,
    pub(crate) busy_timeout: Duration,
    pub(crate) page_cache_bytes: usize,
    pub(crate) statement_cache: usize,
    pub(crate) setup: Vec<Callback<Setup>>,
    pub(crate) batch_calls_max: usize,
    pub(crate) batch_time_max: Duration,
    pub(crate) batch_wal_bytes_max: u64,
    pub(crate) checkpoint_wal_bytes: u64,
    pub(crate) wal_bytes_max: u64,
    pub(crate) snapshot_age_max: Duration,
    pub(crate) snapshots_max: usize,
    pub(crate) feed_capacity: usize,
    pub(crate) statistics: bool,
    pub(crate) on_slow: Option<(Duration, Callback<OnSlow>)>,
    pub(crate) look_interval: Option<Duration>,
    pub(crate) shed_after: Option<Duration>,
    pub(crate) on_thread_start: Option<Callback<dyn Fn() + Send + Sync>>,
    /// For tests: each write that may run again is run, undone and run again.
    pub(crate) run_writes_twice: bool,
    pub(crate) network_files: NetworkFiles,
    /// Where the caller asked for this database.
    pub(crate) opened_by: &'static Location<'static>,
}

impl Config {
    #[track_caller]
    pub(crate) fn new(place: Place) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            place,
            vfs: None,
            create_if_missing: true,
            read_only: false,
            immutable: false,
            share: false,
            // More readers than cores only evict each other's caches; fewer leave cores idle.
            readers: cores.clamp(2, 8),
            // Long scans occupy readers. With twice as many readers as cores, a scan on every core leaves readers for
            // other reads.
            readers_max: 16.max(cores * 2),
            queue_capacity: 1024,
            synchronous: Synchronous::Full,
            busy_timeout: Duration::from_secs(30),
            page_cache_bytes: 16 << 20,
            // rusqlite's default of 16 is too small for a program with a larger schema.
            statement_cache: 128,
            setup: Vec::new(),
            // Enough calls to make the cost of the commit per call small, and few enough to be answered soon.
            batch_calls_max: 1024,
            batch_time_max: Duration::from_millis(5),
            batch_wal_bytes_max: 16 << 20,
            // With SQLite's default of 1,000 pages a busy writer would make dozens of checkpoints a second.
            checkpoint_wal_bytes: 32 << 20,
            // Twice `checkpoint_wal_bytes`: that leaves room for overlapping readers before a writer has to wait or a
            // reader is stopped.
            wal_bytes_max: 64 << 20,
            snapshot_age_max: Duration::from_secs(60),
            snapshots_max: 64,
            // A few megabytes for each subscriber that has fallen behind.
            feed_capacity: 1 << 16,
            statistics: true,
            on_slow: None,
            // A check costs the writer some microseconds, and people do not notice a fifth of a second.
            look_interval: Some(Duration::from_millis(200)),
            shed_after: None,
            on_thread_start: None,
            run_writes_twice: false,
            network_files: NetworkFiles::Refuse,
            opened_by: Location::caller(),
        }
    }

    /// Whether the database is opened only for reading.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only || self.immutable
    }

    /// Whether a missing file is created.
    pub(crate) fn creates(&self) -> bool {
        self.create_if_missing && !self.is_read_only()
    }

    pub(crate) fn is_memory(&self) -> bool {
        self.place == Place::Memory
    }
}
