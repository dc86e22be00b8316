//! What a read sees.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use lockkeeper::{Database, ErrorKind};

use crate::support::{
    Dir, ENDLESS, HANG, HeldWriter, PLACES, Place, TABLE, block_on, count, file_db, ids, insert,
    kind, on_each_place, poll_once, within,
};

const COUNT: &str = "SELECT count(*) FROM t";

fn rows(s: &lockkeeper::Snapshot) -> rusqlite::Result<i64> {
    s.query_row(COUNT, [], |row| row.get(0))
}

/// reader                  | writer
/// counts the rows         |
///                         | commits a row
/// counts the same number  |
#[test]
fn a09_two_counts_of_one_read_agree_across_a_commit() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder);
        let (counted, has_counted) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let reader = db.clone();
        let reader = std::thread::spawn(move || {
            reader.blocking_read(move |s| {
                let before = rows(s)?;
                counted.send(()).expect("somebody waits");
                goes_on.recv().expect("somebody sends");
                Ok((before, rows(s)?))
            })
        });
        has_counted.recv().expect("the read begins");
        db.blocking_write(|tx| insert(tx, 1)).expect("a commit in between");
        // Another read already sees the row.
        assert_eq!(db.blocking_read(rows).expect("a read"), 1);
        go_on.send(()).expect("the read waits");
        assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), (0, 0));
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a09_readers_are_read_only_by_their_open_flag() {
    let dir = Dir::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let db = dir
        .builder(Place::File)
        .readers(3)
        .setup(move |conn| {
            let read_only = conn.is_readonly("main")?;
            // `setup` runs before the authorizer is installed. Even then a reader's connection cannot write.
            conn.execute_batch("PRAGMA query_only = 0")?;
            let written =
                conn.execute_batch("CREATE TABLE IF NOT EXISTS s (v); INSERT INTO s VALUES (1)");
            let code = written.err().and_then(|error| error.sqlite_error_code());
            noted.lock().expect("no panic").push((read_only, code));
            Ok(())
        })
        .blocking_open()
        .expect("the database opens");
    let seen = seen.lock().expect("no panic").clone();
    let (readers, writers): (Vec<_>, Vec<_>) = seen.into_iter().partition(|(only, _)| *only);
    assert_eq!(writers, [(false, None)]);
    assert_eq!(readers, vec![(true, Some(rusqlite::ErrorCode::ReadOnly)); 3]);
    let lifted = db.blocking_read(|s| s.prepare("PRAGMA query_only = 0").map(drop));
    assert_eq!(kind(lifted), ErrorKind::Call);
    let written = db.blocking_read(|s| s.prepare("INSERT INTO s VALUES (1)").map(drop));
    assert_eq!(kind(written), ErrorKind::ReadOnly);
    db.blocking_close().expect("closes");
}

/// A task finds its own write in its next read, on a reader thread or as a short read.
#[test]
fn a10_a_read_sees_every_write_that_was_answered() {
    const TASKS: i64 = 16;
    for place in PLACES {
        let all = match place {
            Place::File => count(4_000, 1_000_000),
            Place::Memory => count(2_000, 100_000),
        };
        within(HANG * 4, move || {
            let dir = Dir::new();
            let db = dir.builder(place).synchronous(lockkeeper::Synchronous::Normal);
            let db = db.blocking_open().expect("the database opens");
            db.blocking_write(|tx| {
                tx.execute_batch(TABLE)?;
                (0..TASKS).try_for_each(|task| insert(tx, task))
            })
            .expect("the table is created");
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
            let checked = Arc::new(AtomicUsize::new(0));
            runtime.expect("a runtime").block_on(async {
                let tasks: Vec<_> = (0..TASKS)
                    .map(|task| {
                        let (db, checked) = (db.clone(), Arc::clone(&checked));
                        tokio::spawn(async move {
                            for n in 1..=(all as i64 / TASKS) {
                                let update = "UPDATE t SET v = ?2 WHERE id = ?1";
                                let write = db.write(move |tx| tx.execute(update, [task, n]));
                                write.await.expect("a write");
                                let read = db.read(move |s| {
                                    let select = "SELECT v FROM t WHERE id = ?1";
                                    s.query_row(select, [task], |row| row.get::<_, i64>(0))
                                });
                                let seen = match n % 2 {
                                    0 => read.await,
                                    _ => read.short().await,
                                };
                                assert_eq!(seen.expect("a read"), n, "a stale read");
                                checked.fetch_add(1, Ordering::Relaxed);
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.expect("the task ends");
                }
            });
            println!("{place:?}: {} writes read back", checked.load(Ordering::Relaxed));
            db.blocking_close().expect("closes");
        });
    }
}

/// Many threads write, and each takes the snapshot of its commit. All snapshots of a commit show the same state, which
/// includes the last call of the commit and nothing of the next commit.
#[test]
fn a10_a_snapshot_after_a_commit_shows_exactly_that_commit() {
    for place in PLACES {
        let rounds = count(40, 2_000);
        within(HANG, move || {
            let dir = Dir::new();
            let db = dir.builder(place).snapshots_max(200);
            let db = db.synchronous(lockkeeper::Synchronous::Normal).blocking_open();
            let db = db.expect("the database opens");
            db.blocking_write(|tx| {
                tx.execute_batch(TABLE)?;
                tx.execute("INSERT INTO t VALUES (1, 0)", []).map(drop)
            })
            .expect("the table is created");
            // For each commit: the value that its snapshots show, and the greatest value that its calls wrote.
            let commits = Arc::new(Mutex::new(BTreeMap::<u64, (i64, i64)>::new()));
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    let (db, commits) = (db.clone(), Arc::clone(&commits));
                    std::thread::spawn(move || {
                        for _ in 0..rounds {
                            let write = db.write(|tx| {
                                let sql = "UPDATE t SET v = v + 1 RETURNING v";
                                tx.query_row(sql, [], |row| row.get::<_, i64>(0))
                            });
                            let (value, snapshot) =
                                block_on(write.and_snapshot()).expect("a write");
                            let seen = snapshot.blocking_read(|s| {
                                s.query_row("SELECT v FROM t", [], |row| row.get::<_, i64>(0))
                            });
                            let seen = seen.expect("a read");
                            let commit = snapshot.commit().expect("it has a number");
                            let mut commits = commits.lock().expect("no panic");
                            let entry = commits.entry(commit).or_insert((seen, value));
                            assert_eq!(entry.0, seen, "two states of commit {commit}");
                            entry.1 = entry.1.max(value);
                        }
                    })
                })
                .collect();
            for thread in threads {
                thread.join().expect("the thread ends");
            }
            let commits = commits.lock().expect("no panic");
            let mut last = 0;
            for (commit, (seen, written)) in &*commits {
                assert_eq!(seen, written, "the snapshot of commit {commit}");
                assert!(*seen > last, "commit {commit} is older than the one before it");
                last = *seen;
            }
            assert_eq!(last, 8 * rounds as i64);
            println!("{place:?}: {} snapshots of {} commits", 8 * rounds, commits.len());
            db.blocking_close().expect("closes");
        });
    }
}

#[test]
fn a10_a_held_snapshot_stays_as_it_was() {
    on_each_place(|db, place| {
        db.blocking_write(|tx| insert(tx, 1)).expect("a write");
        let snapshot = block_on(db.snapshot()).expect("a snapshot");
        db.blocking_write(|tx| insert(tx, 2)).expect("a write");
        assert_eq!(snapshot.blocking_read(rows).expect("a read"), 1, "{place:?}");
        assert_eq!(db.blocking_read(rows).expect("a read"), 2, "{place:?}");
        db.blocking_exclusive(|conn| conn.execute_batch("DELETE FROM t")).expect("a delete");
        assert_eq!(snapshot.blocking_read(rows).expect("a read"), 1, "{place:?}");
    });
}

/// Reads on `snapshot` until a read fails.
fn until_released(snapshot: &lockkeeper::HeldSnapshot) -> lockkeeper::Error {
    loop {
        match snapshot.blocking_read(rows) {
            Ok(_) => std::thread::yield_now(),
            Err(error) => return error,
        }
    }
}

/// Whether a checkpoint could copy the whole WAL and truncate it.
fn truncated(db: &Database) -> bool {
    let busy = db.blocking_exclusive(|conn| {
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
    });
    busy.expect("a checkpoint") == 0
}

#[test]
fn a11_a_snapshot_is_released_at_its_maximum_age() {
    within(HANG, || {
        let age = Duration::from_millis(400);
        let (dir, db) = file_db(|builder| {
            builder.snapshot_age_max(age).busy_timeout(Duration::from_millis(20))
        });
        db.blocking_write(|tx| insert(tx, 1)).expect("a write");
        let began = Instant::now();
        let snapshot = block_on(db.snapshot()).expect("a snapshot");
        db.blocking_write(|tx| (2..2_000).try_for_each(|id| insert(tx, id))).expect("a write");
        let held = began.elapsed() < age / 2;
        let truncated_while_held = truncated(&db);
        assert!(!held || !truncated_while_held, "the snapshot keeps the WAL");
        let error = until_released(&snapshot);
        assert_eq!(error.kind(), ErrorKind::SnapshotExpired);
        assert!(error.is_retryable() && error.is_interrupted());
        assert!(began.elapsed() >= age, "released too early: {:?}", began.elapsed());
        println!("released after {:?} of {age:?}", began.elapsed());
        assert!(truncated(&db), "the WAL starts over");
        let wal = dir.file("test.db-wal").metadata().expect("the WAL").len();
        assert_eq!(wal, 0);
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a11_a_running_read_is_stopped_at_its_snapshots_maximum_age() {
    for place in PLACES {
        within(HANG, move || {
            let dir = Dir::new();
            let db = dir.builder(place).snapshot_age_max(Duration::from_millis(30));
            let db = db.blocking_open().expect("the database opens");
            let snapshot = block_on(db.snapshot()).expect("a snapshot");
            let endless =
                || snapshot.read(|s| s.query_row(ENDLESS, [], |row| row.get::<_, i64>(0)));
            let (mut first, mut second) = (endless(), endless());
            assert!(poll_once(&mut first).is_pending());
            assert!(poll_once(&mut second).is_pending());
            assert_eq!(kind(block_on(first)), ErrorKind::SnapshotExpired, "{place:?}");
            assert_eq!(kind(block_on(second)), ErrorKind::SnapshotExpired, "{place:?}");
            db.blocking_close().expect("closes");
        });
    }
}

#[test]
fn a11_as_many_snapshots_as_allowed_and_no_more() {
    let dir = Dir::new();
    for place in PLACES {
        let db = dir.builder(place).snapshots_max(3).blocking_open().expect("opens");
        for _ in 0..50 {
            let mut held: Vec<_> =
                (0..3).map(|_| block_on(db.snapshot()).expect("a snapshot")).collect();
            let error = block_on(db.snapshot()).expect_err("a fourth");
            assert_eq!(error.kind(), ErrorKind::TooManySnapshots, "{place:?}");
            held.pop();
            drop(block_on(db.snapshot()).expect("the place of the dropped one"));
        }
        db.blocking_close().expect("closes");
    }
}

/// The reader thread may still hold a snapshot whose last read it has just answered. That must not keep the snapshot's
/// place.
#[test]
fn a11_whoever_drops_a_snapshot_may_take_the_next_at_once() {
    let rounds = count(2_000, 20_000);
    for place in PLACES {
        within(HANG * 2, move || {
            let dir = Dir::new();
            let db = dir.builder(place).snapshots_max(1).blocking_open().expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
            for round in 0..rounds {
                let snapshot = block_on(db.snapshot())
                    .unwrap_or_else(|error| panic!("round {round} on {place:?}: {error:?}"));
                let mut read = snapshot.read(|s| s.table_exists(None, "t"));
                match round % 3 {
                    0 => assert!(block_on(&mut read).expect("a read")),
                    // Only the read keeps the snapshot, until the read is answered.
                    1 => {
                        drop(snapshot);
                        assert!(block_on(&mut read).expect("a read"));
                        continue;
                    }
                    // The read is dropped too, perhaps while it runs.
                    _ => {
                        let _ = poll_once(&mut read);
                        drop(snapshot);
                        continue;
                    }
                }
                drop(snapshot);
                drop(block_on(db.snapshot()).expect("while the answered read is still there"));
            }
            db.blocking_close().expect("closes");
        });
    }
}

/// A memory database runs a read on the writer's connection, between two batches.
#[test]
fn a35_memory_reads_wait_for_no_one_but_the_batch() {
    within(HANG, || {
        let db = Database::blocking_open(":memory:").expect("opens");
        db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
        let held = HeldWriter::hold(&db);
        let mut write = db.write(|tx| insert(tx, 1));
        let mut read = db.read(rows);
        let mut later = db.write(|tx| insert(tx, 2));
        assert!(poll_once(&mut write).is_pending());
        assert!(poll_once(&mut read).is_pending());
        assert!(poll_once(&mut later).is_pending());
        held.release();
        block_on(write).expect("a write");
        assert_eq!(block_on(read).expect("a read"), 1, "in its turn");
        block_on(later).expect("a write");
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a35_memory_databases_are_apart() {
    let one = Database::blocking_open(":memory:").expect("opens");
    let two = Database::blocking_open(":memory:").expect("opens");
    one.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
    two.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table of the same name");
    one.blocking_write(|tx| insert(tx, 1)).expect("a write");
    // All clones and clients of a memory database use the same database.
    let clone = one.clone();
    assert_eq!(ids(&one.client("web")), [1]);
    assert_eq!(ids(&clone), [1]);
    assert_eq!(ids(&two), []);
    one.blocking_close().expect("closes");
    two.blocking_close().expect("closes");
    // A memory database makes no file of this name.
    assert!(!std::path::Path::new(":memory:").exists());
}

/// reader                    | callers
/// serves a held-up read     |
///                           | one submits a read, then another one submits a long read
/// answers the first of them |
/// begins the long read      |
///                           | the first of them gets its answer
/// ends the long read        |
#[test]
fn a10_an_answered_caller_is_woken_while_the_reader_is_busy_with_the_next() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder.readers(1).readers_max(1));
        for in_sqlite in [true, false] {
            let (go, gate) = mpsc::channel::<()>();
            let mut first = db.read(move |_| Ok(gate.recv().is_ok()));
            assert!(poll_once(&mut first).is_pending());
            let (asked, has_asked) = mpsc::channel();
            let client = db.clone();
            let caller = std::thread::Builder::new().name("caller".to_owned()).spawn(move || {
                let mut read = client.read(rows);
                block_on(std::future::poll_fn(|context| {
                    let polled = std::pin::Pin::new(&mut read).poll(context);
                    let _ = asked.send(());
                    polled
                }))
            });
            has_asked.recv().expect("it waits");
            let (end, until) = mpsc::channel::<()>();
            let mut long = db.read(move |s| match in_sqlite {
                true => s.query_row(ENDLESS, [], |row| row.get::<_, i64>(0)),
                false => Ok(until.recv().map_or(0, |()| 1)),
            });
            assert!(poll_once(&mut long).is_pending());
            go.send(()).expect("the reader waits for it");
            let answer = caller.expect("a thread").join().expect("it has its answer");
            assert_eq!(answer.expect("it was read"), 0);
            drop(first);
            match in_sqlite {
                true => drop(long),
                false => {
                    end.send(()).expect("the reader waits for it");
                    assert_eq!(block_on(long).expect("it ends"), 1);
                }
            }
        }
        db.blocking_close().expect("it closes");
    });
}
