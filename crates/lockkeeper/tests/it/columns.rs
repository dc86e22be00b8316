//! A statement has the columns of the current schema, also before it runs (promise A44).

use lockkeeper::{Database, Snapshot, Transaction};

use crate::support::{Dir, HANG, PLACES, Place, block_on, within_each};

/// How a statement is prepared.
#[derive(Clone, Copy, Debug)]
enum Prepared {
    Cached,
    Plain,
}

/// The names of the columns, asked in several ways before the first row, and the number of values in the first row.
fn columns(s: &Snapshot, sql: &str, how: Prepared) -> rusqlite::Result<(String, usize)> {
    let mut statement = match how {
        Prepared::Cached => s.prepare_cached(sql)?,
        Prepared::Plain => s.prepare(sql)?,
    };
    let names = statement.column_names().join(" ");
    let count = statement.column_count();
    assert_eq!(names.split(' ').count(), count);
    let mut rows = statement.query([])?;
    let seen = rows.as_ref().map(rusqlite::Statement::column_count);
    assert_eq!(seen, Some(count), "a statement whose rows are not fetched yet");
    let mut values = 0;
    if let Some(row) = rows.next()? {
        for column in 0..count {
            row.get_ref(column)?;
            values += 1;
        }
    }
    Ok((names, values))
}

/// Asks for the columns in every kind of call: a write, a read, a short read, a snapshot, a lease.
fn everywhere(db: &Database, sql: &'static str) -> Vec<(String, usize)> {
    let mut all = Vec::new();
    for how in [Prepared::Cached, Prepared::Plain] {
        let look = move |s: &Snapshot| columns(s, sql, how);
        all.push(db.blocking_write(move |tx| look(tx)).expect("the writer"));
        all.push(db.blocking_read(look).expect("a reader"));
        all.push(block_on(db.read(look).short()).expect("a short read"));
        let snapshot = block_on(db.snapshot()).expect("a snapshot");
        all.push(snapshot.blocking_read(look).expect("a snapshot"));
        let mut lease = block_on(db.lease()).expect("a lease");
        all.push(lease.blocking_run(move |tx| look(tx)).expect("a lease"));
    }
    all
}

/// Statements that change the columns of `SELECT * FROM t`, and the columns afterwards.
const CHANGES: [(&str, &str); 6] = [
    ("ALTER TABLE t ADD COLUMN b", "a b"),
    ("ALTER TABLE t RENAME COLUMN a TO c", "c b"),
    ("ALTER TABLE t DROP COLUMN b", "c"),
    ("DROP TABLE t; CREATE TABLE t (x, y, z); INSERT INTO t VALUES (1, 2, 3)", "x y z"),
    ("DROP TABLE t; CREATE VIEW t AS SELECT 1 AS one, 2 AS two", "one two"),
    ("DROP VIEW t; CREATE TABLE t (A); INSERT INTO t VALUES (1)", "A"),
];

/// How the schema is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Write,
    Exclusive,
    AnotherProgram,
}

fn change(db: &Database, dir: &Dir, by: By, sql: &'static str) {
    match by {
        By::Write => db.blocking_write(move |tx| tx.execute_batch(sql)).expect("altered"),
        By::Exclusive => {
            db.blocking_exclusive(move |conn| conn.execute_batch(sql)).expect("altered");
        }
        By::AnotherProgram => {
            let conn = rusqlite::Connection::open(dir.file("test.db")).expect("another connection");
            conn.busy_timeout(HANG).expect("a busy timeout");
            conn.execute_batch(sql).expect("altered");
        }
    }
}

#[test]
fn a44_the_columns_of_a_statement_are_those_of_todays_schema() {
    within_each(HANG, |place| {
        for by in [By::Write, By::Exclusive, By::AnotherProgram] {
            if place == Place::Memory && by == By::AnotherProgram {
                continue;
            }
            let dir = Dir::new();
            let db = dir.builder(place).readers(1).readers_max(1).blocking_open().expect("opens");
            db.blocking_write(|tx| {
                tx.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
            })
            .expect("a table");
            everywhere(&db, "SELECT * FROM t");
            for (sql, names) in CHANGES {
                change(&db, &dir, by, sql);
                for (seen, values) in everywhere(&db, "SELECT * FROM t") {
                    let expected = (names, names.split(' ').count());
                    assert_eq!((&*seen, values), expected, "`{sql}` by {by:?} on {place:?}");
                }
            }
            db.blocking_close().expect("closes");
        }
    });
}

/// Changes inside one call, also in a part of the call that is undone.
#[test]
fn a44_a_call_that_alters_a_table_sees_its_columns() {
    for place in PLACES {
        let dir = Dir::new();
        let db = dir.builder(place).blocking_open().expect("opens");
        db.blocking_write(|tx| tx.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)"))
            .expect("a table");
        let look = |tx: &Transaction| columns(tx, "SELECT * FROM t", Prepared::Cached);
        db.blocking_write(move |tx| {
            assert_eq!(look(tx)?.0, "a");
            let mut alter = tx.prepare("ALTER TABLE t ADD COLUMN b")?;
            assert_eq!(look(tx)?.0, "a", "prepared, not run");
            alter.execute([])?;
            assert_eq!(look(tx)?.0, "a b");
            let undone = tx.savepoint(|tx| {
                tx.execute("ALTER TABLE t ADD COLUMN c", [])?;
                assert_eq!(look(tx)?.0, "a b c");
                Err::<(), _>(rusqlite::Error::InvalidQuery)
            });
            assert!(undone.is_err());
            assert_eq!(look(tx)?.0, "a b", "undone");
            tx.execute_batch("CREATE TEMP TABLE t (x, y, z)")?;
            assert_eq!(look(tx)?.0, "x y z", "hidden by a temporary table");
            Ok(())
        })
        .expect("a write");
        assert_eq!(db.blocking_write(look).expect("a write").0, "a b");
        // A failed call changes neither the table nor the statements in the cache.
        let failed = db.blocking_write(move |tx| {
            tx.execute("ALTER TABLE t DROP COLUMN b", [])?;
            assert_eq!(look(tx)?.0, "a");
            Err::<(), _>(rusqlite::Error::InvalidQuery)
        });
        assert!(failed.is_err());
        assert_eq!(db.blocking_write(look).expect("a write").0, "a b", "{place:?}");
        db.blocking_close().expect("closes");
    }
}

/// A file that `setup` attached has its own schema.
#[test]
fn a44_the_columns_of_an_attached_table_are_those_of_today() {
    within_each(HANG, |place| {
        let dir = Dir::new();
        let side = dir.file("side.db");
        let other = rusqlite::Connection::open(&side).expect("the side file");
        other.execute_batch("CREATE TABLE s (a); INSERT INTO s VALUES (1)").expect("a table");
        let db = dir
            .builder(place)
            .setup(move |conn| conn.execute("ATTACH ?1 AS side", [side.to_str()]).map(drop))
            .blocking_open()
            .expect("opens");
        everywhere(&db, "SELECT * FROM side.s");
        other.execute_batch("ALTER TABLE s ADD COLUMN b").expect("altered by another program");
        for (seen, values) in everywhere(&db, "SELECT * FROM side.s") {
            assert_eq!((&*seen, values), ("a b", 2), "{place:?}");
        }
        db.blocking_close().expect("closes");
    });
}
