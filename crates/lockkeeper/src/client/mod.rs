//! All kinds of calls that a client can make.

/// Implements `Debug` for a type that shows only the given fields, or none.
macro_rules! opaque_debug {
    ($name:literal, [$($generics:tt)*] $type:ty $(, $field:ident: $($path:ident).+)*) => {
        impl<$($generics)*> std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct($name)
                    $(.field(stringify!($field), &self.$($path).+))*
                    .finish_non_exhaustive()
            }
        }
    };
}

pub(crate) mod backup;
pub(crate) mod exclusive;
pub(crate) mod handle;
pub(crate) mod lease;
pub(crate) mod live;
mod pending;
pub(crate) mod read;
pub(crate) mod snapshot;
pub(crate) mod stop;
mod submission;
mod target;
pub(crate) mod write;

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use self::backup::Backup;
use self::exclusive::Exclusive;
use self::handle::Client;
use self::lease::AcquireLease;
use self::live::Live;
use self::read::Read;
use self::snapshot::AcquireSnapshot;
use self::write::{SubmittedWrite, Write};
use crate::changes::feed::{Changes, Watch};
use crate::engine::call::{Many, Once};
use crate::error::Error;
use crate::queue::{Priority, Refused};
use crate::sqlite::{snapshot::Snapshot, transaction::Transaction};
#[cfg(doc)]
use crate::{Builder, Database, ErrorKind, Synchronous};

impl<E: Send + 'static> Client<E> {
    /// Sets this client's share of the running time, relative to the others', for all handles of its name. Default: 1.
    /// On the database's own handle, sets the share of all calls that are made without a client.
    pub fn set_weight(&self, weight: u32) {
        let core = &self.inner.core;
        core.writer.set_weight(self.inner.writes.id, weight);
        core.readers.set_weight(self.inner.reads.id, weight);
    }

    /// Sets whether this client's calls are served first or last, for all handles of its name. Calls of low priority are
    /// served in at least every ninth batch. Default: [`Priority::High`].
    pub fn set_priority(&self, priority: Priority) {
        let core = &self.inner.core;
        core.writer.set_priority(self.inner.writes.id, priority);
        core.readers.set_priority(self.inner.reads.id, priority);
    }

    /// This client for closures that return another error type; see [`Database::with_error`].
    pub fn with_error<F: Send + 'static>(&self) -> Client<F> {
        Client::of(Arc::clone(&self.inner))
    }

    /// Runs `f` on the writer connection, inside a transaction that it may share with other calls.
    ///
    /// A client's writes run one at a time in submission order. `Ok` keeps what `f` wrote, `Err` or
    /// a panic undoes it, and neither affects other calls of the transaction. The call is answered after the
    /// commit, which at [`Synchronous::Full`] has reached the disk by then. No reader sees a state in between. When
    /// this client's part of the queue is full, the future waits for room.
    ///
    /// `f` may run more than once: when SQLite rolls the whole transaction back because of another call (interrupt,
    /// full disk, `OR ROLLBACK`), the calls before that other call run again. Only the effects of the last run are
    /// kept. Use [`Client::write_once`] where that is not acceptable.
    ///
    /// Never wait for anything inside `f`: there is only one writer.
    ///
    /// # Errors
    /// `f`'s own error ([`Error::into_call`]), or why the write was not stored ([`Error::kind`]).
    ///
    /// # Panics
    /// Resumes a panic of `f` on the caller; its writes are undone and the writer lives on.
    ///
    /// # Cancel safety
    /// Dropped while waiting: `f` never runs and its place becomes free immediately. Dropped while running: `f` is
    /// interrupted and undone, or completes; its writes are stored as a whole or not at all. A caller that retries
    /// should make `f` idempotent.
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
        Write::new(&self.inner, Many(f))
    }

    /// As [`Client::write`], for closures that can run only once.
    ///
    /// # Errors
    /// As [`Client::write`]; also [`ErrorKind::NotApplied`] when another call caused the loss of the transaction.
    /// Nothing of this call is stored then, and the caller may make it again.
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
        Write::new(&self.inner, Once(Some(f)))
    }

    /// If there is room, submits `f` immediately, to run as in [`Client::write`]; otherwise returns `f`. The result is
    /// a future of the answer; dropping it cancels the write.
    ///
    /// # Errors
    /// [`Refused`] holds `f` and the reason: no room, closed, read-only, stopped writes, a call inside a call, or a
    /// forked child.
    #[track_caller]
    pub fn try_write<T, F>(&self, f: F) -> Result<SubmittedWrite<T, E>, Refused<F>>
    where
        F: FnMut(&Transaction) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        SubmittedWrite::new(&self.inner, Many(f))
            .map_err(|Refused { reason, call }| Refused { reason, call: call.0 })
    }

    /// Runs `f` as [`Client::write`] does and blocks this thread until it is answered.
    ///
    /// `f` and its result may borrow from the caller. So this returns only when `f` has ended or will never run, even
    /// if the database is aborted.
    ///
    /// Inside a write of the same database, `f` runs immediately, in a savepoint of that write.
    ///
    /// # Errors
    /// As [`Client::write`].
    ///
    /// # Panics
    /// As [`Client::write`]. Does not detect that it blocks a thread of an async executor.
    ///
    /// # Examples
    /// ```
    /// # let db = lockkeeper::Database::blocking_open(":memory:")?;
    /// # db.blocking_write(|tx| tx.execute_batch("CREATE TABLE note (text TEXT)"))?;
    /// let notes = vec![String::from("milk"), String::from("bread")];
    /// let longest = db.blocking_write(|tx| {
    ///     for note in &notes {
    ///         tx.execute("INSERT INTO note (text) VALUES (?1)", [note])?;
    ///     }
    ///     Ok(notes.iter().max_by_key(|note| note.len()))
    /// })?;
    /// assert_eq!(longest, Some(&notes[1]));
    /// # Ok::<_, lockkeeper::Error>(())
    /// ```
    #[track_caller]
    pub fn blocking_write<T, F>(&self, f: F) -> Result<T, Error<E>>
    where
        F: FnMut(&Transaction) -> Result<T, E> + Send,
        T: Send,
    {
        write::blocking(&self.inner, f)
    }

    /// Runs `f` on a snapshot of the database: all its statements see one state, which holds every
    /// write that was answered before this call was made.
    ///
    /// `f` runs on a reader thread. Reads do not wait for the writer, nor for each other as long as a reader is free.
    /// `f` may run again after a [`Read::short`] attempt.
    ///
    /// # Errors
    /// `f`'s own error, or why `f` did not run to its end.
    ///
    /// # Panics
    /// Resumes a panic of `f` on the caller.
    ///
    /// # Cancel safety
    /// Dropped while waiting: `f` never runs. Dropped while running: the statement that `f` runs is interrupted.
    #[track_caller]
    pub fn read<T, F>(&self, f: F) -> Read<Many<F>, T, E>
    where
        F: FnMut(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        Read::new(&self.inner, Many(f), None)
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
        Read::new(&self.inner, Once(Some(f)), None)
    }

    /// Runs `f` as [`Client::read`] does and blocks this thread until it is answered.
    ///
    /// `f` and its result may borrow, as for [`Client::blocking_write`]. Inside a write of the same database, `f` runs
    /// immediately and sees the changes of that write.
    ///
    /// # Errors
    /// As [`Client::read`].
    ///
    /// # Panics
    /// As [`Client::read`].
    #[track_caller]
    pub fn blocking_read<T, F>(&self, f: F) -> Result<T, Error<E>>
    where
        F: FnMut(&Snapshot) -> Result<T, E> + Send,
        T: Send,
    {
        read::blocking(&self.inner, f, None)
    }

    /// Runs `f` on the writer connection outside any transaction, between two batches.
    ///
    /// For `VACUUM`, copies into an `ATTACH`ed file, `PRAGMA`s of the file, and migration crates that begin their own
    /// transactions. When `f` begins, the earlier calls of this client have been committed; the later ones begin when
    /// `f` has ended. Readers go on.
    ///
    /// Afterwards the connection is replaced by a new one, on which [`Builder::setup`] has run. So a transaction that
    /// `f` leaves open is rolled back, and `PRAGMA`s, attached files, functions, hooks, limits and temporary objects
    /// end with the old connection. The content of a memory database is copied to the new connection, so it needs twice
    /// its size for a moment. Changes of `f` in the file stay. `PRAGMA`s that the whole process shares
    /// (`hard_heap_limit`, `soft_heap_limit`, `temp_store_directory`) are refused. If `f` forgets (`std::mem::forget`)
    /// a statement on a virtual table, the old connection stays open until the process ends.
    ///
    /// # Errors
    /// As [`Client::write`], but `f` may have stored a part of its changes.
    ///
    /// # Panics
    /// As [`Client::write`].
    ///
    /// # Cancel safety
    /// Dropped while waiting: `f` never runs. Dropped while running: the statement that `f` runs is interrupted.
    #[track_caller]
    pub fn exclusive<T, F>(&self, f: F) -> Exclusive<F, T, E>
    where
        F: FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        Exclusive::new(&self.inner, f)
    }

    /// Runs `f` as [`Client::exclusive`] does and blocks this thread until it is answered. `f` and its
    /// result may borrow, as for [`Client::blocking_write`].
    ///
    /// # Errors
    /// As [`Client::exclusive`].
    ///
    /// # Panics
    /// As [`Client::exclusive`].
    #[track_caller]
    pub fn blocking_exclusive<T, F>(&self, f: F) -> Result<T, Error<E>>
    where
        F: FnOnce(&mut Connection) -> Result<T, E> + Send,
        T: Send,
    {
        exclusive::blocking(&self.inner, f)
    }

    /// The stream of commits from now on: which calls changed which rows of which tables.
    ///
    /// Commits are in the stream in order, each with its number and before its calls are answered; failed calls are not
    /// in the stream. If SQLite does not report the rows of a table, the stream names only the table
    /// ([`TableChange::rows`](crate::TableChange::rows)). If the changes of a commit are not known at all, the stream
    /// holds [`Change::Unknown`](crate::Change::Unknown). This is always so for commits of other processes, which are
    /// noticed within [`Builder::other_processes`]. A subscriber that falls behind loses detail and gets
    /// [`Change::Lagged`](crate::Change::Lagged); it never slows the writer.
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
        let core = &self.inner.core;
        let changes = Changes::new(&core.feed);
        core.foreign_commits.keep_looking();
        changes
    }

    /// A stream of notices that one of `tables` may have changed. With an empty list, a change of any table is noticed.
    ///
    /// Names are compared without case. A table of an attached file is `schema.table`. A view never changes: name the
    /// tables that it reads. All changes since the last notice make one notice.
    pub fn watch<N: Into<String>>(&self, tables: impl IntoIterator<Item = N>) -> Watch {
        let core = &self.inner.core;
        let watch = Watch::new(&core.feed, tables);
        core.foreign_commits.keep_looking();
        watch
    }

    /// Runs `query` now, and again whenever one of `tables` may have changed. With an empty list, `query` runs again
    /// whenever a table that it has read may have changed, as with [`Client::live_query`].
    ///
    /// A listed view stands for the tables that it reads. A table of an attached file is `schema.table`. The first run
    /// fails if a name is neither a table nor a view. Changes by triggers and foreign keys count, too.
    ///
    /// The result is a stream. Changes during a run, or before the next result is asked for, lead to one more run. So a
    /// burst of commits costs two runs at most, and the last state is always delivered.
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
        let tables = tables.into_iter().map(Into::into).collect();
        let live = Live::new(&self.inner, tables, Arc::new(query));
        self.inner.core.foreign_commits.keep_looking();
        live
    }

    /// As [`Client::live`], for the tables that `query` reads, including those below views. Each run finds these tables
    /// anew, because the schema or the data may lead the query to other tables. For that, each run prepares its
    /// statements, which takes some microseconds per statement.
    ///
    /// # Examples
    /// ```
    /// # futures_lite::future::block_on(async {
    /// # let db = lockkeeper::Database::open(":memory:").await?;
    /// # db.write(|tx| tx.execute_batch(
    /// #     "CREATE TABLE note (text TEXT); CREATE VIEW short AS SELECT * FROM note WHERE length(text) < 9"
    /// # )).await?;
    /// let mut count = db.live_query(|s| {
    ///     s.query_row("SELECT count(*) FROM short", [], |row| row.get::<_, i64>(0)) // a view of `note`
    /// });
    /// assert_eq!(count.next().await.unwrap()?, 0);
    /// db.write(|tx| tx.execute("INSERT INTO note VALUES ('milk')", [])).await?;
    /// assert_eq!(count.next().await.unwrap()?, 1);
    /// # Ok::<_, lockkeeper::Error>(()) }).unwrap();
    /// ```
    pub fn live_query<T, F>(&self, query: F) -> Live<T, E>
    where
        F: Fn(&Snapshot) -> Result<T, E> + Send + Sync + 'static,
        T: Send + 'static,
    {
        self.live::<T, F, String>([], query)
    }

    /// Copies the present state to the file `to`, while reads and writes go on.
    ///
    /// The copy is one file in the state of one commit. It is checked (`integrity_check`), synced, and then renamed to
    /// `to`, where it may replace an older backup. The backup runs on a reader thread and shares only the disk with the
    /// writer, so it ends however much is written. But until it ends the WAL cannot start over, and may grow beyond
    /// [`Builder::wal_bytes_max`]. In a memory database all other calls wait for the backup.
    ///
    /// # Errors
    /// [`ErrorKind::Backup`], [`ErrorKind::DiskFull`] or [`ErrorKind::Corrupt`]: `to` is as it was before.
    ///
    /// # Cancel safety
    /// Dropping the future stops the copy and removes its file.
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
    #[track_caller]
    pub fn backup(&self, to: impl AsRef<Path>) -> Backup<E> {
        Backup::new(&self.inner, to.as_ref())
    }

    /// Takes the writer for a transaction that stays open across awaits, until it is committed,
    /// dropped, held for too long ([`AcquireLease::hold_max`]) or left idle for too long
    /// ([`AcquireLease::idle_max`]).
    ///
    /// A lease takes its turn like a write. While it lasts, **every other write of the program waits**: one caller that
    /// awaits for 10 ms in each lease is enough to slow a busy service down to a hundred writes a second. So use a
    /// lease only where nothing else will do: for a dialogue in which the other side must see a part of the transaction
    /// before it can answer, a migration tool, a shell. If the program can await everything beforehand, do that and use
    /// [`Client::write`]. If the program may only have to undo the change later, commit the change and undo it with
    /// another write. Never await a write of the same database while holding a lease: the write waits for the lease,
    /// and the holder for the write, until the lease expires. Readers do not wait, except in a memory database, which
    /// has one connection.
    ///
    /// # Errors
    /// As [`Client::write`], when the turn does not come or another process keeps the lock.
    ///
    /// # Cancel safety
    /// Dropping the future ends the lease if the lease has begun.
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
    pub fn lease(&self) -> AcquireLease<E> {
        AcquireLease::new(&self.inner)
    }

    /// Takes a snapshot that stays the same across awaits, until it is dropped or reaches its maximum age.
    ///
    /// While it is held, the WAL cannot start over. Hold it for one request, not for a session.
    ///
    /// # Errors
    /// [`ErrorKind::TooManySnapshots`], [`ErrorKind::Closed`], or why no connection could be opened.
    ///
    /// # Cancel safety
    /// Dropping the future releases the snapshot if it was taken.
    #[track_caller]
    pub fn snapshot(&self) -> AcquireSnapshot<E> {
        AcquireSnapshot::new(&self.inner)
    }
}
