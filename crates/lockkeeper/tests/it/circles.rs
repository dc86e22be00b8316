//! Calls that wait for each other across databases and workers (A45). The wait that would close the circle immediately
//! gets `Nested`, and all other calls are served.

use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use lockkeeper::queue::{CallError, Worker};
use lockkeeper::{Client, Database, ErrorKind, HeldSnapshot};

use crate::support::{
    Dir, HANG, PLACES, Place, TABLE, block_on, count, insert, kind, poll_once, within,
};

/// How a call is made inside another one, or outside of any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Write,
    WriteOnce,
    Awaited,
    TryWrite,
    /// The future is polled once before `block_on` waits for it.
    PolledBefore,
    AndSnapshot,
    Exclusive,
    Lease,
}

const WAYS: [Way; 8] = [
    Way::Write,
    Way::WriteOnce,
    Way::Awaited,
    Way::TryWrite,
    Way::PolledBefore,
    Way::AndSnapshot,
    Way::Exclusive,
    Way::Lease,
];

type Told = Result<(), ErrorKind>;

fn told<T>(result: Result<T, lockkeeper::Error>) -> Told {
    result.map(drop).map_err(|error| error.kind())
}

/// Makes a call that needs the writer of `db`, and waits for it.
fn ask(db: &Client, way: Way) -> Told {
    match way {
        Way::Write => told(db.blocking_write(|_| Ok(()))),
        Way::WriteOnce => told(block_on(db.write_once(|_| Ok(())))),
        Way::Awaited => told(block_on(db.write(|_| Ok(())).deadline(HANG))),
        Way::TryWrite => match db.try_write(|_| Ok(())) {
            Ok(submitted) => told(block_on(submitted)),
            Err(refused) => panic!("there is room: {refused:?}"),
        },
        Way::PolledBefore => {
            let mut write = db.write(|_| Ok(()));
            match poll_once(&mut write) {
                std::task::Poll::Ready(result) => told(result),
                std::task::Poll::Pending => told(block_on(write)),
            }
        }
        Way::AndSnapshot => told(block_on(db.write(|_| Ok(())).and_snapshot())),
        Way::Exclusive => told(db.blocking_exclusive(|_| Ok(()))),
        Way::Lease => match block_on(db.lease()) {
            Ok(lease) => told(lease.blocking_commit()),
            Err(error) => Err(error.kind()),
        },
    }
}

/// Runs `f` inside a call on `db`, and returns the result of `f`.
fn inside(db: &Client, way: Way, f: impl FnOnce() -> Told + Send + 'static) -> Told {
    // The closure of the outer call may run again, but `f` must run only once.
    let (f, said) = (Mutex::new(Some(f)), Arc::new(Mutex::new(None)));
    let say = Arc::clone(&said);
    let once = move || -> rusqlite::Result<()> {
        let f = f.lock().expect("no panic").take().expect("it runs once");
        *say.lock().expect("no panic") = Some(f());
        Ok(())
    };
    match way {
        Way::Exclusive => db.blocking_exclusive(move |_| once()).expect("the outer call"),
        Way::Lease => {
            let mut lease = block_on(db.lease().idle_max(HANG).hold_max(HANG)).expect("a lease");
            lease.blocking_run(move |_| once()).expect("the outer call");
            lease.blocking_commit().expect("a commit");
        }
        Way::WriteOnce | Way::TryWrite | Way::PolledBefore => {
            block_on(db.write_once(move |_| once())).expect("the outer call");
        }
        Way::Write | Way::Awaited | Way::AndSnapshot => {
            db.blocking_write(move |_| once()).expect("the outer call");
        }
    }
    let said = said.lock().expect("no panic").take();
    said.expect("it has run")
}

/// Of the calls that close a circle, exactly one gets `Nested`, and the others are served.
fn check_circle(outcomes: &[Told], what: &str) {
    let nested = outcomes.iter().filter(|outcome| **outcome == Err(ErrorKind::Nested)).count();
    let good = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!((nested, good), (1, outcomes.len() - 1), "{what}: {outcomes:?}");
}

type Participant = Box<dyn FnOnce(Arc<Barrier>) -> Told + Send>;

/// Runs the participants in parallel. Each waits at the barrier before it makes its inner call.
fn run(participants: Vec<Participant>) -> Vec<Told> {
    let barrier = Arc::new(Barrier::new(participants.len()));
    let threads: Vec<_> = participants
        .into_iter()
        .map(|participant| {
            let barrier = Arc::clone(&barrier);
            std::thread::spawn(move || participant(barrier))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
}

fn databases(dir: &Dir, place: Place, n: usize) -> Vec<Database> {
    let open = |n: usize| {
        let builder = match place {
            Place::File => Database::builder(dir.file(&format!("{n}.db"))),
            Place::Memory => Database::builder(":memory:"),
        };
        let builder = builder.readers(1).readers_max(1).synchronous(lockkeeper::Synchronous::Off);
        let db = builder.blocking_open().expect("opens");
        db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
        db
    };
    (0..n).map(open).collect()
}

/// Pseudo-random numbers, the same in each run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % n
    }
}

/// Two or three databases: a write on each of them waits for a write on the next one. The kinds of calls are drawn.
#[test]
fn a45_a_circle_of_writes_ends_in_nested_for_the_one_that_closes_it() {
    for place in PLACES {
        within(HANG, move || {
            let dir = Dir::new();
            let all = databases(&dir, place, 3);
            let mut draw = Draw(45);
            for round in 0..count(1000, 10_000) {
                let n = 2 + round % 2;
                let ways: Vec<(Way, Way)> =
                    (0..n).map(|_| (WAYS[draw.below(8)], WAYS[draw.below(8)])).collect();
                let participants = (0..n).map(|at| {
                    let (own, next) = (all[at].clone(), all[(at + 1) % n].clone());
                    let (outer, inner) = ways[at];
                    Box::new(move |barrier: Arc<Barrier>| {
                        inside(&own, outer, move || {
                            barrier.wait();
                            ask(&next, inner)
                        })
                    }) as Participant
                });
                check_circle(&run(participants.collect()), &format!("{place:?}: {ways:?}"));
            }
            for db in all {
                db.blocking_close().expect("closes");
            }
        });
    }
}

/// Each read occupies the only reader of its database and waits for a read of the next database.
#[test]
fn a45_reads_that_keep_all_readers_close_a_circle_too() {
    type Ask = fn(&Database, &HeldSnapshot, &Dir) -> Told;
    let asks: [Ask; 4] = [
        |db, _, _| told(db.blocking_read(|_| Ok(()))),
        |db, _, _| told(block_on(db.snapshot())),
        |_, held, _| told(held.blocking_read(|_| Ok(()))),
        |db, _, dir| told(db.backup(dir.file("copy.db")).blocking_run()),
    ];
    within(HANG, move || {
        let dir = Arc::new(Dir::new());
        let all = databases(&dir, Place::File, 3);
        let held: Vec<_> =
            all.iter().map(|db| block_on(db.snapshot()).expect("a snapshot")).collect();
        for round in 0..count(300, 3000) {
            let n = 2 + round % 2;
            let participants = (0..n).map(|at| {
                let next = (at + 1) % n;
                let (own, dir) = (all[at].clone(), Arc::clone(&dir));
                let (next, held) = (all[next].clone(), held[next].clone());
                let inner = asks[(round / 2 + at) % asks.len()];
                Box::new(move |barrier: Arc<Barrier>| {
                    let read = own.read_once(move |_| {
                        barrier.wait();
                        Ok(inner(&next, &held, &dir))
                    });
                    block_on(read).expect("the outer read")
                }) as Participant
            });
            check_circle(&run(participants.collect()), &format!("round {round}"));
        }
        drop(held);
        for db in all {
            db.blocking_close().expect("closes");
        }
    });
}

/// A read on a held snapshot waits for the previous read on it, even if readers are free.
#[test]
fn a45_reads_on_one_snapshot_wait_for_each_other() {
    within(HANG, || {
        let (dir_a, dir_b) = (Dir::new(), Dir::new());
        let a = dir_a.builder(Place::File).blocking_open().expect("opens");
        let b = dir_b.builder(Place::File).readers(4).blocking_open().expect("opens");
        let held = block_on(b.snapshot()).expect("a snapshot");
        for _ in 0..count(300, 3000) {
            let (on_a, on_b, writes) = (a.clone(), held.clone(), a.clone());
            let reads = held.clone();
            let participants: Vec<Participant> = vec![
                Box::new(move |barrier| {
                    inside(&on_a, Way::Write, move || {
                        barrier.wait();
                        told(reads.blocking_read(|_| Ok(())))
                    })
                }),
                Box::new(move |barrier| {
                    let barrier = Mutex::new(Some(barrier));
                    let read = on_b.blocking_read(move |_| {
                        barrier.lock().expect("no panic").take().expect("once").wait();
                        Ok(told(writes.blocking_write(|_| Ok(()))))
                    });
                    read.expect("the outer read")
                }),
            ];
            check_circle(&run(participants), "a write and a read on a snapshot");
        }
        drop(held);
        a.blocking_close().expect("closes");
        b.blocking_close().expect("closes");
    });
}

/// While a call holds a lease of another database, it occupies that database's writer, whatever else the call waits
/// for.
#[test]
fn a45_a_lease_that_a_call_holds_is_a_part_of_the_circle() {
    within(HANG, || {
        let dir = Dir::new();
        let all = databases(&dir, Place::Memory, 3);
        let mut draw = Draw(13);
        for round in 0..count(500, 5000) {
            let [a, b, c] = [0, 1, 2].map(|n: usize| all[n].clone());
            let (on_a, on_c, lends, first, second) = (a, c.clone(), b.clone(), c, b);
            let ways = [WAYS[draw.below(8)], WAYS[draw.below(8)]];
            let begun = round % 2 == 0;
            let outcomes = run(vec![
                Box::new(move |barrier| {
                    inside(&on_a, Way::Write, move || {
                        let lease = lends.lease().idle_max(HANG).hold_max(HANG);
                        let mut lease = block_on(lease).map_err(|error| error.kind())?;
                        if begun {
                            told(lease.blocking_run(|_| Ok(())))?;
                        }
                        barrier.wait();
                        ask(&first, ways[0])?;
                        told(lease.blocking_run(|_| Ok(())))?;
                        told(lease.blocking_commit())
                    })
                }),
                Box::new(move |barrier| {
                    inside(&on_c, Way::WriteOnce, move || {
                        barrier.wait();
                        ask(&second, ways[1])
                    })
                }),
            ]);
            check_circle(&outcomes, &format!("{ways:?}"));
        }
        // If there is no circle, the call that holds the lease is served.
        let (a, b) = (all[0].clone(), all[1].clone());
        let outcome = inside(&a, Way::Write, move || {
            let mut lease = block_on(b.lease()).map_err(|error| error.kind())?;
            for id in 0..100 {
                told(lease.blocking_run(move |tx| insert(tx, id)))?;
            }
            told(lease.blocking_commit())
        });
        assert_eq!(outcome, Ok(()));
        for db in all {
            db.blocking_close().expect("closes");
        }
    });
}

/// Workers of other resources can be parts of the same circles.
#[test]
fn a45_workers_and_databases_close_circles_together() {
    fn of(result: Result<(), CallError>) -> Told {
        result.map_err(|error| lockkeeper::Error::<()>::from(error).kind())
    }
    within(HANG, || {
        let dir = Dir::new();
        let db = databases(&dir, Place::Memory, 1).remove(0);
        let workers: Vec<_> = ["w", "v"]
            .map(|name| Worker::builder(name).blocking_spawn(|| Ok::<_, ()>(0)).expect("starts"))
            .into();
        for round in 0..count(1000, 10_000) {
            let (w, v, on_db, in_v) =
                (workers[0].clone(), workers[1].clone(), db.clone(), db.clone());
            let (to_w, to_v) = (w.clone(), v.clone());
            let mut participants: Vec<Participant> = vec![Box::new(move |barrier| {
                inside(&on_db, Way::Write, move || {
                    barrier.wait();
                    of(to_w.blocking_call(|_| ()))
                })
            })];
            let long = round % 2 == 0;
            let after_w = in_v.clone();
            participants.push(Box::new(move |barrier| {
                w.blocking_call(move |_| {
                    barrier.wait();
                    match long {
                        true => of(to_v.blocking_call(|_| ())),
                        false => ask(&after_w, Way::Awaited),
                    }
                })
                .expect("the outer call")
            }));
            if long {
                participants.push(Box::new(move |barrier| {
                    v.blocking_call(move |_| {
                        barrier.wait();
                        ask(&in_v, Way::Exclusive)
                    })
                    .expect("the outer call")
                }));
            }
            check_circle(&run(participants), &format!("round {round}"));
        }
        db.blocking_close().expect("closes");
        for worker in workers {
            worker.blocking_close().expect("closes");
        }
    });
}

/// A close inside a call waits for the calls of its database. If one of them waits for the call that closes, that is a
/// circle.
#[test]
fn a45_a_close_inside_a_call_may_close_a_circle() {
    within(HANG, || {
        for round in 0..count(100, 1000) {
            let dir = Dir::new();
            let mut both = databases(&dir, Place::Memory, 2);
            let (b, a) = (both.remove(1), both.remove(0));
            let (on_a, on_b, closes, writes) = (a.clone(), b.clone(), b.clone(), a.clone());
            let participants: Vec<Participant> = vec![
                Box::new(move |barrier| {
                    inside(&on_a, Way::Write, move || {
                        barrier.wait();
                        told(closes.blocking_close())
                    })
                }),
                Box::new(move |barrier| {
                    inside(&on_b, Way::Exclusive, move || {
                        barrier.wait();
                        ask(&writes, Way::Write)
                    })
                }),
            ];
            check_circle(&run(participants), &format!("round {round}"));
            a.blocking_close().expect("closes");
            b.blocking_close().expect("closes");
        }
    });
}

/// `setup` runs for each connection and may wait for the call in which the database is opened.
#[test]
fn a45_opening_inside_a_call_whose_database_setup_needs_ends() {
    within(HANG, || {
        let dir = Dir::new();
        let a = databases(&dir, Place::Memory, 1).remove(0);
        for _ in 0..count(50, 500) {
            let needs = a.clone();
            let opened = inside(&a, Way::Write, move || {
                let builder = Database::builder(":memory:").setup(move |_| {
                    let written = needs.blocking_write(|_| Ok(()));
                    written.map_err(|_| rusqlite::Error::InvalidQuery)
                });
                told(builder.blocking_open())
            });
            // Either the opening gets `Nested`, or `setup` does, and then the opening fails.
            assert!(matches!(opened, Err(ErrorKind::Nested | ErrorKind::Open)), "{opened:?}");
        }
        a.blocking_close().expect("closes");
    });
}

/// Calls that wait for other databases without a circle are all served, however many they are.
#[test]
fn a45_waits_without_a_circle_are_no_circle() {
    within(HANG, || {
        let dir = Dir::new();
        let open = |n: &str| {
            let builder = Database::builder(dir.file(n)).readers(4).readers_max(8);
            builder.synchronous(lockkeeper::Synchronous::Off).blocking_open().expect("opens")
        };
        let (a, b, c) = (open("a.db"), open("b.db"), open("c.db"));
        for db in [&a, &b, &c] {
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
        }
        let rounds = count(300, 3000);
        std::thread::scope(|scope| {
            // Writes wait only for databases that are later in the alphabet. They are made in all ways, from several
            // threads at the same time.
            for (n, (from, to)) in [(&a, &b), (&b, &c), (&a, &c), (&a, &b)].into_iter().enumerate()
            {
                scope.spawn(move || {
                    for round in 0..rounds {
                        let (to, way) = (to.clone(), WAYS[(round + n) % 8]);
                        let outer = [Way::Write, Way::Exclusive][round % 2];
                        assert_eq!(inside(from, outer, move || ask(&to, way)), Ok(()), "{way:?}");
                    }
                });
            }
            // Reads wait in both directions. There are more readers than such reads, so no circle closes.
            for (from, to) in [(&a, &b), (&b, &a), (&c, &a)] {
                scope.spawn(move || {
                    for _ in 0..rounds {
                        let to = to.clone();
                        let read =
                            from.blocking_read(move |_| Ok(told(to.blocking_read(|_| Ok(())))));
                        assert_eq!(read.expect("the outer read"), Ok(()));
                    }
                });
            }
            // Writes that wait for no other database run at the same time.
            for db in [&a, &b, &c] {
                scope.spawn(move || {
                    for id in 0..rounds as i64 {
                        db.blocking_write(move |tx| insert(tx, id)).expect("a write");
                    }
                });
            }
        });
        for db in [a, b, c] {
            db.blocking_close().expect("closes");
        }
    });
}

/// If a call submits another call and does not wait for it, that submission cannot close a circle.
#[test]
fn a45_a_call_that_is_not_waited_for_closes_no_circle() {
    within(HANG, || {
        let dir = Dir::new();
        let mut both = databases(&dir, Place::Memory, 2);
        let (b, a) = (both.remove(1), both.remove(0));
        for _ in 0..count(300, 3000) {
            let (on_a, on_b, submits, writes) = (a.clone(), b.clone(), b.clone(), a.clone());
            let participants: Vec<Participant> = vec![
                Box::new(move |barrier| {
                    inside(&on_a, Way::Write, move || {
                        let submitted = submits.try_write(|_| Ok(())).expect("there is room");
                        barrier.wait();
                        // The inner call goes on. A thread outside the outer call waits for it.
                        std::thread::spawn(move || told(block_on(submitted)));
                        Ok(())
                    })
                }),
                Box::new(move |barrier| {
                    inside(&on_b, Way::Write, move || {
                        barrier.wait();
                        ask(&writes, Way::Write)
                    })
                }),
            ];
            assert_eq!(run(participants), [Ok(()), Ok(())]);
        }
        a.blocking_close().expect("closes");
        b.blocking_close().expect("closes");
    });
}

/// `Nested` comes immediately, not when some deadline passes. The time limit of this test is short.
#[test]
fn a45_nested_is_told_at_once() {
    within(Duration::from_secs(10), || {
        let dir = Dir::new();
        let mut both = databases(&dir, Place::File, 2);
        let (b, a) = (both.remove(1), both.remove(0));
        let (on_a, on_b, to_a, to_b) = (a.clone(), b.clone(), a.clone(), b.clone());
        let outcomes = run(vec![
            Box::new(move |barrier| {
                inside(&on_a, Way::Write, move || {
                    barrier.wait();
                    ask(&to_b, Way::Write)
                })
            }),
            Box::new(move |barrier| {
                inside(&on_b, Way::Write, move || {
                    barrier.wait();
                    ask(&to_a, Way::Write)
                })
            }),
        ]);
        check_circle(&outcomes, "two writes");
        // The refused wait has left nothing behind: the same calls work when they are made alone.
        let to_b = b.clone();
        assert_eq!(inside(&a, Way::Write, move || ask(&to_b, Way::Write)), Ok(()));
        assert_eq!(kind(a.blocking_write(|tx| tx.execute_batch("nonsense"))), ErrorKind::Call);
        a.blocking_close().expect("closes");
        b.blocking_close().expect("closes");
    });
}
