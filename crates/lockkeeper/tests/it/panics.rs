//! A panic goes to the caller of its own call.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};

use lockkeeper::ErrorKind;
use lockkeeper::queue::{CallError, Verdict, Worker};
use rusqlite::functions::FunctionFlags;

use crate::support::{
    Dir, HANG, HeldWriter, PLACES, TABLE, block_on, count, ids, insert, kind, on_each_place,
    poll_once, within,
};

#[derive(Debug, PartialEq)]
struct Payload(i64);

/// Polls `future` to its end and returns the payload of the panic that it resumes.
fn panic_of<F: Future>(future: F) -> Payload
where
    F::Output: std::fmt::Debug,
{
    let payload = catch_unwind(AssertUnwindSafe(|| block_on(future))).expect_err("it panics");
    *payload.downcast().expect("the payload that was thrown")
}

/// Keeps the panic hook from reporting the panics that these tests make on purpose.
fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        let expected = info.payload().is::<Payload>()
            || info
                .payload()
                .downcast_ref::<&str>()
                .is_some_and(|text| text.starts_with("expected:"));
        if !expected {
            eprintln!("{info}");
        }
    }));
}

#[test]
fn a21_a_panic_in_the_middle_of_a_batch_reaches_its_caller_and_nobody_else() {
    quiet();
    for place in PLACES {
        let panics = count(600, 10_000) as i64;
        within(HANG * 2, move || {
            let dir = Dir::new();
            let db = dir.builder(place).synchronous(lockkeeper::Synchronous::Normal);
            let db = db.blocking_open().expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
            for n in 0..panics / 2 {
                let held = HeldWriter::hold(&db);
                let id = 10 * n;
                let mut before = db.write(move |tx| insert(tx, id + 1));
                let mut thrown = db.write(move |tx| -> rusqlite::Result<()> {
                    insert(tx, id + 2)?;
                    tx.execute_batch("PRAGMA defer_foreign_keys = ON; CREATE TABLE gone (v)")?;
                    let _savepoint = tx.savepoint(|tx| insert(tx, id + 3));
                    panic_any(Payload(n));
                });
                let mut between = db.write_once(move |tx| insert(tx, id + 4));
                let mut reading = db.write(move |tx| -> rusqlite::Result<()> {
                    let _open = tx.prepare("SELECT id FROM t")?.query([])?.next()?.is_some();
                    panic_any(Payload(-n));
                });
                let mut after = db.write(move |tx| insert(tx, id + 5));
                assert!(poll_once(&mut before).is_pending());
                assert!(poll_once(&mut thrown).is_pending());
                assert!(poll_once(&mut between).is_pending());
                assert!(poll_once(&mut reading).is_pending());
                assert!(poll_once(&mut after).is_pending());
                held.release();
                block_on(before).expect("the call before");
                assert_eq!(panic_of(thrown), Payload(n));
                block_on(between).expect("the call between");
                assert_eq!(panic_of(reading), Payload(-n));
                block_on(after).expect("the call after");
            }
            let expected: Vec<_> =
                (0..panics / 2).flat_map(|n| [10 * n + 1, 10 * n + 4, 10 * n + 5]).collect();
            assert_eq!(ids(&db), expected);
            assert!(!db.blocking_read(|s| s.table_exists(None, "gone")).expect("a read"));
            println!("{place:?}: {panics} panics inside batches");
            db.blocking_close().expect("closes");
        });
    }
}

#[test]
fn a21_every_kind_of_call_passes_its_panic_on() {
    quiet();
    on_each_place(|db, place| {
        for n in 0..20 {
            assert_eq!(
                panic_of(db.write_once(move |_| -> rusqlite::Result<()> { panic_any(Payload(n)) })),
                Payload(n)
            );
            assert_eq!(
                panic_of(db.read(move |_| -> rusqlite::Result<()> { panic_any(Payload(n)) })),
                Payload(n)
            );
            assert_eq!(
                panic_of(
                    db.read(move |_| -> rusqlite::Result<()> { panic_any(Payload(n)) }).short()
                ),
                Payload(n)
            );
            let exclusive = db.exclusive(move |conn| -> rusqlite::Result<()> {
                conn.execute_batch("BEGIN; INSERT INTO t VALUES (7, 7)")?;
                panic_any(Payload(n))
            });
            assert_eq!(panic_of(exclusive), Payload(n));
            let snapshot = block_on(db.snapshot()).expect("a snapshot");
            assert_eq!(
                panic_of(snapshot.read(move |_| -> rusqlite::Result<()> { panic_any(Payload(n)) })),
                Payload(n)
            );
            assert!(
                snapshot.blocking_read(|s| s.table_exists(None, "t")).expect("it is still held")
            );
        }
        assert_eq!(ids(db), [], "{place:?}");
    });
}

#[test]
fn a21_a_panic_in_a_function_of_sql_fails_its_statement_only() {
    quiet();
    for place in PLACES {
        let dir = Dir::new();
        let db = dir
            .builder(place)
            .setup(|conn| {
                let flags = FunctionFlags::SQLITE_UTF8;
                conn.create_scalar_function("explode", 0, flags, |_| -> rusqlite::Result<i64> {
                    panic!("expected: in a function")
                })
            })
            .blocking_open()
            .expect("opens");
        db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
        for n in 0..50 {
            let held = HeldWriter::hold(&db);
            let mut before = db.write(move |tx| insert(tx, 2 * n));
            let mut explodes = db.write(|tx| tx.execute("INSERT INTO t VALUES (explode(), 1)", []));
            let mut after = db.write(move |tx| insert(tx, 2 * n + 1));
            assert!(poll_once(&mut before).is_pending());
            assert!(poll_once(&mut explodes).is_pending());
            assert!(poll_once(&mut after).is_pending());
            held.release();
            block_on(before).expect("the call before");
            assert_eq!(kind(block_on(explodes)), ErrorKind::Call, "{place:?}");
            block_on(after).expect("the call after");
            let read = db.blocking_read(|s| s.query_row("SELECT explode()", [], |_| Ok(())));
            assert_eq!(kind(read), ErrorKind::Call, "{place:?}");
        }
        assert_eq!(ids(&db), (0..100).collect::<Vec<_>>());
        db.blocking_close().expect("closes");
    }
}

/// Panics when it is dropped.
#[derive(Debug)]
struct Explosive;

impl Drop for Explosive {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("expected: in a destructor");
        }
    }
}

#[test]
fn a21_a_panic_in_a_destructor_ends_no_thread() {
    quiet();
    for place in PLACES {
        within(HANG, move || {
            let dir = Dir::new();
            let db = dir.builder(place).readers(1).readers_max(1).blocking_open().expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
            for n in 0..20 {
                // The captured value is dropped after the answer.
                let explosive = Explosive;
                let write = db.write(move |tx| {
                    let _captured = &explosive;
                    insert(tx, n)
                });
                block_on(write).expect("the write itself is fine");
                let explosive = Explosive;
                let read = db.read(move |_| {
                    let _captured = &explosive;
                    Ok(())
                });
                block_on(read).expect("the read itself is fine");
                // The future is dropped before the result is fetched.
                let (begun, has_begun) = std::sync::mpsc::channel();
                let (release, released) = std::sync::mpsc::channel::<()>();
                let mut write = db.write_once(move |_| {
                    begun.send(()).expect("somebody waits");
                    let _ = released.recv();
                    Ok(Explosive)
                });
                assert!(poll_once(&mut write).is_pending());
                has_begun.recv().expect("it runs");
                drop(write);
                drop(release);
                // The clock's thread drops a call that times out in the queue.
                let held = HeldWriter::hold(&db);
                let explosive = Explosive;
                let late = db.write(move |_| {
                    let _captured = &explosive;
                    Ok(())
                });
                let late = late.deadline(std::time::Duration::from_millis(5));
                assert!(matches!(kind(block_on(late)), ErrorKind::Timeout(_)));
                held.release();
            }
            assert_eq!(ids(&db).len(), 20, "{place:?}");
            db.blocking_close().expect("closes");
        });
    }
}

#[test]
fn a21_a_panic_in_a_call_of_a_worker_replaces_the_resource_and_keeps_the_worker() {
    quiet();
    within(HANG, || {
        let worker = Worker::builder("fragile").blocking_spawn(|| Ok::<_, ()>(0));
        let worker = worker.expect("a worker");
        for n in 0..200 {
            assert_eq!(worker.blocking_call(|value: &mut i64| *value += 1), Ok(()));
            let thrown = worker.call(move |value: &mut i64| {
                *value = 99;
                if n >= 0 {
                    panic_any(Payload(n));
                }
            });
            assert_eq!(panic_of(thrown), Payload(n));
            assert_eq!(worker.blocking_call(|value| *value), Ok(0), "a fresh one");
        }
        worker.blocking_close().expect("closes");
    });
}

#[test]
fn a23_a_resource_that_cannot_be_built_again_is_an_error_for_each_call() {
    quiet();
    within(HANG, || {
        let mut builds = 0;
        let worker = Worker::<i32>::builder("once")
            .recycle(|_, _| Verdict::Replace)
            .blocking_spawn(move || {
                builds += 1;
                match builds {
                    1 | 4 => Ok(builds),
                    2 => Err("no more"),
                    _ => panic!("expected: while building"),
                }
            });
        let worker = worker.expect("a worker");
        assert_eq!(worker.blocking_call(|built| *built), Ok(1));
        assert_eq!(worker.blocking_call(|built| *built), Err(CallError::Faulted));
        assert_eq!(worker.blocking_call(|built| *built), Err(CallError::Faulted));
        // Each call builds the resource again.
        assert_eq!(worker.blocking_call(|built| *built), Ok(4));
        worker.blocking_close().expect("closes");
    });
}

#[test]
fn a23_a_thread_that_dies_while_starting_is_an_error() {
    quiet();
    within(HANG, || {
        let dir = Dir::new();
        for place in PLACES {
            let opened = dir.builder(place).on_thread_start(|| panic!("expected: at start"));
            let error = opened.blocking_open().expect_err("no thread");
            assert_eq!(error.kind(), ErrorKind::Faulted);
            let opened = dir.builder(place).setup(|_| panic!("expected: in setup"));
            let error = opened.blocking_open().expect_err("no connection");
            assert_eq!(error.kind(), ErrorKind::Faulted);
        }
        let spawned = Worker::<()>::builder("w").on_thread_start(|| panic!("expected: at start"));
        assert!(spawned.blocking_spawn(|| Ok::<_, ()>(())).is_err());
    });
}
