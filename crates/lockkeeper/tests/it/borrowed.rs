//! Calls that block their caller, with closures that borrow from the caller's stack (A57). `cargo xtask test --only
//! asan` runs these tests under AddressSanitizer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};

use futures_lite::future::{block_on, poll_once};
use lockkeeper::rusqlite;
use lockkeeper::{Database, ErrorKind};

use crate::support::{PLACES, db_at, on_each_place};

const COUNT: &str = "SELECT count(*) FROM t";

fn count(db: &Database) -> i64 {
    db.blocking_read(|s| s.query_row(COUNT, [], |row| row.get(0))).expect("a read")
}

#[test]
fn a57_calls_that_block_borrow_and_return_what_their_caller_has() {
    on_each_place(|db, _| {
        let ids = vec![String::from("1"), String::from("2")];
        let mut log = Vec::new();
        let longest = db.blocking_write(|tx| {
            log.clear();
            for id in &ids {
                tx.execute(
                    "INSERT INTO t (id) VALUES (?1)",
                    [id.parse::<i64>().expect("a number")],
                )?;
                log.push(id.as_str());
            }
            Ok(ids.last())
        });
        assert_eq!(longest.expect("a write"), Some(&ids[1]));
        assert_eq!(log, ["1", "2"]);
        let mut seen = Vec::new();
        let sum = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        db.blocking_read(|s| {
            seen.push(s.query_row(COUNT, [], sum)?);
            Ok(())
        })
        .expect("a read");
        let held = block_on(db.snapshot()).expect("a snapshot");
        let first = held.blocking_read(|s| {
            seen.push(s.query_row(COUNT, [], sum)?);
            Ok(&ids[0])
        });
        assert_eq!(first.expect("a read"), "1");
        drop(held);
        let owned = ids.clone();
        let first = db.blocking_exclusive(|conn| {
            seen.push(conn.query_row(COUNT, [], sum)?);
            drop(owned);
            Ok(&ids[0])
        });
        assert_eq!(first.expect("an exclusive call"), "1");
        let mut lease = block_on(db.lease()).expect("a lease");
        let one = lease.blocking_run(|tx| {
            seen.push(tx.query_row(COUNT, [], sum)?);
            Ok(ids.first())
        });
        assert_eq!(one.expect("a call of a lease"), Some(&ids[0]));
        lease.blocking_commit().expect("a commit");
        assert_eq!(seen, [2; 4]);
    });
}

#[test]
fn a57_calls_inside_calls_borrow_as_well() {
    on_each_place(|db, _| {
        let mut seen = Vec::new();
        db.blocking_write(|_| {
            db.blocking_write(|tx| {
                tx.execute("INSERT INTO t VALUES (1, 1)", []).map(|n| seen.push(n as i64))
            })
            .expect("a write");
            db.blocking_read(|s| s.query_row(COUNT, [], |row| row.get(0)).map(|n| seen.push(n)))
                .expect("a read");
            Ok(())
        })
        .expect("a write");
        assert_eq!(seen, [1, 1]);
    });
}

#[test]
fn a57_the_value_of_the_run_that_counts_is_returned_and_the_others_are_dropped() {
    struct Counted<'c>(usize, &'c AtomicUsize);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    for place in PLACES {
        let (_dir, db) = db_at(place, |builder| builder.run_writes_twice(true));
        let (dropped, mut runs) = (AtomicUsize::new(0), 0);
        let value = db.blocking_write(|tx| {
            runs += 1;
            tx.execute("INSERT INTO t VALUES (NULL, 1)", [])?;
            Ok(Counted(runs, &dropped))
        });
        assert_eq!(value.expect("a write").0, 2);
        assert_eq!((dropped.load(Ordering::Relaxed), count(&db)), (2, 1));
    }
}

#[test]
fn a57_a_panic_comes_back_and_leaves_what_was_borrowed() {
    on_each_place(|db, _| {
        let mut log = vec![String::from("before")];
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            db.blocking_write(|tx| {
                tx.execute("INSERT INTO t VALUES (1, 1)", [])?;
                log.push(String::from("inside"));
                if log.len() > 1 {
                    panic!("of the closure");
                }
                Ok(())
            })
        }));
        let payload = panicked.expect_err("it panics");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"of the closure"));
        log.push(String::from("after"));
        assert_eq!((log, count(db)), (["before", "inside", "after"].map(String::from).to_vec(), 0));
    });
}

#[test]
fn a57_a_call_that_is_refused_never_runs() {
    for place in PLACES {
        let (_dir, db) = db_at(place, |builder| builder);
        db.blocking_close().expect("the database closes");
        let mut runs = 0;
        let mut run = || {
            runs += 1;
            Ok(())
        };
        let refused = [
            db.blocking_write(|_| run()),
            db.blocking_read(|_| run()),
            db.blocking_exclusive(|_| run()),
        ];
        for refused in refused {
            assert_eq!(refused.expect_err("it is closed").kind(), ErrorKind::Closed);
        }
        assert_eq!(runs, 0);
    }
}

#[test]
fn a57_an_aborted_call_returns_when_its_closure_has_ended() {
    for place in PLACES {
        for kind in ["write", "read", "exclusive"] {
            let (_dir, db) = db_at(place, |builder| builder);
            let (begun, begins) = mpsc::channel();
            let (go_on, may_go_on) = mpsc::channel();
            let may_go_on = Mutex::new(may_go_on);
            let ended = AtomicBool::new(false);
            std::thread::scope(|threads| {
                let db = &db;
                threads.spawn(move || {
                    begins.recv().expect("the closure runs");
                    // The first poll begins the abort, which goes on when the future is dropped.
                    let _ = block_on(poll_once(db.abort()));
                    go_on.send(()).expect("the closure waits");
                });
                let wait = || {
                    begun.send(()).expect("somebody listens");
                    may_go_on.lock().expect("no panic").recv().expect("a word");
                    // Whatever answer the caller will get, its stack must still exist here.
                    ended.store(true, Ordering::Relaxed);
                    Ok(())
                };
                let told = match kind {
                    "write" => db.blocking_write(|_| wait()),
                    "read" => db.blocking_read(|_| wait()),
                    _ => db.blocking_exclusive(|_| wait()),
                };
                assert!(ended.load(Ordering::Relaxed), "{kind}: {told:?}");
            });
        }
    }
}

#[test]
fn a57_stacks_of_many_threads_are_left_alone_however_the_database_ends() {
    for place in PLACES {
        for round in 0..8 {
            let (_dir, db) = db_at(place, |builder| builder.queue_capacity(2));
            std::thread::scope(|threads| {
                for thread in 0..6 {
                    let db = &db;
                    threads.spawn(move || {
                        for call in 0.. {
                            let mut stack = [0_u64; 64];
                            let answer = match (thread + call) % 3 {
                                0 => db.blocking_write(|tx| {
                                    stack.fill(call);
                                    tx.execute("INSERT INTO t VALUES (NULL, 1)", []).map(|_| ())
                                }),
                                1 => db.blocking_read(|s| {
                                    stack.fill(call);
                                    s.query_row(COUNT, [], |row| row.get::<_, i64>(0)).map(|_| ())
                                }),
                                _ => db.blocking_write(|_| {
                                    stack.fill(call);
                                    Err(rusqlite::Error::InvalidQuery)
                                }),
                            };
                            let is_whole = stack.iter().all(|word| *word == stack[0]);
                            assert!(is_whole, "{answer:?}");
                            if answer.is_err_and(|error| error.into_call().is_err()) {
                                break;
                            }
                        }
                    });
                }
                threads.spawn(|| {
                    while count_or_none(&db).is_some_and(|rows| rows < 20 + round) {}
                    match round % 2 {
                        0 => drop(block_on(db.abort())),
                        _ => drop(db.blocking_close()),
                    }
                });
            });
        }
    }
}

fn count_or_none(db: &Database) -> Option<i64> {
    db.blocking_read(|s| s.query_row(COUNT, [], |row| row.get(0))).ok()
}
