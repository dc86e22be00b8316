//! Opening a connection, and the state it must be in between two calls.

use std::borrow::Cow;
use std::cell::Cell;
#[cfg(unix)]
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, MAIN_DB, OpenFlags, ffi};

use crate::config::Config;
use crate::counters::{Counters, Outer};
use crate::error::{Error, ErrorKind, are_descriptors_exhausted};
use crate::feed::Reads;
use crate::ffi::{Session, Sql, count_by_call};
use crate::holders::Slot;
use crate::instance;
use crate::interrupt::{self, LockWait};
use crate::opener::Opener;
use crate::path;
use crate::place::Role;
use crate::queue;
use crate::record::Recorder;
use crate::relay::Relay;
use crate::setup;
use crate::stats::Work;
use crate::sync::{Mutex, lock, now};
use crate::temporary::{OfSetup, TempSchema, is_temp};
use crate::transaction::Snapshot;

/// What the authorizer lets through; it runs whenever a statement is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Gate {
    /// The library's own statements, `setup` and exclusive calls: anything.
    Open,
    /// Calls: no transaction control, no ATTACH, no PRAGMA that outlives the call.
    Call,
    /// Exclusive calls: anything but what is the process's, because nothing could take it back.
    Exclusive,
}

/// Shared between a connection's callbacks and its owner. All on the owner's thread: the atomics
/// only satisfy the callbacks' `Send` bound, so every access is relaxed.
#[derive(Debug)]
pub(crate) struct Guard {
    gate: AtomicU8,
    /// The running call prepared `PRAGMA defer_foreign_keys`, which holds until the COMMIT.
    deferred_keys: AtomicBool,
    /// The running call prepared what changes a schema.
    pub(crate) temp_schema: TempSchema,
    /// Where the row counts of the running call begin.
    pub(crate) counters: Arc<Counters>,
    /// Frames in the WAL after the last commit on this connection.
    pub(crate) wal_frames: AtomicU32,
    /// The same of attached files: the most of any, since the last checkpoint.
    pub(crate) attached_wal_frames: AtomicU32,
    pub(crate) lock_wait: LockWait,
    /// What the running call changes; on while somebody subscribes.
    pub(crate) recorder: Arc<Recorder>,
    /// What the running call reads; on while a live query runs.
    reads: Mutex<Reads>,
    noting_reads: AtomicBool,
    /// Who uses this connection.
    pub(crate) slot: Arc<Slot>,
    /// Of the database: callers that were answered and are to be woken.
    pub(crate) relay: Arc<Relay>,
    /// Some of them may have been there when the running call began.
    pub(crate) answered_before: AtomicBool,
}

impl Guard {
    fn new(relay: Arc<Relay>, busy_timeout: Duration) -> Self {
        let slot = Arc::new(Slot::default());
        Self {
            gate: AtomicU8::new(Gate::Open as u8),
            deferred_keys: AtomicBool::new(false),
            temp_schema: TempSchema::default(),
            counters: Arc::default(),
            wal_frames: AtomicU32::new(0),
            attached_wal_frames: AtomicU32::new(0),
            lock_wait: LockWait::new(busy_timeout, Arc::clone(&slot)),
            recorder: Arc::new(Recorder::default()),
            reads: Mutex::default(),
            noting_reads: AtomicBool::new(false),
            slot,
            relay,
            answered_before: AtomicBool::new(false),
        }
    }

    /// Wakes those whom this thread has left to be woken, once: the call that it runs takes its time.
    pub(crate) fn release_answered(&self) {
        if self.answered_before.swap(false, Ordering::Relaxed) {
            self.relay.pass_on();
        }
    }

    /// Begins to note what is read, or ends it and gives what was noted.
    pub(crate) fn note_reads(&self, begin: bool) -> Reads {
        self.noting_reads.store(begin, Ordering::Relaxed);
        std::mem::take(&mut lock(&self.reads))
    }

    /// Takes note of a table that is read without a statement; no table: of the schema.
    pub(crate) fn note_direct_read(&self, schema: &str, table: Option<&str>) {
        if !self.is_noting_reads() {
            return;
        }
        let mut reads = lock(&self.reads);
        match table {
            None => reads.anything = true,
            Some(table) if schema.eq_ignore_ascii_case("main") => {
                reads.tables.insert(table.to_owned());
            }
            Some(table) => _ = reads.tables.insert(format!("{schema}.{table}")),
        }
    }

    pub(crate) fn is_noting_reads(&self) -> bool {
        self.noting_reads.load(Ordering::Relaxed)
    }

    fn authorize(&self, context: &AuthContext<'_>) -> Authorization {
        match self.gate.load(Ordering::Relaxed) {
            gate if gate == Gate::Call as u8 => {}
            gate if gate == Gate::Exclusive as u8 => return authorize_exclusive(&context.action),
            _ => return Authorization::Allow,
        }
        self.temp_schema.note(context);
        if self.recorder.is_on() {
            self.recorder.authorized(context);
        }
        if self.is_noting_reads() {
            note_read(&mut lock(&self.reads), context);
        }
        match &context.action {
            AuthAction::Transaction { .. }
            | AuthAction::Savepoint { .. }
            | AuthAction::Attach { .. }
            | AuthAction::Detach { .. } => Authorization::Deny,
            AuthAction::Pragma { pragma_name, pragma_value } => {
                let deferred = pragma_name.eq_ignore_ascii_case("defer_foreign_keys");
                if deferred {
                    self.deferred_keys.store(true, Ordering::Relaxed);
                }
                // It fails in a transaction, as every call is.
                if pragma_name.eq_ignore_ascii_case("wal_checkpoint") {
                    return Authorization::Deny;
                }
                // The temporary file has a `user_version` too, which no transaction of ours undoes.
                let undone = keeps_state(pragma_name)
                    && (!is_temp(context.database_name) || !is_in_header(pragma_name));
                match pragma_value.is_none() || deferred || undone {
                    true => Authorization::Allow,
                    false => Authorization::Deny,
                }
            }
            _ => Authorization::Allow,
        }
    }
}

/// What an exclusive call may do: everything but to set what the process has once for all connections.
fn authorize_exclusive(action: &AuthAction<'_>) -> Authorization {
    const OF_THE_PROCESS: [&str; 4] =
        ["soft_heap_limit", "hard_heap_limit", "temp_store_directory", "data_store_directory"];
    match action {
        AuthAction::Pragma { pragma_name, pragma_value: Some(_) }
            if OF_THE_PROCESS.iter().any(|own| pragma_name.eq_ignore_ascii_case(own)) =>
        {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }
}

fn is_in_header(pragma: &str) -> bool {
    ["application_id", "user_version"].iter().any(|field| pragma.eq_ignore_ascii_case(field))
}

/// Takes note of the table that a statement reads, as the feed names it.
fn note_read(reads: &mut Reads, context: &AuthContext<'_>) {
    match context.action {
        AuthAction::Read { table_name, .. } => {
            let schema = context.database_name.unwrap_or("main");
            // The schema itself, and what SQLite makes up from it or from the file, changes with any table.
            let of_all = ["sqlite_master", "sqlite_schema", "dbstat", "sqlite_dbpage"];
            if of_all.iter().any(|name| name.eq_ignore_ascii_case(table_name))
                || table_name.starts_with("pragma_")
            {
                reads.anything = true;
            } else if schema == "main" {
                reads.tables.insert(table_name.to_owned());
            } else {
                reads.tables.insert(format!("{schema}.{table_name}"));
            }
        }
        // It reports something of the schema or the file. FTS5 asks for the version in every query.
        AuthAction::Pragma { pragma_name, .. } => {
            reads.anything |= !pragma_name.eq_ignore_ascii_case("data_version");
        }
        _ => {}
    }
}

/// PRAGMAs whose argument changes nothing on the connection, or only what the transaction undoes.
fn keeps_state(pragma: &str) -> bool {
    const ALLOWED: [&str; 17] = [
        "application_id",
        "data_version",
        "foreign_key_check",
        "foreign_key_list",
        "function_list",
        "incremental_vacuum",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "optimize",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
        "user_version",
        "collation_list",
    ];
    ALLOWED.iter().any(|allowed| pragma.eq_ignore_ascii_case(allowed))
}

/// The connection as calls see it. Owned by one thread at a time.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) session: Session,
    pub(crate) guard: Arc<Guard>,
    /// Calls on this connection may only read.
    pub(crate) read_only: Cell<bool>,
    /// Statements of the running call that may have left something behind.
    pub(crate) writes: Cell<u32>,
    /// The temporary objects that `setup` made.
    pub(crate) of_setup: OfSetup,
    /// To be replaced before the next call: what a call left could not be taken away.
    pub(crate) stale: Cell<bool>,
    /// An earlier call of this transaction wrote: the running call needs a savepoint to fail alone.
    pub(crate) protect: Cell<bool>,
    /// The running call's savepoint is open.
    pub(crate) saved: Cell<bool>,
    /// Statistics are on: statements are noted as they are prepared.
    pub(crate) noted: bool,
    /// What the running call's statements did for want of an index; `None`: nobody asks.
    pub(crate) work: Option<Cell<Work>>,
}

impl Link {
    /// Begins a call: closes the gate and forgets the last call's marks.
    pub(crate) fn begin_call(&self, read_only: bool, protect: bool) {
        self.guard.gate.store(Gate::Call as u8, Ordering::Relaxed);
        self.read_only.set(read_only);
        self.writes.set(0);
        self.saved.set(false);
        self.protect.set(protect);
        self.guard.temp_schema.begin_call();
        self.forget_work();
    }

    /// Forgets what the last call's statements did for want of an index.
    pub(crate) fn forget_work(&self) {
        if let Some(work) = &self.work {
            work.set(Work::default());
        }
    }

    /// Undoes the call that has just run in its savepoint, alone; whether that can be trusted.
    pub(crate) fn undo_call(&self) -> bool {
        let undo =
            || self.session.run(Sql::RollbackTo).and_then(|()| self.session.run(Sql::Release));
        // O4 of `temporary.rs`.
        !self.guard.temp_schema.virtual_made() && undo().is_ok() && !self.is_lost()
    }

    /// Runs one of the library's own statements while a call runs.
    ///
    /// The gate is open meanwhile: whatever expires the connection's statements (a schema change, a
    /// PRAGMA) has this one prepared again, which the authorizer would deny to a call.
    ///
    /// It runs to its end, even if the call is canceled meanwhile: modules store what the calls before this one wrote
    /// when a savepoint begins, and stopped there, a full-text index refuses the COMMIT of all of them.
    pub(crate) fn run_in_call(&self, sql: Sql) -> rusqlite::Result<()> {
        let gate = self.guard.gate.swap(Gate::Open as u8, Ordering::Relaxed);
        let result = queue::unstoppable(|| self.session.run(sql));
        self.guard.gate.store(gate, Ordering::Relaxed);
        result
    }

    /// A call, or a lease, begins: it has changed no rows and made no temporary objects.
    pub(crate) fn begin_own(&self) {
        self.guard.temp_schema.begin();
        self.count_anew();
    }

    /// Counts rows from 0; returns what the call around this one, if there is one, has counted.
    pub(crate) fn count_anew(&self) -> Outer {
        self.session.set_last_insert_rowid(0);
        self.guard.counters.begin(self.session.conn().total_changes())
    }

    /// Begins an exclusive call.
    pub(crate) fn begin_exclusive(&self) {
        self.guard.gate.store(Gate::Exclusive as u8, Ordering::Relaxed);
        self.begin_own();
    }

    /// A call is about to prepare `sql`: it must be compiled for today's schema, so that it says which
    /// columns it has before it runs.
    ///
    /// SQLite looks whether the schema is still the one that a statement was compiled for when the
    /// statement is run. Others change it between two transactions: asked once in each. A call changes it
    /// itself: the statement that does so may be run at any time after it was prepared.
    pub(crate) fn before_prepare(&self, sql: &str) {
        if self.noted {
            self.guard.slot.prepared(sql);
        }
        self.refresh_schema();
    }

    /// Forgets prepared statements whose columns may be others now.
    pub(crate) fn refresh_schema(&self) {
        if self.session.has_new_schema() || self.guard.temp_schema.any_touched() {
            self.session.conn().flush_prepared_statement_cache();
        }
    }

    /// Whether a call is running.
    pub(crate) fn in_call(&self) -> bool {
        self.guard.gate.load(Ordering::Relaxed) == Gate::Call as u8
    }

    /// Ends a call: opens the gate, drops the statements that it has forgotten.
    pub(crate) fn end_call(&self) {
        self.guard.gate.store(Gate::Open as u8, Ordering::Relaxed);
        self.session.take_back();
        if self.guard.temp_schema.take_any_touched() {
            // O1
            self.session.conn().flush_prepared_statement_cache();
        }
    }

    /// Undoes `PRAGMA defer_foreign_keys`, which would hold for the next calls of the batch.
    ///
    /// To be called after the check for violations: switching it off does not check them.
    pub(crate) fn restore_keys(&self) -> rusqlite::Result<()> {
        match self.guard.deferred_keys.swap(false, Ordering::Relaxed) {
            true => self.session.conn().execute_batch("PRAGMA defer_foreign_keys = OFF"),
            false => Ok(()),
        }
    }

    /// Whether the transaction that the library began is gone.
    pub(crate) fn is_lost(&self) -> bool {
        self.session.conn().is_autocommit()
    }

    /// Leaves no transaction and no statement behind; false: the connection must be replaced.
    pub(crate) fn clean(&self) -> bool {
        self.session.take_back();
        if self.rolled_back() {
            return true;
        }
        // A statement that `setup` or an exclusive call leaked keeps its snapshot.
        self.session.halt_statements();
        self.rolled_back()
    }

    fn rolled_back(&self) -> bool {
        let conn = self.session.conn();
        if !conn.is_autocommit() && self.session.run(Sql::Rollback).is_err() {
            return false;
        }
        // A COMMIT that a full-text index refused leaves the transaction open for reading, because the index was
        // reading in it: the end of another one ends it too.
        !self.session.in_transaction()
            || (self.session.run(Sql::Begin).and_then(|()| self.session.run(Sql::Rollback)).is_ok()
                && !self.session.in_transaction())
    }
}

/// Opens a connection for `role` and brings it into the state that calls rely on.
pub(crate) fn open(opener: &Opener, role: Role) -> Result<Snapshot, Error> {
    open_checked(opener, role, &|_| Ok(()))
}

/// Opens the first connection, which is the writer's if there is one. `check` looks at the file before anything is
/// changed.
pub(crate) fn open_first(opener: &Opener, check: &Check<'_>) -> Result<Snapshot, Error> {
    let role = if opener.config.is_read_only() { Role::Reader } else { Role::Writer };
    open_checked(opener, role, check)
}

/// Whether a file may be used.
pub(crate) type Check<'c> = dyn Fn(&Connection) -> Result<(), Error> + 'c;

/// Takes away the WAL of a file that is open nowhere, if it is empty, under SQLite's own locks. To be called when the
/// connections that made it, which cannot do so, are closed.
pub(crate) fn remove_empty_wal(opener: &Opener) -> rusqlite::Result<()> {
    let wal = opener.file.path().map(|path| std::fs::metadata(path::beside(path, "-wal")));
    if !matches!(wal, Some(Ok(wal)) if wal.len() == 0) {
        return Ok(());
    }
    let conn = connect(opener, Role::Copier)?;
    conn.busy_timeout(Duration::ZERO)?;
    // Only a connection that has opened the WAL removes it when it is closed.
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

fn open_checked(opener: &Opener, role: Role, check: &Check<'_>) -> Result<Snapshot, Error> {
    let failed = |error| Error::sqlite_error(ErrorKind::Open, error);
    let (config, file) = (&*opener.config, &opener.file);
    if let Some(lost) = file.lost() {
        return Err(lost);
    }
    // From here on the session closes the connection, whatever `setup` leaves on it.
    let mut session = Session::new(connect(opener, role).map_err(|error| explain(opener, error))?);
    let guard = Arc::new(Guard::new(Arc::clone(&opener.relay), config.busy_timeout));
    interrupt::install(&mut session, &guard, false).map_err(failed)?;
    let conn = session.conn();
    if role == Role::Writer && conn.is_readonly(MAIN_DB).map_err(failed)? {
        // What SQLite makes of a file that it may only read. Every write would fail.
        let shown = opener.path().unwrap_or(Path::new("")).display();
        return Err(Error::new(ErrorKind::Open).detail(unwritable(&shown)));
    }
    check(conn).map_err(|error| match error.kind() {
        ErrorKind::Corrupt | ErrorKind::Sqlite | ErrorKind::Busy => match error.into_sqlite() {
            Some(error) => explain(opener, error),
            None => Error::new(ErrorKind::Open),
        },
        _ => error,
    })?;
    configure(conn, config, role).map_err(|error| explain(opener, error))?;
    conn.set_prepared_statement_cache_capacity(config.statement_cache);
    count_by_call(conn, &guard.counters).map_err(failed)?;
    verify(conn, opener, role)?;
    setup::run(conn, config, role)?;
    if role == Role::Writer {
        let files = attached(conn).map_err(failed)?;
        instance::attach(config, file, files.into_iter().map(|(_, file)| file).collect())?;
        configure_attached(conn, config.busy_timeout).map_err(|error| {
            failed(error).detail("an attached file could not be brought into WAL mode")
        })?;
    }
    // A statement that setup left in the cache was prepared with the gate open.
    conn.flush_prepared_statement_cache();
    // Again: setup may have changed the busy timeout, which removes the handler.
    let of_setup = OfSetup::new(conn).map_err(failed)?;
    install(&mut session, &guard, config, role).map_err(failed)?;
    session.prepare().map_err(failed)?;
    opener.board.register(role, &guard.slot);
    if role != Role::Copy {
        // Opens the WAL: only a connection that has done so removes it when it is closed, or copies it; and
        // what a reader opens now is compared now, and is not another file when it first reads.
        session.run(Sql::Pin).map_err(|error| explain(opener, error))?;
    }
    if role != Role::Writer {
        file.check()?;
    }
    let link = Link {
        session,
        guard,
        read_only: Cell::new(role != Role::Writer),
        writes: Cell::new(0),
        of_setup,
        stale: Cell::new(false),
        protect: Cell::new(false),
        saved: Cell::new(false),
        noted: config.statistics || config.on_slow.is_some(),
        work: config.on_slow.as_ref().map(|_| Cell::default()),
    };
    // What `setup` began would pin a snapshot.
    if !link.clean() {
        return Err(
            Error::new(ErrorKind::Open).detail("`setup` left a transaction that cannot be ended")
        );
    }
    // What setup counted is no call's.
    link.begin_own();
    Ok(Snapshot::new(link))
}

/// A new writer's connection of a memory database, with the content of `old`.
pub(crate) fn open_with_content(opener: &Opener, old: &Link) -> Result<Snapshot, Error> {
    let mut new = open(opener, Role::Writer)?;
    let from = old.session.conn();
    let (copied, prepared) = new.link.session.lend(|conn| copy_memory(from, conn), |_| ());
    let failed = |error| Error::sqlite_error(ErrorKind::Faulted, error);
    copied.and(prepared).map_err(failed)?;
    // It can be read: the encoding, for one, is that of what was copied.
    new.link.session.run(Sql::Pin).map_err(failed)?;
    Ok(new)
}

/// Copies the main file and those that `setup` attached, where they are in memory.
fn copy_memory(from: &Connection, to: &mut Connection) -> rusqlite::Result<()> {
    let page_size: i64 = from.pragma_query_value(None, "page_size", |row| row.get(0))?;
    to.pragma_update(None, "page_size", page_size)?;
    let names: Vec<String> = databases(to)?
        .into_iter()
        .filter(|(number, _, file)| *number != TEMP && file.is_none())
        .map(|(_, name, _)| name)
        .collect();
    for name in names {
        if databases(from)?.iter().any(|(_, of, _)| *of == name) {
            let copy = Backup::new_with_names(from, name.as_str(), to, name.as_str())?;
            copy.run_to_completion(i32::MAX, Duration::ZERO, None)?;
        }
    }
    Ok(())
}

/// Installs what guards the connection: the handlers of waits and interrupts, the authorizer, and
/// the hooks. To be called again when somebody had the bare connection.
pub(crate) fn install(
    session: &mut Session,
    guard: &Arc<Guard>,
    config: &Config,
    role: Role,
) -> rusqlite::Result<()> {
    interrupt::install(session, guard, role == Role::Writer && !config.is_memory())?;
    let conn = session.conn_mut();
    let gate = Arc::clone(guard);
    conn.authorizer(Some(move |context: AuthContext<'_>| gate.authorize(&context)))?;
    if role != Role::Writer {
        return Ok(());
    }
    // Calls cannot commit. A statement that was begun before its transaction was lost, and is
    // stepped only then, would: it is rolled back instead.
    let gate = Arc::clone(guard);
    conn.commit_hook(Some(move || gate.gate.load(Ordering::Relaxed) == Gate::Call as u8))
}

/// An exclusive call has ended: rolls back what it left open and takes back the hooks, for what is left to
/// do before the connection is replaced.
pub(crate) fn end_exclusive(session: &mut Session, guard: &Arc<Guard>, config: &Config) {
    guard.gate.store(Gate::Open as u8, Ordering::Relaxed);
    // What it prepared, it prepared as an exclusive call may.
    session.conn().flush_prepared_statement_cache();
    let _ = install(session, guard, config, Role::Writer);
    let conn = session.conn();
    if !conn.is_autocommit() {
        // Inside a transaction the PRAGMA would be ignored.
        let _ = conn.execute_batch("ROLLBACK");
    }
    let _ = configure_attached(conn, config.busy_timeout);
    let _ = conn.execute_batch("PRAGMA foreign_keys = ON; PRAGMA defer_foreign_keys = OFF");
    // The mode changes with the next access to the file.
    let unlock = "PRAGMA locking_mode = NORMAL; SELECT 1 FROM sqlite_schema LIMIT 1";
    let _ = conn.execute_batch(unlock);
}

/// Brings a file into WAL mode.
///
/// The change needs the file alone, and SQLite does not ask the busy handler where waiting might be
/// for each other: of several processes that open a new file at once, some are told that it is busy.
fn into_wal(conn: &Connection, schema: &str, patience: Duration) -> rusqlite::Result<()> {
    let give_up_at = now().checked_add(patience);
    let mut seed = std::process::id() | 1;
    let mut attempt = 0;
    loop {
        // Answers with the mode that it is in; `verify` looks at it.
        let changed = conn.pragma_update_and_check(Some(schema), "journal_mode", "WAL", |_| Ok(()));
        let busy = changed.as_ref().is_err_and(|error| {
            error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
        });
        if !busy || give_up_at.is_some_and(|at| now() >= at) {
            return changed;
        }
        std::thread::sleep(interrupt::nap(attempt, &mut seed));
        attempt += 1;
    }
}

/// Brings attached files into WAL mode as the main one is: in another mode one reader, and so one
/// held snapshot, keeps every writer of the file waiting (<https://www.sqlite.org/lockingv3.html>).
///
/// Files that cannot be written keep their mode; nothing writes them.
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

/// The number of the temporary file; 0 is the main one.
const TEMP: i64 = 1;

/// The number, the name and the file of each database of the connection; without a file it is in memory.
fn databases(conn: &Connection) -> rusqlite::Result<Vec<(i64, String, Option<PathBuf>)>> {
    let mut list = conn.prepare("PRAGMA database_list")?;
    let rows = list.query_map([], |row| {
        let path = row.get_ref(2)?.as_bytes_or_null()?.filter(|path| !path.is_empty());
        Ok((row.get(0)?, row.get(1)?, path.map(path_of)))
    })?;
    rows.collect()
}

/// A path as SQLite tells it; it need not be UTF-8.
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
        Role::Writer if config.creates() => {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        }
        Role::Writer | Role::Copier => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Role::Reader | Role::Copy => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let mut flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut name = Cow::Borrowed(path);
    if config.immutable {
        flags |= OpenFlags::SQLITE_OPEN_URI;
        name = Cow::Owned(path::immutable_uri(path).into());
    }
    match &config.vfs {
        None => Connection::open_with_flags(name, flags),
        Some(vfs) => Connection::open_with_flags_and_vfs(name, flags, vfs.as_str()),
    }
}

fn configure(conn: &Connection, config: &Config, role: Role) -> rusqlite::Result<()> {
    // Beyond that SQLite takes the number for 0, and 0 for its default once it has loaded the schema.
    let kib = i32::try_from(config.page_cache_bytes / 1024).unwrap_or(i32::MAX).max(1);
    conn.execute_batch(&format!("PRAGMA cache_size = -{kib}; PRAGMA foreign_keys = ON"))?;
    if config.is_memory() {
        return Ok(());
    }
    if role == Role::Writer {
        into_wal(conn, "main", config.busy_timeout)?;
        // After a checkpoint that reset the WAL, the file is cut back to this.
        let limit = i64::try_from(config.wal_bytes_max).unwrap_or(i64::MAX);
        conn.query_row(&format!("PRAGMA journal_size_limit = {limit}"), [], |_| Ok(()))?;
    }
    conn.execute_batch(&format!("PRAGMA synchronous = {}", config.synchronous.sql()))?;
    // Automatic checkpoints run inside somebody's COMMIT; see `wal/checkpoint.rs`.
    conn.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))
}

/// Checks what SQLite may have refused without an error.
fn verify(conn: &Connection, opener: &Opener, role: Role) -> Result<(), Error> {
    if role != Role::Writer || opener.config.is_memory() {
        return Ok(());
    }
    let mode: String = conn
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .map_err(|error| explain(opener, error))?;
    match mode == "wal" {
        true => Ok(()),
        false => {
            let detail = format!("the file system or VFS offers no WAL: journal_mode is {mode}");
            Err(Error::new(ErrorKind::Open).detail(detail))
        }
    }
}

fn unwritable(shown: &std::path::Display<'_>) -> String {
    format!(
        "{shown} or its directory is not writable; WAL mode needs both; to read it alone, use `Builder::read_only`"
    )
}

/// Why a file cannot be opened for reading alone.
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

/// Says which file it was and what its owner can do about it.
fn explain(opener: &Opener, error: rusqlite::Error) -> Error {
    let config = &opener.config;
    let Some(path) = opener.path() else {
        return Error::sqlite_error(ErrorKind::Open, error);
    };
    let shown = path.display();
    let code = error.sqlite_error().map_or(0, |error| error.extended_code & 0xff);
    let (kind, detail) = match code {
        // The error adds what to do.
        ffi::SQLITE_CANTOPEN if are_descriptors_exhausted() => (ErrorKind::Open, shown.to_string()),
        ffi::SQLITE_CANTOPEN if !config.creates() && path::is_absent(path) => {
            (ErrorKind::NotFound, format!("{shown} does not exist any more"))
        }
        ffi::SQLITE_CANTOPEN | ffi::SQLITE_READONLY if config.is_read_only() => (
            ErrorKind::Open,
            unreadable(path, error.sqlite_error().map_or(0, |error| error.extended_code)),
        ),
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
