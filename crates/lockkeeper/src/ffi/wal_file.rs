//! The WAL's header, and checkpoints.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use rusqlite::{Connection, Error, ffi};

use super::prepared::failure;

/// How far a checkpoint goes (<https://www.sqlite.org/c3ref/wal_checkpoint_v2.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Checkpoint {
    /// Does not wait.
    Passive = ffi::SQLITE_CHECKPOINT_PASSIVE,
    /// Waits for writers, and for readers of older states.
    Full = ffi::SQLITE_CHECKPOINT_FULL,
    /// As `Full`, and waits until no connection reads the WAL, so that it can start over.
    Restart = ffi::SQLITE_CHECKPOINT_RESTART,
    /// As `Restart`, and cuts the WAL to nothing.
    Truncate = ffi::SQLITE_CHECKPOINT_TRUNCATE,
}

/// Copies the WAL of `schema` back into its file. Returns the number of frames in the WAL, and how many of them were
/// copied. `None`: SQLite was busy, because another connection copies or holds a lock at this moment.
pub(super) fn checkpoint(
    conn: &Connection,
    schema: &CStr,
    mode: Checkpoint,
) -> Result<Option<(c_int, c_int)>, Error> {
    let (mut frames, mut copied) = (-1, -1);
    // SAFETY: the handle is open, the name ends with a NUL, and both out pointers are valid.
    let code = unsafe {
        let (db, name) = (conn.handle(), schema.as_ptr());
        let (frames, copied) = (&raw mut frames, &raw mut copied);
        ffi::sqlite3_wal_checkpoint_v2(db, name, mode as c_int, frames, copied)
    };
    match code & 0xff {
        ffi::SQLITE_OK => Ok(Some((frames, copied))),
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => Ok(None),
        _ => Err(failure(conn, code)),
    }
}

/// The two salts in the header of a WAL. They change when the WAL starts over.
pub(crate) type WalSalts = [u8; 8];

/// The offset of the salts in the WAL's header, in bytes.
const SALTS_OFFSET: i64 = 16;

/// The salts of the main file's WAL; `None`: there is no WAL yet, or it cannot be read.
pub(super) fn salts(conn: &Connection) -> Option<WalSalts> {
    let mut salts: WalSalts = [0; 8];
    let read = read_file(conn, ffi::SQLITE_FCNTL_JOURNAL_POINTER, &mut salts, SALTS_OFFSET);
    read.then_some(salts)
}

/// The first bytes of the main file of `conn`; `None`: the file is shorter than that, or cannot be read.
pub(crate) fn first_bytes(conn: &Connection) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    read_file(conn, ffi::SQLITE_FCNTL_FILE_POINTER, &mut bytes, 0).then_some(bytes)
}

/// Reads `bytes` at `offset` of the file that the operation `op` names. This uses SQLite's own file, because closing
/// another file descriptor would drop the process's locks on the file. `false`: the bytes cannot be read.
fn read_file(conn: &Connection, op: c_int, bytes: &mut [u8], offset: i64) -> bool {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    let Ok(length) = c_int::try_from(bytes.len()) else { return false };
    // SAFETY: the handle is open, and both operations that are asked for store one pointer into `file`. The file that
    // it points to belongs to the connection. This thread has the connection to itself, and the connection neither
    // closes nor replaces the file between the two calls. The file's methods are null unless it is open; `xRead`, which
    // every VFS has, writes `length` bytes at most to `bytes`.
    unsafe {
        let argument = (&raw mut file).cast::<c_void>();
        let code = ffi::sqlite3_file_control(conn.handle(), c"main".as_ptr(), op, argument);
        let methods = file.as_ref().and_then(|file| file.pMethods.as_ref());
        match methods.and_then(|methods| methods.xRead) {
            Some(read) if code == ffi::SQLITE_OK => {
                read(file, bytes.as_mut_ptr().cast(), length, offset) == ffi::SQLITE_OK
            }
            _ => false,
        }
    }
}
