//! The check of a copy whose schema uses functions and collations of the program's own (B1).

use std::path::Path;

use lockkeeper::{Database, ErrorKind, Restore};
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

use crate::support::{Dir, HANG, within};

/// Schemas that use the function `twice`, or a collation that no connection knows. Each makes a table `t`.
const SCHEMAS: [(&str, &str); 10] = [
    ("a generated column", "CREATE TABLE t (x, y AS (twice(x)) STORED)"),
    (
        "a virtual column with an index",
        "CREATE TABLE t (x, y AS (twice(x))); CREATE INDEX i ON t (y)",
    ),
    ("an index of an expression", INDEX),
    ("a partial index", "CREATE TABLE t (x); CREATE INDEX i ON t (x) WHERE twice(x) > 3"),
    ("a check", "CREATE TABLE t (x CHECK (twice(x) > 0))"),
    (
        "a default and a trigger",
        "CREATE TABLE t (x, y DEFAULT (twice(4)));
         CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT twice(1); END",
    ),
    ("an index by a collation", "CREATE TABLE t (x); CREATE INDEX i ON t (x COLLATE nocase)"),
    ("a column of a collation", "CREATE TABLE t (x COLLATE nocase UNIQUE)"),
    ("keys by a collation", "CREATE TABLE t (x COLLATE nocase PRIMARY KEY) WITHOUT ROWID"),
    ("a view", "CREATE TABLE t (x); CREATE VIEW v AS SELECT twice(x) FROM t"),
];

const INDEX: &str = "CREATE TABLE t (x); CREATE INDEX i ON t (twice(x))";

fn define(conn: &Connection) -> rusqlite::Result<()> {
    multiply(conn, 2)
}

/// Defines a function with the same name that computes something else.
fn define_wrongly(conn: &Connection) -> rusqlite::Result<()> {
    multiply(conn, 3)
}

fn multiply(conn: &Connection, by: i64) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    conn.create_scalar_function("twice", 1, flags, move |context| Ok(by * context.get::<i64>(0)?))
}

fn open(file: &Path) -> Database {
    Database::builder(file).setup(define).blocking_open().expect("opens")
}

fn filled(dir: &Dir, schema: &'static str) -> Database {
    let db = open(&dir.file("test.db"));
    db.blocking_write(|tx| {
        tx.execute_batch(schema)?;
        tx.execute_batch("INSERT INTO t (x) VALUES (1), (2), (3)")
    })
    .expect("rows");
    // Renames the collation in the schema. So it looks as if the program that defined it no longer existed.
    db.blocking_exclusive(|conn| {
        let rename = "UPDATE sqlite_schema SET sql = replace(sql, 'nocase', 'unknown')";
        conn.execute_batch("PRAGMA writable_schema = ON")?;
        conn.execute(rename, [])?;
        conn.execute_batch("PRAGMA writable_schema = RESET")
    })
    .expect("a schema");
    db
}

/// Checks that all rows are in the copy, as far as they can be read without the unknown collation.
fn check_copy(file: &Path, name: &str) {
    let conn = Connection::open(file).expect("opens");
    define(&conn).expect("defined");
    let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).expect(name);
    match name {
        "keys by a collation" => assert_eq!(number("SELECT count(*) FROM sqlite_schema"), 1),
        _ => assert_eq!(number("SELECT count(*) FROM t NOT INDEXED"), 3, "{name}"),
    }
}

#[test]
fn b01_a_database_that_uses_functions_of_the_program_can_be_copied() {
    within(HANG, || {
        for (name, schema) in SCHEMAS {
            let dir = Dir::new();
            let (copy, second) = (dir.file("copy.db"), dir.file("second.db"));
            let db = filled(&dir, schema);
            db.backup(&copy).blocking_run().unwrap_or_else(|error| panic!("{name}: {error}"));
            db.blocking_close().expect("closes");
            let plain = Restore::new(&copy, &second).blocking_run();
            plain.unwrap_or_else(|error| panic!("{name}: {error}"));
            let whole = Restore::new(&copy, &second).setup(define).blocking_run();
            whole.unwrap_or_else(|error| panic!("{name}: {error}"));
            // This database has no `setup`, so it knows neither the function nor the collation.
            let db = Database::blocking_open(&second).expect("opens");
            db.backup(&copy).blocking_run().unwrap_or_else(|error| panic!("{name}: {error}"));
            db.blocking_close().expect("closes");
            check_copy(&copy, name);
            check_copy(&second, name);
        }
    });
}

/// The index was built with another function than the one that `setup` defines now, so the check must find it damaged.
#[test]
fn b01_a_copy_is_checked_with_what_setup_gives() {
    within(HANG, || {
        let dir = Dir::new();
        let db = filled(&dir, INDEX);
        db.blocking_close().expect("closes");
        let (file, copy) = (dir.file("test.db"), dir.file("copy.db"));
        let db = Database::builder(&file).setup(define_wrongly).blocking_open().expect("opens");
        let error = db.backup(&copy).blocking_run().expect_err("it would be found later");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        db.blocking_close().expect("closes");
        let error = Restore::new(&file, &copy).setup(define_wrongly).blocking_run();
        assert_eq!(error.expect_err("the same").kind(), ErrorKind::Corrupt);
        assert!(!copy.exists());
        let error = Restore::new(&file, &copy)
            .setup(|_| Err(rusqlite::Error::InvalidQuery))
            .blocking_run()
            .expect_err("it is not checked");
        assert_eq!(error.kind(), ErrorKind::Backup);
        assert!(error.to_string().contains("cannot be checked"), "{error}");
    });
}

/// If the database cannot be checked as a whole, each table is checked by itself.
#[test]
fn b01_damage_is_found_beside_what_cannot_be_checked() {
    within(HANG, || {
        for (name, schema) in SCHEMAS {
            let dir = Dir::new();
            let db = filled(&dir, schema);
            db.blocking_write(|tx| {
                tx.execute_batch("CREATE TABLE plain (x); CREATE INDEX of_plain ON plain (x)")?;
                for i in 0..2000 {
                    tx.execute("INSERT INTO plain VALUES (?1 || 'and some more text')", [i])?;
                }
                Ok(())
            })
            .expect("rows");
            db.blocking_close().expect("closes");
            let file = dir.file("test.db");
            let mut bytes = std::fs::read(&file).expect("bytes");
            let middle = bytes.len() / 2 / 4096 * 4096;
            bytes[middle..middle + 4096].fill(0x55);
            std::fs::write(&file, bytes).expect("a file");
            let error = Restore::new(&file, dir.file("copy.db")).blocking_run().expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
            let db = open(&file);
            let error = db.backup(dir.file("copy.db")).blocking_run().expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
            db.blocking_close().expect("closes");
            assert!(!dir.file("copy.db").exists(), "{name}");
        }
    });
}
