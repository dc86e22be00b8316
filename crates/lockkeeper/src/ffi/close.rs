//! Closing a connection on which statements, transactions or hooks were left.

use std::ffi::CStr;
use std::{mem, ptr};

use rusqlite::hooks::{Action, AuthContext, Authorization};
use rusqlite::{Connection, ffi};

/// Rolls an open transaction of `conn` back and removes the hooks.
///
/// When a connection is closed, rusqlite frees its hooks first and SQLite rolls back afterwards: SQLite would call the
/// freed rollback hook that `setup` or an exclusive call may have set.
pub(super) fn disarm(conn: &mut Connection) {
    // Errors are ignored: these functions fail only if they run out of memory, and removing a hook needs none.
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
/// Some may belong to virtual tables with open cursors. Resetting these is sound: they stay valid, and their owner
/// resets or finalizes them as usual. An owner could notice the reset only in the middle of a step. But then the
/// statement that opened the owner's cursor stands on a row, so it is reset here too, which closes the cursor.
pub(crate) fn halt(conn: &Connection) {
    let mut statement = ptr::null_mut();
    loop {
        // SAFETY: the handle is open, and this thread has the connection to itself. Resetting a statement may finalize
        // the statements of its cursors, but never the statement itself. So it is still valid when `sqlite3_next_stmt`
        // gets it.
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
/// are the leaked ones and, if those use virtual tables, the statements of these tables. The two cannot be told apart.
/// So if virtual tables may be in use, the connection stays open for ever, but it pins no snapshot and holds no lock.
pub(super) fn close_leaky(conn: Connection) {
    halt(&conn);
    if may_use_virtual_tables(&conn) {
        mem::forget(conn);
        return;
    }
    // The close is tried again, because `may_use_virtual_tables` may have connected virtual tables, which it
    // disconnects.
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
    // This fails only if a backup was leaked. Then the connection stays open for ever.
    let _ = conn.close().map_err(|(conn, _)| mem::forget(conn));
}

/// Whether the bytecode of a statement that SQLite lists has an instruction on a virtual table. All statements must be
/// reset before.
fn may_use_virtual_tables(conn: &Connection) -> bool {
    let mut statement = ptr::null_mut();
    loop {
        // SAFETY: the handle is open, and this thread has the connection to itself. After `sqlite3_stmt_explain` the
        // steps of the statement list its bytecode instead of running it. The text of an instruction is read before the
        // next step.
        unsafe {
            statement = ffi::sqlite3_next_stmt(conn.handle(), statement);
            if statement.is_null() {
                return false;
            }
            // Fails if SQLite had to prepare the statement again and could not.
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

/// Instructions on virtual tables begin with `V` and another capital letter (`VOpen`, `VUpdate`, ...). In all other
/// instructions that begin with `V` the second letter is small (<https://www.sqlite.org/opcode.html>).
fn is_of_virtual_table(opcode: &CStr) -> bool {
    matches!(opcode.to_bytes(), [b'V', b'A'..=b'Z', ..])
}
