//! How a file is opened: created or not, read-only, immutable (promise A53).
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use lockkeeper::queue::RefusedReason;
use lockkeeper::{Builder, Change, Database, ErrorKind, Migrations, NetworkFiles};
use rusqlite::Connection;
use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_res_uid;

use crate::crash::Process;
use crate::support::{Dir, HANG, block_on, ids, insert, kind, warnings_of_the_file, within};

/// Makes the file `app.db` in a directory, in some state.
type Make = fn(&Path);

/// With which settings the file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Default,
    Existing,
    ReadOnly,
    Immutable,
}

use Mode::{Default, Existing, Immutable, ReadOnly};

const MODES: [Mode; 4] = [Default, Existing, ReadOnly, Immutable];

impl Mode {
    fn builder(self, file: &Path) -> Builder {
        let builder = Database::builder(file).readers(2);
        match self {
            Default => builder,
            Existing => builder.create_if_missing(false),
            ReadOnly => builder.read_only(true),
            Immutable => builder.immutable(true),
        }
    }

    fn writes(self) -> bool {
        matches!(self, Default | Existing)
    }
}

fn database(dir: &Path, mode: &str) -> Connection {
    let conn = Connection::open(dir.join("app.db")).expect("opens");
    conn.pragma_update(None, "journal_mode", mode).expect("a mode");
    conn.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 1)")
        .expect("a table");
    conn
}

/// Copies `files` while another program has the file open. So the copy has the WAL or the journal of a killed program.
fn killed(dir: &Path, mode: &str, unfinished: &str, files: &[&str]) {
    let other = Dir::new();
    let conn = database(other.path(), mode);
    conn.execute_batch(unfinished).expect("it writes");
    for name in files {
        fs::copy(other.file(name), dir.join(name)).expect("a copy");
    }
}

/// The transaction is larger than the page cache. So SQLite syncs the journal and writes to the file before the COMMIT.
const UNFINISHED: &str = "PRAGMA cache_size = 1; BEGIN;
     WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
     INSERT INTO t SELECT i, randomblob(200) FROM n";

/// A state of the file, and the result of opening it in each mode; `Ok`: the rows that are read.
struct Case {
    name: &'static str,
    make: Make,
    of: [Found; 4],
}

type Found = Result<&'static [i64], ErrorKind>;

const NONE: Found = Ok(&[]);
const ONE: Found = Ok(&[1]);
const TWO: Found = Ok(&[1, 2]);

fn cases() -> Vec<Case> {
    use ErrorKind::{Corrupt, NotFound, Open};
    let case = |name, make, of| Case { name, make, of };
    vec![
        case("absent", |_| (), [NONE, Err(NotFound), Err(NotFound), Err(NotFound)]),
        case(
            "a link to nothing",
            |dir| symlink("nothing.db", dir.join("app.db")).expect("a link"),
            [NONE, Err(NotFound), Err(NotFound), Err(NotFound)],
        ),
        case("empty", |dir| fs::write(dir.join("app.db"), []).expect("a file"), [NONE; 4]),
        case(
            "a directory",
            |dir| fs::create_dir(dir.join("app.db")).expect("a directory"),
            [Err(Open); 4],
        ),
        case(
            "a text",
            |dir| fs::write(dir.join("app.db"), "my notes\n".repeat(900)).expect("a file"),
            [Err(Corrupt); 4],
        ),
        case("in rollback mode", |dir| drop(database(dir, "DELETE")), [ONE; 4]),
        case(
            "with a journal that is over",
            |dir| drop(database(dir, "PERSIST")),
            [ONE, ONE, ONE, Err(Open)],
        ),
        case("in WAL mode", |dir| drop(database(dir, "WAL")), [ONE; 4]),
        case(
            "with the WAL of a killed program",
            |dir| {
                let insert = "INSERT INTO t VALUES (2, 2)";
                killed(dir, "WAL", insert, &["app.db", "app.db-wal", "app.db-shm"]);
            },
            [TWO, TWO, TWO, Err(Open)],
        ),
        case(
            "with a WAL without its index",
            |dir| killed(dir, "WAL", "INSERT INTO t VALUES (2, 2)", &["app.db", "app.db-wal"]),
            [TWO, TWO, TWO, Err(Open)],
        ),
        case(
            "with the journal of a killed program",
            |dir| killed(dir, "DELETE", UNFINISHED, &["app.db", "app.db-journal"]),
            [ONE, ONE, Err(Open), Err(Open)],
        ),
    ]
}

/// The content of every file in `dir`, except the index of a WAL, which SQLite makes again from the WAL.
fn content(dir: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    let named = entries.map(|entry| {
        let name = entry.file_name().into_string().expect("a name");
        (name, fs::read(entry.path()).ok())
    });
    named.filter(|(name, _)| !name.ends_with("-shm")).collect()
}

fn rows(db: &Database) -> Vec<i64> {
    match db.blocking_read(|s| s.table_exists(None, "t")).expect("a look") {
        true => ids(db),
        false => Vec::new(),
    }
}

/// Checks that every kind of write is refused with an error that gives the reason.
fn refuses_writes(db: &Database, name: &str) {
    let told = |error: lockkeeper::Error| {
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{name}: {error}");
        assert!(error.to_string().contains("opened for reading alone"), "{name}: {error}");
        assert!(!error.is_retryable());
    };
    told(db.blocking_write(|tx| insert(tx, 9)).expect_err("a write"));
    told(block_on(db.write_once(|tx| insert(tx, 9))).expect_err("a write"));
    told(block_on(db.write(|tx| insert(tx, 9)).and_snapshot()).map(drop).expect_err("a write"));
    told(
        db.blocking_exclusive(|conn| conn.execute_batch("VACUUM")).expect_err("an exclusive call"),
    );
    told(block_on(db.lease()).map(drop).expect_err("a lease"));
    told(db.client("other").blocking_write(|tx| insert(tx, 9)).expect_err("another client's"));
    let refused = db.try_write(|tx| insert(tx, 9)).map(drop).expect_err("a write");
    assert_eq!(refused.reason, RefusedReason::ReadOnly);
    let in_read = db.blocking_read(|s| s.prepare("DELETE FROM sqlite_schema").map(drop));
    assert!(in_read.is_err(), "{name}: a read writes");
}

/// Opens `app.db` in `dir` with the settings of `mode`, reads, tries to write, and closes.
fn try_mode(dir: &Path, mode: Mode, name: &str) -> Result<Vec<i64>, ErrorKind> {
    let opened = mode.builder(&dir.join("app.db")).blocking_open();
    let db = match opened {
        Ok(db) => db,
        Err(error) => {
            let said = error.to_string();
            let named = said.contains("app.db") || said.contains("nothing.db");
            assert!(named, "{name}, {mode:?}: {said}");
            return Err(error.kind());
        }
    };
    let found = rows(&db);
    let held = block_on(db.snapshot()).expect("a snapshot");
    assert_eq!(held.blocking_read(|s| s.table_exists(None, "t")).ok(), Some(!found.is_empty()));
    drop(held);
    if mode.writes() {
        let create = "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v)";
        db.blocking_write(|tx| tx.execute_batch(create)).expect("a table");
        db.blocking_write(|tx| insert(tx, 9)).expect("a write");
    } else {
        refuses_writes(&db, name);
        assert_eq!(rows(&db), found, "{name}, {mode:?}");
    }
    db.blocking_close().expect("closes");
    Ok(found)
}

#[test]
fn a53_a_file_is_opened_as_it_was_asked_for_or_refused_and_left_as_it_is() {
    within(HANG, || {
        for Case { name, make, of } in cases() {
            for (mode, expected) in MODES.into_iter().zip(of) {
                let dir = Dir::new();
                make(dir.path());
                let before = content(dir.path());
                let found = try_mode(dir.path(), mode, name);
                assert_eq!(found, expected.map(<[i64]>::to_vec), "{name}, {mode:?}");
                if !mode.writes() || expected.is_err() {
                    assert!(content(dir.path()) == before, "{name}, {mode:?}: something changed");
                }
            }
        }
    });
}

/// The file may be missing because its directory is missing.
#[test]
fn a53_a_missing_directory_is_told_as_a_missing_file() {
    for mode in [Existing, ReadOnly, Immutable] {
        let error = mode.builder(Path::new("/nowhere/at/all/app.db")).blocking_open();
        let error = error.expect_err("it is not there");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("/nowhere/at/all/app.db"), "{error}");
        // A memory database needs no file.
        let memory = mode.builder(Path::new(":memory:")).blocking_open();
        match mode {
            Existing => assert!(memory.is_ok()),
            _ => assert_eq!(kind(memory), ErrorKind::Config),
        }
    }
}

/// Runs `f` on a thread without root's rights. The threads that it starts have none either.
fn as_nobody<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    within(HANG, move || {
        if geteuid() == Uid::ROOT {
            let nobody = Uid::from_raw(65_534);
            set_thread_res_uid(nobody, nobody, nobody).expect("the rights are given up");
        }
        f()
    })
}

/// This user can only read the directory, so WAL files can be neither made nor changed.
#[test]
fn a53_in_a_directory_that_cannot_be_written_what_can_be_read_is_read() {
    use ErrorKind::{NotFound, Open};
    let expected: [(&str, [Found; 3]); 5] = [
        ("absent", [Err(Open), Err(NotFound), Err(NotFound)]),
        ("in rollback mode", [Err(Open), ONE, ONE]),
        ("in WAL mode", [Err(Open), Err(Open), ONE]),
        ("with the WAL of a killed program", [Err(Open), TWO, Err(Open)]),
        ("with a WAL without its index", [Err(Open), Err(Open), Err(Open)]),
    ];
    for (name, of) in expected {
        for (mode, expected) in [Default, ReadOnly, Immutable].into_iter().zip(of) {
            let dir = Dir::new();
            let case = cases().into_iter().find(|case| case.name == name).expect("it is a case");
            (case.make)(dir.path());
            for entry in fs::read_dir(dir.path()).expect("a directory") {
                let path = entry.expect("an entry").path();
                fs::set_permissions(path, Permissions::from_mode(0o444)).expect("its mode");
            }
            fs::set_permissions(dir.path(), Permissions::from_mode(0o555)).expect("its mode");
            let before = content(dir.path());
            let path = dir.path().to_owned();
            let found = as_nobody(move || try_mode(&path, mode, name));
            assert_eq!(found, expected.map(<[i64]>::to_vec), "{name}, {mode:?}");
            assert!(content(dir.path()) == before, "{name}, {mode:?}: something changed");
            fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("its mode");
        }
    }
}

#[test]
fn a53_what_cannot_be_read_says_what_to_do() {
    for (mode, database_mode, file, dir_mode, words) in [
        (Default, "WAL", 0o444, 0o755, "use `Builder::read_only`"),
        (ReadOnly, "WAL", 0o444, 0o555, "`Builder::immutable`"),
        (ReadOnly, "DELETE", 0o000, 0o755, "check that it can be read"),
        (Immutable, "DELETE", 0o000, 0o755, "check that it can be read"),
    ] {
        let dir = Dir::new();
        drop(database(dir.path(), database_mode));
        fs::set_permissions(dir.file("app.db"), Permissions::from_mode(file)).expect("its mode");
        fs::set_permissions(dir.path(), Permissions::from_mode(dir_mode)).expect("its mode");
        let path = dir.file("app.db");
        let error = as_nobody(move || mode.builder(&path).blocking_open().map(drop));
        let error = error.expect_err("it cannot be read");
        assert_eq!(error.kind(), ErrorKind::Open, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("its mode");
    }
}

/// Commits of another program are read, in either journal mode, and subscribers are told of them.
#[test]
fn a53_a_file_that_another_program_writes_is_followed() {
    within(HANG, || {
        for (mode, journal_mode) in [("in WAL mode", "WAL"), ("in rollback mode", "DELETE")] {
            let dir = Dir::new();
            let other = database(dir.path(), journal_mode);
            let db = ReadOnly.builder(&dir.file("app.db")).blocking_open().expect("opens");
            let mut changes = db.changes();
            let mut live = db.live(["t"], |s| {
                s.query_row("SELECT max(id) FROM t", [], |row| row.get::<_, i64>(0))
            });
            assert_eq!(live.blocking_next().expect("open").ok(), Some(1), "{mode}");
            for id in 2..20 {
                other.execute("INSERT INTO t VALUES (?1, 0)", [id]).expect("it writes");
                assert_eq!(ids(&db).last(), Some(&id), "{mode}: a read sees it");
            }
            let told = changes.blocking_next().expect("open");
            assert!(matches!(told, Change::Unknown { .. }), "{mode}: {told:?}");
            while live.blocking_next().expect("open").expect("a row") < 19 {}
            let copy = dir.file("copy.db");
            db.backup(&copy).blocking_run().expect("a backup");
            assert_eq!(ids(&Database::blocking_open(&copy).expect("opens")).len(), 19);
            drop(other);
            db.blocking_close().expect("closes");
        }
    });
}

/// Another process opens, checkpoints and closes the file while it is read here. When it closes its last connection, it
/// must not delete the WAL that is being read.
#[test]
fn a53_a_process_that_comes_and_goes_does_not_disturb_readers() {
    within(HANG, || {
        let dir = Dir::new();
        let file = dir.file("app.db");
        Process::start("some", &file).wait_for("done");
        let db = ReadOnly.builder(&file).blocking_open().expect("opens");
        let count = |db: &Database| {
            let sql = "SELECT count(*) FROM part WHERE client = 100";
            db.blocking_read(move |s| s.query_row(sql, [], |row| row.get::<_, i64>(0)))
        };
        let before = count(&db).expect("a count");
        let held = block_on(db.snapshot()).expect("a snapshot");
        held.blocking_read(|s| s.table_exists(None, "part")).expect("it shows this state");
        // A second `some` would fail, because its rows are stored already. `writer` writes as other clients.
        let mut writer = Process::start("writer", &file);
        let mut acks = 0;
        while acks < 200 {
            let line = writer.line().expect("it writes until it is killed");
            acks += i32::from(line.contains("acked "));
            assert_eq!(count(&db).expect("a count"), before);
        }
        drop(writer); // killed
        let all = "SELECT count(*) FROM part WHERE client < 100";
        let stored = |s: &lockkeeper::Snapshot| s.query_row(all, [], |row| row.get::<_, i64>(0));
        assert!(db.blocking_read(stored).expect("a count") >= 200 * 3);
        assert_eq!(held.blocking_read(stored).ok(), Some(0), "the old state");
        assert_eq!(warnings_of_the_file(&db), Vec::<String>::new());
        db.blocking_close().expect("closes");
        assert!(fs::metadata(dir.file("app.db-wal")).expect("it stays").len() > 0);
    });
}

/// In WAL mode a reader takes no lock for which a writer would have to wait.
#[test]
fn a53_readers_in_wal_mode_hold_up_no_writer() {
    within(HANG, || {
        let dir = Dir::new();
        let other = database(dir.path(), "WAL");
        other.busy_timeout(std::time::Duration::ZERO).expect("no patience");
        let db = ReadOnly.builder(&dir.file("app.db")).blocking_open().expect("opens");
        let held = block_on(db.snapshot()).expect("a snapshot");
        assert_eq!(held.blocking_read(crate::support::ids_of).expect("rows"), [1]);
        other
            .execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2, 0)")
            .expect("the lock is free");
        assert_eq!(ids(&db), [1]);
        other.execute_batch("COMMIT").expect("commits");
        assert_eq!(ids(&db), [1, 2]);
        assert_eq!(held.blocking_read(crate::support::ids_of).expect("rows"), [1]);
        drop(held);
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a53_migrations_of_a_file_opened_for_reading_are_checked_and_not_run() {
    within(HANG, || {
        let steps = |n: usize| {
            let all = Migrations::new(7)
                .sql("one", "CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
                .sql("two", "INSERT INTO t VALUES (1, 1)")
                .sql("three", "INSERT INTO t VALUES (2, 2)");
            match n {
                2 => Migrations::new(7)
                    .sql("one", "CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
                    .sql("two", "INSERT INTO t VALUES (1, 1)"),
                _ => all,
            }
        };
        let dir = Dir::new();
        let file = dir.file("app.db");
        let made = Database::builder(&file).migrations(steps(2)).blocking_open().expect("opens");
        made.blocking_close().expect("closes");
        let before = content(dir.path());
        for mode in [ReadOnly, Immutable] {
            let db =
                mode.builder(&file).migrations(steps(2)).blocking_open().expect("it is current");
            assert_eq!(ids(&db), [1]);
            db.blocking_close().expect("closes");
            let older =
                mode.builder(&file).migrations(steps(3)).blocking_open().expect_err("older");
            assert_eq!(older.kind(), ErrorKind::Migration);
            assert!(older.to_string().contains("version 2, this program needs 3"), "{older}");
            let foreign = mode.builder(&file).migrations(Migrations::new(8)).blocking_open();
            assert_eq!(kind(foreign), ErrorKind::ForeignFile);
            assert!(content(dir.path()) == before, "{mode:?}");
        }
        // A file that `adopt_with` accepts can be read without being marked.
        let unmarked = dir.file("unmarked.db");
        let conn = Connection::open(&unmarked).expect("opens");
        conn.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v)").expect("a table");
        drop(conn);
        for (seen, current) in [(2, true), (1, false)] {
            let adopt = steps(2).adopt_with(move |_| Ok(Some(seen)));
            let opened = ReadOnly.builder(&unmarked).migrations(adopt).blocking_open();
            assert_eq!(opened.is_ok(), current, "{opened:?}");
        }
    });
}

/// The guards of an open file apply to every mode.
#[test]
fn a53_a_file_is_opened_once_in_a_process_however() {
    within(HANG, || {
        let dir = Dir::new();
        let file = dir.file("app.db");
        drop(database(dir.path(), "WAL"));
        symlink("app.db", dir.file("link.db")).expect("a link");
        for first in MODES {
            let db = first.builder(&file).blocking_open().expect("opens");
            for second in MODES {
                let error = second.builder(&dir.file("link.db")).blocking_open();
                assert_eq!(kind(error), ErrorKind::AlreadyOpen, "{first:?}, {second:?}");
            }
            db.blocking_close().expect("closes");
        }
        let url = Database::builder("file:app.db?mode=ro").read_only(true).blocking_open();
        assert_eq!(kind(url), ErrorKind::Open);
        let db = Immutable
            .builder(&file)
            .network_files(NetworkFiles::Refuse)
            .blocking_open()
            .expect("opens");
        assert_eq!(ids(&db), [1]);
        db.blocking_close().expect("closes");
    });
}

/// An immutable file is opened by a URI, so its path may hold characters that have a meaning in a URI.
#[test]
fn a53_an_immutable_file_may_have_any_name() {
    within(HANG, || {
        for name in ["a b.db", "a?mode=rwc", "a#b", "100%41.db", "é&x=1.db", "a'\"b"] {
            let dir = Dir::new();
            drop(database(dir.path(), "DELETE"));
            fs::rename(dir.file("app.db"), dir.file(name)).expect("a rename");
            let db = Immutable.builder(&dir.file(name)).blocking_open();
            let db = db.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(ids(&db), [1], "{name}");
            db.blocking_close().expect("closes");
            assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "{name}");
        }
    });
}
