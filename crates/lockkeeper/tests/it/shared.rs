//! One instance for several openers of a file, and weak handles (promise A54).
#![cfg(unix)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use lockkeeper::{Builder, Database, ErrorKind, Migrations, NetworkFiles, Synchronous};

use crate::support::{
    Dir, HANG, TABLE, Threads, block_on, ids, insert, kind, on_each_place, poll_once, within,
};

/// Whether two handles are of the same instance: then each counts the writes of the other.
fn are_one(one: &Database, other: &Database) -> bool {
    let before = other.stats().writes.run.count();
    // A write that changes something is counted before it is answered. A write that changes nothing may be counted
    // later.
    let probe = "CREATE TABLE IF NOT EXISTS probe (x); INSERT INTO probe DEFAULT VALUES";
    one.blocking_write(move |tx| tx.execute_batch(probe)).expect("a write");
    other.stats().writes.run.count() == before + 1
}

#[test]
fn a54_openers_of_a_file_get_one_instance_by_whatever_name() {
    within(HANG, || {
        let dir = Dir::new();
        let file = dir.file("app.db");
        symlink("app.db", dir.file("link.db")).expect("a link");
        // Sharing works however the first opener has opened the file.
        for shared in [false, true] {
            let first = match shared {
                true => Database::blocking_open_shared(&file),
                false => Database::blocking_open(&file),
            };
            let first = first.expect("opens");
            std::fs::hard_link(&file, dir.file("hard.db")).expect("a hard link");
            for name in ["app.db", "link.db", "hard.db", "./x/../app.db"] {
                std::fs::create_dir_all(dir.file("x")).expect("a directory");
                let other = Database::blocking_open_shared(dir.file(name)).expect(name);
                assert!(are_one(&first, &other) && are_one(&other, &first), "{name}");
                drop(other);
                assert!(are_one(&first, &first), "the others are not closed");
            }
            std::fs::remove_file(dir.file("hard.db")).expect("removed");
            let refused = Database::blocking_open(&file).expect_err("opened for itself alone");
            assert_eq!(refused.kind(), ErrorKind::AlreadyOpen);
            assert!(refused.to_string().contains("open_shared"), "{refused}");
            // Another file gets an instance of its own.
            let other = Database::blocking_open_shared(dir.file("other.db")).expect("opens");
            assert!(!are_one(&first, &other));
            other.blocking_close().expect("closes");
            // If one opener closes the instance, it is closed for all.
            let other = Database::blocking_open_shared(&file).expect("the same");
            other.blocking_close().expect("closes");
            assert_eq!(kind(first.blocking_write(|_| Ok(()))), ErrorKind::Closed);
        }
        assert_eq!(kind(Database::blocking_open_shared(":memory:")), ErrorKind::Config);
    });
}

#[test]
fn a54_the_last_handle_of_all_openers_closes_it() {
    within(HANG, || {
        let dir = Dir::new();
        let file = dir.file("app.db");
        let threads = Threads::default();
        let first = threads.watch(Database::builder(&file)).blocking_open_shared().expect("opens");
        let others: Vec<_> =
            (0..4).map(|_| Database::blocking_open_shared(&file).expect("the same")).collect();
        drop(first);
        for other in others {
            assert!(other.blocking_write(|_| Ok(())).is_ok());
        }
        threads.wait_for(0);
        assert!(!dir.file("app.db-wal").exists(), "it is closed");
        Database::blocking_open(&file)
            .expect("it was given back")
            .blocking_close()
            .expect("closes");
    });
}

#[test]
fn a54_of_openers_that_come_at_once_one_opens_and_all_get_its_instance() {
    within(HANG, || {
        for round in 0..20 {
            let dir = Dir::new();
            symlink("app.db", dir.file("link.db")).expect("a link");
            let start = Arc::new(Barrier::new(8));
            let openers: Vec<_> = (0..8)
                .map(|n| {
                    let start = Arc::clone(&start);
                    let path = dir.file(["app.db", "link.db"][n % 2]);
                    std::thread::spawn(move || {
                        start.wait();
                        Database::builder(path).readers(1).blocking_open_shared()
                    })
                })
                .collect();
            let opened: Vec<_> = openers
                .into_iter()
                .map(|one| one.join().expect("no panic").expect("opens"))
                .collect();
            for one in &opened {
                assert!(are_one(one, &opened[0]), "round {round}");
            }
        }
        // Two openings in one thread, as two tasks.
        let dir = Dir::new();
        let file = dir.file("app.db");
        block_on(async {
            let open = || Database::builder(&file).open_shared();
            let (one, two) = futures_lite::future::zip(open(), open()).await;
            assert!(are_one(&one.expect("opens"), &two.expect("opens")));
        });
    });
}

#[test]
fn a54_an_instance_that_is_being_closed_is_waited_for_and_another_opened() {
    within(HANG, || {
        let dir = Dir::new();
        let file = dir.file("app.db");
        for n in 0..30 {
            let db = Database::blocking_open_shared(&file).expect("opens");
            db.blocking_write(move |tx| {
                tx.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v)")?;
                insert(tx, n)
            })
            .expect("a write");
            match n % 3 {
                0 => drop(db),
                1 => drop(block_on(db.close())),
                _ => {
                    let mut close = db.close();
                    let _ = poll_once(&mut close);
                }
            }
        }
        let db = Database::blocking_open_shared(&file).expect("opens");
        assert_eq!(ids(&db).len(), 30);
        db.blocking_close().expect("closes");
    });
}

/// first opener             | second opener
/// -------------------------+-------------------
/// opens, held up in `setup` | waits
/// fails, or is dropped     | opens the file itself
#[test]
fn a54_when_the_first_opener_fails_the_next_one_opens() {
    within(HANG, || {
        for fails in [true, false] {
            let dir = Dir::new();
            let file = dir.file("app.db");
            let (begun, has_begun) = mpsc::sync_channel(8);
            let (release, released) = mpsc::channel::<()>();
            let released = std::sync::Mutex::new(released);
            let held_up = move |_: &rusqlite::Connection| {
                begun.send(()).expect("somebody waits");
                let _ = released.lock().expect("no panic").recv();
                match fails {
                    true => Err(rusqlite::Error::InvalidQuery),
                    false => Ok(()),
                }
            };
            let mut first = Box::pin(Database::builder(&file).setup(held_up).open_shared());
            assert!(poll_once(&mut first).is_pending());
            has_begun.recv().expect("it opens");
            let mut second = Box::pin(Database::builder(&file).open_shared());
            assert!(poll_once(&mut second).is_pending());
            match fails {
                true => {
                    release.send(()).expect("it waits");
                    assert_eq!(kind(block_on(first)), ErrorKind::Open);
                }
                false => {
                    drop(first);
                    drop(release);
                }
            }
            let db = block_on(second).expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a write");
            db.blocking_close().expect("closes");
        }
    });
}

#[test]
fn a54_opening_may_be_dropped_after_any_number_of_polls() {
    within(HANG, || {
        for polls in (0..12).cycle().take(48) {
            let dir = Dir::new();
            let file = dir.file("app.db");
            let mut dropped = Box::pin(Database::builder(&file).open_shared());
            let mut other = Box::pin(Database::builder(&file).open_shared());
            let mut early = None;
            for _ in 0..polls {
                if early.is_none()
                    && let std::task::Poll::Ready(db) = poll_once(&mut dropped)
                {
                    early = Some(db.expect("opens"));
                    break;
                }
                std::thread::yield_now();
            }
            if early.is_none() {
                drop(dropped);
            }
            let db = block_on(&mut other).expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a write");
            drop(early);
            assert_eq!(ids(&db), []);
            db.blocking_close().expect("closes");
        }
    });
}

/// If the future of another opening is never polled again, an opener waits for no longer than the busy timeout.
#[test]
fn a54_an_opening_that_does_not_go_on_is_waited_for_within_reason() {
    within(HANG, || {
        let dir = Dir::new();
        let file = dir.file("app.db");
        let mut stuck = Box::pin(Database::builder(&file).open_shared());
        assert!(poll_once(&mut stuck).is_pending());
        // The writer's thread claims the file before it creates it.
        while !file.exists() {
            std::thread::yield_now();
        }
        let patience = Duration::from_millis(50);
        let error = Database::builder(&file).busy_timeout(patience).blocking_open_shared();
        let error = error.expect_err("it is not wholly open");
        assert_eq!(error.kind(), ErrorKind::AlreadyOpen);
        assert!(error.to_string().contains("being opened"), "{error}");
        let db = block_on(stuck).expect("opens");
        db.blocking_close().expect("closes");
    });
}

type Tune = fn(Builder) -> Builder;

fn steps() -> Migrations {
    Migrations::new(1).sql("a", "CREATE TABLE a (x)")
}

/// For each setting: the value of the first opener, and another value.
const SETTINGS: &[(&str, Tune, Tune)] = &[
    ("synchronous", |b| b.synchronous(Synchronous::Normal), |b| b.synchronous(Synchronous::Off)),
    (
        "busy_timeout",
        |b| b.busy_timeout(Duration::from_secs(9)),
        |b| b.busy_timeout(Duration::from_secs(8)),
    ),
    ("readers", |b| b.readers(3), |b| b.readers(5)),
    ("readers_max", |b| b.readers_max(77), |b| b.readers_max(78)),
    ("queue_capacity", |b| b.queue_capacity(10), |b| b.queue_capacity(11)),
    ("page_cache_bytes", |b| b.page_cache_bytes(1 << 20), |b| b.page_cache_bytes(2 << 20)),
    ("statement_cache", |b| b.statement_cache(5), |b| b.statement_cache(6)),
    ("setup", |b| b.setup(|_| Ok(())), |b| b.setup(|conn| conn.execute_batch("SELECT 1"))),
    (
        "batch_max",
        |b| b.batch_max(7, Duration::from_secs(1), 1 << 20),
        |b| b.batch_max(7, Duration::from_secs(1), 2 << 20),
    ),
    (
        "checkpoint_wal_bytes",
        |b| b.checkpoint_wal_bytes(1 << 20),
        |b| b.checkpoint_wal_bytes(2 << 20),
    ),
    ("wal_bytes_max", |b| b.wal_bytes_max(8 << 20), |b| b.wal_bytes_max(9 << 20)),
    ("snapshot_age_max", |b| b.snapshot_age_max(HANG), |b| b.snapshot_age_max(HANG * 2)),
    ("snapshots_max", |b| b.snapshots_max(3), |b| b.snapshots_max(4)),
    (
        "migrations",
        |b| b.migrations(steps()),
        |b| b.migrations(Migrations::new(1).sql("a", "CREATE TABLE b (x)")),
    ),
    (
        "migrations",
        |b| b.migrations(steps().step("b", |_| Ok(()))),
        |b| b.migrations(steps().step("b", |tx| tx.execute_batch("SELECT 1"))),
    ),
    ("migrations", |b| b.migrations(steps()), |b| b.migrations(steps().adopt_unmarked())),
    (
        "migrations",
        |b| b.migrations(steps().adopt_with(|_| Ok(None))),
        |b| b.migrations(steps().adopt_with(|_| Ok(Some(1)))),
    ),
    ("shed_after", |b| b.shed_after(HANG), |b| b.shed_after(HANG * 2)),
    ("network_files", |b| b, |b| b.network_files(NetworkFiles::Warn)),
    ("feed_capacity", |b| b.feed_capacity(10), |b| b.feed_capacity(11)),
    ("other_processes", |b| b.other_processes(None), |b| b.other_processes(Some(HANG))),
    ("statistics", |b| b, |b| b.statistics(false)),
    ("on_slow", |b| b.on_slow(HANG, |_| ()), |b| b.on_slow(HANG * 2, |_| ())),
    ("vfs", |b| b.vfs("unix"), |b| b.vfs("unix-excl")),
    (
        "on_thread_start",
        |b| b.on_thread_start(|| ()),
        |b| b.on_thread_start(|| drop(Vec::<u8>::new())),
    ),
    ("run_writes_twice", |b| b, |b| b.run_writes_twice(true)),
    ("read_only", |b| b, |b| b.read_only(true)),
    // A default value that the opener insists on.
    ("synchronous", |b| b.synchronous(Synchronous::Off), |b| b.synchronous(Synchronous::Full)),
    ("snapshots_max", |b| b.snapshots_max(3), |b| b.snapshots_max(64)),
    (
        "network_files",
        |b| b.network_files(NetworkFiles::Warn),
        |b| b.network_files(NetworkFiles::Refuse),
    ),
    ("statistics", |b| b.statistics(false), |b| b.statistics(true)),
    ("run_writes_twice", |b| b.run_writes_twice(true), |b| b.run_writes_twice(false)),
];

#[test]
fn a54_a_setting_that_is_another_is_refused_by_name_and_one_left_out_is_not() {
    within(HANG, || {
        for (name, first, other) in SETTINGS.iter().copied() {
            let dir = Dir::new();
            let file = dir.file("app.db");
            let builder = || Database::builder(&file);
            let db =
                first(builder()).blocking_open_shared().unwrap_or_else(|e| panic!("{name}: {e}"));
            let error = other(builder()).blocking_open_shared().expect_err(name);
            assert_eq!(error.kind(), ErrorKind::AlreadyOpen, "{name}: {error}");
            let said = error.to_string();
            let words = [&*format!("`{name}` is "), "shared.rs:", "app.db"];
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
            let same = first(builder()).blocking_open_shared().expect("the same settings");
            let any = builder().blocking_open_shared().expect("no settings");
            assert_eq!(
                same.client("x").blocking_read(|s| s.table_exists(None, "t")).ok(),
                Some(false)
            );
            drop((same, any));
            db.blocking_close().expect("closes");
        }
    });
}

/// Every setting of the builder must be compared, apart from two that need no comparison.
#[test]
fn a54_every_setting_has_a_case() {
    let text = include_str!("../../src/builder.rs");
    let mut names: Vec<_> = text
        .split("pub fn ")
        .skip(1)
        .filter(|rest| rest.split_once('{').is_some_and(|(head, _)| head.contains("-> Self")))
        .filter_map(|rest| rest.split_once(['(', '<']))
        .map(|(name, _)| name)
        .collect();
    assert!(names.len() >= 24, "{names:?}");
    // An open file exists, so `create_if_missing` does not matter. `immutable` is compared like `read_only`.
    names.retain(|name| !["create_if_missing", "immutable"].contains(name));
    names.retain(|name| !SETTINGS.iter().any(|(setting, ..)| setting == name));
    assert_eq!(names, Vec::<&str>::new(), "settings without a case");
}

#[test]
fn a54_a_file_that_was_taken_away_is_told_to_the_next_opener() {
    within(HANG, || {
        let dir = Dir::new();
        let file = dir.file("app.db");
        let db = Database::blocking_open_shared(&file).expect("opens");
        std::fs::rename(&file, dir.file("moved.db")).expect("a rename");
        while db.blocking_write(|_| Ok(())).is_ok() {
            std::thread::yield_now();
        }
        assert_eq!(kind(Database::blocking_open_shared(&file)), ErrorKind::Replaced);
        assert_eq!(kind(db.blocking_close()), ErrorKind::Replaced);
    });
}

#[test]
fn a54_a_weak_handle_keeps_nothing_open() {
    let dir = Dir::new();
    let threads = Threads::default();
    let db = threads.watch(Database::builder(dir.file("app.db"))).blocking_open().expect("opens");
    let weak = db.downgrade();
    let again = weak.upgrade().expect("it is open");
    assert!(are_one(&db, &again));
    drop(again);
    // A handle of a client keeps the database open, too.
    let client = db.client("other");
    drop(db);
    client.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a write");
    let db = weak.upgrade().expect("a client keeps it open");
    assert_eq!(ids(&db), []);
    drop(client);
    drop(db);
    assert!(weak.upgrade().is_none());
    threads.wait_for(0);
}

#[test]
fn a54_a_closed_database_cannot_be_had_from_a_weak_handle() {
    on_each_place(|db, place| {
        let other = match place {
            crate::support::Place::Memory => Database::blocking_open(":memory:").expect("opens"),
            crate::support::Place::File => return,
        };
        let weak = other.downgrade();
        other.blocking_close().expect("closes");
        assert!(weak.upgrade().is_none() && db.downgrade().upgrade().is_some());
    });
}

/// An upgrade that races the drop of the last handle returns either an open database or `None`.
#[test]
fn a54_an_upgrade_races_the_last_handle() {
    within(HANG, || {
        for _ in 0..50 {
            let db = Database::blocking_open(":memory:").expect("opens");
            let weak = db.downgrade();
            let start = Arc::new(Barrier::new(2));
            let go = Arc::clone(&start);
            let racer = std::thread::spawn(move || {
                go.wait();
                weak.upgrade().map(|db| db.blocking_write(|tx| tx.execute_batch(TABLE)))
            });
            start.wait();
            drop(db);
            if let Some(written) = racer.join().expect("no panic") {
                written.expect("it was open");
            }
        }
    });
}

/// A shared opening reports a missing directory as an ordinary one does.
#[test]
fn a54_a_missing_directory_is_told() {
    let opened = Database::blocking_open_shared(Path::new("/nowhere/app.db"));
    assert_eq!(kind(opened), ErrorKind::Open);
}
