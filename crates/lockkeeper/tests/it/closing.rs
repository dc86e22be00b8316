//! How databases and workers are closed.

use std::sync::mpsc;
use std::time::Duration;

use lockkeeper::queue::Worker;
use lockkeeper::{Closed, ErrorKind};

use crate::support::{
    Dir, ENDLESS, HANG, HeldWriter, PLACES, Place, TABLE, Threads, block_on, count, db_at, file_db,
    ids, insert, kind, poll_once, within, within_each,
};

/// The files in the directory other than the database itself.
fn leftovers(dir: &Dir) -> Vec<String> {
    let names = std::fs::read_dir(dir.path())
        .expect("the directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name in UTF-8"));
    names.filter(|name| name != "test.db").collect()
}

#[test]
fn a22_closing_leaves_no_file_and_no_thread() {
    let rounds = count(100, 1_000);
    within(HANG * 4, move || {
        let dir = Dir::new();
        let threads = Threads::default();
        for round in 0..rounds as i64 {
            let db = threads.watch(dir.builder(Place::File)).blocking_open().expect("opens");
            assert_eq!(threads.alive(), 1 + 2.max(readers()), "writer and readers");
            match round % 4 {
                0 => {}
                1 => {
                    let create = "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v INTEGER)";
                    db.blocking_write(|tx| tx.execute_batch(create)).expect("the table");
                    db.blocking_write(move |tx| insert(tx, round)).expect("a write");
                }
                2 => {
                    for _ in 0..5 {
                        let short = db.read(|s| s.table_exists(None, "t")).short();
                        assert!(block_on(short).expect("a short read"));
                    }
                    let snapshot = block_on(db.snapshot()).expect("a snapshot");
                    assert_eq!(
                        snapshot.blocking_read(|s| s.table_exists(None, "t")).ok(),
                        Some(true)
                    );
                    // The snapshot stays held when the database is closed.
                    std::mem::forget(snapshot);
                }
                _ => {
                    let read = db.read(|_| Ok(())).deadline(HANG);
                    block_on(read).expect("a read with a deadline");
                }
            }
            if round % 8 < 4 {
                assert_eq!(db.blocking_close().expect("closes"), Closed::Drained);
            } else {
                assert_eq!(block_on(db.close().deadline(HANG)).expect("closes"), Closed::Drained);
            }
            assert_eq!(leftovers(&dir), Vec::<String>::new(), "round {round}");
            assert_eq!(threads.alive(), 0, "round {round}");
        }
        println!("{rounds} times opened, used and closed");
    });
}

fn readers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8)
}

#[test]
fn a22_dropping_the_last_handle_does_not_wait_and_still_closes() {
    for place in PLACES {
        within(HANG, move || {
            let dir = Dir::new();
            let threads = Threads::default();
            let db = threads.watch(dir.builder(place)).blocking_open().expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
            let (begun, has_begun) = mpsc::channel();
            let (release, released) = mpsc::channel::<()>();
            let mut holds = db.write_once(move |tx| {
                begun.send(()).expect("somebody waits");
                let _ = released.recv();
                insert(tx, 1)
            });
            assert!(poll_once(&mut holds).is_pending());
            has_begun.recv().expect("it runs");
            let mut accepted = db.write(|tx| insert(tx, 2));
            assert!(poll_once(&mut accepted).is_pending());
            // The writer is held until after the drop, so a drop that waited would hang. The two calls keep the
            // database open, too.
            drop(db);
            drop(release);
            block_on(holds).expect("it is served");
            block_on(accepted).expect("it is served");
            // No handle is left that could close the database, so the drop of the last handle must have done it.
            while threads.alive() > 0 {
                std::thread::yield_now();
            }
            assert!(leftovers(&dir).is_empty(), "{:?}", leftovers(&dir));
        });
    }
}

#[test]
fn a22_closing_serves_what_was_accepted_and_refuses_what_waits_for_room() {
    for place in PLACES {
        within(HANG, move || {
            let dir = Dir::new();
            let db = dir.builder(place).queue_capacity(10).blocking_open().expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
            let held = HeldWriter::hold(&db);
            let mut writes: Vec<_> = (0..30).map(|id| db.write(move |tx| insert(tx, id))).collect();
            writes.iter_mut().for_each(|write| assert!(poll_once(write).is_pending()));
            let mut close = db.close();
            assert!(poll_once(&mut close).is_pending());
            let late = db.blocking_write(|_| -> rusqlite::Result<()> { panic!("ran") });
            assert_eq!(kind(late), ErrorKind::Closed);
            held.release();
            for (id, write) in writes.into_iter().enumerate() {
                match block_on(write) {
                    Ok(()) => assert!(id < 10),
                    Err(error) => assert!(error.is_closed() && id >= 10, "{id}: {error:?}"),
                }
            }
            assert_eq!(block_on(close).expect("closes"), Closed::Drained);
            if place == Place::File {
                let db = dir.builder(place).blocking_open().expect("opens again");
                assert_eq!(ids(&db), (0..10).collect::<Vec<_>>());
                db.blocking_close().expect("closes");
            }
        });
    }
}

#[test]
fn a22_a_deadline_turns_the_drain_into_an_abort() {
    for place in PLACES {
        within(HANG, move || {
            let dir = Dir::new();
            let db = dir.builder(place).blocking_open().expect("opens");
            let (begun, has_begun) = mpsc::channel();
            let mut write = db.write(move |tx| {
                begun.send(()).expect("somebody waits");
                tx.query_row(ENDLESS, [], |row| row.get::<_, i64>(0))
            });
            let mut queued = db.write(|_| Ok(()));
            assert!(poll_once(&mut write).is_pending());
            assert!(poll_once(&mut queued).is_pending());
            has_begun.recv().expect("it runs");
            let close = db.close().deadline(Duration::from_millis(30));
            assert_eq!(block_on(close).expect("closes"), Closed::Aborted, "{place:?}");
            assert_eq!(kind(block_on(write)), ErrorKind::Canceled, "{place:?}");
            assert_eq!(kind(block_on(queued)), ErrorKind::Closed, "{place:?}");
        });
    }
}

#[test]
fn a22_abort_stops_reads_wherever_they_run() {
    for place in PLACES {
        within(HANG, move || {
            let dir = Dir::new();
            let db = dir.builder(place).blocking_open().expect("opens");
            let snapshot = block_on(db.snapshot()).expect("a snapshot");
            let (begun, has_begun) = mpsc::channel();
            let (release, released) = mpsc::channel::<()>();
            let mut first = {
                let begun = begun.clone();
                let released = std::sync::Mutex::new(released);
                snapshot.read(move |_| {
                    begun.send(()).expect("somebody waits");
                    let _ = released.lock().expect("no panic").recv();
                    Ok(())
                })
            };
            assert!(poll_once(&mut first).is_pending());
            has_begun.recv().expect("it runs");
            let endless =
                |s: &lockkeeper::Snapshot| s.query_row(ENDLESS, [], |row| row.get::<_, i64>(0));
            // The two reads wait for the first one. The reader thread that runs the first one runs them, too.
            let mut second = snapshot.read(move |s| {
                begun.send(()).expect("somebody waits");
                endless(s)
            });
            let mut third = snapshot.read(endless);
            assert!(poll_once(&mut second).is_pending());
            assert!(poll_once(&mut third).is_pending());
            let mut plain = db.read(endless);
            assert!(poll_once(&mut plain).is_pending());
            drop(release);
            block_on(first).expect("the first read");
            has_begun.recv().expect("the second runs");
            assert_eq!(block_on(db.abort()).expect("closes"), Closed::Aborted);
            assert_eq!(kind(block_on(second)), ErrorKind::Canceled, "{place:?}");
            assert_eq!(kind(block_on(third)), ErrorKind::Closed, "{place:?}");
            let kind = kind(block_on(plain));
            assert!(matches!(kind, ErrorKind::Canceled | ErrorKind::Closed), "{kind:?}");
        });
    }
}

#[test]
fn a22_many_may_close_at_once() {
    within_each(HANG, move |place| {
        for _ in 0..count(20, 300) {
            let (dir, db) = db_at(place, |builder| builder);
            std::thread::scope(|scope| {
                for n in 0..8 {
                    let db = db.clone();
                    scope.spawn(move || match n % 4 {
                        0 => db.blocking_close().map(drop).expect("closes"),
                        1 => block_on(db.abort()).map(drop).expect("aborts"),
                        2 => {
                            if let Err(error) = db.blocking_write(move |tx| insert(tx, n)) {
                                let known = [ErrorKind::Closed, ErrorKind::Canceled];
                                assert!(known.contains(&error.kind()), "{error:?}");
                            }
                        }
                        _ => drop(db),
                    });
                }
            });
            db.blocking_close().expect("closes");
            assert!(leftovers(&dir).is_empty(), "{:?}", leftovers(&dir));
        }
    });
}

/// Writes race the close: each is stored, or its caller gets an error.
#[test]
fn a22_a_write_that_races_the_close_is_stored_or_told_otherwise() {
    within(HANG, || {
        for _ in 0..count(20, 300) {
            let (dir, db) = file_db(|builder| builder);
            let stored: Vec<i64> = std::thread::scope(|scope| {
                let writers: Vec<_> = (0..4_i64)
                    .map(|n| {
                        let db = db.clone();
                        scope.spawn(move || {
                            let id = |i| n * 1_000 + i;
                            (0..1_000)
                                .take_while(|i| {
                                    let id = id(*i);
                                    let written = db.blocking_write(move |tx| insert(tx, id));
                                    written.map_err(|error| assert!(error.is_closed())).is_ok()
                                })
                                .map(id)
                                .collect::<Vec<_>>()
                        })
                    })
                    .collect();
                db.blocking_close().expect("closes");
                writers.into_iter().flat_map(|writer| writer.join().expect("no panic")).collect()
            });
            let db = dir.builder(Place::File).blocking_open().expect("opens again");
            assert_eq!(ids(&db), stored);
            db.blocking_close().expect("closes");
        }
    });
}

#[test]
fn a22_a_worker_drops_its_resource_on_its_own_thread_before_close_returns() {
    struct Resource(mpsc::Sender<std::thread::ThreadId>);
    impl Drop for Resource {
        fn drop(&mut self) {
            self.0.send(std::thread::current().id()).expect("somebody listens");
        }
    }
    within(HANG, || {
        let (dropped, drops) = mpsc::channel();
        let worker =
            Worker::builder("w").blocking_spawn(move || Ok::<_, ()>(Resource(dropped.clone())));
        let worker = worker.expect("a worker");
        let id = worker.blocking_call(|_| std::thread::current().id()).expect("a call");
        assert_eq!(worker.blocking_close().expect("closes"), Closed::Drained);
        assert_eq!(drops.try_recv().expect("dropped by now"), id);
        assert!(worker.blocking_call(|_| ()).is_err());
    });
}

#[test]
fn a23_a_wedged_writer_is_an_error_for_those_who_set_a_deadline() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder);
        let held = HeldWriter::hold(&db);
        let write = db.write(|tx| insert(tx, 1)).deadline(Duration::from_millis(20));
        assert!(matches!(kind(block_on(write)), ErrorKind::Timeout(lockkeeper::Phase::Queued)));
        let exclusive = db.exclusive(|_| Ok(())).deadline(Duration::from_millis(20));
        assert!(matches!(kind(block_on(exclusive)), ErrorKind::Timeout(lockkeeper::Phase::Queued)));
        // Readers still work.
        assert_eq!(ids(&db), []);
        held.release();
        db.blocking_close().expect("closes");
    });
}
