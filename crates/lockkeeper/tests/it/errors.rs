//! A test for each kind of error, and which errors may be retried. The tests of promise A7 cover `Unknown`, which needs
//! a failing disk.

use std::sync::mpsc;
use std::time::Duration;

use lockkeeper::rusqlite;
use lockkeeper::{Error, ErrorKind, Phase};

use crate::support::{
    HeldWriter, PLACES, TABLE, block_on, db_at, file_db, ids, insert, kind, lock_of_another,
    on_each_place, poll_once,
};

#[derive(Debug, PartialEq)]
enum Own {
    Poor(i64),
    Sql,
}

impl From<rusqlite::Error> for Own {
    fn from(_: rusqlite::Error) -> Self {
        Self::Sql
    }
}

#[test]
fn a28_call_passes_the_closures_own_error_through() {
    on_each_place(|db, place| {
        let own = db.with_error::<Own>();
        let write = own.blocking_write(|tx| {
            insert(tx, 1)?;
            Err::<(), _>(Own::Poor(3))
        });
        let error = write.expect_err("it failed");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Call, false));
        assert_eq!(error.into_call().ok(), Some(Own::Poor(3)), "{place:?}");
        let read = own.blocking_read(|_| Err::<(), _>(Own::Poor(4))).expect_err("it failed");
        assert_eq!(read.call(), Some(&Own::Poor(4)));
        let sql = own.blocking_write(|tx| Ok(tx.execute("nonsense", [])?)).expect_err("it failed");
        assert_eq!(sql.into_call().ok(), Some(Own::Sql));
        assert_eq!(ids(db), []);
        // If the error type is rusqlite's, the message contains SQLite's message.
        let error = db.blocking_write(|tx| tx.execute("nonsense", [])).expect_err("it failed");
        assert!(error.to_string().contains("nonsense"), "{error}");
    });
}

#[test]
fn a28_busy_when_another_program_keeps_the_lock() {
    let (dir, db) = file_db(|builder| builder.busy_timeout(Duration::from_millis(30)));
    let lock = lock_of_another(&dir.file("test.db"));
    let error = db.blocking_write(|tx| insert(tx, 1)).expect_err("it is locked");
    assert!(error.is_busy() && error.is_retryable(), "{error:?}");
    assert!(error.sqlite().is_some());
    drop(lock);
    db.blocking_write(|tx| insert(tx, 1)).expect("a retry");
    db.blocking_close().expect("closes");
}

#[test]
fn a28_not_applied_when_a_neighbour_lost_the_transaction_of_a_call_that_runs_once() {
    on_each_place(|db, place| {
        let held = HeldWriter::hold(db);
        let mut once = db.write_once(|tx| insert(tx, 1));
        let mut many = db.write(|tx| insert(tx, 2));
        let mut loses = db.write(|tx| {
            insert(tx, 3)?;
            tx.execute("INSERT OR ROLLBACK INTO t VALUES (3, 3)", []).map(drop)
        });
        assert!(poll_once(&mut once).is_pending());
        assert!(poll_once(&mut many).is_pending());
        assert!(poll_once(&mut loses).is_pending());
        held.release();
        let error = block_on(once).expect_err("it was undone");
        assert_eq!(error.kind(), ErrorKind::NotApplied, "{place:?}");
        assert!(error.is_retryable());
        block_on(many).expect("it is run again");
        assert_eq!(kind(block_on(loses)), ErrorKind::Call);
        assert_eq!(ids(db), [2]);
    });
}

#[test]
fn a28_rolled_back_when_a_call_ignores_that_it_lost_the_transaction() {
    on_each_place(|db, place| {
        let write = db.blocking_write(|tx| {
            insert(tx, 1)?;
            let _ = tx.execute("INSERT OR ROLLBACK INTO t VALUES (1, 1)", []);
            Ok(())
        });
        let error = write.expect_err("nothing is stored");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::RolledBack, false));
        assert_eq!(ids(db), [], "{place:?}");
    });
}

#[test]
fn a28_foreign_key_when_a_deferred_one_is_left_violated() {
    on_each_place(|db, place| {
        let child = "CREATE TABLE child (t REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)";
        db.blocking_write(move |tx| tx.execute_batch(child)).expect("the table");
        let orphan = db.blocking_write(|tx| tx.execute("INSERT INTO child VALUES (9)", []));
        assert_eq!(kind(orphan), ErrorKind::ForeignKey, "{place:?}");
        db.blocking_write(|tx| {
            tx.execute("INSERT INTO child VALUES (9)", [])?;
            insert(tx, 9)
        })
        .expect("it is satisfied at the end of the call");
    });
}

#[test]
fn a28_disk_full_when_there_is_no_room_in_the_file() {
    for place in PLACES {
        // The table `t` and its schema take two pages of the file.
        let (_dir, db) = db_at(place, |builder| {
            builder.setup(|conn| conn.query_row("PRAGMA max_page_count = 4", [], |_| Ok(())))
        });
        let fill = db.blocking_write(|tx| {
            tx.execute_batch(
                "CREATE TABLE big (v BLOB); INSERT INTO big VALUES (zeroblob(1000000))",
            )
        });
        assert_eq!(kind(fill), ErrorKind::DiskFull, "{place:?}");
        db.blocking_write(|tx| insert(tx, 1)).expect("what has room is stored");
        assert_eq!(ids(&db), [1]);
    }
}

#[test]
fn a28_corrupt_when_the_file_is_damaged() {
    let (dir, db) = file_db(|builder| builder);
    db.blocking_write(|tx| (0..2_000).try_for_each(|id| insert(tx, id))).expect("rows");
    db.blocking_close().expect("closes");
    let path = dir.file("test.db");
    let mut bytes = std::fs::read(&path).expect("the file");
    bytes[8_192..].fill(0xA5);
    std::fs::write(&path, bytes).expect("the file");
    let db = dir.builder(crate::support::Place::File).blocking_open().expect("its header is whole");
    let read = db.blocking_read(|s| s.query_row("SELECT sum(v) FROM t", [], |_| Ok(())));
    let error = read.expect_err("it is damaged");
    assert!(error.is_corrupt(), "{error:?}");
    db.blocking_close().expect("closes");
}

/// A call that failed is answered after the COMMIT. A deadline that passes in between is not the reason of the failure.
#[test]
fn a28_a_deadline_that_passes_after_a_call_has_failed_does_not_change_its_error() {
    const DEADLINE: Duration = Duration::from_secs(1);
    on_each_place(|db, place| {
        let held = HeldWriter::hold(db);
        let (release, released) = mpsc::channel::<()>();
        let mut first = db.write(|tx| insert(tx, 1));
        // This write fails because of a row that is not stored yet, so its answer waits for the COMMIT.
        let mut fails = db.write(|tx| insert(tx, 1)).deadline(DEADLINE);
        let mut holds = db.write_once(move |_| {
            let _ = released.recv();
            Ok(())
        });
        // This write has the same deadline and waits in the queue. When it times out, the deadline of the failed write
        // has passed too.
        let mut late = db.write(|_| Ok(())).deadline(DEADLINE);
        assert!(poll_once(&mut first).is_pending());
        assert!(poll_once(&mut fails).is_pending());
        assert!(poll_once(&mut holds).is_pending());
        held.release();
        assert_eq!(kind(block_on(&mut late)), ErrorKind::Timeout(Phase::Queued), "{place:?}");
        release.send(()).expect("it waits");
        block_on(holds).expect("it only waited");
        block_on(first).expect("stored");
        let error = block_on(fails).expect_err("the row is there");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Call, false), "{place:?}");
        assert_eq!(ids(db), [1]);
    });
}

/// A nested write loses the transaction and ignores that. The outer write gets the error as well.
#[test]
fn a28_rolled_back_when_a_nested_write_ignores_that_it_lost_the_transaction() {
    on_each_place(|db, place| {
        let inner = db.clone();
        let outer = db.blocking_write(move |tx| {
            insert(tx, 1)?;
            let nested = inner.blocking_write(|tx| {
                let _ = tx.execute("INSERT OR ROLLBACK INTO t VALUES (1, 1)", []);
                Ok(())
            });
            assert_eq!(kind(nested), ErrorKind::RolledBack, "{place:?}");
            Ok(())
        });
        assert_eq!(kind(outer), ErrorKind::RolledBack, "{place:?}");
        assert_eq!(ids(db), []);
    });
}

#[test]
fn a28_only_what_may_succeed_later_is_retryable() {
    for place in PLACES {
        let (_dir, db) = db_at(place, |builder| builder.snapshots_max(1));
        let _held = block_on(db.snapshot()).expect("a snapshot");
        let error = block_on(db.snapshot()).expect_err("a second one");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::TooManySnapshots, true));
        let held = HeldWriter::hold(&db);
        let late = db.write(|_| Ok(())).deadline(Duration::from_millis(5));
        let error = block_on(late).expect_err("it is late");
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Queued));
        assert!(error.is_retryable() && error.is_timeout() && error.is_interrupted());
        held.release();
        let error = db.blocking_read(|s| s.prepare("DELETE FROM t").map(drop)).expect_err("a read");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::ReadOnly, false));
        db.blocking_close().expect("closes");
        let error: Error = db.blocking_write(|tx| tx.execute_batch(TABLE)).expect_err("closed");
        assert!(error.is_closed() && !error.is_retryable());
    }
}
