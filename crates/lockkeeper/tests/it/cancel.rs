//! Futures that are dropped at any time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use lockkeeper::queue::Worker;
use lockkeeper::{Database, ErrorKind, RefusedReason, Snapshot};

use crate::support::{
    Dir, ENDLESS, HANG, HeldWriter, PLACES, Place, TABLE, block_on, count, db_at, file_db, ids,
    insert, on_each_place, poll_once, within, within_each,
};

fn endless(s: &Snapshot) -> rusqlite::Result<i64> {
    s.query_row(ENDLESS, [], |row| row.get(0))
}

#[test]
fn a14_a_queued_call_that_is_dropped_never_runs_and_frees_its_place_at_once() {
    for place in PLACES {
        within(HANG, move || {
            let dir = Dir::new();
            let db = dir.builder(place).queue_capacity(1).blocking_open().expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
            let held = HeldWriter::hold(&db);
            for n in 0..1_000 {
                let never = |_: &lockkeeper::Transaction| -> rusqlite::Result<()> { panic!("ran") };
                let Ok(write) = db.try_write(never) else { panic!("no room in round {n}") };
                let refused = db.try_write(|_| Ok(())).expect_err("it is full");
                assert_eq!(refused.reason, RefusedReason::Full);
                drop(write);
            }
            let mut exclusive = db.exclusive(|_| -> rusqlite::Result<()> { panic!("ran") });
            assert!(poll_once(&mut exclusive).is_pending());
            drop(exclusive);
            held.release();
            db.blocking_write(|tx| insert(tx, 1)).expect("a write");
            assert_eq!(ids(&db), [1], "{place:?}");
            db.blocking_close().expect("closes");
        });
    }
}

#[test]
fn a14_a_queued_read_that_is_dropped_never_runs() {
    within_each(HANG, move |place| {
        let (_dir, db) = db_at(place, |builder| builder.readers(1).readers_max(1));
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let mut holds = db.read_once(move |_| {
            begun.send(()).expect("somebody waits");
            let _ = released.recv();
            Ok(())
        });
        assert!(poll_once(&mut holds).is_pending());
        has_begun.recv().expect("it runs");
        for _ in 0..100 {
            let mut read = db.read(|_| -> rusqlite::Result<()> { panic!("ran") });
            assert!(poll_once(&mut read).is_pending());
            let mut snapshot = db.snapshot();
            assert!(poll_once(&mut snapshot).is_pending());
        }
        drop(release);
        block_on(holds).expect("it ends");
        assert_eq!(ids(&db), []);
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a14_a_call_of_a_worker_that_is_dropped_while_queued_never_runs() {
    within(HANG, || {
        let worker = Worker::builder("w").capacity(1).blocking_spawn(|| Ok::<_, ()>(0));
        let worker = worker.expect("a worker");
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let mut holds = worker.call(move |_| {
            begun.send(()).expect("somebody waits");
            let _ = released.recv();
        });
        assert!(poll_once(&mut holds).is_pending());
        has_begun.recv().expect("it runs");
        for _ in 0..100 {
            let Ok(call) = worker.try_call(|_| panic!("ran")) else { panic!("no room") };
            drop(call);
        }
        drop(release);
        block_on(holds).expect("it ends");
        worker.blocking_close().expect("closes");
    });
}

/// Some tasks drop their queries at random times. The queries of the other tasks must never notice.
#[test]
fn a15_cancels_never_hit_another_call() {
    let cancels = count(3_000, 100_000);
    within_each(HANG * 4, move |place| {
        let (_dir, db) = db_at(place, |builder| builder.readers(2).readers_max(2));
        db.blocking_write(|tx| (0..500).try_for_each(|id| insert(tx, id))).expect("rows");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
        let innocent = Arc::new(AtomicUsize::new(0));
        let over = Arc::new(AtomicUsize::new(0));
        runtime.expect("a runtime").block_on(async {
            let watchers: Vec<_> = (0..6_usize)
                .map(|n| {
                    let (db, over) = (db.clone(), Arc::clone(&over));
                    let innocent = Arc::clone(&innocent);
                    tokio::spawn(async move {
                        while over.load(Ordering::Relaxed) == 0 {
                            // The query takes long enough that a stray interrupt would hit it.
                            let read = db.read(|s| {
                                let sql = "SELECT sum(a.v * b.v) FROM t a, t b WHERE b.id < 20";
                                s.query_row(sql, [], |row| row.get::<_, i64>(0))
                            });
                            let sum = match n % 3 {
                                0 => read.short().await,
                                _ => read.await,
                            };
                            let sum = sum.expect("an innocent read");
                            assert_eq!(sum, (0..500).sum::<i64>() * (0..20).sum::<i64>());
                            innocent.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            let cancelers: Vec<_> = (0..4_u64)
                .map(|n| {
                    let db = db.clone();
                    tokio::spawn(async move {
                        let mut random = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(n + 1);
                        for _ in 0..cancels / 4 {
                            let mut read = Box::pin(db.read(endless));
                            assert!(poll_once(&mut read).is_pending());
                            random ^= random << 13;
                            random ^= random >> 7;
                            random ^= random << 17;
                            for _ in 0..random % 8 {
                                tokio::task::yield_now().await;
                            }
                            // Only the time of the drop is random. The task does not wait for anything here.
                            if random.is_multiple_of(5) {
                                tokio::time::sleep(Duration::from_micros(random % 300)).await;
                            }
                            drop(read);
                        }
                    })
                })
                .collect();
            for canceler in cancelers {
                canceler.await.expect("the canceler ends");
            }
            over.store(1, Ordering::Relaxed);
            for watcher in watchers {
                watcher.await.expect("no innocent read fails");
            }
        });
        println!("{cancels} cancels, {} innocent reads", innocent.load(Ordering::Relaxed));
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a15_a_dropped_query_frees_its_reader_at_once() {
    for (queries, readers) in [(1, 1), (16, 2)] {
        within(HANG, move || {
            let (_dir, db) = file_db(|builder| builder.readers(readers).readers_max(readers));
            let (begun, has_begun) = mpsc::channel();
            let mut reads: Vec<_> = (0..queries)
                .map(|_| {
                    let begun = begun.clone();
                    db.read(move |s| {
                        begun.send(()).expect("somebody waits");
                        endless(s)
                    })
                })
                .collect();
            reads.iter_mut().for_each(|read| assert!(poll_once(read).is_pending()));
            for _ in 0..readers.min(queries) {
                has_begun.recv().expect("it runs");
            }
            let dropped = Instant::now();
            drop(reads);
            assert_eq!(ids(&db), []);
            let again = dropped.elapsed();
            println!("{queries} endless queries dropped, a read answered {again:?} later");
            assert!(again < Duration::from_millis(500), "{again:?}");
            db.blocking_close().expect("closes");
        });
    }
}

#[test]
fn a15_a_dropped_write_frees_the_writer_and_is_undone() {
    on_each_place(|db, place| {
        let (begun, has_begun) = mpsc::channel();
        let mut write = db.write(move |tx| {
            insert(tx, 1)?;
            begun.send(()).expect("somebody waits");
            endless(tx)
        });
        assert!(poll_once(&mut write).is_pending());
        has_begun.recv().expect("it runs");
        let dropped = Instant::now();
        drop(write);
        db.blocking_write(|tx| insert(tx, 2)).expect("a write");
        println!("{place:?}: the writer answered {:?} after the drop", dropped.elapsed());
        assert_eq!(ids(db), [2], "{place:?}");
    });
}

/// The whole database is as before: another connection gets the write lock immediately, every place in the queue and
/// among the snapshots is free, and everything works.
fn check_whole(db: &Database, dir: &Dir, place: Place, what: &str) {
    // The exclusive call and the read come after the dropped call in their queues. When they are answered, no thread
    // works on the dropped call any more.
    db.blocking_exclusive(|_| Ok(())).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!(ids(db), [], "{what}");
    if place == Place::File {
        let other = rusqlite::Connection::open(dir.file("test.db")).expect("a connection");
        other.busy_timeout(Duration::ZERO).expect("no waiting");
        other
            .execute_batch("BEGIN IMMEDIATE; ROLLBACK")
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    let held = HeldWriter::hold(db);
    let writes: Vec<_> = (0..4)
        .map(|n| match db.try_write(|_| Ok(())) {
            Ok(write) => write,
            Err(refused) => panic!("{what}: place {n} is lost: {refused:?}"),
        })
        .collect();
    held.release();
    for write in writes {
        block_on(write).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    }
    // If the future of a snapshot was dropped while a reader thread was taking the snapshot, its place becomes free
    // when that thread has noticed the drop. So this asks again. If a place is lost, the loop does not end, and the
    // time limit of the test fails. Everything else frees its place immediately.
    let may_be_late = what.starts_with("snapshot") || what.starts_with("write and snapshot");
    let taken = |_| loop {
        match block_on(db.snapshot()) {
            Ok(snapshot) => break snapshot,
            Err(error) if may_be_late && error.kind() == ErrorKind::TooManySnapshots => {
                std::thread::yield_now();
            }
            Err(error) => panic!("{what}: {error:?}"),
        }
    };
    drop((0..3).map(taken).collect::<Vec<_>>());
}

/// Polls `future` up to `polls` times, lets other threads run after each poll, then drops it. `false`: the future
/// became ready.
fn poll_and_drop<F: Future>(future: F, polls: usize) -> bool {
    let mut future = Box::pin(future);
    for n in 0..polls {
        if poll_once(&mut future).is_ready() {
            return false;
        }
        for _ in 0..(1 << n) {
            std::thread::yield_now();
        }
    }
    true
}

#[test]
fn a18_every_future_may_be_dropped_after_any_number_of_polls() {
    let rounds = count(3, 50);
    for place in PLACES {
        within(HANG * count(2, 10) as u32, move || {
            let dir = Dir::new();
            let db = dir.builder(place).queue_capacity(4).snapshots_max(3);
            let db = db.blocking_open().expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
            let fails = |tx: &lockkeeper::Transaction| -> rusqlite::Result<()> {
                insert(tx, 1)?;
                // The call fails, so it stores nothing even if it runs to its end.
                Err(rusqlite::Error::InvalidQuery)
            };
            let busy = HANG;
            let mut drops = 0;
            for polls in (0..14).cycle().take(14 * rounds) {
                let mut check = |what: &str, dropped: bool| {
                    check_whole(&db, &dir, place, &format!("{what}, {polls} polls, {place:?}"));
                    drops += usize::from(dropped);
                };
                check("write", poll_and_drop(db.write(fails), polls));
                check(
                    "write with a deadline",
                    poll_and_drop(db.write(fails).deadline(busy), polls),
                );
                check("write_once", poll_and_drop(db.write_once(fails), polls));
                check(
                    "write and snapshot",
                    poll_and_drop(db.write(|_| Ok(())).and_snapshot(), polls),
                );
                check("read", poll_and_drop(db.read(|s| s.table_exists(None, "t")), polls));
                check(
                    "short read",
                    poll_and_drop(db.read(|s| s.table_exists(None, "t")).short(), polls),
                );
                check("exclusive", poll_and_drop(db.exclusive(|_| Ok(())), polls));
                check("snapshot", poll_and_drop(db.snapshot(), polls));
                if let Ok(write) = db.try_write(fails) {
                    check("try_write", poll_and_drop(write, polls));
                }
                let snapshot = block_on(db.snapshot()).expect("a snapshot");
                let dropped = poll_and_drop(snapshot.read(|s| s.table_exists(None, "t")), polls);
                drop(snapshot);
                check("read on a snapshot", dropped);
                // The writer is held, so the write is dropped while it waits.
                let held = HeldWriter::hold(&db);
                let dropped = poll_and_drop(db.write(fails), polls.max(1));
                assert!(dropped, "it cannot have run");
                held.release();
                check("write behind another", dropped);
            }
            println!("{place:?}: {drops} futures dropped before they were ready");
            db.blocking_close().expect("closes");
        });
    }
}

#[test]
fn a18_opening_may_be_dropped_after_any_number_of_polls() {
    within(HANG, || {
        let mut opened = 0;
        for polls in (0..16).cycle().take(16 * count(2, 20)) {
            let dir = Dir::new();
            if !poll_and_drop(dir.builder(Place::File).open(), polls) {
                opened += 1;
            }
            // The dropped opening may still be closing in the background. Even so the file can be opened and used.
            let db = dir.builder(Place::File).blocking_open().expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
            assert_eq!(ids(&db), []);
            db.blocking_close().expect("closes");
        }
        println!("{opened} opened before they were dropped");
    });
}

#[test]
fn a18_closing_goes_on_when_its_future_is_dropped() {
    for place in PLACES {
        within(HANG, move || {
            let dir = Dir::new();
            for polls in 1..6 {
                let db = dir.builder(place).blocking_open().expect("opens");
                poll_and_drop(db.close(), polls);
                let error = db.blocking_write(|_| Ok(())).expect_err("it is closed");
                assert!(error.is_closed());
                db.blocking_close().expect("closes");
                assert!(!dir.file("test.db-wal").exists(), "{polls} polls");
            }
            // A close that was never polled does nothing.
            let db = dir.builder(place).blocking_open().expect("opens");
            drop(db.close());
            db.blocking_write(|_| Ok(())).expect("still open");
            db.blocking_close().expect("closes");
        });
    }
}
