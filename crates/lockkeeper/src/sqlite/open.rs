//! Opening a connection with the settings that calls rely on.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
#[cfg(unix)]
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::hooks::AuthContext;
use rusqlite::{Connection, MAIN_DB, OpenFlags, ffi};

use super::callbacks::{Access, Callbacks};
use super::link::Link;
use super::opener::Opener;
use super::snapshot::Snapshot;
use super::temporary::OfSetup;
use super::{instance, interrupt, lock_wait, path, setup};
use crate::config::Config;
use crate::error::{Error, ErrorKind, are_descriptors_exhausted};
use crate::ffi::{Session, Sql, count_by_call};
use crate::place::Role;
use crate::sync::now;

impl Opener {
    /// Opens a connection for `role`, with the settings that calls rely on.
    pub(crate) fn open(&self, role: Role) -> Result<Snapshot, Error> {
        open_checked(self, role, &|_| Ok(()))
    }

    /// Opens a new writer's connection of a memory database and copies the content of `old` into it.
    pub(crate) fn open_with_content(&self, old: &Link) -> Result<Snapshot, Error> {
        let mut new = self.open(Role::Writer)?;
        let from = old.session.conn();
        let (copied, prepared) = new.link.session.lend(|conn| copy_memory(from, conn), |_| ());
        let failed = |error| Error::sqlite_error(ErrorKind::Faulted, error);
        copied.and(prepared).map_err(failed)?;
        // Fails if the copy cannot be read, for example because it has another encoding.
        new.link.session.run(Sql::Pin).map_err(failed)?;
        Ok(new)
    }

    /// Removes the file's WAL if the WAL is empty and no connection has the file open; SQLite's own locks guard the
    /// removal. Call it after the read-only connections that made the WAL are closed, because they cannot remove it.
    pub(crate) fn remove_empty_wal(&self) -> rusqlite::Result<()> {
        let wal = self.file.path().map(|path| std::fs::metadata(path::beside(path, "-wal")));
        if !matches!(wal, Some(Ok(wal)) if wal.len() == 0) {
            return Ok(());
        }
        let conn = connect(self, Role::Copier)?;
        conn.busy_timeout(Duration::ZERO)?;
        // SQLite removes the WAL when the last connection is closed, if that connection has opened the WAL. The query
        // opens it.
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
    }
}

/// Opens a connection; `check` may refuse the file before anything in it is changed.
pub(super) fn open_checked(
    opener: &Opener,
    role: Role,
    check: &dyn Fn(&Connection) -> Result<(), Error>,
) -> Result<Snapshot, Error> {
    let failed = |error| Error::sqlite_error(ErrorKind::Open, error);
    let (config, file) = (&*opener.config, &opener.file);
    // So that the error says what is wrong with the file. The check does not keep SQLite from making another file in its
    // place; `connect` does (FILE4).
    file.check()?;
    let connection = connect(opener, role)
        .map_err(|error| file.check().err().unwrap_or_else(|| explain(opener, error)))?;
    // From here on the session closes the connection, whatever `setup` leaves on it.
    let mut session = Session::new(connection);
    let callbacks = Arc::new(Callbacks::new(Arc::clone(&opener.wakeups), config.busy_timeout));
    interrupt::install(&mut session, &callbacks, false).map_err(failed)?;
    let conn = session.conn();
    if role == Role::Writer && conn.is_readonly(MAIN_DB).map_err(failed)? {
        // If the file is not writable, SQLite opens it read-only without an error, and every write would fail.
        let shown = opener.path().unwrap_or(Path::new("")).display();
        return Err(Error::new(ErrorKind::Open).detail(unwritable(&shown)));
    }
    check(conn).map_err(|error| match error.kind() {
        ErrorKind::Corrupt | ErrorKind::Sqlite | ErrorKind::Busy => {
            error.into_sqlite().map_or(Error::new(ErrorKind::Open), |error| explain(opener, error))
        }
        _ => error,
    })?;
    configure(conn, opener, role)?;
    conn.set_prepared_statement_cache_capacity(config.statement_cache);
    count_by_call(conn, &callbacks.counters).map_err(failed)?;
    setup::run(conn, config, role)?;
    if role == Role::Writer {
        let files = attached(conn).map_err(failed)?;
        instance::attach(config, file, files.into_iter().map(|(_, file)| file).collect())?;
        configure_attached(conn, config.busy_timeout).map_err(|error| {
            failed(error).detail("an attached file could not be brought into WAL mode")
        })?;
    }
    // Statements that `setup` left in the cache were prepared before the authorizer was installed.
    conn.flush_prepared_statement_cache();
    // `install` sets the busy handler a second time, because `setup` may have set a busy timeout, which removes the
    // handler.
    let of_setup = OfSetup::new(conn).map_err(failed)?;
    install(&mut session, &callbacks, config, role).map_err(failed)?;
    session.prepare().map_err(failed)?;
    opener.board.register(role, &callbacks.slot);
    if role != Role::Copy {
        // Opens the WAL, for two reasons. Only a connection that has opened the WAL copies it back, or removes it when
        // the connection is closed. And `file.check` below must compare the files that this connection has open, not
        // those that it would open later.
        session.run(Sql::Pin).map_err(|error| explain(opener, error))?;
    }
    if role != Role::Writer {
        file.check()?;
    }
    let link = Link {
        session,
        callbacks,
        read_only: Cell::new(role != Role::Writer),
        writes: Cell::new(0),
        of_setup,
        stale: Cell::new(false),
        protect: Cell::new(false),
        saved: Cell::new(false),
        noted: config.statistics || config.on_slow.is_some(),
        work: config.on_slow.as_ref().map(|_| Cell::default()),
        last_sql: RefCell::default(),
    };
    // A transaction that `setup` began would pin a snapshot.
    if !link.clean() {
        return Err(
            Error::new(ErrorKind::Open).detail("`setup` left a transaction that cannot be ended")
        );
    }
    // The row counts start from 0 again, so that no call counts the rows that `setup` changed.
    link.begin_own();
    Ok(Snapshot { link })
}

/// Copies the main database and the databases that `setup` attached, as far as they are in memory.
fn copy_memory(from: &Connection, to: &mut Connection) -> rusqlite::Result<()> {
    let page_size: i64 = from.pragma_query_value(None, "page_size", |row| row.get(0))?;
    to.pragma_update(None, "page_size", page_size)?;
    let in_source = databases(from)?;
    for (number, name, file) in databases(to)? {
        let is_copied = number != TEMP && file.is_none();
        if is_copied && in_source.iter().any(|(_, of, _)| *of == name) {
            let copy = Backup::new_with_names(from, name.as_str(), to, name.as_str())?;
            copy.run_to_completion(i32::MAX, Duration::ZERO, None)?;
        }
    }
    Ok(())
}

/// Installs the busy and progress handlers, the authorizer and the hooks. Call it again after the bare connection was
/// lent to `setup` or to an exclusive call.
pub(crate) fn install(
    session: &mut Session,
    callbacks: &Arc<Callbacks>,
    config: &Config,
    role: Role,
) -> rusqlite::Result<()> {
    interrupt::install(session, callbacks, role == Role::Writer && !config.is_memory())?;
    let conn = session.conn_mut();
    let authorizer = Arc::clone(callbacks);
    conn.authorizer(Some(move |context: AuthContext<'_>| authorizer.authorize(&context)))?;
    if role != Role::Writer {
        return Ok(());
    }
    // Calls cannot commit. But if a call steps a statement that began before the transaction was lost, SQLite commits
    // when the statement ends. The hook turns that COMMIT into a rollback.
    let at_commit = Arc::clone(callbacks);
    conn.commit_hook(Some(move || at_commit.access.get() == Access::Call))
}

/// To be called after an exclusive call. Rolls back the transaction that the call left open, and installs the hooks
/// again, because the library still uses the connection before it replaces it.
pub(crate) fn end_exclusive(session: &mut Session, callbacks: &Arc<Callbacks>, config: &Config) {
    callbacks.access.set(Access::Open);
    // The cached statements were authorized for an exclusive call.
    session.conn().flush_prepared_statement_cache();
    let _ = install(session, callbacks, config, Role::Writer);
    let conn = session.conn();
    if !conn.is_autocommit() {
        // Inside a transaction the PRAGMA would be ignored.
        let _ = conn.execute_batch("ROLLBACK");
    }
    let _ = configure_attached(conn, config.busy_timeout);
    let _ = conn.execute_batch("PRAGMA foreign_keys = ON; PRAGMA defer_foreign_keys = OFF");
    // The new locking mode takes effect at the next access to the file, so a query follows.
    let unlock = "PRAGMA locking_mode = NORMAL; SELECT 1 FROM sqlite_schema LIMIT 1";
    let _ = conn.execute_batch(unlock);
}

/// Switches a file to WAL mode. Returns the mode that the file is in afterwards, because SQLite may refuse the change
/// without an error.
///
/// The change needs an exclusive lock. SQLite does not call the busy handler where two connections might wait for each
/// other: if several processes open a new file at the same time, some get `SQLITE_BUSY`. So this function retries.
fn into_wal(conn: &Connection, schema: &str, timeout: Duration) -> rusqlite::Result<String> {
    let give_up_at = now().checked_add(timeout);
    let mut seed = std::process::id() | 1;
    let mut attempt = 0;
    loop {
        let changed =
            conn.pragma_update_and_check(Some(schema), "journal_mode", "WAL", |row| row.get(0));
        let busy = changed.as_ref().is_err_and(|error| {
            error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
        });
        if !busy || give_up_at.is_some_and(|at| now() >= at) {
            return changed;
        }
        std::thread::sleep(lock_wait::nap(attempt, &mut seed));
        attempt += 1;
    }
}

/// Switches attached files to WAL mode too. In any other mode a single reader, such as a held snapshot, blocks every
/// writer of the file (<https://www.sqlite.org/lockingv3.html>). Read-only files keep their mode.
pub(crate) fn configure_attached(
    conn: &Connection,
    busy_timeout: Duration,
) -> rusqlite::Result<()> {
    for (name, _) in attached(conn)? {
        into_wal(conn, &name, busy_timeout)?;
    }
    Ok(())
}

/// The names and paths of attached files that can be written.
fn attached(conn: &Connection) -> rusqlite::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for (number, name, file) in databases(conn)? {
        if let Some(file) = file.filter(|_| number > TEMP)
            && !conn.is_readonly(name.as_str())?
        {
            files.push((name, file));
        }
    }
    Ok(files)
}

/// The number of the temporary database in `PRAGMA database_list`; 0 is the main one.
const TEMP: i64 = 1;

/// The number, the name and the file of each database of the connection; `None`: it has no file.
fn databases(conn: &Connection) -> rusqlite::Result<Vec<(i64, String, Option<PathBuf>)>> {
    let mut list = conn.prepare("PRAGMA database_list")?;
    let rows = list.query_map([], |row| {
        let path = row.get_ref(2)?.as_bytes_or_null()?.filter(|path| !path.is_empty());
        Ok((row.get(0)?, row.get(1)?, path.map(path_of)))
    })?;
    rows.collect()
}

/// The path that SQLite reports, which need not be UTF-8.
fn path_of(bytes: &[u8]) -> PathBuf {
    #[cfg(unix)]
    return std::ffi::OsStr::from_bytes(bytes).into();
    #[cfg(not(unix))]
    return String::from_utf8_lossy(bytes).into_owned().into();
}

fn connect(opener: &Opener, role: Role) -> rusqlite::Result<Connection> {
    let config = &opener.config;
    let Some(path) = opener.path() else { return Connection::open_in_memory() };
    let access = match role {
        // Files that calls attach may be created too, so the flag stays when the main file is known.
        Role::Writer if config.creates() => {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        }
        Role::Writer | Role::Copier => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Role::Reader | Role::Copy => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let mut flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut name = Cow::Borrowed(path);
    let parameter = match role {
        _ if config.immutable => Some("immutable=1"),
        // This forbids to create the main file (FILE4).
        Role::Writer if config.creates() && opener.file.is_known() => Some("mode=rw"),
        _ => None,
    };
    if let Some(parameter) = parameter {
        flags |= OpenFlags::SQLITE_OPEN_URI;
        name = Cow::Owned(path::uri(path, parameter).into());
    }
    match &config.vfs {
        None => Connection::open_with_flags(name, flags),
        Some(vfs) => Connection::open_with_flags_and_vfs(name, flags, vfs.as_str()),
    }
}

/// Applies the library's settings, and checks those that SQLite may have refused without an error.
fn configure(conn: &Connection, opener: &Opener, role: Role) -> Result<(), Error> {
    let (config, failed) = (&opener.config, |error| explain(opener, error));
    // Clamped to 1..=i32::MAX: SQLite reads a number above `i32::MAX` as 0, and replaces 0 by its default size when it
    // loads the schema.
    let kib = i32::try_from(config.page_cache_bytes / 1024).unwrap_or(i32::MAX).max(1);
    let settings = format!("PRAGMA cache_size = -{kib}; PRAGMA foreign_keys = ON");
    conn.execute_batch(&settings).map_err(failed)?;
    if config.is_memory() {
        return Ok(());
    }
    if role == Role::Writer {
        let mode = into_wal(conn, "main", config.busy_timeout).map_err(failed)?;
        if mode != "wal" {
            let detail = format!("the file system or VFS offers no WAL: journal_mode is {mode}");
            return Err(Error::new(ErrorKind::Open).detail(detail));
        }
        // When the WAL starts over after a checkpoint, SQLite truncates the `-wal` file to this size.
        let limit = i64::try_from(config.wal_bytes_max).unwrap_or(i64::MAX);
        let limit = format!("PRAGMA journal_size_limit = {limit}");
        conn.query_row(&limit, [], |_| Ok(())).map_err(failed)?;
    }
    let synchronous = format!("PRAGMA synchronous = {}", config.synchronous.sql());
    conn.execute_batch(&synchronous).map_err(failed)?;
    // Automatic checkpoints are off, because each would run inside the COMMIT of a call; see `wal/checkpoint.rs`.
    conn.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(())).map_err(failed)
}

fn unwritable(shown: &std::path::Display<'_>) -> String {
    format!(
        "{shown} or its directory is not writable; WAL mode needs both; to read it alone, use `Builder::read_only`"
    )
}

/// Says what to do about a file that cannot be opened read-only.
fn unreadable(path: &Path, extended_code: i32) -> String {
    let shown = path.display();
    match extended_code {
        ffi::SQLITE_READONLY_ROLLBACK | ffi::SQLITE_READONLY_RECOVERY => format!(
            "{shown}: a program was killed while it wrote; open it once for writing, which undoes what was not \
             finished"
        ),
        _ => format!(
            "{shown}: check that it can be read; in WAL mode its `-wal` and `-shm` must be there and readable, or \
             the directory writable, so that they can be made; if nothing ever writes the file, use \
             `Builder::immutable`"
        ),
    }
}

/// Turns `error`, from opening the file, into an error that names the path and says what to do.
fn explain(opener: &Opener, error: rusqlite::Error) -> Error {
    let config = &opener.config;
    let Some(path) = opener.path() else {
        return Error::sqlite_error(ErrorKind::Open, error);
    };
    let shown = path.display();
    let code = error.sqlite_error().map_or(0, |error| error.extended_code);
    let (kind, detail) = match code & 0xff {
        // `Error` adds the hint about file descriptors.
        ffi::SQLITE_CANTOPEN if are_descriptors_exhausted() => (ErrorKind::Open, shown.to_string()),
        ffi::SQLITE_CANTOPEN if !config.creates() && path::is_absent(path) => {
            (ErrorKind::NotFound, format!("{shown} does not exist any more"))
        }
        ffi::SQLITE_CANTOPEN | ffi::SQLITE_READONLY if config.is_read_only() => {
            (ErrorKind::Open, unreadable(path, code))
        }
        ffi::SQLITE_CANTOPEN => {
            let hint = "check that the file and its directory can be read and written";
            (ErrorKind::Open, format!("{shown}: {hint}"))
        }
        ffi::SQLITE_READONLY | ffi::SQLITE_PERM | ffi::SQLITE_AUTH => {
            (ErrorKind::Open, unwritable(&shown))
        }
        ffi::SQLITE_NOTADB => (ErrorKind::Corrupt, format!("{shown} is not a SQLite database")),
        ffi::SQLITE_CORRUPT => (ErrorKind::Corrupt, format!("{shown} is damaged")),
        ffi::SQLITE_BUSY => (ErrorKind::Busy, format!("{shown} is locked by another process")),
        ffi::SQLITE_FULL => (ErrorKind::DiskFull, shown.to_string()),
        _ => (ErrorKind::Open, shown.to_string()),
    };
    Error::sqlite_error(kind, error).detail(detail)
}
