//! Closing a connection on which statements, transactions or hooks were left.

use std::ffi::CStr;
use std::{mem, ptr};

use rusqlite::hooks::{Action, AuthContext, Authorization};
use rusqlite::{Connection, ffi};

/// Rolls an open transaction of `conn` back and removes the hooks.
///
/// When a connection is closed, rusqlite frees its hooks first and SQLite rolls back afterwards: it would call the freed
/// rollback hook that `setup` or an exclusive call may have set.
pub(super) fn disarm(conn: &mut Connection) {
    // These fail only for want of memory, which removing a hook does not need.
    let _ = conn.authorizer(None::<fn(AuthContext<'_>) -> Authorization>);
    if !conn.is_autocommit() && conn.execute_batch("ROLLBACK").is_err() {
        halt(conn);
        let _ = conn.execute_batch("ROLLBACK");
    }
    let _ = conn.rollback_hook(None::<fn()>);
    let _ = conn.commit_hook(None::<fn() -> bool>);
    let _ = conn.update_hook(None::<fn(Action, &str, &str, i64)>);
}

/// Resets every statement that stands on a row, for statements that were leaked through the bare connection.
///
/// Some may belong to virtual tables with open cursors. Resetting these is sound: they stay valid, and their owner resets
/// or finalizes them as usual. The owner could notice it only in the middle of a step, but its cursors are closed here as
/// well, because the statements that opened them stand on a row themselves.
pub(crate) fn halt(conn: &Connection) {
    let mut statement = ptr::null_mut();
    loop {
        // SAFETY: the handle is open, and this thread has the connection to itself. To reset a statement
        // may finalize others, of its cursors, but never itself, so it is valid when the next is asked for.
        unsafe {
            statement = ffi::sqlite3_next_stmt(conn.handle(), statement);
            if statement.is_null() {
                return;
            }
            if ffi::sqlite3_stmt_busy(statement) != 0 {
                ffi::sqlite3_reset(statement);
            }
        }
    }
}

/// Closes a connection whose first close failed because a statement or a backup was leaked.
///
/// The first close has disconnected every virtual table that no statement uses. The statements that SQLite still lists
/// are the leaked ones and, if those use virtual tables, the statements of the tables. Nothing tells these apart; then the
/// connection stays open for ever, but pins no snapshot and holds no lock.
pub(super) fn close_leaky(conn: Connection) {
    halt(&conn);
    if may_use_virtual_tables(&conn) {
        mem::forget(conn);
        return;
    }
    // Listing the programs may have connected virtual tables again.
    let Err((conn, _)) = conn.close() else { return };
    loop {
        // SAFETY: the handle is open. No virtual table is connected, so each listed statement was leaked, and nothing can
        // use it any more.
        unsafe {
            let leaked = ffi::sqlite3_next_stmt(conn.handle(), ptr::null_mut());
            if leaked.is_null() {
                break;
            }
            ffi::sqlite3_finalize(leaked);
        }
    }
    // Only a leaked backup can be left.
    let _ = conn.close().map_err(|(conn, _)| mem::forget(conn));
}

/// Whether the program of a listed statement has an instruction on a virtual table. All statements are reset.
fn may_use_virtual_tables(conn: &Connection) -> bool {
    let mut statement = ptr::null_mut();
    loop {
        // SAFETY: the handle is open, and this thread has the connection to itself. From here on the statement
        // lists its program instead of running it; the one that it keeps is the one that is listed. Its text is
        // read before the next step.
        unsafe {
            statement = ffi::sqlite3_next_stmt(conn.handle(), statement);
            if statement.is_null() {
                return false;
            }
            // Fails if it had to be prepared again and could not.
            let mut code = ffi::sqlite3_stmt_explain(statement, 1);
            if code == ffi::SQLITE_OK {
                code = ffi::sqlite3_step(statement);
            }
            while code == ffi::SQLITE_ROW {
                let opcode = ffi::sqlite3_column_text(statement, 1);
                if opcode.is_null() || is_of_virtual_table(CStr::from_ptr(opcode.cast())) {
                    break;
                }
                code = ffi::sqlite3_step(statement);
            }
            ffi::sqlite3_reset(statement);
            if code != ffi::SQLITE_DONE {
                return true;
            }
        }
    }
}

/// <https://www.sqlite.org/opcode.html>: `VOpen`, `VUpdate`, ...; others with this letter have a small second one.
fn is_of_virtual_table(opcode: &CStr) -> bool {
    matches!(opcode.to_bytes(), [b'V', b'A'..=b'Z', ..])
}
