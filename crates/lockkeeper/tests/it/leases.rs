//! Leases: what ends them, and what others see of them.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use lockkeeper::{Closed, Database, ErrorKind};

use crate::support::{
    ENDLESS, HANG, HeldWriter, Place, block_on, file_db, ids, insert, kind, on_each_place,
    poll_once, within,
};

/// A time limit that does not pass during a test.
const LONG: Duration = HANG;

/// Checks that no call holds the writer: a write is answered.
fn writer_is_free(db: &Database, id: i64) {
    let write = db.write(move |tx| insert(tx, id)).deadline(HANG / 2);
    block_on(write).expect("the writer is free");
}

#[test]
fn a20_a_lease_is_one_transaction_over_awaits() {
    within(HANG, || {
        on_each_place(|db, place| {
            block_on(async {
                let mut lease = db.lease().hold_max(LONG).idle_max(LONG).await.expect("its turn");
                lease.run(|tx| insert(tx, 1)).await.expect("a call");
                futures_lite::future::yield_now().await;
                // The lease sees its own writes, and other calls do not. Readers do not wait for the lease.
                let sum = |tx: &lockkeeper::Snapshot| {
                    tx.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
                };
                assert_eq!(lease.run(move |tx| sum(tx)).await.ok(), Some(1));
                if place == Place::File {
                    assert_eq!(db.read(move |s| sum(s)).await.ok(), Some(0));
                    assert_eq!(db.read(move |s| sum(s)).short().await.ok(), Some(0));
                    let snapshot = db.snapshot().await.expect("a snapshot");
                    assert_eq!(snapshot.read(move |s| sum(s)).await.ok(), Some(0));
                }
                // An error or a panic undoes only the call that failed.
                let failed = lease.run(|tx| {
                    insert(tx, 2)?;
                    insert(tx, 1)
                });
                assert_eq!(kind(failed.await), ErrorKind::Call);
                let panics = std::panic::AssertUnwindSafe(async {
                    let call = |tx: &lockkeeper::Transaction| -> rusqlite::Result<()> {
                        insert(tx, 3)?;
                        panic!("on purpose")
                    };
                    lease.run(call).await
                });
                let ran = futures_lite::FutureExt::catch_unwind(panics).await;
                assert!(ran.is_err(), "the panic reaches its caller");
                // A write inside a call of the lease is a savepoint, as in a write.
                let inside = db.clone();
                let nested = lease.run(move |_| {
                    assert_eq!(kind(block_on(inside.lease())), ErrorKind::Nested);
                    inside.blocking_write(|tx| insert(tx, 4)).expect("a savepoint");
                    Ok(())
                });
                nested.await.expect("a call");
                let mut waiting = db.write(|tx| insert(tx, 5));
                assert!(poll_once(&mut waiting).is_pending());
                lease.commit().await.expect("the commit");
                waiting.await.expect("its turn has come");
            });
            assert_eq!(ids(db), [1, 4, 5]);
        });
    });
}

#[test]
fn a20_a_dropped_lease_is_rolled_back() {
    within(HANG, || {
        on_each_place(|db, _| {
            let mut lease = block_on(db.lease().hold_max(LONG).idle_max(LONG)).expect("its turn");
            lease.blocking_run(|tx| insert(tx, 1)).expect("a call");
            drop(lease);
            let mut lease = block_on(db.lease().hold_max(LONG).idle_max(LONG)).expect("its turn");
            lease.blocking_run(|tx| insert(tx, 2)).expect("a call");
            lease.rollback();
            writer_is_free(db, 3);
            assert_eq!(ids(db), [3]);
        });
    });
}

/// The holder does nothing for too long. Then the next write proceeds. Readers never wait.
#[test]
fn a20_a_lease_that_is_left_idle_expires_and_the_next_writer_proceeds() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder);
        let idle = Duration::from_millis(400);
        let mut lease = block_on(db.lease().hold_max(LONG).idle_max(idle)).expect("its turn");
        lease.blocking_run(|tx| insert(tx, 1)).expect("a call");
        assert!(ids(&db).is_empty(), "a reader waits for nothing");
        let began = Instant::now();
        writer_is_free(&db, 2);
        let waited = began.elapsed();
        println!("the next writer waited {waited:?} for an idle time of {idle:?}");
        let error = lease.blocking_run(|tx| insert(tx, 3)).expect_err("it is over");
        assert_eq!(error.kind(), ErrorKind::LeaseExpired);
        assert!(error.is_retryable() && error.is_interrupted());
        assert_eq!(kind(lease.blocking_commit()), ErrorKind::LeaseExpired);
        assert_eq!(ids(&db), [2]);
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a20_a_lease_ends_at_its_maximum_hold() {
    within(HANG, || {
        on_each_place(|db, _| {
            let hold = Duration::from_millis(400);
            // The holder makes one call after another.
            let mut lease = block_on(db.lease().hold_max(hold).idle_max(LONG)).expect("its turn");
            let error = (1..)
                .find_map(|n| lease.blocking_run(move |tx| insert(tx, n)).err())
                .expect("it ends");
            assert_eq!(error.kind(), ErrorKind::LeaseExpired);
            writer_is_free(db, 1);
            // A statement is running when the time is over.
            let mut lease = block_on(db.lease().hold_max(hold).idle_max(LONG)).expect("its turn");
            lease.blocking_run(|tx| insert(tx, 2)).expect("a call");
            let endless = |tx: &lockkeeper::Transaction| {
                tx.query_row(ENDLESS, [], |row| row.get::<_, i64>(0))
            };
            assert_eq!(kind(lease.blocking_run(endless)), ErrorKind::LeaseExpired);
            writer_is_free(db, 3);
            // The holder forgets the lease.
            let lease = block_on(db.lease().hold_max(hold).idle_max(LONG)).expect("its turn");
            writer_is_free(db, 4);
            std::mem::forget(lease);
            assert_eq!(ids(db), [1, 3, 4]);
        });
    });
}

#[test]
fn a20_a_call_that_loses_the_transaction_ends_the_lease() {
    within(HANG, || {
        on_each_place(|db, _| {
            writer_is_free(db, 1);
            let mut lease = block_on(db.lease().hold_max(LONG).idle_max(LONG)).expect("its turn");
            lease.blocking_run(|tx| insert(tx, 2)).expect("a call");
            let lost = lease.blocking_run(|tx| {
                let _ = tx.execute("INSERT OR ROLLBACK INTO t (id) VALUES (1)", []);
                Ok(())
            });
            assert_eq!(kind(lost), ErrorKind::LeaseEnded);
            assert_eq!(kind(lease.blocking_run(|tx| insert(tx, 3))), ErrorKind::LeaseEnded);
            assert_eq!(kind(lease.blocking_commit()), ErrorKind::LeaseEnded);
            assert_eq!(ids(db), [1]);

            // A deferred foreign key that is still violated at the commit.
            db.blocking_write(|tx| {
                tx.execute_batch(
                    "CREATE TABLE child (t REFERENCES t DEFERRABLE INITIALLY DEFERRED)",
                )
            })
            .expect("a table");
            for (parent, stored) in [(7, true), (8, false)] {
                let lease = db.lease().hold_max(LONG).idle_max(LONG);
                let mut lease = block_on(lease).expect("its turn");
                let child = "INSERT INTO child VALUES (?1)";
                lease.blocking_run(move |tx| tx.execute(child, [parent])).expect("deferred");
                lease.blocking_run(|tx| insert(tx, 7).or(Ok(()))).expect("a call");
                match lease.blocking_commit() {
                    Ok(()) => assert!(stored),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::ForeignKey);
                        assert!(!stored);
                    }
                }
            }
            assert_eq!(ids(db), [1, 7]);
        });
    });
}

/// SQLite does not undo a virtual table as a whole, so the next savepoint or the COMMIT would fail.
#[test]
fn a20_a_call_that_fails_after_it_made_a_virtual_table_ends_the_lease() {
    const MAKE: &str = "CREATE VIRTUAL TABLE made USING fts5 (body)";
    const FILL: &str = "INSERT INTO made (body) VALUES ('word')";
    within(HANG, || {
        on_each_place(|db, _| {
            let lease = || block_on(db.lease().hold_max(LONG).idle_max(LONG)).expect("its turn");
            let mut ends = lease();
            ends.blocking_run(|tx| insert(tx, 1)).expect("a call");
            let failed = ends.blocking_run(|tx| {
                tx.execute_batch(MAKE)?;
                tx.execute_batch(FILL)?;
                Err::<(), _>(rusqlite::Error::QueryReturnedNoRows)
            });
            assert_eq!(kind(failed), ErrorKind::Call, "it is told its own error");
            assert_eq!(kind(ends.blocking_run(|tx| insert(tx, 2))), ErrorKind::LeaseEnded);
            assert_eq!(kind(ends.blocking_commit()), ErrorKind::LeaseEnded);
            assert_eq!(ids(db), []);

            // If the call that made the virtual table was kept, later calls may fail without ending the lease.
            let mut goes_on = lease();
            goes_on.blocking_run(|tx| tx.execute_batch(MAKE)).expect("the table");
            let failed = goes_on.blocking_run(|tx| {
                insert(tx, 3)?;
                Err::<(), _>(rusqlite::Error::QueryReturnedNoRows)
            });
            assert_eq!(kind(failed), ErrorKind::Call);
            goes_on.blocking_run(|tx| tx.execute_batch(FILL)).expect("it goes on");
            goes_on.blocking_commit().expect("it is stored");
            assert_eq!(ids(db), []);
            let count = |s: &lockkeeper::Snapshot| {
                s.query_row("SELECT count(*) FROM made", [], |row| row.get::<_, i64>(0))
            };
            assert_eq!(db.blocking_read(count).expect("a read"), 1);
        });
    });
}

#[test]
fn a20_dropping_a_call_of_a_lease_ends_it() {
    within(HANG, || {
        on_each_place(|db, _| {
            let mut lease = block_on(db.lease().hold_max(LONG).idle_max(LONG)).expect("its turn");
            lease.blocking_run(|tx| insert(tx, 1)).expect("a call");
            let (begun, has_begun) = mpsc::channel();
            let mut call = Box::pin(lease.run(move |tx| {
                let _ = begun.send(());
                tx.query_row(ENDLESS, [], |row| row.get::<_, i64>(0))
            }));
            assert!(poll_once(&mut call).is_pending());
            has_begun.recv_timeout(HANG).expect("it runs");
            drop(call);
            assert_eq!(kind(lease.blocking_run(|tx| insert(tx, 2))), ErrorKind::LeaseEnded);
            writer_is_free(db, 3);
            assert_eq!(ids(db), [3]);
        });
    });
}

#[test]
fn a20_asking_for_a_lease_may_be_dropped_after_any_number_of_polls() {
    within(HANG, || {
        on_each_place(|db, _| {
            for polls in 0..20 {
                let mut asked = Box::pin(db.lease().hold_max(LONG).idle_max(LONG));
                for _ in 0..polls {
                    if poll_once(&mut asked).is_ready() {
                        break;
                    }
                    std::thread::yield_now();
                }
                drop(asked);
                writer_is_free(db, polls);
            }
            // The lease began, but its future was dropped before it was polled again.
            let held = HeldWriter::hold(db);
            let mut asked = Box::pin(db.lease().hold_max(LONG).idle_max(LONG));
            assert!(poll_once(&mut asked).is_pending());
            let mut behind = db.write(|tx| insert(tx, 100));
            assert!(poll_once(&mut behind).is_pending());
            held.release();
            drop(asked);
            block_on(behind).expect("the writer is free");
            // The deadline covers the wait for the lease's turn.
            let lease = block_on(db.lease().hold_max(LONG).idle_max(LONG)).expect("its turn");
            let other = db.lease().deadline(Duration::from_millis(20));
            assert!(kind(block_on(other)) == ErrorKind::Timeout(lockkeeper::Phase::Queued));
            drop(lease);
        });
    });
}

#[test]
fn a20_closing_waits_for_a_lease_and_aborting_ends_it() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder);
        let mut lease = block_on(db.lease().hold_max(LONG).idle_max(LONG)).expect("its turn");
        lease.blocking_run(|tx| insert(tx, 1)).expect("a call");
        let mut close = db.close();
        assert!(poll_once(&mut close).is_pending());
        lease.blocking_run(|tx| insert(tx, 2)).expect("it was accepted before");
        lease.blocking_commit().expect("the commit");
        assert_eq!(block_on(close).ok(), Some(Closed::Drained));
        drop(db);

        let db = Database::blocking_open(dir.file("test.db")).expect("opens");
        assert_eq!(ids(&db), [1, 2]);
        let mut lease = block_on(db.lease().hold_max(LONG).idle_max(LONG)).expect("its turn");
        lease.blocking_run(|tx| insert(tx, 3)).expect("a call");
        assert_eq!(block_on(db.abort()).ok(), Some(Closed::Aborted));
        assert_eq!(kind(lease.blocking_commit()), ErrorKind::Canceled);
        assert_eq!(kind(block_on(db.lease())), ErrorKind::Closed);
        drop(db);
        let db = Database::blocking_open(dir.file("test.db")).expect("opens");
        assert_eq!(ids(&db), [1, 2]);
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a27_the_feed_tells_what_a_lease_committed_and_nothing_else() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder);
        let mut changes = db.changes();
        let mut dropped = block_on(db.lease().hold_max(LONG).idle_max(LONG)).expect("its turn");
        dropped.blocking_run(|tx| insert(tx, 1)).expect("a call");
        drop(dropped);
        let mut lease = block_on(db.lease().hold_max(LONG).idle_max(LONG)).expect("its turn");
        lease.blocking_run(|tx| insert(tx, 2)).expect("a call");
        let failed = lease.blocking_run(|tx| {
            insert(tx, 3)?;
            insert(tx, 2)
        });
        assert_eq!(kind(failed), ErrorKind::Call);
        lease.blocking_run(|tx| insert(tx, 4)).expect("a call");
        lease.blocking_commit().expect("the commit");
        let Some(lockkeeper::Change::Commit(commit)) = block_on(changes.next()) else {
            panic!("a commit");
        };
        let rows: Vec<i64> = (commit.calls().iter())
            .flat_map(|call| call.tables())
            .flat_map(|table| table.rows().expect("rows"))
            .map(|row| row.rowid)
            .collect();
        assert_eq!(rows, [2, 4]);
        db.blocking_close().expect("closes");
    });
}
