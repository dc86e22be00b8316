//! Mistakes get a typed error that says what to do, and lose nothing.

use std::time::Duration;

use lockkeeper::queue::{StartError, Worker};
use lockkeeper::{Database, ErrorKind};

use crate::support::{Dir, Place, TABLE, file_db, ids, insert, kind, on_each_place};

/// Opening must fail with `kind` and mention `hint`.
fn refuses(opened: Result<Database, lockkeeper::Error>, kind: ErrorKind, hint: &str) {
    let error = opened.expect_err("opening was expected to fail");
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.to_string().contains(hint), "`{error}` does not mention `{hint}`");
}

#[test]
fn a_directory_is_not_opened() {
    let dir = Dir::new();
    refuses(Database::blocking_open(dir.path()), ErrorKind::Open, "is a directory");
}

#[test]
fn a_file_in_a_missing_directory_is_not_opened() {
    let dir = Dir::new();
    let path = dir.file("missing").join("app.db");
    refuses(Database::blocking_open(&path), ErrorKind::Open, "directory does not exist");
    assert!(!dir.file("missing").exists());
}

#[test]
fn a_file_behind_a_file_is_not_opened() {
    let dir = Dir::new();
    std::fs::write(dir.file("plain"), "text").expect("a file");
    refuses(
        Database::blocking_open(dir.file("plain").join("app.db")),
        ErrorKind::Open,
        "check that the file and its directory can be read and written",
    );
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let dir = Dir::new();
    let text = "no database, but somebody's notes\n".repeat(200);
    std::fs::write(dir.file("notes"), &text).expect("a file");
    let opened = Database::blocking_open(dir.file("notes"));
    let error = opened.expect_err("opening was expected to fail");
    assert!(error.is_corrupt(), "{error:?}");
    assert!(error.to_string().contains("is not a SQLite database"), "{error}");
    assert_eq!(std::fs::read_to_string(dir.file("notes")).expect("the file"), text);
}

#[test]
fn a_file_system_that_takes_no_writes_is_named() {
    // Not even root can create a file in /proc.
    if !std::path::Path::new("/proc/self").exists() {
        return;
    }
    refuses(
        Database::blocking_open("/proc/self/app.db"),
        ErrorKind::Open,
        "check that the file and its directory can be read and written",
    );
}

#[test]
fn capacity_zero_is_refused() {
    let dir = Dir::new();
    let opened = dir.builder(Place::File).queue_capacity(0).blocking_open();
    refuses(opened, ErrorKind::Config, "queue_capacity is 0");
    let opened = dir.builder(Place::File).readers(0).blocking_open();
    refuses(opened, ErrorKind::Config, "readers is 0");
    assert!(!dir.file("test.db").exists());
    let spawned = Worker::builder("idle").capacity(0).blocking_spawn(|| Ok::<_, ()>(()));
    assert!(matches!(spawned.map(drop), Err(StartError::ZeroCapacity)));
}

#[test]
fn a_write_in_a_read_is_refused() {
    on_each_place(|db, place| {
        let read = db.blocking_read(|s| s.prepare("INSERT INTO t (id) VALUES (1)").map(drop));
        assert_eq!(kind(read), ErrorKind::ReadOnly, "{place:?}");
        let read = db.blocking_read(|s| {
            s.query_row("INSERT INTO t (id) VALUES (1) RETURNING id", [], |_| Ok(()))
        });
        assert_eq!(kind(read), ErrorKind::ReadOnly, "{place:?}");
        assert_eq!(ids(db), []);
    });
}

#[test]
fn transaction_control_inside_a_call_is_refused() {
    on_each_place(|db, place| {
        let statements = [
            "COMMIT",
            "END",
            "ROLLBACK",
            "BEGIN",
            "SAVEPOINT s",
            "RELEASE lockkeeper_call",
            "ROLLBACK TO lockkeeper_call",
            "ATTACH ':memory:' AS other",
            "DETACH main",
            "PRAGMA foreign_keys = OFF",
            "PRAGMA synchronous = OFF",
            "PRAGMA journal_mode = DELETE",
            "PRAGMA writable_schema = ON",
            "/* */ COMMIT -- in disguise",
        ];
        for (id, sql) in statements.into_iter().enumerate() {
            let id = id as i64;
            // After the refusal the call goes on, and all its writes are stored.
            let written = db.blocking_write(move |tx| {
                insert(tx, 2 * id)?;
                let error = tx.execute_batch(sql).expect_err("refused");
                assert_eq!(
                    error.sqlite_error_code(),
                    Some(rusqlite::ErrorCode::AuthorizationForStatementDenied),
                    "{sql}: {error}"
                );
                assert!(error.to_string().contains("not allowed inside a call"), "{error}");
                insert(tx, 2 * id + 1)
            });
            written.unwrap_or_else(|error| panic!("{sql} on {place:?}: {error:?}"));
            assert_eq!(ids(db).len() as i64, 2 * id + 2, "{sql} on {place:?}");
            // A read may not run the statement either.
            let read = db.blocking_read(move |s| s.prepare(sql).map(drop));
            assert_eq!(kind(read), ErrorKind::Call, "{sql} in a read on {place:?}");
        }
    });
}

#[test]
fn use_after_close_says_so_and_runs_nothing() {
    on_each_place(|db, place| {
        let other = db.clone();
        let snapshot = crate::support::block_on(db.snapshot()).expect("a snapshot");
        db.blocking_write(|tx| insert(tx, 1)).expect("a write");
        db.blocking_close().expect("closes");
        let never = || -> rusqlite::Result<()> { panic!("ran after close") };
        assert_eq!(kind(other.blocking_write(move |_| never())), ErrorKind::Closed, "{place:?}");
        assert_eq!(kind(other.blocking_read(move |_| never())), ErrorKind::Closed, "{place:?}");
        assert_eq!(kind(other.blocking_exclusive(move |_| never())), ErrorKind::Closed);
        assert_eq!(kind(snapshot.blocking_read(move |_| never())), ErrorKind::Closed);
        let short = crate::support::block_on(other.read(move |_| never()).short());
        assert_eq!(kind(short), ErrorKind::Closed);
        assert_eq!(kind(crate::support::block_on(other.snapshot())), ErrorKind::Closed);
        assert_eq!(kind(other.client("late").blocking_write(move |_| never())), ErrorKind::Closed);
        let refused = other.try_write(move |_| never()).expect_err("refused");
        assert_eq!(refused.reason, lockkeeper::RefusedReason::Closed);
        // Closing a second time is no mistake.
        other.blocking_close().expect("closes again");
    });
}

#[test]
fn a_closed_file_opens_again_with_everything_in_it() {
    let (dir, db) = file_db(|builder| builder.busy_timeout(Duration::from_secs(5)));
    db.blocking_write(|tx| insert(tx, 1)).expect("a write");
    db.blocking_close().expect("closes");
    let db = dir.builder(Place::File).blocking_open().expect("opens again");
    assert_eq!(ids(&db), [1]);
    let created = db.blocking_write(|tx| tx.execute_batch(TABLE));
    assert_eq!(kind(created), ErrorKind::Call, "the table is there");
    db.blocking_close().expect("closes");
}

/// Explaining a write only reads, but SQLite reports the explained statement as one that writes.
#[test]
fn a_read_may_explain_a_write() {
    on_each_place(|db, place| {
        for explain in ["EXPLAIN", "EXPLAIN QUERY PLAN"] {
            let sql = format!("{explain} UPDATE t SET v = 2 WHERE v = 1");
            let rows = db.blocking_read(move |s| {
                s.prepare(&sql)?.query_map([], |_| Ok(()))?.collect::<rusqlite::Result<Vec<_>>>()
            });
            assert_ne!(rows.expect("it is explained").len(), 0, "{explain} on {place:?}");
        }
    });
}
