//! A connection from opening to closing, with the library's own statements on it.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int};
use std::mem::{self, ManuallyDrop};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::blob::Blob;
use rusqlite::{CachedStatement, Connection, Error, Statement, ffi};

use super::close;
use super::hooks::{self, RowSink, Watcher};
use super::lent::{Lent, LentBlob, LentOut};
use super::prepared::{Own, Prepared, Schema, Sql, TEXTS, failure};
use super::process_id::process_id;
use super::wal_file::{self, Checkpoint, WalSalts};

/// A connection with the library's own statements prepared on it.
///
/// `Drop` finalizes the statements, closes the connection, and then frees what its hooks point to. In a forked child it
/// leaks everything instead.
#[derive(Debug)]
pub(crate) struct Session {
    own: Option<Own>,
    lent: LentOut,
    /// In a box, because lent statements refer to it. Only `Drop` takes it out.
    conn: ManuallyDrop<Box<Connection>>,
    /// The target of the update hook, while there is one.
    hooked: RefCell<Option<Arc<dyn RowSink>>>,
    /// The schema versions were read since the transaction began.
    schemas_seen: Cell<bool>,
    /// The target of the busy handler and the WAL hook, once they are set.
    watcher: Option<Arc<dyn Watcher>>,
    /// The process that opened the connection.
    pid: u32,
    /// A number that no other session has. SQLite keeps it as client data of the connection, under [`MARK`].
    mark: usize,
}

/// The name of the client data that holds the mark of a connection.
const MARK: &CStr = c"lockkeeper";

impl Session {
    /// Takes ownership of `conn`. [`Session::prepare`] must be called before the library's own statements can run.
    pub(crate) fn new(conn: Connection) -> Self {
        static NEXT_MARK: AtomicUsize = AtomicUsize::new(1);
        let mark = NEXT_MARK.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the handle is open, the name ends with a NUL. The mark is a number in a pointer that is never
        // dereferenced, and has no destructor. If memory runs out, the connection has no mark: then `lend` returns an
        // error, and the session is replaced.
        unsafe {
            let pointer = ptr::without_provenance_mut(mark);
            ffi::sqlite3_set_clientdata(conn.handle(), MARK.as_ptr(), pointer, None);
        }
        Self {
            own: None,
            lent: LentOut::default(),
            conn: ManuallyDrop::new(Box::new(conn)),
            hooked: RefCell::new(None),
            schemas_seen: Cell::new(false),
            watcher: None,
            pid: process_id(),
            mark,
        }
    }

    /// Prepares the library's own statements.
    pub(crate) fn prepare(&mut self) -> Result<(), Error> {
        let prepared: Result<Vec<_>, _> =
            TEXTS.iter().map(|sql| Prepared::new(&self.conn, sql)).collect();
        let fixed = prepared?.try_into().expect("one statement per text");
        // The temporary schema is left out, because only this connection can change it.
        let names = "SELECT name FROM pragma_database_list WHERE name <> 'temp'";
        let mut names = self.conn.prepare(names)?;
        let names = names.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        let schemas = names.iter().map(|name| Schema::new(&self.conn, name));
        let schemas = schemas.collect::<Result<_, _>>()?;
        self.own = Some(Own { fixed, schemas });
        Ok(())
    }

    /// Whether a schema has changed since an earlier transaction called this; if so, SQLite loads the new schema.
    /// `false` also if this transaction has called it before. The first call takes the snapshot of the transaction.
    pub(crate) fn has_new_schema(&self) -> bool {
        let Some(own) = self.own.as_ref().filter(|_| !self.schemas_seen.get()) else {
            return false;
        };
        let (mut new, mut all) = (false, true);
        for Schema { version, load, seen, .. } in &own.schemas {
            let now = version.integer();
            // If the version cannot be read, the statement that needs the schema reports the error.
            all &= now.is_some();
            if now.is_some() && now != seen.get() && load.run(&self.conn).is_ok() {
                seen.set(now);
                new = true;
            }
        }
        self.schemas_seen.set(all);
        new
    }

    /// Sets the value of `last_insert_rowid` until a row is inserted.
    pub(crate) fn set_last_insert_rowid(&self, id: i64) {
        // SAFETY: the handle is open, and this thread has the connection to itself.
        unsafe { ffi::sqlite3_set_last_insert_rowid(self.conn.handle(), id) };
    }

    pub(crate) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// The connection, for methods of rusqlite that need `&mut Connection`. The caller must not move the connection
    /// away.
    pub(crate) fn conn_mut(&mut self) -> &mut Connection {
        self.take_back();
        &mut self.conn
    }

    /// Lends the bare connection to `f`. Then `restore` restores its settings, and the library's statements are prepared
    /// again.
    ///
    /// After an error the session must be replaced: the statements could not be prepared, or `f` has put another
    /// connection in the place of this one.
    pub(crate) fn lend<T>(
        &mut self,
        f: impl FnOnce(&mut Connection) -> T,
        restore: impl FnOnce(&mut Self),
    ) -> (T, Result<(), Error>) {
        self.take_back();
        self.own = None;
        self.unhook_rows();
        let value = f(&mut self.conn);
        // Another connection has another mark or none, even if it has the address of this connection or belongs to
        // another database.
        // SAFETY: the handle is open, the name ends with a NUL.
        let mark = unsafe { ffi::sqlite3_get_clientdata(self.conn.handle(), MARK.as_ptr()) };
        if mark.addr() != self.mark {
            // The caller has the connection now and may keep it as long as the process lives; its hooks still point to
            // the watcher, which must therefore live as long.
            mem::forget(self.watcher.take());
            return (value, Err(failure(&self.conn, ffi::SQLITE_MISUSE)));
        }
        restore(self);
        (value, self.prepare())
    }

    /// Keeps a statement of this session's connection for a call.
    pub(crate) fn keep_plain<'c>(&'c self, statement: Statement<'c>) -> Lent<'c> {
        // SAFETY: the statement refers to the connection, which is in a box of its own. It is dropped by its `Lent`, which
        // borrows the session, or by `take_back`: before the connection is used exclusively, and before it is closed.
        unsafe { self.lent.statement(statement) }
    }

    /// Keeps a statement from the cache of this session's connection for a call.
    pub(crate) fn keep_cached<'c>(&'c self, statement: CachedStatement<'c>) -> Lent<'c> {
        // SAFETY: as in `keep_plain`.
        unsafe { self.lent.cached(statement) }
    }

    /// Keeps a blob of this session's connection for a call.
    pub(crate) fn keep_blob<'c>(&'c self, blob: Blob<'c>) -> LentBlob<'c> {
        // SAFETY: as in `keep_plain`.
        unsafe { self.lent.blob(blob) }
    }

    /// Drops the statements and blobs that calls have leaked. No call may be running.
    pub(crate) fn take_back(&self) {
        self.lent.take_back();
    }

    /// Runs one of the library's own statements.
    pub(crate) fn run(&self, sql: Sql) -> Result<(), Error> {
        if matches!(sql, Sql::Begin | Sql::BeginImmediate) {
            self.schemas_seen.set(false);
        }
        match &self.own {
            Some(own) => own.fixed[sql as usize].run(&self.conn),
            // After a `lend` the statements could not be prepared again.
            None => Err(failure(&self.conn, ffi::SQLITE_MISUSE)),
        }
    }

    /// `PRAGMA data_version`: another value than before means that another connection committed.
    pub(crate) fn data_version(&self) -> Option<i64> {
        self.own.as_ref().and_then(|own| own.fixed[Sql::DataVersion as usize].integer())
    }

    /// The salts of the main file's WAL; `None`: there is no WAL yet, or it cannot be read.
    ///
    /// They change whenever the WAL starts over (<https://www.sqlite.org/fileformat2.html>, section 4.1). To be called
    /// between two transactions or after a COMMIT: a COMMIT that starts the WAL over has written them when it returns.
    pub(crate) fn wal_salts(&self) -> Option<WalSalts> {
        wal_file::salts(&self.conn)
    }

    /// Makes SQLite report each changed row to `sink`.
    pub(crate) fn hook_rows<S: RowSink>(&self, sink: &Arc<S>) {
        // SAFETY: `hooked` keeps the sink alive until the next call of this function or of `unhook_rows`, or until the
        // connection, declared before it, has been closed.
        unsafe { hooks::hook_rows(&self.conn, Arc::as_ptr(sink)) };
        *self.hooked.borrow_mut() = Some(Arc::<S>::clone(sink));
    }

    /// Removes the update hook.
    pub(crate) fn unhook_rows(&self) {
        hooks::unhook_rows(&self.conn);
        *self.hooked.borrow_mut() = None;
    }

    /// Makes SQLite call `watcher` while the connection waits for a lock, and, if `wal` is `true`, after each commit.
    pub(crate) fn watch<W: Watcher>(&mut self, watcher: &Arc<W>, wal: bool) -> Result<(), Error> {
        // SAFETY: the field `watcher`, declared after the connection, keeps the target alive until the connection has been
        // closed. An earlier target is released only after its handlers were replaced. `lend` forgets the target if the
        // connection was taken away.
        let code = unsafe { hooks::watch(&self.conn, Arc::as_ptr(watcher), wal) };
        if let Some(before) = self.watcher.replace(Arc::<W>::clone(watcher))
            && !ptr::addr_eq(Arc::as_ptr(&before), Arc::as_ptr(watcher))
        {
            // The earlier target is leaked, because if `wal` is `false`, the WAL hook may still point to it.
            mem::forget(before);
        }
        match code {
            ffi::SQLITE_OK => Ok(()),
            code => Err(failure(&self.conn, code)),
        }
    }

    /// Whether a transaction that holds a snapshot or a lock is open on any of the connection's files.
    pub(crate) fn in_transaction(&self) -> bool {
        // SAFETY: the handle is open; a null name means all files.
        unsafe { ffi::sqlite3_txn_state(self.conn.handle(), ptr::null()) != ffi::SQLITE_TXN_NONE }
    }

    /// Copies the WALs of all writable files back. `true`: the whole WAL of the main file was copied, and no other
    /// connection kept the WAL of another file from being copied.
    ///
    /// Each file is named, because a checkpoint of all files would also try read-only files that have a WAL, and fail.
    pub(crate) fn checkpoint(&self, mode: Checkpoint) -> Result<bool, Error> {
        let mut complete = true;
        let schemas = self.own.iter().flat_map(|own| &own.schemas);
        for Schema { name, .. } in schemas.filter(|schema| schema.is_writable) {
            complete &= match wal_file::checkpoint(&self.conn, name, mode)? {
                Some((frames, copied)) => frames == copied || name.as_c_str() != c"main",
                None => false,
            };
        }
        Ok(complete)
    }

    /// Whether a deferred foreign key is violated at this moment.
    pub(crate) fn has_deferred_violation(&self) -> bool {
        let (mut current, mut highest) = (0, 0);
        // SAFETY: the handle is open and both out pointers are valid.
        let code = unsafe {
            let db = self.conn.handle();
            let op = ffi::SQLITE_DBSTATUS_DEFERRED_FKS;
            ffi::sqlite3_db_status(db, op, &raw mut current, &raw mut highest, 0)
        };
        code == ffi::SQLITE_OK && current != 0
    }

    /// The extended code of the last failure on this connection.
    pub(crate) fn last_code(&self) -> c_int {
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_extended_errcode(self.conn.handle()) }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if process_id() != self.pid {
            // The connection belongs to the parent, and closing it would touch the file. The hooks keep their targets.
            mem::forget(self.own.take());
            mem::forget(self.hooked.take());
            mem::forget(self.watcher.take());
            return;
        }
        self.take_back();
        self.own = None;
        self.conn.flush_prepared_statement_cache();
        self.unhook_rows();
        close::disarm(&mut self.conn);
        // SAFETY: taken once, here; nothing uses the field afterwards.
        let conn = unsafe { ManuallyDrop::take(&mut self.conn) };
        // SQLite disconnects the virtual tables, which finalize their statements, before it looks for other statements.
        if let Err((conn, _)) = conn.close() {
            // The connection may stay open for ever, so the target of its handlers is leaked.
            mem::forget(self.watcher.take());
            close::close_leaky(conn);
        }
    }
}
