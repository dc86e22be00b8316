//! Every setting works at 0, 1 and its maximum, or is refused with an error that names its range (promise A46).
//!
//! The names of the settings are read from the source code, so a new setting without a case fails the test.

use std::time::Duration;

use lockkeeper::queue::{Priority, Worker};
use lockkeeper::{Builder, Database, Error, ErrorKind, NetworkFiles, Synchronous};

use crate::support::{Dir, HANG, TABLE, block_on, file_db, insert, within};

type Tune = Box<dyn Fn(Builder) -> Builder + Send>;

/// A setting at its extremes.
struct Case {
    name: &'static str,
    values: Vec<(String, Tune)>,
}

const DURATIONS: [Duration; 3] = [Duration::ZERO, Duration::from_nanos(1), Duration::MAX];
const SIZES: [usize; 3] = [0, 1, usize::MAX];
const BYTES: [u64; 3] = [0, 1, u64::MAX];

fn case<V: std::fmt::Debug + Clone + Send + 'static>(
    name: &'static str,
    values: impl IntoIterator<Item = V>,
    set: fn(Builder, V) -> Builder,
) -> Case {
    let values = values.into_iter().map(|value| {
        let shown = format!("{name}({value:?})");
        let tune: Tune = Box::new(move |builder| set(builder, value.clone()));
        (shown, tune)
    });
    Case { name, values: values.collect() }
}

fn cases() -> Vec<Case> {
    let batch = SIZES
        .into_iter()
        .flat_map(|calls| DURATIONS.map(|time| (calls, time)))
        .flat_map(|(calls, time)| BYTES.map(|bytes| (calls, time, bytes)));
    vec![
        // With the other values of these three settings nothing can be written; `opening.rs` tests them.
        case("create_if_missing", [true], Builder::create_if_missing),
        case("read_only", [false], Builder::read_only),
        case("immutable", [false], Builder::immutable),
        case("readers", SIZES, Builder::readers),
        case("readers_max", SIZES, Builder::readers_max),
        case("queue_capacity", SIZES, Builder::queue_capacity),
        case(
            "synchronous",
            [Synchronous::Off, Synchronous::Normal, Synchronous::Full],
            Builder::synchronous,
        ),
        case("busy_timeout", DURATIONS, Builder::busy_timeout),
        case("page_cache_bytes", SIZES, Builder::page_cache_bytes),
        case("statement_cache", SIZES, Builder::statement_cache),
        case("setup", [()], |builder, ()| builder.setup(|_| Ok(()))),
        case("batch_max", batch, |builder, (calls, time, bytes)| {
            builder.batch_max(calls, time, bytes)
        }),
        case("checkpoint_wal_bytes", BYTES, Builder::checkpoint_wal_bytes),
        case("wal_bytes_max", BYTES, Builder::wal_bytes_max),
        case("snapshot_age_max", DURATIONS, Builder::snapshot_age_max),
        case("snapshots_max", SIZES, Builder::snapshots_max),
        case("migrations", [1, i32::MAX], |builder, id| {
            builder.migrations(lockkeeper::Migrations::new(id))
        }),
        case("shed_after", DURATIONS, Builder::shed_after),
        case("network_files", [NetworkFiles::Refuse, NetworkFiles::Warn], Builder::network_files),
        case("feed_capacity", SIZES, Builder::feed_capacity),
        case(
            "other_processes",
            [None, Some(DURATIONS[0]), Some(DURATIONS[1]), Some(DURATIONS[2])],
            Builder::other_processes,
        ),
        case("statistics", [false, true], Builder::statistics),
        case("on_slow", DURATIONS, |builder, threshold| builder.on_slow(threshold, |_| ())),
        case("vfs", ["unix"], Builder::vfs),
        case("on_thread_start", [()], |builder, ()| builder.on_thread_start(|| ())),
        case("run_writes_twice", [false, true], Builder::run_writes_twice),
    ]
}

/// The names of the public methods in `text` that take and return `Self`, or that begin with `set_`.
fn settings(text: &str) -> Vec<&str> {
    let methods = text.split("pub fn ").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once('(')?;
        let (arguments, result) = rest.split_once('{')?;
        let takes = arguments.trim_start().trim_start_matches("mut ").starts_with("self");
        let name = name.split('<').next()?;
        let builds = takes && result.len() > 1 && arguments.contains("-> Self");
        (builds || name.starts_with("set_")).then_some(name)
    });
    methods.collect()
}

#[test]
fn a46_every_setting_of_the_builder_has_a_case() {
    let cases: Vec<_> = cases().iter().map(|case| case.name).collect();
    let mut known = settings(include_str!("../../src/builder.rs"));
    assert!(known.len() >= 20 && known.contains(&"batch_max"), "the settings are found: {known:?}");
    known.retain(|name| !cases.contains(name));
    assert_eq!(known, Vec::<&str>::new(), "settings without a case");
}

/// A write, reads, a snapshot, the change feed, and an exclusive call.
fn use_it(db: &Database) -> Result<(), Error> {
    let mut changes = db.changes();
    db.blocking_write(|tx| tx.execute_batch(TABLE))?;
    db.blocking_write(|tx| insert(tx, 1))?;
    let writes: Vec<_> = (2..20).map(|id| db.write(move |tx| insert(tx, id))).collect();
    writes.into_iter().try_for_each(block_on)?;
    assert!(block_on(changes.next()).is_some(), "something is heard");
    let last = |s: &lockkeeper::Snapshot| {
        s.query_row("SELECT max(id) FROM t", [], |row| row.get::<_, i64>(0))
    };
    assert_eq!(db.blocking_read(last)?, 19);
    assert_eq!(block_on(db.read(last).short())?, 19);
    match block_on(db.snapshot()).and_then(|snapshot| snapshot.blocking_read(last)) {
        Ok(last) => assert_eq!(last, 19),
        // With an extreme setting no snapshot may be held, or only for a short time.
        Err(error) => {
            let kind = error.kind();
            let expected = [ErrorKind::TooManySnapshots, ErrorKind::SnapshotExpired];
            assert!(expected.contains(&kind), "{error:?}");
        }
    }
    db.blocking_exclusive(|conn| conn.execute_batch("VACUUM"))?;
    db.blocking_write(|tx| insert(tx, 20))?;
    drop(db.stats());
    Ok(())
}

#[test]
fn a46_every_setting_works_at_its_extremes_or_says_its_range() {
    within(HANG * 4, || {
        for Case { name, values } in cases() {
            for (shown, tune) in values {
                let dir = Dir::new();
                let db = match tune(Database::builder(dir.file("test.db"))).blocking_open() {
                    Ok(db) => db,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Config, "{shown}: {error}");
                        let text = error.to_string();
                        assert!(text.contains(name) && text.contains("give"), "{shown}: {text}");
                        continue;
                    }
                };
                use_it(&db).unwrap_or_else(|error| panic!("{shown}: {error:?}"));
                db.blocking_close().unwrap_or_else(|error| panic!("{shown}: {error:?}"));
                let conn = rusqlite::Connection::open(dir.file("test.db")).expect("the file");
                let rows = conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
                assert_eq!(rows, Ok(20), "stored with {shown}");
            }
        }
    });
}

/// SQLite reads a number that is too large as 0, which would mean no cache. So the setting is clamped.
#[test]
fn a46_a_page_cache_of_the_greatest_size_is_not_none() {
    for (bytes, expected) in [(1, -1), (usize::MAX, -i64::from(i32::MAX))] {
        let (_dir, db) = file_db(|builder| builder.page_cache_bytes(bytes));
        let size = db.blocking_read(|s| s.pragma_query_value(None, "cache_size", |row| row.get(0)));
        let size: i64 = size.expect("a size");
        assert_eq!(size, expected, "for {bytes} bytes");
    }
}

/// The settings of each kind of call, with the source file that defines them.
const OF_CALLS: [(&str, &[&str]); 6] = [
    (include_str!("../../src/client/write.rs"), &["deadline"]),
    (include_str!("../../src/client/read.rs"), &["deadline", "short"]),
    (include_str!("../../src/client/exclusive.rs"), &["deadline"]),
    (include_str!("../../src/client/lease.rs"), &["hold_max", "idle_max", "deadline"]),
    (include_str!("../../src/client/mod.rs"), &["set_weight", "set_priority"]),
    (include_str!("../../src/queue/close.rs"), &["deadline"]),
];

#[test]
fn a46_every_choice_of_a_call_has_a_case() {
    for (text, known) in OF_CALLS {
        assert_eq!(settings(text), known);
    }
}

/// The call has succeeded, or it has used up the time that it was given.
fn done_or_late<T: std::fmt::Debug>(result: Result<T, Error>, patience: Duration, what: &str) {
    match result {
        Ok(_) => {}
        Err(error) => {
            assert!(patience < Duration::from_secs(1) && error.is_timeout(), "{what}: {error:?}");
        }
    }
}

#[test]
fn a46_deadlines_and_times_of_leases_work_at_their_extremes() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder);
        for time in DURATIONS {
            done_or_late(block_on(db.write(|_| Ok(())).deadline(time)), time, "write");
            done_or_late(block_on(db.write_once(|_| Ok(())).deadline(time)), time, "write_once");
            done_or_late(block_on(db.read(|_| Ok(())).deadline(time)), time, "read");
            done_or_late(block_on(db.read(|_| Ok(())).short().deadline(time)), time, "short");
            done_or_late(block_on(db.exclusive(|_| Ok(())).deadline(time)), time, "exclusive");
            done_or_late(block_on(db.lease().deadline(time)), time, "lease");
            for (hold, idle) in [(time, Duration::MAX), (Duration::MAX, time), (time, time)] {
                let ended = block_on(async {
                    let mut lease = db.lease().hold_max(hold).idle_max(idle).await?;
                    lease.run(|tx| insert(tx, 1)).await?;
                    lease.run(|tx| tx.execute("DELETE FROM t", [])).await?;
                    lease.commit().await
                });
                match ended {
                    Ok(()) => {}
                    Err(error) => {
                        assert!(time < Duration::from_secs(1), "{error:?}");
                        assert_eq!(error.kind(), ErrorKind::LeaseExpired, "{hold:?} {idle:?}");
                    }
                }
            }
            block_on(db.write(|_| Ok(()))).expect("a write afterwards");
        }
        db.blocking_close().expect("closes");
        for time in DURATIONS {
            let (_dir, db) = file_db(|builder| builder);
            block_on(db.close().deadline(time))
                .unwrap_or_else(|error| panic!("close within {time:?}: {error:?}"));
        }
    });
}

#[test]
fn a46_clients_of_any_weight_are_served() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder.queue_capacity(1));
        let clients: Vec<_> = [0, 1, u32::MAX]
            .into_iter()
            .flat_map(|weight| [Priority::High, Priority::Low].map(|priority| (weight, priority)))
            .enumerate()
            .map(|(n, (weight, priority))| {
                let client = db.client(&format!("client-{n}"));
                client.set_weight(weight);
                client.set_priority(priority);
                client
            })
            .collect();
        let threads: Vec<_> = clients
            .into_iter()
            .map(|client| {
                std::thread::spawn(move || {
                    for _ in 0..50 {
                        client
                            .blocking_write(|tx| tx.execute("INSERT INTO t (v) VALUES (1)", []))?;
                        client.blocking_read(|_| Ok(()))?;
                    }
                    Ok::<_, Error>(())
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic").expect("it is served");
        }
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a46_a_worker_works_at_the_extremes_of_its_settings() {
    within(HANG, || {
        for capacity in SIZES {
            for shed_after in DURATIONS {
                let worker = Worker::builder("counter").capacity(capacity).shed_after(shed_after);
                let spawned = worker.blocking_spawn(|| Ok::<_, ()>(0_u32));
                let Ok(worker) = spawned else {
                    assert_eq!(capacity, 0, "only no room at all is refused");
                    continue;
                };
                for time in DURATIONS {
                    let called = block_on(worker.call(|n| *n += 1).deadline(time));
                    assert!(called.is_ok() || time < Duration::from_secs(1), "{called:?}");
                }
                assert!(block_on(worker.call(|n| *n)).expect("a call") >= 1);
            }
        }
    });
}
