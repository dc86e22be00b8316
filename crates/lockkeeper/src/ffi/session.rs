//! A connection from opening to closing, with the library's own statements.

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
/// However it ends, `Drop` ends it: the statements are finalized, the connection is closed, and then
/// what its hook points to is freed. In a forked child everything is forgotten instead.
#[derive(Debug)]
pub(crate) struct Session {
    own: Option<Own>,
    lent: LentOut,
    /// In a box, because lent statements refer to it. Taken out by `Drop` alone.
    conn: ManuallyDrop<Box<Connection>>,
    /// What the update hook points to, while it is on.
    hooked: RefCell<Option<Arc<dyn RowSink>>>,
    /// The schemas have been looked at since the transaction began.
    schemas_seen: Cell<bool>,
    /// What the busy handler and the WAL hook point to, once they are on.
    watcher: Option<Arc<dyn Watcher>>,
    /// The process that opened the connection.
    pid: u32,
    /// What tells the connection from every other one; kept with it, under [`MARK`].
    mark: usize,
}

/// The name under which a mark is kept at each connection that the library opened.
const MARK: &CStr = c"lockkeeper";

impl Session {
    /// Takes care of `conn` from now on. The library's own statements are still to be prepared.
    pub(crate) fn new(conn: Connection) -> Self {
        static NEXT_MARK: AtomicUsize = AtomicUsize::new(1);
        let mark = NEXT_MARK.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the handle is open, the name ends with a NUL. The mark is a pointer that nobody follows,
        // and has no destructor. Without memory there is no mark: then `lend` has the session replaced.
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
        let mut names = self.conn.prepare("SELECT name FROM pragma_database_list")?;
        let names = names.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        // The temporary schema belongs to this connection alone.
        let schemas = names.iter().filter(|name| *name != "temp");
        let schemas =
            schemas.map(|name| Schema::new(&self.conn, name)).collect::<Result<_, _>>()?;
        self.own = Some(Own { fixed, schemas });
        Ok(())
    }

    /// Whether a schema has changed since this was asked in an earlier transaction; if so, SQLite has
    /// loaded it. Takes the snapshot of the transaction.
    pub(crate) fn has_new_schema(&self) -> bool {
        let Some(own) = self.own.as_ref().filter(|_| !self.schemas_seen.get()) else {
            return false;
        };
        let (mut new, mut all) = (false, true);
        for Schema { version, load, seen, .. } in &own.schemas {
            let now = version.integer();
            // What cannot be read now is told by the statement that needs it.
            all &= now.is_some();
            if now.is_some() && now != seen.get() && load.run(&self.conn).is_ok() {
                seen.set(now);
                new = true;
            }
        }
        self.schemas_seen.set(all);
        new
    }

    /// Sets what `last_insert_rowid` tells until a row is inserted.
    pub(crate) fn set_last_insert_rowid(&self, id: i64) {
        // SAFETY: the handle is open, and this thread has the connection to itself.
        unsafe { ffi::sqlite3_set_last_insert_rowid(self.conn.handle(), id) };
    }

    pub(crate) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// For what rusqlite wants to have the connection alone. Whoever has this must leave the connection where it is.
    pub(crate) fn conn_mut(&mut self) -> &mut Connection {
        self.take_back();
        &mut self.conn
    }

    /// Lends the connection itself to `f`. Then `restore` puts its settings right, and the library's statements
    /// are prepared anew.
    ///
    /// An error means that the session must be replaced: they could not be prepared, or `f` has put
    /// another connection in the place of this one, which has none of its settings.
    pub(crate) fn lend<T>(
        &mut self,
        f: impl FnOnce(&mut Connection) -> T,
        restore: impl FnOnce(&mut Self),
    ) -> (T, Result<(), Error>) {
        self.take_back();
        self.own = None;
        self.unhook_rows();
        let value = f(&mut self.conn);
        // Another connection has another mark or none, also one that was opened where this one had been in
        // memory, and one that another database had.
        // SAFETY: the handle is open, the name ends with a NUL.
        let mark = unsafe { ffi::sqlite3_get_clientdata(self.conn.handle(), MARK.as_ptr()) };
        if mark.addr() != self.mark {
            // Whoever has the connection now may use it for as long as the process lives, and its hooks still
            // point to the watcher.
            mem::forget(self.watcher.take());
            return (value, Err(failure(&self.conn, ffi::SQLITE_MISUSE)));
        }
        restore(self);
        (value, self.prepare())
    }

    /// Keeps a statement of this session's connection for a call.
    pub(crate) fn keep_plain<'c>(&'c self, statement: Statement<'c>) -> Lent<'c> {
        // SAFETY: the statement refers to the connection, which is in a box of its own. It is dropped by its
        // `Lent`, which borrows the session, or by `take_back`: before anybody has the connection
        // exclusively, and before it is closed.
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

    /// Drops the statements and blobs that calls have forgotten. To be called when no call runs.
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
            // The statements could not be prepared again after a `lend`.
            None => Err(failure(&self.conn, ffi::SQLITE_MISUSE)),
        }
    }

    /// `PRAGMA data_version`: another value than before means that another connection committed.
    pub(crate) fn data_version(&self) -> Option<i64> {
        self.own.as_ref().and_then(|own| own.fixed[Sql::DataVersion as usize].integer())
    }

    /// The salts of the main file's WAL; `None`: there is no WAL yet, or it cannot be read.
    ///
    /// They are others whenever the WAL starts over (<https://www.sqlite.org/fileformat2.html>,
    /// section 4.1). To be called between two transactions or after a COMMIT: a commit that starts
    /// the WAL over has written them when it returns.
    pub(crate) fn wal_salts(&self) -> Option<WalSalts> {
        wal_file::salts(&self.conn)
    }

    /// Has each changed row told to `sink`.
    pub(crate) fn hook_rows<S: RowSink>(&self, sink: &Arc<S>) {
        // SAFETY: `hooked` keeps the sink alive until the next call of this function or of `unhook_rows`, or until the
        // connection, declared before it, has been closed.
        unsafe { hooks::hook_rows(&self.conn, Arc::as_ptr(sink)) };
        *self.hooked.borrow_mut() = Some(Arc::<S>::clone(sink));
    }

    /// Has changed rows told to nobody.
    pub(crate) fn unhook_rows(&self) {
        hooks::unhook_rows(&self.conn);
        *self.hooked.borrow_mut() = None;
    }

    /// Has `watcher` asked when a lock must be waited for and, with `wal`, told of each commit.
    pub(crate) fn watch<W: Watcher>(&mut self, watcher: &Arc<W>, wal: bool) -> Result<(), Error> {
        // SAFETY: `watcher`, declared after the connection, keeps it alive until that has been closed; one that was
        // there before is let go only after its handlers were replaced; and `lend` forgets it if the connection was
        // taken away.
        let code = unsafe { hooks::watch(&self.conn, Arc::as_ptr(watcher), wal) };
        if let Some(before) = self.watcher.replace(Arc::<W>::clone(watcher))
            && !ptr::addr_eq(Arc::as_ptr(&before), Arc::as_ptr(watcher))
        {
            // Without `wal` its WAL hook may still be on.
            mem::forget(before);
        }
        match code {
            ffi::SQLITE_OK => Ok(()),
            code => Err(failure(&self.conn, code)),
        }
    }

    /// Whether a transaction is open, on any of the connection's files: it holds a snapshot or a lock.
    pub(crate) fn in_transaction(&self) -> bool {
        // SAFETY: the handle is open; a null name means all files.
        unsafe { ffi::sqlite3_txn_state(self.conn.handle(), ptr::null()) != ffi::SQLITE_TXN_NONE }
    }

    /// Copies the WALs of all files that can be written back; whether all of the main file's was copied, and nobody
    /// was in the way of the others.
    ///
    /// A file that is attached to be read may have a WAL; asked to copy all, SQLite tries that one too, and fails.
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

    /// Resets every statement that stands on a row; for what was leaked through the bare connection.
    pub(crate) fn halt_statements(&self) {
        close::halt(&self.conn);
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
            // The connection is the parent's: to close it would touch the file. The hook keeps its target.
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
        // It disconnects the virtual tables, which finalize their statements, before it looks for others.
        if let Err((conn, _)) = conn.close() {
            // It may have to stay as it is, and its handlers with it.
            mem::forget(self.watcher.take());
            close::close_leaky(conn);
        }
    }
}
