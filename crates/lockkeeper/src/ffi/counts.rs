//! The SQL functions that tell a call of the rows that it changed itself.

use std::ffi::{CStr, c_int, c_void};
use std::sync::Arc;

use rusqlite::{Connection, Error, ffi};

use super::prepared::failure;

/// What a call has changed, of what the connection counts. Neither method may panic: SQLite calls them.
pub(crate) trait RowCounts: Send + Sync + 'static {
    /// The changes of the call's last statement; the connection's last one made `last`, and all made `total`.
    fn changes(&self, total: u64, last: u64) -> u64;

    /// The changes of the call so far.
    fn total(&self, total: u64) -> u64;
}

type SqlFunction =
    unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Has the SQL functions `changes` and `total_changes` tell a call of its own changes alone.
pub(crate) fn count_by_call<C: RowCounts>(conn: &Connection, counts: &Arc<C>) -> Result<(), Error> {
    let functions: [(&CStr, SqlFunction); 2] =
        [(c"changes", own_changes::<C>), (c"total_changes", own_total_changes::<C>)];
    for (name, function) in functions {
        let counts = Arc::into_raw(Arc::clone(counts)).cast_mut().cast();
        // SAFETY: the handle is open and the name ends with a NUL. SQLite calls `forget` for the
        // reference that `into_raw` gave away exactly once: when the function is replaced, when the
        // connection is closed, or when this call fails.
        let code = unsafe {
            let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_INNOCUOUS;
            let (db, name) = (conn.handle(), name.as_ptr());
            let (call, last) = (Some(function), Some(forget::<C> as Forget));
            ffi::sqlite3_create_function_v2(db, name, 0, flags, counts, call, None, None, last)
        };
        if code != ffi::SQLITE_OK {
            return Err(failure(conn, code));
        }
    }
    Ok(())
}

type Forget = unsafe extern "C" fn(*mut c_void);

unsafe extern "C" fn forget<C: RowCounts>(counts: *mut c_void) {
    // SAFETY: the pointer came from `Arc::into_raw`, and SQLite calls this once for it.
    drop(unsafe { Arc::from_raw(counts.cast_const().cast::<C>()) });
}

unsafe extern "C" fn own_changes<C: RowCounts>(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite passes the context of a function that `count_by_call` registered, whose user data is
    // a `C` that lives as long as the function; `RowCounts` does not panic.
    unsafe {
        let counts = &*ffi::sqlite3_user_data(context).cast_const().cast::<C>();
        let db = ffi::sqlite3_context_db_handle(context);
        let (all, last) = (ffi::sqlite3_total_changes64(db), ffi::sqlite3_changes64(db));
        let changes = counts.changes(all.cast_unsigned(), last.cast_unsigned());
        ffi::sqlite3_result_int64(context, changes.cast_signed());
    }
}

unsafe extern "C" fn own_total_changes<C: RowCounts>(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: as in `own_changes`.
    unsafe {
        let counts = &*ffi::sqlite3_user_data(context).cast_const().cast::<C>();
        let all = ffi::sqlite3_total_changes64(ffi::sqlite3_context_db_handle(context));
        ffi::sqlite3_result_int64(context, counts.total(all.cast_unsigned()).cast_signed());
    }
}
