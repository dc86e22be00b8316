//! Schema versions: other connections see only whole versions, also after failures and beside other processes.

use std::path::Path;
use std::sync::{Arc, Mutex};

use lockkeeper::{Database, ErrorKind, Migrations, Snapshot};
use rusqlite::{Connection, MAIN_DB};

use crate::crash::{Process, say};
use crate::support::{Dir, HANG, PLACES, kind, within};

const ID: i32 = i32::from_be_bytes(*b"test");

/// Two steps, of which the second has two statements.
fn two_steps() -> Migrations {
    Migrations::new(ID)
        .sql("a", "CREATE TABLE a (id INTEGER PRIMARY KEY) STRICT; INSERT INTO a VALUES (1)")
        .sql(
            "b",
            "CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a) STRICT; CREATE TABLE c (x)",
        )
}

fn version(conn: &Connection) -> (i32, i32) {
    let number = |name: &str| conn.pragma_query_value(None, name, |row| row.get(0));
    (number("application_id").expect("an id"), number("user_version").expect("a version"))
}

fn tables(conn: &Connection) -> Vec<String> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let mut names = conn.prepare(sql).expect("a statement");
    let names = names.query_map([], |row| row.get(0)).expect("rows");
    names.collect::<rusqlite::Result<_>>().expect("names")
}

#[test]
fn b02_readers_are_opened_on_the_latest_schema() {
    within(HANG, || {
        for place in PLACES {
            let dir = Dir::new();
            let seen = Arc::new(Mutex::new(Vec::new()));
            let by_readers = Arc::clone(&seen);
            let db = dir
                .builder(place)
                .migrations(two_steps())
                .setup(move |conn| {
                    if conn.is_readonly(MAIN_DB)? {
                        by_readers.lock().expect("no panic").push(version(conn));
                    }
                    Ok(())
                })
                .blocking_open()
                .expect("opens");
            let count = db.blocking_read(|s| {
                s.query_row("SELECT count(*) FROM b", [], |row| row.get::<_, i64>(0))
            });
            assert_eq!(count.ok(), Some(0));
            // Foreign keys are enforced again after the migration.
            let orphan = db.blocking_write(|tx| tx.execute("INSERT INTO b VALUES (1, 7)", []));
            assert!(orphan.is_err(), "an orphan was stored");
            db.blocking_close().expect("closes");
            let seen = seen.lock().expect("no panic");
            assert!(seen.iter().all(|&version| version == (ID, 2)), "{place:?}: {seen:?}");
            assert!(!seen.is_empty() || place == crate::support::Place::Memory);
        }
    });
}

/// What another connection sees while a step is half done, and what is left when the step has failed.
#[test]
fn b02_a_step_is_seen_whole_or_not_at_all() {
    within(HANG, || {
        let dir = Dir::new();
        let file = dir.file("test.db");
        let outside = file.clone();
        let failing = two_steps().step("fails half-way", move |tx| {
            tx.execute_batch("CREATE TABLE half (x); DROP TABLE c")?;
            let other = Connection::open(&outside)?;
            assert_eq!(version(&other), (ID, 2));
            assert_eq!(tables(&other), ["a", "b", "c"]);
            tx.execute("INSERT INTO nowhere VALUES (1)", []).map(drop)
        });
        let error = Database::builder(&file).migrations(failing).blocking_open();
        let error = error.expect_err("a step fails");
        assert_eq!(error.kind(), ErrorKind::Migration);
        let said = error.to_string();
        assert!(said.contains("step 3 (`fails half-way`)") && said.contains("nowhere"), "{said}");
        let panicking = two_steps().step("panics", |_| panic!("on purpose"));
        let error = Database::builder(&file).migrations(panicking).blocking_open();
        let error = error.expect_err("a step panics");
        assert_eq!(error.kind(), ErrorKind::Migration);
        assert!(error.to_string().contains("on purpose"), "{error}");

        let whole = two_steps().sql("c goes", "DROP TABLE c");
        let db = Database::builder(&file).migrations(whole.clone()).blocking_open().expect("opens");
        db.blocking_close().expect("closes");
        let other = Connection::open(&file).expect("opens");
        assert_eq!((version(&other), tables(&other).len()), ((ID, 3), 2));
        drop(other);
        let db = Database::builder(&file).migrations(whole).blocking_open().expect("opens again");
        db.blocking_close().expect("closes");
    });
}

#[test]
fn b02_newer_and_foreign_files_are_refused_by_name_and_left_alone() {
    let dir = Dir::new();
    for (name, id, version, expected, word) in [
        ("newer.db", ID, 3, ErrorKind::NewerFile, "version 3, this program knows 2"),
        ("other.db", i32::from_be_bytes(*b"else"), 1, ErrorKind::ForeignFile, "\"else\""),
        ("unmarked.db", 0, 1, ErrorKind::ForeignFile, "adopt_unmarked"),
        ("negative.db", ID, -1, ErrorKind::NewerFile, "version -1"),
    ] {
        let file = dir.file(name);
        let conn = Connection::open(&file).expect("opens");
        conn.execute_batch(&format!(
            "CREATE TABLE a (x); PRAGMA application_id = {id}; PRAGMA user_version = {version}"
        ))
        .expect("a file");
        drop(conn);
        let before = std::fs::read(&file).expect("bytes");
        let error = Database::builder(&file).migrations(two_steps()).blocking_open();
        let error = error.expect_err(name);
        assert_eq!(error.kind(), expected, "{name}: {error}");
        let said = error.to_string();
        assert!(said.contains(name) && said.contains(word), "{said}");
        // Not even the journal mode was changed, which is stored in the header.
        assert!(std::fs::read(&file).expect("bytes") == before, "{name} was changed");
    }
    let zero = Database::builder(":memory:").migrations(Migrations::new(0)).blocking_open();
    assert_eq!(kind(zero), ErrorKind::Config);
}

/// `rusqlite_migration` counts its steps in `user_version` and leaves the application id alone.
#[test]
fn b02_files_of_rusqlite_migration_are_adopted() {
    let dir = Dir::new();
    let file = dir.file("test.db");
    let conn = Connection::open(&file).expect("opens");
    conn.execute_batch("CREATE TABLE a (id INTEGER PRIMARY KEY) STRICT; PRAGMA user_version = 1")
        .expect("a file");
    drop(conn);
    let db = Database::builder(&file).migrations(two_steps().adopt_unmarked()).blocking_open();
    db.expect("opens").blocking_close().expect("closes");
    let conn = Connection::open(&file).expect("opens");
    assert_eq!((version(&conn), tables(&conn).len()), ((ID, 2), 3));
    drop(conn);
    // The file is marked with the application id now.
    let db = Database::builder(&file).migrations(two_steps()).blocking_open();
    db.expect("opens").blocking_close().expect("closes");
}

/// A file as another crate leaves it, with two of three steps applied, and a function that returns how many steps the
/// file has seen.
struct Foreign {
    name: &'static str,
    sql: &'static str,
    seen: fn(&Snapshot) -> rusqlite::Result<Option<u32>>,
}

const FOREIGN: [Foreign; 4] = [
    Foreign {
        name: "sqlx",
        sql: "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, success BOOLEAN NOT NULL);
              INSERT INTO _sqlx_migrations VALUES (20240101, TRUE), (20240202, TRUE), (20240303, FALSE)",
        seen: |file| {
            let sql = "SELECT count(*) FROM _sqlx_migrations WHERE success";
            file.query_row(sql, [], |row| row.get(0)).map(Some)
        },
    },
    Foreign {
        name: "refinery",
        sql: "CREATE TABLE refinery_schema_history (version INTEGER PRIMARY KEY, name TEXT);
              INSERT INTO refinery_schema_history VALUES (1, 'a'), (2, 'b')",
        seen: |file| {
            let sql = "SELECT max(version) FROM refinery_schema_history";
            file.query_row(sql, [], |row| row.get(0))
        },
    },
    Foreign {
        name: "rusqlite_migration, whose numbers are others",
        sql: "PRAGMA user_version = 12",
        seen: |file| {
            let version: u32 = file.pragma_query_value(None, "user_version", |row| row.get(0))?;
            Ok(version.checked_sub(10))
        },
    },
    Foreign {
        name: "a program of its own",
        sql: "CREATE TABLE meta (key TEXT, value TEXT); INSERT INTO meta VALUES ('schema', '2')",
        seen: |file| {
            if !file.table_exists(None, "meta")? {
                return Ok(None);
            }
            let sql = "SELECT value FROM meta WHERE key = 'schema'";
            let text: String = file.query_row(sql, [], |row| row.get(0))?;
            Ok(text.parse().ok())
        },
    },
];

/// Makes a file in this journal mode with the tables of the first two steps, as another program would.
fn foreign_file(file: &Path, mode: &str, sql: &str) {
    let conn = Connection::open(file).expect("opens");
    conn.pragma_update(None, "journal_mode", mode).expect("a mode");
    conn.execute_batch(sql).expect("marks");
    let steps = "CREATE TABLE a (id INTEGER PRIMARY KEY) STRICT; INSERT INTO a VALUES (1);
         CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a) STRICT; CREATE TABLE c (x)";
    conn.execute_batch(steps).expect("tables");
}

#[test]
fn b02_files_that_others_have_migrated_are_adopted_as_the_caller_says() {
    within(HANG, || {
        for mode in ["DELETE", "WAL"] {
            for Foreign { name, sql, seen } in FOREIGN {
                let dir = Dir::new();
                let file = dir.file("test.db");
                foreign_file(&file, mode, sql);
                let asked = Arc::new(Mutex::new(0));
                let count = Arc::clone(&asked);
                let migrations =
                    two_steps().sql("d", "CREATE TABLE d (x)").adopt_with(move |file| {
                        *count.lock().expect("no panic") += 1;
                        seen(file)
                    });
                let open =
                    || Database::builder(&file).migrations(migrations.clone()).blocking_open();
                let db = open().unwrap_or_else(|error| panic!("{name}: {error}"));
                let rows = db.blocking_read(|s| {
                    s.query_row("SELECT count(*) FROM a, (SELECT count(*) FROM d)", [], |row| {
                        row.get(0)
                    })
                });
                assert_eq!(rows.ok(), Some(1), "{name}: the first steps did not run again");
                db.blocking_close().expect("closes");
                assert_eq!(version(&Connection::open(&file).expect("opens")), (ID, 3), "{name}");
                // The file is marked now, so the function is not called again.
                let before = *asked.lock().expect("no panic");
                open().expect("opens").blocking_close().expect("closes");
                assert_eq!(
                    (*asked.lock().expect("no panic"), before > 0),
                    (before, true),
                    "{name}"
                );
            }
        }
    });
}

#[test]
fn b02_a_file_without_tables_is_not_asked_about() {
    let migrations = two_steps().adopt_with(|_| panic!("nothing is there to be adopted"));
    for place in PLACES {
        let dir = Dir::new();
        let db = dir.builder(place).migrations(migrations.clone()).blocking_open().expect("opens");
        db.blocking_close().expect("closes");
    }
}

#[test]
fn b02_a_file_that_is_not_adopted_is_left_alone() {
    type Judge = fn(&Snapshot) -> rusqlite::Result<Option<u32>>;
    let judges: [(ErrorKind, &str, Judge); 7] = [
        (ErrorKind::ForeignFile, "no file of this program", |_| Ok(None)),
        (ErrorKind::NewerFile, "version 3, this program knows 2", |_| Ok(Some(3))),
        (ErrorKind::Migration, "no such table: nowhere", |file| {
            file.query_row("SELECT 1 FROM nowhere", [], |row| row.get(0)).map(Some)
        }),
        (ErrorKind::Migration, "on purpose", |_| panic!("on purpose")),
        (ErrorKind::Migration, "a write in a read", |file| {
            file.query_row("INSERT INTO a VALUES (2) RETURNING 1", [], |row| row.get(0)).map(Some)
        }),
        (ErrorKind::Migration, "not allowed", |file| {
            file.query_row("PRAGMA journal_mode = PERSIST", [], |_| Ok(Some(1)))
        }),
        (ErrorKind::Migration, "not allowed", |file| {
            file.prepare("COMMIT")?.exists([]).map(|_| Some(1))
        }),
    ];
    for mode in ["DELETE", "WAL"] {
        for (expected, word, judge) in judges {
            let dir = Dir::new();
            let file = dir.file("test.db");
            foreign_file(&file, mode, "");
            let before = std::fs::read(&file).expect("bytes");
            let opened =
                Database::builder(&file).migrations(two_steps().adopt_with(judge)).blocking_open();
            let error = opened.expect_err(word);
            assert_eq!(error.kind(), expected, "{error}");
            let said = error.to_string();
            assert!(said.contains("test.db") && said.contains(word), "{said}");
            assert!(std::fs::read(&file).expect("bytes") == before, "{word}: it was changed");
            let names = std::fs::read_dir(dir.path()).expect("a directory").count();
            assert_eq!(names, 1, "{word}: something is left beside it");
        }
    }
}

#[test]
fn b02_validate_finds_what_would_fail_when_a_file_is_opened() {
    two_steps().validate().expect("they apply");
    Migrations::new(ID).validate().expect("no steps are no fault");
    for (migrations, expected, word) in [
        (Migrations::new(0).sql("a", "SELECT 1"), ErrorKind::Config, "application id"),
        (
            two_steps().sql(" ", "SELECT 1"),
            ErrorKind::Config,
            "step 3 of the migrations has no name",
        ),
        (two_steps().sql("a", "CREATE TABLE d (x)"), ErrorKind::Config, "steps 1 and 3"),
        (
            two_steps().sql("d", "CREATE TABLE a (x)"),
            ErrorKind::Migration,
            "step 3 (`d`) failed: table a already",
        ),
        (two_steps().sql("d", "CREATE TABEL d (x)"), ErrorKind::Migration, "syntax error"),
        (
            two_steps().sql("d", "INSERT INTO b VALUES (1, 7)"),
            ErrorKind::Migration,
            "without its parent",
        ),
        (two_steps().step("d", |_| panic!("on purpose")), ErrorKind::Migration, "on purpose"),
    ] {
        let error = migrations.validate().expect_err(word);
        assert_eq!(error.kind(), expected, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn b02_a_step_can_rebuild_a_table_but_leaves_no_orphan_and_commits_nothing() {
    let rebuild = "INSERT INTO b VALUES (1, 1);
         CREATE TABLE new_a (id INTEGER PRIMARY KEY, more TEXT) STRICT;
         INSERT INTO new_a (id) SELECT id FROM a; DROP TABLE a; ALTER TABLE new_a RENAME TO a";
    for place in PLACES {
        let dir = Dir::new();
        let open = |migrations| dir.builder(place).migrations(migrations).blocking_open();
        let rebuilt = two_steps().sql("rebuild", rebuild);
        open(rebuilt.clone()).expect("opens").blocking_close().expect("closes");
        for (sql, word) in [
            ("DELETE FROM a; INSERT INTO b VALUES (2, 1)", "leaves the row"),
            ("INSERT INTO a (id) VALUES (2); COMMIT", "not allowed"),
            ("ROLLBACK", "not allowed"),
            ("INSERT OR ROLLBACK INTO a (id) VALUES (1)", "UNIQUE"),
        ] {
            let error = open(rebuilt.clone().sql("bad", sql)).expect_err(sql);
            assert_eq!(error.kind(), ErrorKind::Migration, "{sql}: {error}");
            assert!(error.to_string().contains(word), "{sql}: {error}");
        }
        let db = open(rebuilt).expect("opens");
        let rows = db.blocking_read(|s| {
            s.query_row("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
        });
        assert_eq!(rows.ok(), Some((1, 1)), "{place:?}");
        db.blocking_close().expect("closes");
    }
}

/// Steps that record each of their runs.
fn counted() -> Migrations {
    let first = "CREATE TABLE ran (step INTEGER NOT NULL) STRICT; INSERT INTO ran VALUES (1)";
    let all = (2..=20).fold(Migrations::new(ID).sql("1", first), |migrations, n| {
        migrations
            .step(n.to_string(), move |tx| tx.execute("INSERT INTO ran VALUES (?1)", [n]).map(drop))
    });
    all.adopt_with(|file| {
        file.query_row("SELECT count(*) FROM ran", [], |row| row.get(0)).map(Some)
    })
}

/// The work of a child process (`crash.rs`).
pub(crate) fn child(file: &Path) {
    say("ready\n");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent speaks");
    let db = Database::builder(file).migrations(counted()).blocking_open().expect("opens");
    db.blocking_close().expect("closes");
    say("migrated\n");
}

#[test]
fn b02_processes_that_start_at_once_run_each_step_once() {
    within(HANG, || {
        for made in [0, 0, 1, 1, 7] {
            let dir = Dir::new();
            let file = dir.file("test.db");
            if made > 0 {
                // Another program has migrated the file. All children adopt it at the same time.
                let conn = Connection::open(&file).expect("opens");
                conn.execute_batch("CREATE TABLE ran (step INTEGER NOT NULL) STRICT")
                    .expect("a table");
                for step in 1..=made {
                    conn.execute("INSERT INTO ran VALUES (?1)", [step]).expect("a row");
                }
            }
            let mut children = [(); 4].map(|()| Process::start("migrate", &file));
            children.iter_mut().for_each(|child| child.wait_for("ready"));
            children.iter_mut().for_each(Process::go);
            children.iter_mut().for_each(|child| child.wait_for("migrated"));
            let conn = Connection::open(&file).expect("opens");
            assert_eq!(version(&conn), (ID, 20));
            let counts =
                conn.query_row("SELECT count(*), count(DISTINCT step) FROM ran", [], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                });
            assert_eq!(counts.ok(), Some((20, 20)));
        }
    });
}
