//! Callbacks of SQLite: the update hook, the busy handler and the WAL hook.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use rusqlite::{Connection, ffi};

/// The target of the update hook.
pub(crate) trait RowSink: fmt::Debug + Send + Sync + 'static {
    /// A row was changed. `action`: `SQLITE_INSERT`, `SQLITE_UPDATE` or `SQLITE_DELETE`.
    fn row(&self, action: c_int, schema: &CStr, table: &CStr, rowid: i64);
}

/// The target of the busy handler and the WAL hook.
pub(crate) trait Watcher: fmt::Debug + Send + Sync + 'static {
    /// Sleeps for a moment. `false`: SQLite must give up. `attempt` counts from 0 in each wait.
    fn wait_for_lock(&self, attempt: c_int) -> bool;

    /// Called after a commit, when the WAL of `schema` holds `frames` frames.
    fn committed(&self, schema: &CStr, frames: c_int);
}

/// Makes SQLite report each changed row to `sink`.
///
/// # Safety
/// The sink lives until another call of this function or of [`unhook_rows`], or until the connection has been closed.
pub(super) unsafe fn hook_rows<S: RowSink>(conn: &Connection, sink: *const S) {
    let argument = sink.cast_mut().cast::<c_void>();
    // SAFETY: the handle is open; the caller keeps the argument valid.
    unsafe { ffi::sqlite3_update_hook(conn.handle(), Some(on_row::<S>), argument) };
}

/// Removes the update hook.
pub(super) fn unhook_rows(conn: &Connection) {
    // SAFETY: the handle is open; without a hook there is no argument.
    unsafe { ffi::sqlite3_update_hook(conn.handle(), None, ptr::null_mut()) };
}

/// Sets the busy handler and, with `wal`, the WAL hook; returns SQLite's result code.
///
/// # Safety
/// The watcher lives until another one has replaced it or until the connection has been closed.
pub(super) unsafe fn watch<W: Watcher>(conn: &Connection, watcher: *const W, wal: bool) -> c_int {
    let argument = watcher.cast_mut().cast::<c_void>();
    // SAFETY: the handle is open; the caller keeps the argument valid.
    unsafe {
        let code = ffi::sqlite3_busy_handler(conn.handle(), Some(on_busy::<W>), argument);
        if wal {
            ffi::sqlite3_wal_hook(conn.handle(), Some(on_wal::<W>), argument);
        }
        code
    }
}

/// SQLite's update hook. Nothing may unwind into C, so a panic ends here, and the row is not noted.
unsafe extern "C" fn on_row<S: RowSink>(
    sink: *mut c_void,
    action: c_int,
    schema: *const c_char,
    table: *const c_char,
    rowid: i64,
) {
    // SAFETY: `hook_rows` passed a pointer to an `S` that outlives the hook, and it is only shared; SQLite passes two
    // names that end with a NUL and live as long as this call.
    let (sink, schema, table) =
        unsafe { (&*sink.cast::<S>(), CStr::from_ptr(schema), CStr::from_ptr(table)) };
    let _ = catch_unwind(AssertUnwindSafe(|| sink.row(action, schema, table, rowid)));
}

/// SQLite's busy handler. Nothing may unwind into C, so a panic ends here, and SQLite gives up the wait.
unsafe extern "C" fn on_busy<W: Watcher>(watcher: *mut c_void, attempt: c_int) -> c_int {
    // SAFETY: `watch` passed a pointer to a `W` that outlives the handler, and it is only shared.
    let watcher = unsafe { &*watcher.cast::<W>() };
    catch_unwind(AssertUnwindSafe(|| c_int::from(watcher.wait_for_lock(attempt)))).unwrap_or(0)
}

/// SQLite's WAL hook, called after each commit.
unsafe extern "C" fn on_wal<W: Watcher>(
    watcher: *mut c_void,
    _db: *mut ffi::sqlite3,
    schema: *const c_char,
    frames: c_int,
) -> c_int {
    // SAFETY: as in `on_busy`; SQLite passes a name that ends with a NUL and lives as long as this call.
    let (watcher, schema) = unsafe { (&*watcher.cast::<W>(), CStr::from_ptr(schema)) };
    let _ = catch_unwind(AssertUnwindSafe(|| watcher.committed(schema, frames)));
    ffi::SQLITE_OK
}

/// Whether all page caches of the process share one lock. Then two readers are no faster than one.
pub(crate) fn shares_page_caches() -> bool {
    // SAFETY: the name ends with a NUL and is only read. The function needs no connection.
    unsafe { ffi::sqlite3_compileoption_used(c"ENABLE_MEMORY_MANAGEMENT".as_ptr()) != 0 }
}
