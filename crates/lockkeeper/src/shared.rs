//! One instance for several openers of a file, and weak handles.
//!
//! [`Builder::open_shared`] begins as any other opening. If the writer's thread finds the file claimed
//! (`sqlite/instance.rs`), it waits while the other instance is being opened or closed, and then hands over a weak
//! handle to that instance instead of a connection. So no executor thread is blocked, and if two openers open a new
//! file at the same time, only one of them gets the claim.
//!
//! - SH1: an instance can be shared once it is wholly open, readers included, until it is closed.
//! - SH2: an opener never gets an instance in which a setting that the opener made has another value: see
//!   [`differing`].

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Arc, Weak};

use crate::builder::{Builder, check};
use crate::config::Config;
use crate::database::{Database, Shutdown};
use crate::error::{Error, ErrorKind};
use crate::queue::block_on;

/// A handle that does not keep the database open: see [`Database::downgrade`].
///
/// # Examples
/// ```
/// let db = lockkeeper::Database::blocking_open(":memory:")?;
/// let weak = db.downgrade();
/// assert!(weak.upgrade().is_some());
/// drop(db); // the last handle: the database closes
/// assert!(weak.upgrade().is_none());
/// # Ok::<_, lockkeeper::Error>(())
/// ```
pub struct WeakDatabase<E = rusqlite::Error> {
    shutdown: Weak<Shutdown>,
    error: PhantomData<fn() -> E>,
}

impl<E> Clone for WeakDatabase<E> {
    fn clone(&self) -> Self {
        Self { shutdown: Weak::clone(&self.shutdown), error: PhantomData }
    }
}

impl<E> fmt::Debug for WeakDatabase<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakDatabase").finish_non_exhaustive()
    }
}

impl<E: Send + 'static> WeakDatabase<E> {
    /// A handle to the database. `None`: the database is not open any more, because its last handle was dropped, or
    /// because it was closed or aborted; or this process was forked from the one that opened it.
    pub fn upgrade(&self) -> Option<Database<E>> {
        let shutdown = self.shutdown.upgrade()?;
        let core = shutdown.core();
        let open = core.check_process().is_ok() && core.writer.is_open();
        open.then(|| Database::of(shutdown))
    }
}

impl<E: Send + 'static> Database<E> {
    /// A handle that does not keep the database open, for caches, registries and parts that may outlive their users.
    /// The database closes when its last handle that is not weak is dropped.
    pub fn downgrade(&self) -> WeakDatabase<E> {
        WeakDatabase { shutdown: Arc::downgrade(&self.shutdown), error: PhantomData }
    }
}

impl Builder {
    /// Opens the database. If this process has the file open already, by any name and through any of the open methods,
    /// returns a handle to that instance. The instance closes when the handles of all openers are dropped, or when one
    /// opener closes it.
    ///
    /// If another instance of the file is just being opened or closed, this waits until that has ended, but at most for
    /// the busy timeout. If several openers come at the same time, one of them opens the file, and the others get its
    /// instance. If its opening fails, or its future is dropped, another opener tries.
    ///
    /// Each setting that is made here must have the same value in the instance, also if it is made with the default
    /// value. A setting that is not made here may have any value there. So an opener that makes no settings always gets
    /// the instance. Functions, such as those of `setup` and of [`Migrations`](crate::Migrations), are compared by
    /// their types: closures and functions are the same if they are written in the same place of the program, function
    /// pointers and boxed functions if they have the same signature.
    ///
    /// # Errors
    /// As [`Builder::open`]. [`ErrorKind::AlreadyOpen`]: the file is open with another setting, which the error names;
    /// or the other instance was not wholly open or closed in time. [`ErrorKind::Config`]: a database in memory has no
    /// name by which another opener could find it; clone its handle. [`ErrorKind::Replaced`]: the instance has lost its
    /// file.
    ///
    /// # Cancel safety
    /// If the future is dropped, what it has opened is closed in the background, and other openers cannot get it.
    ///
    /// # Examples
    /// ```
    /// use lockkeeper::{Database, Synchronous};
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("app.db");
    /// # futures_lite::future::block_on(async {
    /// let one = Database::builder(&path).synchronous(Synchronous::Normal).open_shared().await?;
    /// let two = Database::open_shared(&path).await?; // the same instance
    /// one.write(|tx| tx.execute_batch("CREATE TABLE t (x)")).await?;
    /// assert!(two.read(|s| s.table_exists(None, "t")).await?);
    ///
    /// let error = Database::builder(&path).synchronous(Synchronous::Off).open_shared().await;
    /// assert!(error.unwrap_err().to_string().contains("`synchronous` is Normal there and Off here"));
    /// # Ok::<_, lockkeeper::Error>(()) }).unwrap();
    /// ```
    pub async fn open_shared(mut self) -> Result<Database, Error> {
        check(&self.config)?;
        if self.config.is_memory() {
            return Err(Error::new(ErrorKind::Config).detail(
                "a database in memory has no name by which another opener could find it; clone its handle",
            ));
        }
        self.config.share = true;
        loop {
            let Self { config, migrations, machine, .. } = self.clone();
            let (database, writer_built) = Database::start(config, migrations, machine)?;
            let core = Arc::clone(database.core());
            let error = match database.opened(writer_built).await {
                Ok(database) => return Ok(database),
                Err(error) => error,
            };
            let other = core.other.get().and_then(|other| other.downcast_ref::<WeakDatabase>());
            let Some(other) = other else { return Err(error) };
            // If the other instance was closed meanwhile, the next turn of the loop opens the file.
            if let Some(database) = other.upgrade() {
                return fitting(database, &self);
            }
        }
    }

    /// As [`Builder::open_shared`], blocking this thread.
    ///
    /// # Errors
    /// As [`Builder::open_shared`].
    pub fn blocking_open_shared(self) -> Result<Database, Error> {
        block_on(self.open_shared())
    }
}

impl Database {
    /// Opens, or creates, the database file at `path`; if this process has the file open already, returns a handle to
    /// that instance. See [`Builder::open_shared`].
    ///
    /// # Errors
    /// As [`Builder::open_shared`].
    ///
    /// # Cancel safety
    /// As [`Builder::open_shared`].
    #[track_caller]
    pub fn open_shared(path: impl AsRef<Path>) -> impl Future<Output = Result<Self, Error>> + Send {
        Self::builder(path).open_shared()
    }

    /// As [`Database::open_shared`], blocking this thread.
    ///
    /// # Errors
    /// As [`Builder::open_shared`].
    #[track_caller]
    pub fn blocking_open_shared(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder(path).blocking_open_shared()
    }
}

/// `database`, if it has the settings of `wanted` (SH2).
fn fitting(database: Database, wanted: &Builder) -> Result<Database, Error> {
    let core = database.core();
    if let Some(lost) = core.opener.file.lost() {
        return Err(lost);
    }
    let (open, own) = (&core.migrations, &wanted.migrations);
    let other_migrations = || {
        let differ = own.is_some() && own != open;
        differ.then(|| {
            format!(
                "`migrations` is {open:?} there and {own:?} here (the SQL and the functions of the steps are \
                 compared, too)"
            )
        })
    };
    match differing(&core.config, wanted).or_else(other_migrations) {
        None => Ok(database),
        Some(how) => {
            let path = core.opener.path().unwrap_or(Path::new("")).display();
            let by = core.config.opened_by;
            Err(Error::new(ErrorKind::AlreadyOpen).detail(format!(
                "this process opened {path} at {by} with other settings: {how}; make the same settings, or leave \
                 them out"
            )))
        }
    }
}

/// Names the first setting that was made in `wanted` and has another value in `open`; `None`: there is none.
fn differing(open: &Config, wanted: &Builder) -> Option<String> {
    let Builder { config: wanted, made, .. } = wanted;
    macro_rules! compare {
        ($($setting:literal: $field:ident),* $(,)?) => {$(
            if made.contains($setting) && wanted.$field != open.$field {
                let (there, here) = (&open.$field, &wanted.$field);
                return Some(format!("`{}` is {there:?} there and {here:?} here", $setting));
            }
        )*};
    }
    compare!(
        "vfs": vfs,
        "read_only": read_only,
        "immutable": immutable,
        "synchronous": synchronous,
        "busy_timeout": busy_timeout,
        "readers": readers,
        "queue_capacity": queue_capacity,
        "page_cache_bytes": page_cache_bytes,
        "statement_cache": statement_cache,
        "batch_max": batch_calls_max,
        "batch_max": batch_time_max,
        "batch_max": batch_wal_bytes_max,
        "checkpoint_wal_bytes": checkpoint_wal_bytes,
        "wal_bytes_max": wal_bytes_max,
        "snapshot_age_max": snapshot_age_max,
        "snapshots_max": snapshots_max,
        "feed_capacity": feed_capacity,
        "statistics": statistics,
        "other_processes": look_interval,
        "shed_after": shed_after,
        "run_writes_twice": run_writes_twice,
        "network_files": network_files,
        "setup": setup,
        "on_slow": on_slow,
        "on_thread_start": on_thread_start,
    );
    // Opening raised `open.readers_max` to at least `open.readers`. `wanted` was not opened, so it is raised here.
    let readers_max = wanted.readers_max.max(open.readers);
    (made.contains("readers_max") && readers_max != open.readers_max).then(|| {
        let (there, here) = (open.readers_max, wanted.readers_max);
        format!("`readers_max` is {there} there and {here} here")
    })
}
