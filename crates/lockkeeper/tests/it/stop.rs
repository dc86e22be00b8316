//! Writes are stopped while reads go on (promise A58).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use lockkeeper::{Database, ErrorKind, Priority, RefusedReason};

use crate::support::{
    Dir, HANG, HeldWriter, PLACES, Place, TABLE, block_on, db_at, file_db, ids, ids_of, insert,
    kind, poll_once, within, within_each,
};

/// Checks that every kind of call that could write is refused, for every client, with an error that gives the reason.
fn refuses_writes(db: &Database) {
    let stopped = ErrorKind::WritesStopped;
    let error = db.blocking_write(|tx| insert(tx, 99)).expect_err("a write");
    assert_eq!((error.kind(), error.is_retryable()), (stopped, true), "{error}");
    assert_eq!(kind(block_on(db.write_once(|tx| insert(tx, 99)))), stopped);
    assert_eq!(kind(block_on(db.write(|_| Ok(())).and_snapshot()).map(drop)), stopped);
    assert_eq!(kind(db.blocking_exclusive(|conn| conn.execute_batch("VACUUM"))), stopped);
    assert_eq!(kind(block_on(db.lease()).map(drop)), stopped);
    let other = db.client("other");
    other.set_priority(Priority::Low);
    assert_eq!(kind(other.blocking_write(|tx| insert(tx, 99))), stopped);
    let refused = db.try_write(|tx| insert(tx, 99)).map(drop).expect_err("a write");
    assert_eq!(refused.reason, RefusedReason::Stopped);
}

#[test]
fn a58_while_writes_are_stopped_reads_go_on() {
    within_each(HANG, |place| {
        let (dir, db) = db_at(place, |builder| builder);
        db.blocking_write(|tx| insert(tx, 1)).expect("a write");
        let held = block_on(db.snapshot()).expect("a snapshot");
        let mut changes = db.changes();
        let stopped = db.blocking_stop_writes().expect("they stop");
        for _ in 0..3 {
            refuses_writes(&db);
            assert_eq!(ids(&db), [1]);
            assert_eq!(block_on(db.read(ids_of).short()).ok(), Some(vec![1]));
            assert_eq!(held.blocking_read(ids_of).ok(), Some(vec![1]));
            let another = block_on(db.snapshot()).expect("a snapshot");
            assert_eq!(another.blocking_read(ids_of).ok(), Some(vec![1]));
        }
        db.backup(dir.file("copy.db")).blocking_run().expect("a backup");
        assert!(changes.try_next().is_none(), "nothing was changed");
        stopped.resume();
        db.blocking_write(|tx| insert(tx, 2)).expect("writes go on");
        assert_eq!(ids(&db), [1, 2]);
        assert!(changes.blocking_next().is_some());
        db.blocking_close().expect("closes");
    });
}

/// writer                  | callers
/// ------------------------+----------------------------------------------------------
/// is held                 | submit writes in three lanes, more than there is room for
///                         | stop writes: later writes are refused, the stop waits
/// serves the early writes | the stop is answered when all of them are
#[test]
fn a58_what_was_asked_before_is_answered_first() {
    within_each(HANG, |place| {
        let (_dir, db) = db_at(place, |builder| builder.queue_capacity(2));
        let held = HeldWriter::hold(&db);
        let lanes = [db.client("a"), db.client("b"), db.client("low")];
        lanes[1].set_weight(9);
        lanes[2].set_priority(Priority::Low);
        let answered = Arc::new(AtomicUsize::new(0));
        let mut writes: Vec<_> = (0..30)
            .map(|id| {
                let count = Arc::clone(&answered);
                let mut write = lanes[id % 3].write(move |tx| {
                    count.fetch_add(1, Ordering::Relaxed);
                    insert(tx, id as i64)
                });
                assert!(poll_once(&mut write).is_pending());
                write
            })
            .collect();
        let mut stop = db.stop_writes();
        assert!(poll_once(&mut stop).is_pending());
        refuses_writes(&db);
        // Some of the writes are canceled. The stop does not wait for them, wherever they wait.
        writes.truncate(20);
        assert!(poll_once(&mut stop).is_pending());
        held.release();
        let stopped = block_on(stop).expect("they stop");
        assert_eq!(answered.load(Ordering::Relaxed), 20, "all have run");
        for mut write in writes {
            assert!(matches!(poll_once(&mut write), Poll::Ready(Ok(()))), "all are answered");
        }
        assert_eq!(ids(&db), (0..20).collect::<Vec<_>>());
        refuses_writes(&db);
        drop(stopped);
        db.blocking_close().expect("closes");
    });
}

/// The only write that the stop waits for is canceled, and no other call follows.
#[test]
fn a58_a_call_that_is_withdrawn_is_not_waited_for() {
    within_each(HANG, |place| {
        let (_dir, db) = db_at(place, |builder| builder);
        for _ in 0..100 {
            let held = HeldWriter::hold(&db);
            let low = db.client("low");
            low.set_priority(Priority::Low);
            let mut write = low.write(|tx| insert(tx, 1));
            assert!(poll_once(&mut write).is_pending());
            let mut stop = db.stop_writes();
            assert!(poll_once(&mut stop).is_pending());
            let leaves = std::thread::spawn(move || drop(write));
            held.release();
            drop(block_on(stop).expect("they stop"));
            leaves.join().expect("no panic");
            db.blocking_write(|tx| tx.execute("DELETE FROM t", []).map(drop)).expect("go on");
        }
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a58_a_lease_that_was_taken_before_is_waited_for() {
    within_each(HANG, |place| {
        let (_dir, db) = db_at(place, |builder| builder);
        let mut lease = block_on(db.lease().idle_max(HANG).hold_max(HANG)).expect("a lease");
        let mut stop = db.stop_writes();
        assert!(poll_once(&mut stop).is_pending());
        lease.blocking_run(|tx| insert(tx, 1)).expect("it goes on");
        assert!(poll_once(&mut stop).is_pending());
        lease.blocking_commit().expect("it commits");
        let stopped = block_on(stop).expect("they stop");
        assert_eq!(ids(&db), [1]);
        drop(stopped);
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a58_writes_go_on_when_the_last_stop_is_dropped() {
    within_each(HANG, |place| {
        let (_dir, db) = db_at(place, |builder| builder);
        let first = db.blocking_stop_writes().expect("they stop");
        let second = db.blocking_stop_writes().expect("they are stopped");
        drop(first);
        refuses_writes(&db);
        drop(second);
        db.blocking_write(|tx| insert(tx, 1)).expect("writes go on");
        // A stop that was never polled does nothing. A stop that is dropped while it waits has no effect afterwards.
        drop(db.stop_writes());
        db.blocking_write(|tx| insert(tx, 2)).expect("writes go on");
        let held = HeldWriter::hold(&db);
        let mut stop = db.stop_writes();
        assert!(poll_once(&mut stop).is_pending());
        drop(stop);
        let mut write = db.write(|tx| insert(tx, 3));
        assert!(poll_once(&mut write).is_pending());
        held.release();
        block_on(write).expect("writes go on");
        assert_eq!(ids(&db), [1, 2, 3]);
        // A stop keeps the database open, but does not prevent closing it.
        let stopped = db.blocking_stop_writes().expect("they stop");
        db.blocking_close().expect("closes");
        assert_eq!(kind(db.blocking_stop_writes()), ErrorKind::Closed);
        drop(stopped);
    });
}

/// While writes are stopped, the bytes of the file and its WAL do not change, so both can be copied.
#[test]
fn a58_the_file_stands_still_while_writes_are_stopped() {
    within(HANG, || {
        for pinned in [false, true] {
            let (dir, db) = file_db(|builder| builder.checkpoint_wal_bytes(1 << 16));
            let fill = |db: &Database, from: i64| {
                db.blocking_write(move |tx| (from..from + 2_000).try_for_each(|id| insert(tx, id)))
            };
            fill(&db, 0).expect("a write");
            let held = pinned.then(|| block_on(db.snapshot()).expect("a snapshot"));
            if let Some(held) = &held {
                held.blocking_read(ids_of).expect("it shows this state");
            }
            fill(&db, 2_000).expect("a write");
            let stopped = db.blocking_stop_writes().expect("they stop");
            let look = || {
                let read = |name| std::fs::read(dir.file(name)).expect("bytes");
                (read("test.db"), read("test.db-wal"))
            };
            let before = look();
            assert!(pinned || before.1.is_empty(), "the WAL was folded back");
            drop(held);
            // Does other things after which the writer might write to the file or its WAL.
            let mut changes = db.changes();
            db.backup(dir.file("copy.db")).blocking_run().expect("a backup");
            for _ in 0..200 {
                assert_eq!(ids(&db).len(), 4_000);
                drop(block_on(db.snapshot()).expect("a snapshot"));
                let _ = changes.try_next();
            }
            assert!(look() == before, "the file or its WAL was changed");
            // A copy of the two files is a whole database.
            let copied = Dir::new();
            std::fs::copy(dir.file("test.db"), copied.file("test.db")).expect("a copy");
            std::fs::copy(dir.file("test.db-wal"), copied.file("test.db-wal")).expect("a copy");
            drop(stopped);
            fill(&db, 4_000).expect("writes go on");
            let copy = copied.builder(Place::File).blocking_open().expect("opens");
            let whole = copy.blocking_read(|s| {
                s.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))
            });
            let whole = whole.expect("a check");
            assert_eq!((&*whole, ids(&copy).len()), ("ok", 4_000));
            copy.blocking_close().expect("closes");
            db.blocking_close().expect("closes");
        }
    });
}

/// Writes on many threads race stops. Each write is either stored and answered before the stop, or refused.
#[test]
fn a58_a_write_that_races_a_stop_is_stored_before_it_or_refused() {
    for place in PLACES {
        within(HANG, move || {
            let (_dir, db) = db_at(place, |builder| builder.queue_capacity(3));
            let over = AtomicBool::new(false);
            let next = AtomicUsize::new(0);
            let stored = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for n in 0..6 {
                    let client = db.client(["a", "b", "c"][n % 3]);
                    let (over, next, stored) = (&over, &next, &stored);
                    scope.spawn(move || {
                        while !over.load(Ordering::Relaxed) {
                            let id = next.fetch_add(1, Ordering::Relaxed) as i64;
                            match client.blocking_write(move |tx| insert(tx, id)) {
                                Ok(()) => _ = stored.fetch_add(1, Ordering::SeqCst),
                                Err(error) => {
                                    assert_eq!(error.kind(), ErrorKind::WritesStopped, "{error}");
                                    std::thread::yield_now();
                                }
                            }
                        }
                    });
                }
                for _ in 0..100 {
                    let stopped = db.blocking_stop_writes().expect("they stop");
                    let before = ids(&db).len();
                    for _ in 0..5 {
                        assert_eq!(ids(&db).len(), before, "something was written");
                    }
                    drop(stopped);
                    db.blocking_write(|_| Ok(())).expect("writes go on");
                }
                over.store(true, Ordering::Relaxed);
            });
            assert_eq!(ids(&db).len(), stored.load(Ordering::SeqCst), "answered is stored");
            db.blocking_close().expect("closes");
        });
    }
}

#[test]
fn a58_stopping_inside_a_call_is_told_nested_and_closing_answers_who_waits() {
    within_each(HANG, |place| {
        let (_dir, db) = db_at(place, |builder| builder);
        let inside = db.clone();
        let told = db.blocking_write(move |_| Ok(kind(inside.blocking_stop_writes())));
        assert_eq!(told.ok(), Some(ErrorKind::Nested));
        let inside = db.clone();
        let told = db.blocking_read(move |_| Ok(kind(inside.blocking_stop_writes())));
        assert_eq!(told.ok(), Some(ErrorKind::Nested));
        db.blocking_write(|tx| insert(tx, 1)).expect("writes go on");
        for abort in [false, true] {
            let (_dir, db) = db_at(place, |builder| builder);
            let lease = block_on(db.lease().idle_max(HANG).hold_max(HANG)).expect("a lease");
            let mut stop = db.stop_writes();
            assert!(poll_once(&mut stop).is_pending());
            let closing = db.clone();
            let closer = std::thread::spawn(move || match abort {
                true => block_on(closing.abort()),
                false => closing.blocking_close(),
            });
            if !abort {
                drop(lease);
            }
            match block_on(stop) {
                // The stop was answered before the close.
                Ok(stopped) => drop(stopped),
                Err(error) => assert!(error.is_closed(), "{error}"),
            }
            closer.join().expect("no panic").expect("closes");
        }
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a58_a_stop_may_be_dropped_after_any_number_of_polls() {
    within_each(HANG, |place| {
        let (_dir, db) = db_at(place, |builder| builder);
        for polls in (0..8).cycle().take(80) {
            let mut stop = Box::pin(db.stop_writes());
            for _ in 0..polls {
                if poll_once(&mut stop).is_ready() {
                    break;
                }
            }
            drop(stop);
            block_on(
                db.write(|tx| tx.execute("INSERT INTO t DEFAULT VALUES", []).map(drop))
                    .deadline(HANG),
            )
            .expect("writes go on");
        }
        assert_eq!(ids(&db).len(), 80);
        db.blocking_close().expect("closes");
    });
}

/// A file opened read-only has no writes that could be stopped. Other programs are not stopped.
#[test]
fn a58_a_file_opened_for_reading_has_no_writes_to_stop() {
    let (dir, db) = file_db(|builder| builder);
    db.blocking_close().expect("closes");
    let db = Database::builder(dir.file("test.db")).read_only(true).blocking_open().expect("opens");
    let stopped = db.blocking_stop_writes().expect("there are none");
    assert_eq!(kind(db.blocking_write(|tx| tx.execute_batch(TABLE))), ErrorKind::ReadOnly);
    let mut waits = db.write(|_| Ok(())).deadline(Duration::from_secs(1));
    assert!(poll_once(&mut waits).is_ready());
    drop(stopped);
    db.blocking_close().expect("closes");
}
