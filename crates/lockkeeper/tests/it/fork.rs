//! Use after fork: SQLite's connections must not cross it.
#![cfg(unix)]
#![expect(unsafe_code, reason = "fork and waitpid")]

use lockkeeper::{Database, ErrorKind, HeldSnapshot, RefusedReason};

use crate::support::{block_on, file_db, ids, insert, kind};

/// What the child checks; it must not panic, so it answers with a number.
fn in_child(db: Database, snapshot: HeldSnapshot) -> i32 {
    let forked = |kind: ErrorKind| kind == ErrorKind::Forked;
    let checks = [
        forked(kind(db.blocking_write(|tx| insert(tx, 66)))),
        forked(kind(db.blocking_read(|_| Ok(())))),
        forked(kind(block_on(db.read(|_| Ok(())).short()))),
        forked(kind(db.blocking_exclusive(|_| Ok(())))),
        forked(kind(block_on(db.snapshot()))),
        forked(kind(snapshot.blocking_read(|_| Ok(())))),
        db.try_write(|_| Ok(())).is_err_and(|refused| refused.reason == RefusedReason::Closed),
    ];
    drop(snapshot);
    drop(db);
    match checks.iter().position(|good| !good) {
        None => 0,
        Some(index) => index as i32 + 1,
    }
}

#[test]
fn use_after_fork_is_refused_and_harms_nothing() {
    let (_dir, db) = file_db(|builder| builder);
    db.blocking_write(|tx| insert(tx, 1)).expect("a write");
    for _ in 0..20 {
        block_on(db.read(|_| Ok(())).short()).expect("a short read");
    }
    let snapshot = block_on(db.snapshot()).expect("a snapshot");
    let (for_child, childs_snapshot) = (db.clone(), snapshot.clone());
    // SAFETY: the child runs no other test and ends by `_exit`, so it unwinds into nothing. It
    // allocates, which the C library allows after a fork.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no child");
    if child == 0 {
        let code = in_child(for_child, childs_snapshot);
        // SAFETY: ends the process, without the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    drop((for_child, childs_snapshot));
    let mut status = 0;
    // SAFETY: the status is a valid place to write to, the child is ours.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    assert!(libc::WIFEXITED(status), "the child died: {status}");
    assert_eq!(libc::WEXITSTATUS(status), 0, "the number of the check that failed");
    // The parent goes on, on whole connections.
    assert_eq!(snapshot.blocking_read(|s| s.table_exists("t")).ok(), Some(true));
    db.blocking_write(|tx| insert(tx, 2)).expect("a write");
    assert_eq!(ids(&db), [1, 2]);
    let whole = db.blocking_read(|s| {
        s.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))
    });
    assert_eq!(whole.expect("a check"), "ok");
    drop(snapshot);
    db.blocking_close().expect("closes");
}
