//! Use after a fork: SQLite's connections must not be used in the child.
#![cfg(unix)]
#![expect(unsafe_code, reason = "fork and waitpid")]

use std::path::Path;

use lockkeeper::queue::{CallError, Closed, Worker};
use lockkeeper::{Database, ErrorKind, HeldSnapshot, RefusedReason};

use crate::support::{block_on, file_db, ids, insert, kind};

/// The checks in the child. Returns 0, or the number of the check that failed; it must not panic.
fn in_child(db: Database, snapshot: HeldSnapshot, file: &Path, other_file: &Path) -> i32 {
    let forked = |kind: ErrorKind| kind == ErrorKind::Forked;
    let checks = [
        forked(kind(db.blocking_write(|tx| insert(tx, 66)))),
        forked(kind(db.blocking_read(|_| Ok(())))),
        forked(kind(block_on(db.read(|_| Ok(())).short()))),
        forked(kind(db.blocking_exclusive(|_| Ok(())))),
        forked(kind(block_on(db.snapshot()))),
        forked(kind(snapshot.blocking_read(|_| Ok(())))),
        db.try_write(|_| Ok(())).is_err_and(|refused| refused.reason == RefusedReason::Forked),
        forked(kind(db.blocking_close())),
        // SQLite's list of open files was copied, so in the child SQLite would take the parent's locks for its own.
        forked(kind(Database::blocking_open(file))),
        Database::blocking_open(other_file).is_ok(),
    ];
    drop(snapshot);
    drop(db);
    match checks.iter().position(|good| !good) {
        None => 0,
        Some(index) => index as i32 + 1,
    }
}

/// Runs `check` in a forked child, whose exit status is the number of the check that failed; 0: none. An alarm kills a
/// child that hangs.
pub(crate) fn in_a_fork(check: impl FnOnce() -> i32) {
    // SAFETY: the child runs no other test and ends by `_exit`, so no panic can unwind out of it. It allocates memory,
    // which the C library allows after a fork.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no child");
    if child == 0 {
        // SAFETY: the alarm concerns this process alone, and `_exit` ends it without running the parent's exit
        // handlers.
        unsafe {
            libc::alarm(60);
            libc::_exit(check());
        }
    }
    drop(check);
    let mut status = 0;
    // SAFETY: the status is a valid place to write to, and the child is a child of this process.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    assert!(libc::WIFEXITED(status), "the child died or hung: {status}");
    assert_eq!(libc::WEXITSTATUS(status), 0, "the number of the check that failed");
}

#[test]
fn a37_use_after_fork_is_refused_and_harms_nothing() {
    let (dir, db) = file_db(|builder| builder);
    let (file, other_file) = (dir.file("test.db"), dir.file("other.db"));
    db.blocking_write(|tx| insert(tx, 1)).expect("a write");
    for _ in 0..20 {
        block_on(db.read(|_| Ok(())).short()).expect("a short read");
    }
    let snapshot = block_on(db.snapshot()).expect("a snapshot");
    let (for_child, childs_snapshot) = (db.clone(), snapshot.clone());
    in_a_fork(|| in_child(for_child, childs_snapshot, &file, &other_file));
    // The parent's connections still work.
    assert_eq!(snapshot.blocking_read(|s| s.table_exists(None, "t")).ok(), Some(true));
    db.blocking_write(|tx| insert(tx, 2)).expect("a write");
    assert_eq!(ids(&db), [1, 2]);
    let whole = db.blocking_read(|s| {
        s.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))
    });
    assert_eq!(whole.expect("a check"), "ok");
    drop(snapshot);
    db.blocking_close().expect("closes");
}

#[test]
fn a37_a_worker_after_fork_is_refused_and_does_not_hang() {
    let build = || Ok::<_, std::convert::Infallible>(0_u32);
    let worker: Worker<u32> = Worker::builder("forked").blocking_spawn(build).expect("a worker");
    assert_eq!(worker.blocking_call(|n| *n += 1), Ok(()));
    let for_child = worker.clone();
    in_a_fork(move || {
        let refused = for_child.try_call(|n| *n).err().map(|refused| refused.reason);
        let checks = [
            for_child.blocking_call(|n| *n) == Err(CallError::Forked),
            refused == Some(RefusedReason::Forked),
            for_child.blocking_close() == Err(CallError::Forked),
            block_on(for_child.close()) == Closed::Forked,
        ];
        drop(for_child);
        checks.iter().position(|good| !good).map_or(0, |index| index as i32 + 1)
    });
    assert_eq!(worker.blocking_call(|n| *n), Ok(1));
    assert_eq!(worker.blocking_close(), Ok(Closed::Drained));
}
