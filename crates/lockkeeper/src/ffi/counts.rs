//! The SQL functions `changes` and `total_changes`, replaced so that they count only the rows that the running call has
//! changed.

use std::ffi::{CStr, c_int, c_void};
use std::sync::Arc;

use rusqlite::{Connection, Error, ffi};

use super::prepared::failure;

/// Turns the counts of a connection into those of the running call. Neither method may panic: SQLite calls them.
pub(crate) trait RowCounts: Send + Sync + 'static {
    /// The changes of the call's last statement. The last statement of the connection made `last` changes, and all its
    /// statements made `total`.
    fn changes(&self, total: u64, last: u64) -> u64;

    /// The changes of the call so far.
    fn total(&self, total: u64) -> u64;
}

type SqlFunction =
    unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Replaces the SQL functions `changes` and `total_changes` by functions that count the running call's changes.
pub(crate) fn count_by_call<C: RowCounts>(conn: &Connection, counts: &Arc<C>) -> Result<(), Error> {
    let functions: [(&CStr, SqlFunction); 2] =
        [(c"changes", count::<C, false>), (c"total_changes", count::<C, true>)];
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

/// The changes of the call so far if `TOTAL`, otherwise those of its last statement.
unsafe extern "C" fn count<C: RowCounts, const TOTAL: bool>(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite passes the context of a function that `count_by_call` registered, whose user data is
    // a `C` that lives as long as the function; `RowCounts` does not panic.
    unsafe {
        let counts = &*ffi::sqlite3_user_data(context).cast_const().cast::<C>();
        let db = ffi::sqlite3_context_db_handle(context);
        let total = ffi::sqlite3_total_changes64(db).cast_unsigned();
        let changes = match TOTAL {
            true => counts.total(total),
            false => counts.changes(total, ffi::sqlite3_changes64(db).cast_unsigned()),
        };
        ffi::sqlite3_result_int64(context, changes.cast_signed());
    }
}
