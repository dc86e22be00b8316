//! The file under the program: deleted, moved or replaced while it is open (A42).
#![cfg(target_os = "linux")]

use std::path::Path;
use std::time::{Duration, Instant};

use lockkeeper::{Database, ErrorKind};
use rusqlite::Connection;

use crate::support::fault_vfs::{self, Plan};
use crate::support::{
    Dir, HANG, Place, TABLE, block_on, ids, insert, kind, warnings_of_the_file, within,
};

/// The only row of the other database, which takes the place of the first one.
const OTHERS: i64 = 1_000_000;

/// Something that happens to the file in `dir/home`, and what the error says of it.
struct Mishap {
    name: &'static str,
    happen: fn(&Dir),
    said: &'static str,
}

fn rename(dir: &Dir, from: &str, to: &str) {
    std::fs::rename(dir.file(from), dir.file(to)).expect("a rename");
}

fn remove(dir: &Dir, name: &str) {
    std::fs::remove_file(dir.file(name)).expect("it is there");
}

/// Replaces a file by a copy of it: another inode with the same bytes.
fn replace(dir: &Dir, name: &str) {
    std::fs::copy(dir.file(name), dir.file("twin")).expect("a copy");
    rename(dir, "twin", name);
}

/// Empties a file, as `> file` does in a shell. Another process does it, because closing a descriptor here would drop
/// SQLite's locks.
fn cut(dir: &Dir, name: &str) {
    let cut = std::process::Command::new("truncate").arg("--size=0").arg(dir.file(name)).status();
    assert!(cut.expect("coreutils").success());
}

fn mishaps() -> Vec<Mishap> {
    let mishap = |name, happen, said| Mishap { name, happen, said };
    vec![
        mishap("deleted", |d| remove(d, "home/test.db"), "test.db was deleted"),
        mishap("replaced", |d| rename(d, "other.db", "home/test.db"), "another file is in"),
        mishap("moved", |d| rename(d, "home/test.db", "home/moved.db"), "test.db was deleted"),
        mishap("cut off", |d| cut(d, "home/test.db"), "test.db was cut off"),
        mishap("WAL deleted", |d| remove(d, "home/test.db-wal"), "test.db-wal was deleted"),
        mishap("WAL replaced", |d| replace(d, "home/test.db-wal"), "in the place of"),
        mishap("index deleted", |d| remove(d, "home/test.db-shm"), "test.db-shm was deleted"),
        mishap("index replaced", |d| replace(d, "home/test.db-shm"), "in the place of"),
        mishap("directory moved", |d| rename(d, "home", "away"), "test.db was deleted"),
        mishap(
            "directory replaced",
            |d| {
                rename(d, "home", "away");
                std::fs::create_dir(d.file("home")).expect("a directory");
                rename(d, "other.db", "home/test.db");
            },
            "another file is in",
        ),
        mishap(
            "all removed",
            |d| std::fs::remove_dir_all(d.file("home")).expect("it is there"),
            "test.db was deleted",
        ),
    ]
}

/// A database in `dir/home` with the rows 1 to 5, and a closed database `dir/other.db` with another row.
fn two(dir: &Dir) -> Database {
    let other = Database::blocking_open(dir.file("other.db")).expect("opens");
    other.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
    other.blocking_write(|tx| insert(tx, OTHERS)).expect("a row");
    other.blocking_close().expect("closes");
    std::fs::create_dir(dir.file("home")).expect("a directory");
    let db = Database::builder(dir.file("home/test.db")).readers(1).readers_max(4);
    let db = db.blocking_open().expect("opens");
    db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
    for id in 1..=5 {
        db.blocking_write(move |tx| insert(tx, id)).expect("a row");
    }
    db
}

/// Checks that a read has not seen rows of the other database.
fn only_own(seen: &[i64], name: &str) {
    assert!(!seen.contains(&OTHERS), "{name}: read from the other file: {seen:?}");
}

/// Checks that every kind of call reports what has happened.
fn all_told(db: &Database, dir: &Dir, Mishap { name, said, .. }: &Mishap) {
    let error = db.blocking_write(|tx| insert(tx, 77)).expect_err("a write");
    let text = error.to_string();
    assert!(error.is_replaced() && !error.is_retryable(), "{name}: {error}");
    assert!(text.contains(said) && text.contains("may be lost"), "{name}: {text}");
    let submitted = db.try_write(|tx| insert(tx, 78)).expect("there is room");
    for (what, kind) in [
        ("try_write", kind(block_on(submitted))),
        ("write_once", kind(block_on(db.write_once(|tx| insert(tx, 79))))),
        ("read", kind(db.blocking_read(|_| Ok(())))),
        ("short", kind(block_on(db.read(|_| Ok(())).short()))),
        ("exclusive", kind(db.blocking_exclusive(|_| Ok(())))),
        ("snapshot", kind(block_on(db.snapshot()))),
        ("and_snapshot", kind(block_on(db.write(|tx| insert(tx, 80)).and_snapshot()))),
        ("lease", kind(block_on(db.lease()))),
        ("backup", kind(db.backup(dir.file("copy.db")).blocking_run())),
    ] {
        assert_eq!(kind, ErrorKind::Replaced, "{name}: {what}");
    }
    assert!(!dir.file("copy.db").exists());
    let warnings = warnings_of_the_file(db);
    assert!(matches!(&warnings[..], [one] if one.contains(said)), "{name}: {warnings:?}");
    // The lost file still counts as open until this close.
    let closed = db.blocking_close().expect_err("what was answered may be lost");
    assert!(closed.is_replaced() && closed.to_string().contains(said), "{name}: {closed}");
}

fn rows_of(path: &Path) -> Vec<i64> {
    let db = Database::blocking_open(path).expect("opens");
    let rows = ids(&db);
    db.blocking_close().expect("closes");
    rows
}

/// Checks the rows of the files that can be found now.
fn check_what_is_there(dir: &Dir, name: &str, answered: &[i64]) {
    let (home, away) = (dir.file("home/test.db"), dir.file("away/test.db"));
    match name {
        "replaced" | "directory replaced" => assert_eq!(rows_of(&home), [OTHERS], "{name}"),
        // The database file stayed in its place, and all answered writes were copied into it.
        "WAL deleted" => assert_eq!(rows_of(&home), answered, "{name}"),
        // A process that opens the file now locks another index, so the WAL must be left alone.
        "index deleted" => {
            let wal = std::fs::metadata(dir.file("home/test.db-wal")).expect("the WAL is there");
            assert!(wal.len() > 0, "{name}: the WAL was emptied");
            assert_eq!(rows_of(&home), answered, "{name}");
        }
        _ => {}
    }
    let moved = match name {
        "moved" => dir.file("home/moved.db"),
        "directory moved" | "directory replaced" => away,
        _ => return,
    };
    assert_eq!(rows_of(&moved), answered, "{name}: the file that was moved");
}

/// Writes go on until one of them gets the error.
#[test]
fn a42_while_writes_are_answered_it_is_told_within_a_second() {
    for mishap in mishaps() {
        within(HANG, move || {
            let dir = Dir::new();
            let db = two(&dir);
            (mishap.happen)(&dir);
            let began = Instant::now();
            let mut answered: Vec<i64> = (1..=5).collect();
            let error = loop {
                let id = 1 + answered.len() as i64;
                match db.blocking_write(move |tx| insert(tx, id)) {
                    Ok(()) => answered.push(id),
                    Err(error) => break error,
                }
                // Neither an existing connection nor a new one reads the other file.
                if let Ok(snapshot) = block_on(db.snapshot()) {
                    only_own(&snapshot.blocking_read(rows).unwrap_or_default(), mishap.name);
                }
                only_own(&db.blocking_read(rows).unwrap_or_default(), mishap.name);
            };
            // The promise is one second. A busy machine may take ten times as long.
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
            assert!(error.is_replaced(), "{}: {error}", mishap.name);
            all_told(&db, &dir, &mishap);
            drop(db);
            check_what_is_there(&dir, mishap.name, &answered);
        });
    }
}

fn rows(s: &lockkeeper::Snapshot) -> rusqlite::Result<Vec<i64>> {
    s.prepare("SELECT id FROM t")?.query_map([], |row| row.get(0))?.collect()
}

/// The first calls of a program that has been idle for longer than a check stays valid.
#[test]
fn a42_the_first_call_after_a_while_is_told() {
    type Ask = fn(&Database, &Dir) -> ErrorKind;
    let asks: [(&str, Ask); 8] = [
        ("write", |db, _| kind(db.blocking_write(|tx| insert(tx, 6)))),
        ("read", |db, _| kind(db.blocking_read(rows))),
        ("short", |db, _| kind(block_on(db.read(rows).short()))),
        ("exclusive", |db, _| kind(db.blocking_exclusive(|_| Ok(())))),
        ("snapshot", |db, _| kind(block_on(db.snapshot()))),
        ("lease", |db, _| kind(block_on(db.lease()))),
        ("backup", |db, dir| kind(db.backup(dir.file("copy.db")).blocking_run())),
        ("close", |db, _| kind(db.blocking_close())),
    ];
    for (what, ask) in asks {
        within(HANG, move || {
            let dir = Dir::new();
            let db = two(&dir);
            block_on(db.read(rows).short()).expect("a read");
            rename(&dir, "other.db", "home/test.db");
            // The test is about time, so it must wait: the last check of the file must become too old.
            std::thread::sleep(Duration::from_millis(1100));
            assert_eq!(ask(&db, &dir), ErrorKind::Replaced, "{what}");
            assert_eq!(kind(db.blocking_close()), ErrorKind::Replaced, "{what}");
        });
    }
}

#[test]
fn a42_what_is_under_way_is_told_too() {
    within(HANG, || {
        let dir = Dir::new();
        let db = two(&dir);
        let snapshot = block_on(db.snapshot()).expect("a snapshot");
        let mut lease = block_on(db.lease()).expect("a lease");
        lease.blocking_run(|tx| insert(tx, 6)).expect("a row");
        rename(&dir, "other.db", "home/test.db");
        assert_eq!(warnings_of_the_file(&db).len(), 1, "they are of this moment");
        assert_eq!(kind(lease.blocking_run(|tx| insert(tx, 7))), ErrorKind::Replaced);
        assert_eq!(kind(lease.blocking_commit()), ErrorKind::Replaced);
        assert_eq!(kind(snapshot.blocking_read(rows)), ErrorKind::Replaced);
        drop(snapshot);
        assert_eq!(kind(db.blocking_close()), ErrorKind::Replaced);
        assert_eq!(rows_of(&dir.file("home/test.db")), [OTHERS]);
    });
}

/// A call runs for longer than a check stays valid. It is not stored in a file that was replaced meanwhile.
#[test]
fn a42_a_long_call_is_not_answered_from_a_file_that_is_gone() {
    within(HANG, || {
        let dir = Dir::new();
        let db = two(&dir);
        let (from, to) = (dir.file("home/test.db"), dir.file("home/moved.db"));
        let written = db.blocking_write(move |tx| {
            insert(tx, 6)?;
            std::fs::rename(&from, &to).expect("a rename");
            // The test is about time, so it must wait: the check before the call must become too old.
            std::thread::sleep(Duration::from_millis(1100));
            Ok(())
        });
        assert_eq!(kind(written), ErrorKind::Replaced);
        assert_eq!(kind(db.blocking_close()), ErrorKind::Replaced);
        assert_eq!(rows_of(&dir.file("home/moved.db")), [1, 2, 3, 4, 5]);
    });
}

/// SQLite would create an empty file, and delete the WAL, which it would take for that of the empty file.
#[test]
fn a42_a_connection_that_is_opened_later_makes_no_file_in_the_place_of_one_that_is_gone() {
    within(HANG, || {
        let dir = Dir::new();
        let db = two(&dir);
        let (from, to) = (dir.file("home/test.db"), dir.file("home/moved.db"));
        // The connection is replaced after the call.
        db.blocking_exclusive(move |_| {
            std::fs::rename(&from, &to).expect("a rename");
            Ok(())
        })
        .expect("an exclusive call");
        assert_eq!(kind(db.blocking_write(|tx| insert(tx, 6))), ErrorKind::Replaced);
        assert!(!dir.file("home/test.db").exists());
        assert_eq!(kind(db.blocking_close()), ErrorKind::Replaced);
        rename(&dir, "home/test.db-wal", "home/moved.db-wal");
        assert_eq!(rows_of(&dir.file("home/moved.db")), [1, 2, 3, 4, 5]);
    });
}

/// The file vanishes between the check and the moment in which SQLite opens it.
#[test]
fn a42_a_connection_makes_no_file_in_the_place_of_one_that_vanishes_while_it_is_opened() {
    within(HANG, || {
        let dir = Dir::new();
        let plan = Plan::of(dir.path());
        let db = Database::builder(dir.file("test.db")).vfs(fault_vfs::NAME);
        let db = db.blocking_open().expect("opens");
        db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
        db.blocking_write(|tx| insert(tx, 1)).expect("a row");
        let (from, to) = (dir.file("test.db"), dir.file("moved.db"));
        // The connection is replaced after the call.
        db.blocking_exclusive(move |_| {
            plan.before_next_open(move || std::fs::rename(&from, &to).expect("a rename"));
            Ok(())
        })
        .expect("an exclusive call");
        let error = db.blocking_write(|tx| insert(tx, 2)).expect_err("the file is gone");
        assert!(error.is_replaced(), "{error}");
        assert!(dir.file("moved.db").exists() && !dir.file("test.db").exists());
        assert_eq!(kind(db.blocking_close()), ErrorKind::Replaced);
        rename(&dir, "test.db-wal", "moved.db-wal");
        assert_eq!(rows_of(&dir.file("moved.db")), [1]);
    });
}

#[test]
fn a42_what_belongs_to_the_file_is_no_false_alarm() {
    within(HANG, || {
        let dir = Dir::new();
        let db = two(&dir);
        let (copy, file) = (dir.file("copy.db"), dir.file("home/test.db"));
        // Longer than a check stays valid, so that the next call checks again.
        let wait = || std::thread::sleep(Duration::from_millis(300));
        let check = |what: &str| {
            wait();
            assert_eq!(warnings_of_the_file(&db), Vec::<String>::new(), "{what}");
            db.blocking_write(|tx| tx.execute("UPDATE t SET v = v + 1", [])).expect(what);
            block_on(db.snapshot()).expect(what).blocking_read(rows).expect(what);
        };
        db.blocking_exclusive(|conn| conn.execute_batch("VACUUM")).expect("a vacuum");
        check("VACUUM");
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        db.blocking_exclusive(move |conn| conn.query_row(sql, [], |_| Ok(()))).expect("emptied");
        check("a WAL that was emptied");
        db.backup(&copy).blocking_run().expect("a backup");
        db.backup(&copy).blocking_run().expect("a backup over a backup");
        check("a backup");
        let into = format!("VACUUM INTO '{}'", dir.file("into.db").display());
        db.blocking_exclusive(move |conn| conn.execute_batch(&into)).expect("a copy");
        check("VACUUM INTO");
        let other = Connection::open(&file).expect("another program");
        other.execute_batch("INSERT INTO t VALUES (100, 100)").expect("a row");
        drop(other);
        check("another program that came and went");
        // The call swaps the connection, so the writer opens its own connection again.
        db.blocking_exclusive(|conn| {
            *conn = Connection::open_in_memory()?;
            Ok(())
        })
        .expect("an exclusive call");
        check("a connection that was replaced");
        let link = dir.file("home/link.db");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        std::fs::remove_file(&link).expect("the link");
        check("a link to it");
        std::fs::write(dir.file("home/neighbour"), b"text").expect("a file");
        check("another file in its directory");
        db.blocking_close().expect("closes");
        // After the close, the file may be replaced.
        lockkeeper::blocking_restore(&copy, &file).expect("restored");
        assert_eq!(warnings_of_the_file(&db), Vec::<String>::new());
        db.blocking_close().expect("closes again");
        let db = Database::blocking_open(&file).expect("opens");
        assert_eq!(ids(&db), [1, 2, 3, 4, 5]);
        db.blocking_close().expect("closes");
        std::fs::remove_dir_all(dir.file("home")).expect("it is closed");
        assert_eq!(warnings_of_the_file(&db), Vec::<String>::new());
    });
}

/// A memory database has no file that could be lost.
#[test]
fn a42_a_memory_database_has_no_file_to_miss() {
    let dir = Dir::new();
    let db = dir.builder(Place::Memory).blocking_open().expect("opens");
    db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
    std::thread::sleep(Duration::from_millis(300));
    db.blocking_write(|tx| insert(tx, 1)).expect("a write");
    assert_eq!((ids(&db), warnings_of_the_file(&db)), (vec![1], Vec::new()));
    db.blocking_close().expect("closes");
}
