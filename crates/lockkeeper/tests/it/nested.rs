//! Calls that are made inside calls.

use std::sync::mpsc;
use std::time::Duration;

use lockkeeper::queue::{CallError, Worker};
use lockkeeper::{Database, ErrorKind, RefusedReason, Transaction};

use crate::support::{
    HeldWriter, PLACES, TABLE, block_on, db_at, ids, insert, kind, on_each_place, poll_once,
    within, within_each,
};

/// A nested call is answered immediately. This limit is much longer, but much shorter than a hang.
const AT_ONCE: Duration = Duration::from_secs(10);

#[test]
fn a19_a_write_in_a_write_is_a_savepoint_of_it() {
    on_each_place(|db, place| {
        let inner = db.clone();
        let outer = db.blocking_write(move |tx| {
            insert(tx, 1)?;
            inner.blocking_write(|tx| insert(tx, 2)).expect("the inner write");
            let failed = inner.blocking_write(|tx| {
                insert(tx, 3)?;
                Err::<(), _>(rusqlite::Error::InvalidQuery)
            });
            assert_eq!(kind(failed), ErrorKind::Call);
            // The inner write sees the rows of the outer one, and can contain another write.
            let again = inner.clone();
            let seen = inner.blocking_write(move |tx| {
                again.blocking_write(|tx| insert(tx, 4)).expect("a write in a write in a write");
                tx.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
            });
            Ok(seen.expect("the count"))
        });
        assert_eq!(outer.expect("the outer write"), 3, "{place:?}");
        assert_eq!(ids(db), [1, 2, 4], "{place:?}");
    });
}

#[test]
fn a19_an_inner_write_is_undone_with_its_outer_one() {
    on_each_place(|db, _| {
        let inner = db.clone();
        let outer = db.blocking_write(move |tx| {
            inner.blocking_write(|tx| insert(tx, 1)).expect("the inner write");
            insert(tx, 2)?;
            Err::<(), _>(rusqlite::Error::InvalidQuery)
        });
        assert_eq!(kind(outer), ErrorKind::Call);
        assert_eq!(ids(db), []);
    });
}

/// If the inner write panics and the outer write catches the panic, only the inner write is undone.
#[test]
fn a19_an_inner_write_that_panics_is_undone_alone() {
    on_each_place(|db, place| {
        let inner = db.clone();
        db.blocking_write(move |tx| {
            insert(tx, 1)?;
            let inner = inner.clone();
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                inner.blocking_write(|tx| -> rusqlite::Result<()> {
                    insert(tx, 2)?;
                    panic!("in the inner write")
                })
            }));
            assert!(caught.is_err());
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                tx.savepoint(|tx| -> rusqlite::Result<()> {
                    insert(tx, 3)?;
                    panic!("in the savepoint")
                })
            }));
            assert!(caught.is_err());
            insert(tx, 4)
        })
        .expect("the outer write");
        assert_eq!(ids(db), [1, 4], "{place:?}");
    });
}

#[test]
fn a19_a_read_in_a_write_sees_what_the_write_has_done() {
    on_each_place(|db, place| {
        let inner = db.clone();
        db.blocking_write(move |tx| {
            insert(tx, 1)?;
            assert_eq!(ids(&inner), [1]);
            // A nested read cannot write.
            let written = inner
                .blocking_read(|s| s.prepare("INSERT INTO t VALUES (9, 9)")?.execute([]).map(drop));
            assert_eq!(kind(written), ErrorKind::ReadOnly);
            insert(tx, 2)
        })
        .unwrap_or_else(|error| panic!("{place:?}: {error:?}"));
        assert_eq!(ids(db), [1, 2]);
    });
}

/// Makes every call that must not wait inside a call on `db`.
fn all_nested(db: &Database, where_: &str) {
    let nested = |kind: ErrorKind, what: &str| {
        assert_eq!(kind, ErrorKind::Nested, "{what} in {where_}");
    };
    nested(kind(block_on(db.write(|_| Ok(())))), "write");
    nested(kind(block_on(db.write_once(|_| Ok(())))), "write_once");
    nested(kind(block_on(db.exclusive(|_| Ok(())))), "exclusive");
    nested(kind(block_on(db.snapshot())), "snapshot");
    nested(kind(block_on(db.write(|_| Ok(())).and_snapshot())), "and_snapshot");
    nested(kind(block_on(db.close())), "close");
    nested(kind(block_on(db.abort())), "abort");
    nested(kind(db.blocking_close()), "blocking_close");
    let refused = db.try_write(|_| Ok(())).expect_err("refused");
    assert_eq!(refused.reason, RefusedReason::Nested, "try_write in {where_}");
    let client = db.client("other");
    nested(kind(block_on(client.write(|_| Ok(())))), "a client's write");
}

fn all_blocking_nested(db: &Database, where_: &str) {
    for kind in [
        kind(db.blocking_write(|_| Ok(()))),
        kind(db.blocking_read(|_| Ok(()))),
        kind(db.blocking_exclusive(|_| Ok(()))),
        kind(block_on(db.read(|_| Ok(())))),
        kind(block_on(db.read_once(|_| Ok(())))),
    ] {
        assert_eq!(kind, ErrorKind::Nested, "in {where_}");
    }
}

#[test]
fn a19_what_would_wait_for_itself_is_told_so_at_once() {
    for place in PLACES {
        within(AT_ONCE, move || {
            let dir = crate::support::Dir::new();
            let db = dir.builder(place).blocking_open().expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
            let snapshot = block_on(db.snapshot()).expect("a snapshot");
            let in_call = db.clone();
            db.blocking_write(move |tx| {
                all_nested(&in_call, "a write");
                insert(tx, 1)
            })
            .expect("the write");
            let in_call = db.clone();
            let read = db.blocking_read(move |_| {
                all_nested(&in_call, "a read");
                all_blocking_nested(&in_call, "a read");
                Ok(())
            });
            read.expect("the read");
            let in_call = db.clone();
            let exclusive = db.blocking_exclusive(move |_| {
                all_nested(&in_call, "an exclusive call");
                all_blocking_nested(&in_call, "an exclusive call");
                Ok(())
            });
            exclusive.expect("the exclusive call");
            let in_call = db.clone();
            let held = snapshot.blocking_read(move |_| {
                all_nested(&in_call, "a read on a snapshot");
                all_blocking_nested(&in_call, "a read on a snapshot");
                Ok(())
            });
            held.expect("the read on a snapshot");
            for _ in 0..20 {
                // A short read runs on this thread once a connection for it is open.
                let in_call = db.clone();
                let short = db.read(move |_| {
                    all_nested(&in_call, "a short read");
                    all_blocking_nested(&in_call, "a short read");
                    Ok(())
                });
                block_on(short.short()).expect("the short read");
            }
            assert_eq!(ids(&db), [1], "{place:?}");
            db.blocking_close().expect("closes");
        });
    }
}

/// A call on A waits for a call on B, which waits for a call on A.
#[test]
fn a19_a_circle_through_a_second_database_is_noticed() {
    within_each(AT_ONCE, move |place| {
        let (_dir_a, a) = db_at(place, |builder| builder);
        let (_dir_b, b) = db_at(place, |builder| builder);
        let (a_in, b_in) = (a.clone(), b.clone());
        a.blocking_write(move |tx| {
            let a_in = a_in.clone();
            b_in.blocking_write(move |tx| {
                // This closure runs on the thread of B's writer, while A's writer waits.
                assert_eq!(kind(a_in.blocking_write(|_| Ok(()))), ErrorKind::Nested);
                assert_eq!(kind(a_in.blocking_read(|_| Ok(()))), ErrorKind::Nested);
                assert_eq!(kind(block_on(a_in.read(|_| Ok(())).short())), ErrorKind::Nested);
                all_nested(&a_in, "a write of B in a write of A");
                insert(tx, 2)
            })
            .expect("the write of B");
            insert(tx, 1)
        })
        .expect("the write of A");
        assert_eq!((ids(&a), ids(&b)), (vec![1], vec![2]));
        a.blocking_close().expect("closes");
        b.blocking_close().expect("closes");
    });
}

#[test]
fn a19_a_worker_tells_nested_calls_at_once() {
    within(AT_ONCE, || {
        let worker = Worker::builder("w").blocking_spawn(|| Ok::<_, ()>(0)).expect("a worker");
        let other = Worker::builder("o").blocking_spawn(|| Ok::<_, ()>(0)).expect("a worker");
        let (inner, through) = (worker.clone(), other.clone());
        worker
            .blocking_call(move |_| {
                assert_eq!(inner.blocking_call(|_| ()), Err(CallError::Nested));
                assert!(inner.try_call(|_| ()).is_err_and(|r| r.reason == RefusedReason::Nested));
                assert!(matches!(inner.blocking_close(), Err(CallError::Nested)));
                through
                    .blocking_call(move |_| {
                        assert_eq!(inner.blocking_call(|_| ()), Err(CallError::Nested));
                    })
                    .expect("another worker");
            })
            .expect("the call");
        worker.blocking_close().expect("closes");
        other.blocking_close().expect("closes");
    });
}

/// Calls the function when it is dropped.
struct CallsBack<F: FnMut()>(F);

impl<F: FnMut()> Drop for CallsBack<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A closure's captured values are dropped on the writer's thread. Here that happens after the commit, because the
/// answers wait for it.
#[test]
fn a19_a_destructor_on_the_writers_thread_is_told_nested_and_does_not_hang() {
    for place in PLACES {
        within(AT_ONCE, move || {
            let dir = crate::support::Dir::new();
            let db = dir.builder(place).blocking_open().expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
            let (told, tell) = mpsc::channel();
            let guard = |id: i64| {
                let (db, told) = (db.clone(), told.clone());
                CallsBack(move || {
                    if std::thread::current().name() == Some("lockkeeper-writer") {
                        let inline = db.blocking_write(move |tx| insert(tx, id));
                        let queued = block_on(db.write(move |tx| insert(tx, id)));
                        told.send((kind(inline), kind(queued))).expect("somebody listens");
                    }
                })
            };
            let held = HeldWriter::hold(&db);
            let keeps = move |id: i64, guard: CallsBack<_>| {
                move |tx: &Transaction| {
                    let _captured = &guard;
                    insert(tx, id)
                }
            };
            let mut first = db.write(keeps(1, guard(101)));
            // This write fails while the first one is not stored yet.
            let fails = guard(102);
            let mut second = db.write(move |tx| -> rusqlite::Result<()> {
                let _captured = &fails;
                tx.execute_batch("PRAGMA defer_foreign_keys = ON")?;
                tx.query_row("SELECT 1 FROM nowhere", [], |_| Ok(()))
            });
            let mut third = db.write(keeps(3, guard(103)));
            assert!(poll_once(&mut first).is_pending());
            assert!(poll_once(&mut second).is_pending());
            assert!(poll_once(&mut third).is_pending());
            held.release();
            block_on(first).expect("the first write");
            assert_eq!(kind(block_on(second)), ErrorKind::Call);
            block_on(third).expect("the third write");
            db.blocking_exclusive(|_| Ok(())).expect("the batch is over");
            drop(told);
            let told: Vec<_> = tell.try_iter().collect();
            assert_eq!(told.len(), 3, "{place:?}");
            for kinds in told {
                assert_eq!(kinds, (ErrorKind::Nested, ErrorKind::Nested), "{place:?}");
            }
            assert_eq!(ids(&db), [1, 3], "{place:?}");
            db.blocking_close().expect("closes");
        });
    }
}

/// A closure's captured values are dropped when its call is answered. If the call wrote nothing, that is in the middle
/// of the batch's transaction, and a nested write would be committed together with calls of others.
#[test]
fn a19_a_destructor_between_two_calls_may_not_write_either() {
    struct Writes(Database, mpsc::Sender<ErrorKind>);

    impl Drop for Writes {
        fn drop(&mut self) {
            let _ = self.1.send(kind(self.0.blocking_write(|tx| insert(tx, 9))));
        }
    }

    on_each_place(|db, place| {
        let (told, answer) = mpsc::channel();
        let held = HeldWriter::hold(db);
        let writes = Writes(db.clone(), told);
        let mut looks = db.write(move |_| {
            let _held_by_the_closure = &writes;
            Ok(())
        });
        let mut after = db.write(|tx| insert(tx, 1));
        assert!(poll_once(&mut looks).is_pending());
        assert!(poll_once(&mut after).is_pending());
        held.release();
        block_on(looks).expect("a call that writes nothing");
        block_on(after).expect("a write");
        let answer = answer.recv_timeout(AT_ONCE).expect("the destructor is answered");
        assert_eq!(answer, ErrorKind::Nested, "{place:?}");
        assert_eq!(ids(db), [1], "{place:?}");
    });
}

/// SQLite reports "busy", as if another connection held a lock and a retry might help. The library's message must say
/// what to do instead.
#[test]
fn a19_a_savepoint_beside_an_unfinished_write_says_what_to_finish() {
    on_each_place(|db, place| {
        let other = db.clone();
        let told = db.blocking_write(move |tx| {
            let mut insert_two = tx.prepare("INSERT INTO t VALUES (1, 1), (2, 2) RETURNING id")?;
            let mut rows = insert_two.query([])?;
            rows.next()?;
            let savepoint = tx.savepoint(|tx| insert(tx, 3)).expect_err("unfinished");
            let nested = other.blocking_write(|tx| insert(tx, 4)).expect_err("unfinished");
            let left = tx.savepoint(|tx| {
                let mut insert_two =
                    tx.prepare("INSERT INTO t VALUES (5, 5), (6, 6) RETURNING id")?;
                insert_two.query([])?.next()?;
                std::mem::forget(insert_two);
                Ok::<_, rusqlite::Error>(())
            });
            while rows.next()?.is_some() {}
            assert!(!nested.is_retryable(), "{nested:?}");
            Ok([
                savepoint.to_string(),
                nested.to_string(),
                left.expect_err("unfinished").to_string(),
            ])
        });
        for said in told.expect("the call itself goes on") {
            assert!(said.contains("stands on a row; drop it first"), "{said}");
        }
        assert_eq!(ids(db), [1, 2], "{place:?}");
    });
}
