//! Copies a database while writes go on, checks the copy, and puts it in place as a whole.
//!
//! A backup is a read on a reader thread that copies the pages of one snapshot with SQLite's backup interface. Inside a
//! read transaction the source does not change, so the copy never starts over, however much is written
//! (`docs/design/backup.md`). The copy is made under another name in the target's directory, checked, synced, and only
//! then renamed.
//!
//! - BKUP1: at any time, the target's name leads to the old file or to the complete new one.
//! - BKUP2: no open database is replaced: neither one of this process nor one that has a WAL.
//! - BKUP3: the copy is one file in rollback mode, without a WAL that could be lost when the file is moved.
//! - BKUP4: a file is replaced only if it is empty or begins as an SQLite database does. Symbolic links are followed:
//!   the file to which a link leads is replaced, and the link stays.
//! - BKUP5: users who cannot read the replaced file cannot read the copy. If no file is replaced, the same holds for
//!   users who cannot read the source.
//!
//! `target.rs` keeps BKUP1, BKUP2, BKUP4 and BKUP5.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::backup::{Backup as Pages, StepResult};
use rusqlite::{Connection, OpenFlags, ffi};

use super::target::{Target, io, of, refused};
use super::{handle::Inner, read::Read, submission::Submission};
#[cfg(doc)]
use crate::Client;
use crate::config::{Callback, Setup};
use crate::engine::call::Once;
use crate::error::{Error, ErrorKind};
use crate::ffi::Session;
use crate::place::{Refusal, Role};
use crate::queue::{self, block_on};
use crate::sqlite::snapshot::Snapshot;
use crate::sqlite::{instance, path, setup};
use crate::stats::holders::HolderKind;
use crate::sync::now;

/// Pages copied between two checks whether to stop: some milliseconds of work.
const STEP_PAGES: i32 = 1024;

/// The progress of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// Pages copied so far.
    pub pages: u64,
    /// Pages of the whole database.
    pub of: u64,
}

/// The result of a backup or a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// Size of the copy in bytes.
    pub bytes: u64,
    /// Time from the beginning of the copy to its rename, including the check.
    pub elapsed: Duration,
}

type Report = Box<dyn FnMut(BackupProgress) + Send>;

/// A backup: a builder that can be awaited; see [`Client::backup`].
#[must_use = "a backup begins when it is awaited"]
pub struct Backup<E: Send + 'static> {
    submission: Submission,
    to: Result<PathBuf, Refusal>,
    report: Report,
    error: PhantomData<fn() -> E>,
}

opaque_debug!("Backup", [E: Send + 'static] Backup<E>, to: to);

impl<E: Send + 'static> Backup<E> {
    #[track_caller]
    pub(crate) fn new(inner: &Arc<Inner>, to: &Path) -> Self {
        let submission = Submission::new(HolderKind::Backup, inner);
        let (to, report) = (path::absolute(to), Box::new(|_| {}));
        Self { submission, to, report, error: PhantomData }
    }

    /// Calls `f` on the reader's thread whenever another few megabytes have been copied.
    pub fn progress(mut self, f: impl FnMut(BackupProgress) + Send + 'static) -> Self {
        self.report = Box::new(f);
        self
    }

    /// Makes the backup and blocks this thread until it is in place.
    ///
    /// # Errors
    /// As [`Client::backup`].
    pub fn blocking_run(self) -> Result<BackupReport, Error<E>> {
        block_on(self.into_future())
    }
}

impl<E: Send + 'static> IntoFuture for Backup<E> {
    type Output = Result<BackupReport, Error<E>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { submission, to, mut report, .. } = self;
        let core = &submission.inner.core;
        let (source, setup) = (core.opener.path().map(Path::to_owned), core.config.setup.clone());
        Box::pin(async move {
            let to = to.map_err(refused).map_err(Error::without_call)?;
            let copying = move |snapshot: &Snapshot| {
                let conn = snapshot.link.session.conn();
                copy(conn, source.as_deref(), &to, &setup, &mut report, &Arc::default())
            };
            Read::by(submission, Once(Some(copying))).await.map_err(|error| {
                match error.into_call() {
                    Ok(error) => error.without_call(),
                    Err(error) => error.without_call(),
                }
            })
        })
    }
}

/// Copies the database in the file `from`, such as a backup, checks the copy and puts it in the place of the file `to`,
/// which need not exist. Blocks this thread.
///
/// # Errors
/// [`ErrorKind::Corrupt`]: `from` is damaged; `to` is as it was. [`ErrorKind::Backup`]: `to` is in use, or the copy
/// could not be made.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let (file, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
/// let db = lockkeeper::Database::blocking_open(&file)?;
/// db.blocking_write(|tx| tx.execute_batch("CREATE TABLE t (x)"))?;
/// db.backup(&copy).blocking_run()?;
/// db.blocking_write(|tx| tx.execute_batch("DROP TABLE t"))?; // alas
/// db.blocking_close()?;
/// lockkeeper::blocking_restore(&copy, &file)?;
/// # let db = lockkeeper::Database::blocking_open(&file)?;
/// # assert!(db.blocking_read(|s| s.table_exists(None, "t"))?);
/// # Ok::<_, lockkeeper::Error>(())
/// ```
pub fn blocking_restore(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
) -> Result<BackupReport, Error> {
    Restore::new(from, to).blocking_run()
}

/// As [`blocking_restore`], and can also report its progress and be stopped.
#[must_use = "it begins when it is run"]
pub struct Restore {
    from: Result<PathBuf, Refusal>,
    to: Result<PathBuf, Refusal>,
    setup: Vec<Callback<Setup>>,
    report: Report,
    stop: Arc<AtomicBool>,
}

opaque_debug!("Restore", [] Restore, from: from, to: to);

impl Restore {
    /// A restore of the database in the file `from`, in the place of the file `to`.
    pub fn new(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Self {
        let (from, to) = (path::absolute(from.as_ref()), path::absolute(to.as_ref()));
        Self { from, to, setup: Vec::new(), report: Box::new(|_| {}), stop: Arc::default() }
    }

    /// Calls `f` on the connection that checks the copy, as [`Builder::setup`](crate::Builder::setup) does for a
    /// database. Tables and indexes whose functions and collations are missing are checked less thoroughly.
    pub fn setup<F>(mut self, f: F) -> Self
    where
        F: Fn(&Connection) -> rusqlite::Result<()> + Send + Sync + 'static,
    {
        self.setup.push(Callback::new::<F>(Arc::new(f)));
        self
    }

    /// Calls `f` whenever another few megabytes have been copied. The check, which takes about as long as the copy,
    /// comes after the last page.
    pub fn progress(mut self, f: impl FnMut(BackupProgress) + Send + 'static) -> Self {
        self.report = Box::new(f);
        self
    }

    /// Makes the restore fail with [`ErrorKind::Backup`] soon after `stop` becomes true. The copy is removed, unless it
    /// has been put in place already.
    pub fn stop_when(mut self, stop: Arc<AtomicBool>) -> Self {
        self.stop = stop;
        self
    }

    /// Copies, checks, and puts the copy in place.
    ///
    /// # Errors
    /// As [`blocking_restore`].
    pub fn blocking_run(mut self) -> Result<BackupReport, Error> {
        let (from, to) = (self.from.map_err(refused)?, self.to.map_err(refused)?);
        let conn = open_source(&from, &to)?;
        let done = copy(&conn, Some(&from), &to, &self.setup, &mut self.report, &self.stop);
        match done {
            Err(_) if self.stop.load(Ordering::Relaxed) => {
                let detail =
                    format!("{}: stopped; what was there before is there still", to.display());
                Err(refused(detail))
            }
            done => done,
        }
    }
}

/// Opens the file `from` for a copy to `to`, in a read transaction.
fn open_source(from: &Path, to: &Path) -> Result<Connection, Error> {
    let resolved = path::resolve(from).map_err(refused)?;
    let file = std::fs::metadata(&resolved).map_err(|error| io(from, &error))?;
    path::check_length(&resolved).map_err(refused)?;
    path::check_kind(&resolved).map_err(refused)?;
    let (shown, from) = (from.display(), resolved.as_path());
    if let Some(name) = instance::other_name(from) {
        let name = name.display();
        return Err(refused(format!(
            "{shown} is a hard link to {name}, which this process has open; name it so"
        )));
    }
    let is_alone = ["-wal", "-journal"].into_iter().all(|end| !path::beside(from, end).exists());
    if file.len() == 0 && is_alone {
        // SQLite takes an empty file for a database without tables. A restore would replace a good database by it.
        let detail = format!("{shown}: the file is empty; was it cut off?");
        return Err(Error::new(ErrorKind::Corrupt).detail(detail));
    }
    if path::resolve(to).is_ok_and(|to| is_same(from, &to)) {
        let detail = format!("{shown}: it cannot take its own place; name another file");
        return Err(refused(detail));
    }
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let writable = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // Reading a file in WAL mode makes a WAL and its index, and only a connection that can write removes them again. If
    // there is a WAL already, this connection must not checkpoint it, so it is read-only.
    let conn = match is_alone {
        true => Connection::open_with_flags(from, writable)
            .or_else(|_| Connection::open_with_flags(from, read_only)),
        false => Connection::open_with_flags(from, read_only),
    };
    let conn = conn.map_err(|error| of(from, error))?;
    conn.execute_batch("PRAGMA query_only = ON; BEGIN; SELECT 1 FROM sqlite_schema").map_err(
        |error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::CannotOpen) => refused(format!(
                "{shown}: {error}; a file in WAL mode is read with a `-wal` and a `-shm` beside it: copy it to a \
                 directory that can be written"
            )),
            _ => of(from, error),
        },
    )?;
    Ok(conn)
}

/// Whether two resolved paths name the same file.
fn is_same(a: &Path, b: &Path) -> bool {
    let (file, other) = (path::identity(a), path::identity(b));
    a == b || (file.is_some() && file == other)
}

/// Copies the database of `from`, inside its read transaction, to the file `to`. `source` is the file of `from`;
/// `None`: a memory database.
fn copy(
    from: &Connection,
    source: Option<&Path>,
    to: &Path,
    setup: &[Callback<Setup>],
    report: &mut dyn FnMut(BackupProgress),
    stop: &Arc<AtomicBool>,
) -> Result<BackupReport, Error> {
    let began = now();
    let target = Target::find(to)?;
    let partial = target.begin(source)?;
    let to = target.path.as_path();
    // BEGIN takes no snapshot; the first read does.
    from.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        .map_err(|error| of(to, error))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(partial.path(), flags)
        .map_err(|error| of(partial.path(), error))?;
    let failed = |error| of(to, error);
    // A copy that fails is removed, so it needs no rollback.
    conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE")
        .map_err(failed)?;
    pages(from, &mut conn, report, stop).map_err(failed)?;
    // BKUP3. Setting `user_version` below commits a page with a sync, which also writes all other pages to the disk.
    conn.execute_batch("PRAGMA synchronous = FULL").map_err(failed)?;
    let mode = "PRAGMA journal_mode = DELETE";
    let mode: String = conn.query_row(mode, [], |row| row.get(0)).map_err(failed)?;
    if mode != "delete" {
        let detail = format!("the copy for {} stays in the journal mode {mode}", to.display());
        return Err(refused(detail));
    }
    let version: i32 =
        conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    conn.execute_batch(&format!("PRAGMA user_version = {version}")).map_err(failed)?;
    conn.close().map_err(|(_, error)| of(to, error))?;
    check(partial.path(), to, setup, stop)?;
    let bytes = std::fs::metadata(partial.path()).map_or(0, |file| file.len());
    // The check of a few large rows does not call the progress handler, so it may have missed the stop.
    if is_stopped(stop) {
        return Err(failed(interrupted()));
    }
    // Checked again, because another program may have changed the target during the copy.
    if !target.is_as_found()? {
        let why =
            "another file has been put there meanwhile; it is left alone, make the copy again";
        return Err(refused(format!("{}: {why}", to.display())));
    }
    partial.put_in_place(&target)?;
    Ok(BackupReport { bytes, elapsed: now() - began })
}

/// Checks the copy in the file `partial`, which will become `to`. `setup` runs on the connection first, because indexes
/// that use the program's own collations can be checked only with these collations.
fn check(
    partial: &Path,
    to: &Path,
    setup: &[Callback<Setup>],
    stop: &Arc<AtomicBool>,
) -> Result<(), Error> {
    let failed = |error| of(to, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // The session closes the connection in whatever state `setup` leaves it.
    let mut session = Session::new(Connection::open_with_flags(partial, flags).map_err(failed)?);
    setup::run_all(session.conn(), setup, Role::Copy).map_err(|error| {
        refused(format!("{}: the copy cannot be checked: {error}", to.display()))
    })?;
    let stop = Arc::clone(stop);
    let stopping = move || is_stopped(&stop);
    session.conn_mut().progress_handler(100_000, Some(stopping)).map_err(failed)?;
    let conn = session.conn();
    let whole = match look(conn, "PRAGMA integrity_check(1)").map_err(failed)? {
        Some(whole) => whole,
        None => check_tables(conn).map_err(failed)?,
    };
    match whole.as_str() {
        "ok" => Ok(()),
        wrong => {
            let detail = format!("the copy for {} is not whole: {wrong}", to.display());
            Err(Error::new(ErrorKind::Corrupt).detail(detail))
        }
    }
}

/// Runs the PRAGMA or query `check` and returns its result. `None`: SQLite cannot compile the statement, because the
/// schema uses functions or collations that this connection does not have.
fn look(conn: &Connection, check: &str) -> rusqlite::Result<Option<String>> {
    match conn.query_row(check, [], |row| row.get(0)) {
        Err(rusqlite::Error::SqliteFailure(error, _))
            if error.extended_code & 0xff == ffi::SQLITE_ERROR =>
        {
            Ok(None)
        }
        // The same error with its position in the statement. The arm does not name the variant, because not every
        // version of rusqlite has it.
        Err(error) if error.sqlite_error().is_none() => Ok(None),
        answer => answer.map(Some),
    }
}

/// Checks each table by itself, as thoroughly as the missing functions and collations allow.
fn check_tables(conn: &Connection) -> rusqlite::Result<String> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0";
    let mut tables = conn.prepare(sql)?;
    let tables = tables.query_map([], |row| row.get::<_, String>(0))?;
    for table in tables {
        let table = table?.replace('"', "\"\"");
        let checks = [
            format!("PRAGMA integrity_check(\"{table}\")"),
            format!("PRAGMA quick_check(\"{table}\")"),
            format!("SELECT iif(count(*) < 0, '', 'ok') FROM \"{table}\" NOT INDEXED"),
        ];
        for check in checks {
            match look(conn, &check)? {
                Some(ok) if ok == "ok" => break,
                Some(wrong) => return Ok(wrong),
                None => {}
            }
        }
    }
    Ok(String::from("ok"))
}

fn is_stopped(stop: &AtomicBool) -> bool {
    queue::interrupt().is_some() || stop.load(Ordering::Relaxed)
}

fn interrupted() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_INTERRUPT), None)
}

fn pages(
    from: &Connection,
    to: &mut Connection,
    report: &mut dyn FnMut(BackupProgress),
    stop: &AtomicBool,
) -> rusqlite::Result<()> {
    let copying = Pages::new(from, to)?;
    // The loop ends, because the source does not change, so each step copies pages, and only this connection uses the
    // target.
    loop {
        if is_stopped(stop) {
            return Err(interrupted());
        }
        let step = copying.step(STEP_PAGES)?;
        let progress = copying.progress();
        let of = u64::try_from(progress.pagecount).unwrap_or(0);
        let left = u64::try_from(progress.remaining).unwrap_or(0);
        report(BackupProgress { pages: of.saturating_sub(left), of });
        match step {
            StepResult::More => {}
            StepResult::Done => return Ok(()),
            _ => {
                let busy = ffi::Error::new(ffi::SQLITE_BUSY);
                return Err(rusqlite::Error::SqliteFailure(busy, None));
            }
        }
    }
}
