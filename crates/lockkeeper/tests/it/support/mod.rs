//! Shared parts of the tests: databases that clean up after themselves, time limits, forced schedules.

pub(crate) mod fault_vfs;
pub(crate) mod rich;

pub(crate) use crate::held::HeldWriter;

use std::cell::RefCell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lockkeeper::{Builder, Client, Database, ErrorKind};

/// A test that takes longer than this is assumed to hang. It is an order of magnitude longer than any test needs.
pub(crate) const HANG: Duration = Duration::from_secs(120);

/// Whether the tests run in their long forms.
pub(crate) fn long() -> bool {
    std::env::var_os("LOCKKEEPER_LONG").is_some_and(|value| value == "1")
}

/// `short` in the default form, `extended` in the long form.
pub(crate) fn count(short: usize, extended: usize) -> usize {
    if long() { extended } else { short }
}

/// Where a test's database lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    File,
    Memory,
}

/// Both kinds of database, for behaviour that they share (promise A35).
pub(crate) const PLACES: [Place; 2] = [Place::File, Place::Memory];

/// A temporary directory, which is deleted at the end of the test.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A database in this directory, or in memory. The limit of a batch's time is very long, so that calls that wait
    /// together share a commit. With the default of 5 ms, a busy machine or a sanitizer would separate them.
    pub(crate) fn builder(&self, place: Place) -> Builder {
        let builder = match place {
            Place::File => Database::builder(self.file("test.db")),
            Place::Memory => Database::builder(":memory:"),
        };
        builder.batch_max(1024, HANG, 16 << 20)
    }
}

/// Runs `check` on a fresh database of each kind, with a table `t (id INTEGER PRIMARY KEY, v)`.
pub(crate) fn on_each_place(check: impl Fn(&Database, Place)) {
    for place in PLACES {
        let dir = Dir::new();
        let db = dir.builder(place).blocking_open().expect("the database opens");
        db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table is created");
        check(&db, place);
        db.blocking_close().expect("the database closes");
    }
}

/// The table most tests use.
pub(crate) const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER) STRICT";

/// A file database with the table `t`; the directory must be kept as long as the database.
pub(crate) fn file_db(tune: impl FnOnce(Builder) -> Builder) -> (Dir, Database) {
    db_at(Place::File, tune)
}

/// A database at `place` with the table `t`; the directory must be kept as long as the database.
pub(crate) fn db_at(place: Place, tune: impl FnOnce(Builder) -> Builder) -> (Dir, Database) {
    let dir = Dir::new();
    let db = tune(dir.builder(place)).blocking_open().expect("the database opens");
    db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table is created");
    (dir, db)
}

/// A query that runs until it is stopped.
pub(crate) const ENDLESS: &str =
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";

/// A connection outside the library that holds the write lock until it is dropped.
pub(crate) fn lock_of_another(path: &Path) -> rusqlite::Connection {
    let conn = rusqlite::Connection::open(path).expect("a connection of another program");
    conn.busy_timeout(HANG).expect("a busy timeout");
    conn.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    conn
}

/// A connection that sees what is committed: the greatest id in the table `t`.
///
/// All calls of a batch see the same value, so inside a call the value identifies the batch.
#[derive(Clone)]
pub(crate) struct Committed(Arc<Mutex<rusqlite::Connection>>);

impl Committed {
    pub(crate) fn new(dir: &Dir) -> Self {
        let conn = rusqlite::Connection::open(dir.file("test.db")).expect("a connection");
        Self(Arc::new(Mutex::new(conn)))
    }

    /// The greatest committed id; -1: there is none.
    pub(crate) fn now(&self) -> i64 {
        let conn = self.0.lock().expect("no panic");
        let sql = "SELECT coalesce(max(id), -1) FROM t";
        let mut max = conn.prepare_cached(sql).expect("a statement");
        max.query_row([], |row| row.get(0)).expect("a row")
    }
}

/// Inserts a row with this id.
pub(crate) fn insert(tx: &lockkeeper::Transaction, id: i64) -> rusqlite::Result<()> {
    tx.execute("INSERT INTO t (id, v) VALUES (?1, ?1)", [id]).map(drop)
}

/// The ids in the table `t`, in order.
pub(crate) fn ids(db: &Client) -> Vec<i64> {
    db.blocking_read(ids_of).expect("the rows can be read")
}

/// The ids in the table `t`, in order, as one read sees them.
pub(crate) fn ids_of(s: &lockkeeper::Snapshot) -> rusqlite::Result<Vec<i64>> {
    s.prepare_cached("SELECT id FROM t ORDER BY id")?.query_map([], |row| row.get(0))?.collect()
}

/// Runs `f` on a thread of its own and fails if it does not end within `limit`.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    f: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(String::from("test-body"))
        .spawn(move || {
            let _ = done.send(f());
        })
        .expect("a thread");
    match ended.recv_timeout(limit) {
        Ok(value) => {
            thread.join().expect("the body has ended");
            value
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("hangs: not done after {limit:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(payload) => std::panic::resume_unwind(payload),
            Ok(()) => unreachable!("the body sends before it ends"),
        },
    }
}

/// Runs `f` as [`within`] does, once for each place.
pub(crate) fn within_each(limit: Duration, f: impl Fn(Place) + Clone + Send + 'static) {
    for place in PLACES {
        let f = f.clone();
        within(limit, move || f(place));
    }
}

/// Counts the threads of a database that are alive.
#[derive(Clone, Default)]
pub(crate) struct Threads(Arc<Alive>);

#[derive(Default)]
struct Alive {
    count: Mutex<usize>,
    changed: Condvar,
}

/// One thread of a database. The drop uncounts it.
struct Thread(Threads);

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.change(|count| count - 1);
    }
}

thread_local! {
    static THIS: RefCell<Option<Thread>> = const { RefCell::new(None) };
}

impl Threads {
    pub(crate) fn watch(&self, builder: Builder) -> Builder {
        let threads = self.clone();
        builder.on_thread_start(move || {
            threads.change(|count| count + 1);
            THIS.set(Some(Thread(threads.clone())));
        })
    }

    fn change(&self, f: impl FnOnce(usize) -> usize) {
        let mut count = self.0.count.lock().expect("no panic");
        *count = f(*count);
        self.0.changed.notify_all();
    }

    pub(crate) fn alive(&self) -> usize {
        *self.0.count.lock().expect("no panic")
    }

    /// Blocks until at most `count` threads are alive.
    pub(crate) fn wait_for(&self, count: usize) {
        let alive = self.0.count.lock().expect("no panic");
        drop(self.0.changed.wait_while(alive, |alive| *alive > count).expect("no panic"));
    }
}

/// The files below `dir` that this process has open, one for each descriptor.
#[cfg(target_os = "linux")]
pub(crate) fn files_open_in(dir: &Path) -> Vec<PathBuf> {
    let dir = dir.canonicalize().expect("the directory");
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("the descriptors");
    let files = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    files.filter(|file| file.starts_with(&dir)).collect()
}

/// On other systems the open files are not known.
#[cfg(not(target_os = "linux"))]
pub(crate) fn files_open_in(_dir: &Path) -> Vec<PathBuf> {
    Vec::new()
}

/// The warnings about the file. The warning about rusqlite 0.40's SQLite is left out.
pub(crate) fn warnings_of_the_file(db: &Database) -> Vec<String> {
    let mut warnings = db.warnings();
    warnings.retain(|one| !one.contains("SQLITE_ENABLE_MEMORY_MANAGEMENT"));
    warnings
}

/// Polls `future` once, with a waker that does nothing.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs `future` on this thread, without any runtime.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    futures_lite::future::block_on(future)
}

/// The kind of the error in `result`.
pub(crate) fn kind<T: std::fmt::Debug, E: std::fmt::Debug>(
    result: Result<T, lockkeeper::Error<E>>,
) -> ErrorKind {
    result.expect_err("an error was expected").kind()
}
