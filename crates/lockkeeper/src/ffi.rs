//! The only `unsafe` of the crate: what rusqlite does not offer.
//!
//! - The library's own statements (`BEGIN IMMEDIATE`, `SAVEPOINT`, ...) live here, outside the
//!   caller's statement cache: the authorizer that denies them to calls runs at prepare time only,
//!   so a call that found one in a shared cache could run it.
//! - `sqlite3_db_status(SQLITE_DBSTATUS_DEFERRED_FKS)` tells whether a call left a deferred
//!   foreign key violated; rusqlite has no wrapper for it.
//! - Statements that a call leaked with `mem::forget` are reset, and finalized before closing,
//!   because an unfinished one keeps a snapshot pinned and a connection from closing.
//! - The header of the WAL is read through the connection's own file; nothing else tells whether the
//!   WAL has started over.
//! - A page that the kernel empties in a forked child tells the child from its parent.
//! - The update hook is put on and taken off between two calls; rusqlite asks for `&mut Connection`.
#![expect(unsafe_code, reason = "SQLite's C interface; each block says why it is sound")]

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use rusqlite::{Connection, Error, ffi};

use crate::record::Recorder;

/// A connection with the library's own statements prepared on it.
///
/// Field order matters: the statements are finalized before the connection is closed, and the
/// connection is closed before what its hook points to is freed.
#[derive(Debug)]
pub(crate) struct Session {
    own: Option<Own>,
    conn: Connection,
    /// What the update hook points to, while it is on.
    hooked: RefCell<Option<Arc<Recorder>>>,
}

/// The library's own statements.
#[derive(Debug)]
struct Own([Prepared; TEXTS.len()]);

/// Names the library's own statements; the order is that of [`TEXTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sql {
    BeginImmediate,
    Begin,
    Commit,
    Rollback,
    Savepoint,
    Release,
    RollbackTo,
    /// A savepoint of the caller's own, inside the call's.
    Nest,
    Unnest,
    RollbackToNest,
    /// Reads the schema table's first page, which takes the snapshot of a transaction.
    Pin,
    /// Changes when another connection has committed.
    DataVersion,
}

const TEXTS: [&CStr; 12] = [
    c"BEGIN IMMEDIATE",
    c"BEGIN",
    c"COMMIT",
    c"ROLLBACK",
    c"SAVEPOINT lockkeeper_call",
    c"RELEASE lockkeeper_call",
    c"ROLLBACK TO lockkeeper_call",
    c"SAVEPOINT lockkeeper_nested",
    c"RELEASE lockkeeper_nested",
    c"ROLLBACK TO lockkeeper_nested",
    c"SELECT 1 FROM sqlite_schema LIMIT 1",
    c"PRAGMA data_version",
];

/// Two numbers in the header of a WAL that tell one generation of it from the next.
pub(crate) type WalSalts = [u8; 8];

/// Where they are in the header.
const SALTS_OFFSET: i64 = 16;
const SALTS_LENGTH: c_int = 8;

#[derive(Debug)]
struct Prepared(NonNull<ffi::sqlite3_stmt>);

// SAFETY: rusqlite refuses to open a connection on a SQLite compiled single-threaded, and in the
// other modes a statement may move between threads as long as one thread at a time uses it. A
// `Prepared` is owned by its `Session`, which is not `Sync`, and moves with its connection only.
unsafe impl Send for Prepared {}

impl Prepared {
    fn new(conn: &Connection, sql: &CStr) -> Result<Self, Error> {
        let mut statement = ptr::null_mut();
        // SAFETY: the handle is open as long as `conn` is borrowed; `sql` ends with a NUL, which
        // -1 tells SQLite to look for; both out pointers are valid or null as the C API allows.
        let code = unsafe {
            let flags = ffi::SQLITE_PREPARE_PERSISTENT;
            let (db, text) = (conn.handle(), sql.as_ptr());
            ffi::sqlite3_prepare_v3(db, text, -1, flags, &raw mut statement, ptr::null_mut())
        };
        match NonNull::new(statement) {
            Some(statement) if code == ffi::SQLITE_OK => Ok(Self(statement)),
            _ => Err(failure(conn, code)),
        }
    }

    /// Steps once and resets; the first column of the row, if there is one.
    fn integer(&self) -> Option<i64> {
        // SAFETY: as in `run`; the column is read while the statement stands on its row.
        unsafe {
            let row = ffi::sqlite3_step(self.0.as_ptr()) == ffi::SQLITE_ROW;
            let value = row.then(|| ffi::sqlite3_column_int64(self.0.as_ptr(), 0));
            ffi::sqlite3_reset(self.0.as_ptr());
            value
        }
    }

    /// Steps once and resets; a row that is returned is ignored.
    fn run(&self, conn: &Connection) -> Result<(), Error> {
        // SAFETY: the statement is not finalized before `self` is dropped, and this thread has the
        // session to itself.
        let code = unsafe { ffi::sqlite3_step(self.0.as_ptr()) };
        let result = match code {
            ffi::SQLITE_DONE | ffi::SQLITE_ROW => Ok(()),
            code => Err(failure(conn, code)),
        };
        // SAFETY: as above. The code repeats the error of the step, which `result` already holds.
        unsafe { ffi::sqlite3_reset(self.0.as_ptr()) };
        result
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: `Session` finalizes its statements before it closes or hands out its connection,
        // so the statement is still valid, and nobody uses it afterwards.
        unsafe { ffi::sqlite3_finalize(self.0.as_ptr()) };
    }
}

fn failure(conn: &Connection, code: c_int) -> Error {
    // SAFETY: the handle is open; the message is copied before anything else is called on it.
    let message = unsafe {
        let text = ffi::sqlite3_errmsg(conn.handle());
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    Error::SqliteFailure(ffi::Error::new(code), message)
}

impl Session {
    /// Prepares the library's own statements on `conn`.
    pub(crate) fn new(conn: Connection) -> Result<Self, Error> {
        let mut session = Self { own: None, conn, hooked: RefCell::new(None) };
        session.prepare()?;
        Ok(session)
    }

    fn prepare(&mut self) -> Result<(), Error> {
        let prepared: Result<Vec<_>, _> =
            TEXTS.iter().map(|sql| Prepared::new(&self.conn, sql)).collect();
        let own = prepared?.try_into().expect("one statement per text");
        self.own = Some(Own(own));
        Ok(())
    }

    pub(crate) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// Lends the connection itself to `f`; the library's statements are prepared anew afterwards.
    ///
    /// An error means that the session must be replaced: they could not be prepared, or `f` has put
    /// another connection in the place of this one, which has none of its settings.
    pub(crate) fn lend<T>(
        &mut self,
        f: impl FnOnce(&mut Connection) -> T,
    ) -> (T, Result<(), Error>) {
        self.own = None;
        // SAFETY: the handle is only compared, never used; the connection may be closed by then.
        let before = unsafe { self.conn.handle() };
        let value = f(&mut self.conn);
        // SAFETY: as above.
        if unsafe { self.conn.handle() } != before {
            return (value, Err(failure(&self.conn, ffi::SQLITE_MISUSE)));
        }
        (value, self.prepare())
    }

    /// Runs one of the library's own statements.
    pub(crate) fn run(&self, sql: Sql) -> Result<(), Error> {
        match &self.own {
            Some(own) => own.0[sql as usize].run(&self.conn),
            // The statements could not be prepared again after a `lend`.
            None => Err(failure(&self.conn, ffi::SQLITE_MISUSE)),
        }
    }

    /// `PRAGMA data_version`: another value than before means that another connection committed.
    pub(crate) fn data_version(&self) -> Option<i64> {
        self.own.as_ref().and_then(|own| own.0[Sql::DataVersion as usize].integer())
    }

    /// The salts of the main file's WAL; `None`: there is no WAL yet, or it cannot be read.
    ///
    /// They are others whenever the WAL starts over (<https://www.sqlite.org/fileformat2.html>,
    /// section 4.1). To be called between two transactions or after a COMMIT: a commit that starts
    /// the WAL over has written them when it returns.
    pub(crate) fn wal_salts(&self) -> Option<WalSalts> {
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        let mut salts: WalSalts = [0; 8];
        // SAFETY: the handle is open, and this operation stores one pointer into `file`. What it points
        // to belongs to the connection, which this thread has to itself, and which neither closes nor
        // replaces it between the two calls. Its methods are null unless it is open; `xRead`, which
        // every VFS has, writes 8 bytes at most to `salts`.
        let code = unsafe {
            let (db, op) = (self.conn.handle(), ffi::SQLITE_FCNTL_JOURNAL_POINTER);
            let argument = (&raw mut file).cast::<c_void>();
            let code = ffi::sqlite3_file_control(db, c"main".as_ptr(), op, argument);
            let methods = file.as_ref().and_then(|file| file.pMethods.as_ref());
            let read = methods.and_then(|methods| methods.xRead);
            match read {
                Some(read) if code == ffi::SQLITE_OK => {
                    read(file, salts.as_mut_ptr().cast(), SALTS_LENGTH, SALTS_OFFSET)
                }
                _ => return None,
            }
        };
        (code == ffi::SQLITE_OK).then_some(salts)
    }

    /// Has each changed row told to `recorder`, or to nobody.
    pub(crate) fn hook_rows(&self, recorder: Option<&Arc<Recorder>>) {
        let recorder = recorder.map(Arc::clone);
        let (hook, argument): (RowHook, *mut c_void) = match &recorder {
            Some(recorder) => (Some(on_row), Arc::as_ptr(recorder).cast_mut().cast()),
            None => (None, ptr::null_mut()),
        };
        // SAFETY: the handle is open. The argument stays valid as long as the hook is on: `hooked`
        // keeps the recorder alive until the next call of this function, or until the connection,
        // declared before it, has been closed.
        unsafe { ffi::sqlite3_update_hook(self.conn.handle(), hook, argument) };
        *self.hooked.borrow_mut() = recorder;
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

    /// Resets every statement that is not at its end; returns how many there were.
    pub(crate) fn reset_statements(&self) -> usize {
        let mut reset = 0;
        let mut statement = ptr::null_mut();
        loop {
            // SAFETY: the handle is open. No reference to a statement is alive: this is called
            // between calls, when all that can be left are statements leaked with `mem::forget`,
            // cached ones and our own, and resetting is allowed on each of them.
            unsafe {
                statement = ffi::sqlite3_next_stmt(self.conn.handle(), statement);
                if statement.is_null() {
                    return reset;
                }
                if ffi::sqlite3_stmt_busy(statement) != 0 {
                    ffi::sqlite3_reset(statement);
                    reset += 1;
                }
            }
        }
    }

    /// The extended code of the last failure on this connection.
    pub(crate) fn last_code(&self) -> c_int {
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_extended_errcode(self.conn.handle()) }
    }
}

type RowHook = Option<unsafe extern "C" fn(*mut c_void, c_int, *const c_char, *const c_char, i64)>;

/// SQLite's update hook. Nothing may unwind into C, so a panic ends here: the row goes unnamed.
unsafe extern "C" fn on_row(
    recorder: *mut c_void,
    action: c_int,
    schema: *const c_char,
    table: *const c_char,
    rowid: i64,
) {
    // SAFETY: `hook_rows` passed a pointer to a `Recorder` that outlives the hook, and it is only
    // shared; SQLite passes two names that end with a NUL and live as long as this call.
    let (recorder, schema, table) =
        unsafe { (&*recorder.cast::<Recorder>(), CStr::from_ptr(schema), CStr::from_ptr(table)) };
    let _ = catch_unwind(AssertUnwindSafe(|| recorder.row(action, schema, table, rowid)));
}

impl Drop for Session {
    fn drop(&mut self) {
        self.own = None;
        self.conn.flush_prepared_statement_cache();
        loop {
            // SAFETY: the library's and the cached statements are finalized; a statement that is
            // left was leaked, so nobody can use it again, and finalizing it lets the close
            // succeed, which would otherwise keep the file and its locks.
            unsafe {
                let leaked = ffi::sqlite3_next_stmt(self.conn.handle(), ptr::null_mut());
                if leaked.is_null() {
                    return;
                }
                ffi::sqlite3_finalize(leaked);
            }
        }
    }
}

/// The number of this process; after a fork the child's.
///
/// It is kept in a page that a forked child finds filled with zeros (`MADV_WIPEONFORK`, madvise(2), since
/// Linux 4.14). Where there is no such page, the kernel is asked each time.
#[cfg(target_os = "linux")]
pub(crate) fn process_id() -> u32 {
    /// Stands for a page that could not be had.
    static NONE: AtomicU32 = AtomicU32::new(0);
    /// Null: not asked for yet. A lock instead would never be free in a child whose parent held it.
    static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        page = wiped_page().map_or(ptr::from_ref(&NONE).cast_mut(), NonNull::as_ptr);
        // Of two threads that were here at once one loses a page.
        PAGE.store(page, Ordering::Release);
    }
    // SAFETY: `page` is `NONE` or what `wiped_page` returned: aligned, valid for as long as the process lives,
    // zero at first, and only ever used as this atomic.
    let kept = unsafe { &*page };
    match kept.load(Ordering::Relaxed) {
        0 => {
            let id = std::process::id();
            if !ptr::eq(page, &NONE) {
                kept.store(id, Ordering::Relaxed);
            }
            id
        }
        id => id,
    }
}

/// A page of its own, never given back.
#[cfg(target_os = "linux")]
fn wiped_page() -> Option<NonNull<AtomicU32>> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
    let length = rustix::param::page_size();
    // SAFETY: a new mapping at a place of the kernel's choice changes no memory that is in use; advice and
    // unmapping are for this mapping alone, which nobody else knows yet.
    unsafe {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let page = mmap_anonymous(ptr::null_mut(), length, access, MapFlags::PRIVATE).ok()?;
        if madvise(page, length, Advice::LinuxWipeOnFork).is_err() {
            let _ = munmap(page, length);
            return None;
        }
        NonNull::new(page.cast())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_known_without_asking_for_it_each_time() {
        for _ in 0..3 {
            assert_eq!(process_id(), std::process::id());
        }
    }
}
