//! Cases in which one call of a batch once harmed another, each in a test of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use lockkeeper::{Database, ErrorKind, Executor, Transaction};

use crate::support::{
    HANG, HeldWriter, block_on, count, db_at, ids, insert, kind, poll_once, within_each,
};

/// Makes a database whose calls share one batch, with a table `child` whose rows refer to rows of `t`.
fn check(f: impl Fn(&Database) + Clone + Send + 'static) {
    within_each(HANG, move |place| {
        let (_dir, db) = db_at(place, |builder| {
            builder.readers(1).batch_max(1024, std::time::Duration::from_secs(60), u64::MAX)
        });
        let child = "CREATE TABLE child (t INTEGER REFERENCES t (id)) STRICT";
        db.blocking_write(move |tx| tx.execute_batch(child)).expect("the table is made");
        f(&db);
        db.blocking_close().expect("the database closes");
    });
}

/// Submits a call that will share the next batch.
macro_rules! queue {
    ($call:expr) => {{
        let mut call = $call;
        assert!(poll_once(&mut call).is_pending(), "the writer is held");
        call
    }};
}

/// If there is a row 1, the statement fails and rolls the whole transaction back.
fn insert_or_rollback(tx: &Transaction) -> rusqlite::Result<()> {
    tx.execute("INSERT OR ROLLBACK INTO t (id, v) VALUES (1, 1)", []).map(drop)
}

#[test]
fn a06_a_call_may_write_after_a_pragma_expired_every_prepared_statement() {
    check(|db| {
        let held = HeldWriter::hold(db);
        let first = queue!(db.write(|tx| insert(tx, 1)));
        // The PRAGMA expires the library's savepoint statements. SQLite prepares them again, which the authorizer
        // denies to calls.
        let second = queue!(db.write(|tx| {
            tx.execute_batch("PRAGMA defer_foreign_keys = ON")?;
            tx.savepoint(|tx| insert(tx, 2))
        }));
        held.release();
        block_on(first).expect("it is stored");
        block_on(second).expect("it is stored");
        assert_eq!(ids(db), [1, 2]);
    });
}

#[test]
fn a06_deferred_keys_end_with_the_call_that_deferred_them_and_lost_everything() {
    check(|db| {
        let orphan = |tx: &Transaction| {
            // This statement stays in the cache. It was compiled while foreign keys are deferred.
            tx.execute("INSERT INTO child (t) VALUES (7)", []).map(drop)
        };
        let lost = db.blocking_write(move |tx| {
            tx.execute_batch("PRAGMA defer_foreign_keys = ON")?;
            orphan(tx)?;
            insert(tx, 1)?;
            insert_or_rollback(tx)
        });
        assert_eq!(kind(lost), ErrorKind::Call);
        let forgiving = db.blocking_write(move |tx| Ok(orphan(tx).is_err()));
        assert!(forgiving.expect("the call itself is fine"), "the key is checked at once");
        let orphans = db.blocking_read(|s| {
            s.query_row("SELECT count(*) FROM child", [], |row| row.get::<_, i64>(0))
        });
        assert_eq!(orphans.expect("a read"), 0);
    });
}

#[test]
fn a06_a_row_refused_for_one_key_leaves_no_other_key_violated_for_the_next_call() {
    check(|db| {
        // SQLite counts the violation of the deferred key, then refuses the row because of the other key, and does not
        // uncount the violation.
        let both = "CREATE TABLE both (
            now INTEGER REFERENCES t (id), late INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED
        ) STRICT";
        db.blocking_write(move |tx| tx.execute_batch(both)).expect("the table is made");
        let refused = |tx: &Transaction| tx.execute("INSERT INTO both VALUES (8, 9)", []);
        let held = HeldWriter::hold(db);
        let forgiving = queue!(db.write(move |tx| Ok(refused(tx).is_err())));
        let first = queue!(db.write(|tx| insert(tx, 1)));
        let failing = queue!(db.write(refused));
        let second = queue!(db.write(|tx| insert(tx, 2)));
        held.release();
        // Also without neighbours this call would fail, at its COMMIT.
        assert_eq!(kind(block_on(forgiving)), ErrorKind::ForeignKey);
        assert_eq!(kind(block_on(failing)), ErrorKind::Call);
        block_on(first).expect("a neighbour is stored");
        block_on(second).expect("a neighbour is stored");
        assert_eq!(ids(db), [1, 2]);
    });
}

#[test]
fn a06_rows_fetched_after_their_transaction_was_lost_are_not_stored() {
    check(|db| {
        db.blocking_write(|tx| insert(tx, 1)).expect("it is stored");
        let result = db.blocking_write(|tx| {
            let mut statement = tx.prepare("INSERT INTO t (id, v) VALUES (2, 2) RETURNING id")?;
            let mut rows = statement.query([])?;
            let _ = insert_or_rollback(tx);
            let _ = rows.next();
            Ok(())
        });
        assert_eq!(kind(result), ErrorKind::RolledBack);
        assert_eq!(ids(db), [1]);
    });
}

#[test]
fn a07_a_failure_on_a_row_that_was_never_stored_is_found_anew() {
    check(|db| {
        let held = HeldWriter::hold(db);
        let once = queue!(db.write_once(|tx| insert(tx, 1)));
        let loses_all = queue!(db.write(insert_or_rollback));
        held.release();
        // The first write does not run again. So the second write finds no row 1 when it runs again, and succeeds.
        assert_eq!(kind(block_on(once)), ErrorKind::NotApplied);
        block_on(loses_all).expect("nothing stands in its way");
        assert_eq!(ids(db), [1]);
    });
}

#[test]
fn a07_a_write_once_keeps_its_failure_when_the_row_it_met_is_stored() {
    check(|db| {
        let held = HeldWriter::hold(db);
        let first = queue!(db.write(|tx| insert(tx, 1)));
        let loses_all = queue!(db.write_once(insert_or_rollback));
        held.release();
        block_on(first).expect("it is stored");
        assert_eq!(kind(block_on(loses_all)), ErrorKind::Call);
        assert_eq!(ids(db), [1]);
    });
}

#[test]
fn a07_a_write_once_that_only_looked_is_not_touched_by_a_loss() {
    check(|db| {
        let held = HeldWriter::hold(db);
        let looks = queue!(db.write_once(|tx| {
            tx.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
        }));
        let first = queue!(db.write(|tx| insert(tx, 1)));
        let loses_all = queue!(db.write(insert_or_rollback));
        held.release();
        assert_eq!(block_on(looks).expect("it saw what is stored"), 0);
        block_on(first).expect("it is stored");
        assert_eq!(kind(block_on(loses_all)), ErrorKind::Call);
    });
}

#[test]
fn a21_a_tried_write_panics_with_its_own_payload_also_when_it_is_run_again() {
    check(|db| {
        let held = HeldWriter::hold(db);
        let first = queue!(db.write(|tx| insert(tx, 1)));
        let panics = db
            .try_write(|_: &Transaction| -> rusqlite::Result<()> { std::panic::panic_any(4711) })
            .expect("there is room");
        let loses_all = queue!(db.write(insert_or_rollback));
        held.release();
        block_on(first).expect("it is stored");
        let payload = catch_unwind(AssertUnwindSafe(|| block_on(panics))).expect_err("it panics");
        assert_eq!(payload.downcast_ref::<i32>(), Some(&4711));
        assert_eq!(kind(block_on(loses_all)), ErrorKind::Call);
    });
}

/// For each module: a statement that makes the virtual table `made`, and one that writes to it.
const MODULES: [[&str; 2]; 4] = [
    ["CREATE VIRTUAL TABLE made USING fts5 (body)", "INSERT INTO made (body) VALUES ('word')"],
    ["CREATE VIRTUAL TABLE made USING fts4 (body)", "INSERT INTO made (body) VALUES ('word')"],
    ["CREATE VIRTUAL TABLE made USING rtree (id, a, b)", "INSERT INTO made VALUES (1, 2, 3)"],
    // This case does not write to the table.
    ["CREATE VIRTUAL TABLE made USING fts5 (body)", "SELECT 1"],
];

/// Makes a virtual table and writes to it. Returns an error, so that the caller undoes both.
fn make_and_undo(conn: &impl Executor, sql: [&str; 2]) -> rusqlite::Result<()> {
    conn.execute_batch("INSERT INTO t (id, v) VALUES (2, 2)")?;
    let made = conn.execute_batch(sql[0]).and_then(|()| conn.execute_batch(sql[1]));
    made.and(Err(rusqlite::Error::QueryReturnedNoRows))
}

#[test]
fn a06_a_virtual_table_that_is_undone_is_undone_for_those_that_share_its_batch() {
    check(|db| {
        for sql in MODULES {
            for end in ["a savepoint is undone", "the call fails", "the call panics"] {
                let held = HeldWriter::hold(db);
                let first = queue!(db.write(|tx| insert(tx, 1)));
                let undoes = queue!(db.write(move |tx| match end {
                    "a savepoint is undone" => {
                        tx.savepoint(|tx| make_and_undo(tx, sql)).expect_err("it is undone");
                        Ok(())
                    }
                    "the call fails" => make_and_undo(tx, sql),
                    _ => std::panic::panic_any(make_and_undo(tx, sql)),
                }));
                let makes = queue!(db.write(move |tx| {
                    tx.execute_batch(sql[0])?;
                    tx.execute_batch(sql[1])
                }));
                let last = queue!(db.write(|tx| insert(tx, 3)));
                held.release();
                let case = format!("{sql:?}, {end}");
                let undone = catch_unwind(AssertUnwindSafe(|| block_on(undoes)));
                match end {
                    "a savepoint is undone" => {
                        let told = undone.expect("no panic").is_ok();
                        assert_eq!(told, plain_commits(sql), "{case}: as a plain connection");
                    }
                    "the call fails" => {
                        assert_eq!(kind(undone.expect("no panic")), ErrorKind::Call, "{case}");
                    }
                    _ => assert!(undone.is_err(), "{case}"),
                }
                block_on(first).unwrap_or_else(|error| panic!("{case}: the first: {error}"));
                block_on(last).unwrap_or_else(|error| panic!("{case}: the last: {error}"));
                block_on(makes).unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!(ids(db), [1, 3], "{case}");
                let clear = "DELETE FROM t; DROP TABLE made";
                db.blocking_write(move |tx| tx.execute_batch(clear)).expect("all is there");
            }
        }
    });
}

/// Whether a plain SQLite connection commits a transaction in which a virtual table was made, written to, and undone.
fn plain_commits(sql: [&str; 2]) -> bool {
    let plain = rusqlite::Connection::open_in_memory().expect("a connection");
    let run = |sql: &str| plain.execute_batch(sql);
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER); BEGIN; SAVEPOINT s").expect("it runs");
    make_and_undo(&plain, sql).expect_err("it is undone");
    run("ROLLBACK TO s; RELEASE s").expect("it is undone");
    run("COMMIT").is_ok()
}

/// For each module: the statements that make the table `kept`, and an insert of a text into it. Full-text indexes keep
/// new words in memory and store them when the next savepoint begins.
const WRITES_OF_MODULES: [[&str; 2]; 4] = [
    ["CREATE VIRTUAL TABLE kept USING fts5 (body)", "INSERT INTO kept (body) VALUES (?1)"],
    [
        "CREATE TABLE content (id INTEGER PRIMARY KEY, body TEXT) STRICT;
         CREATE VIRTUAL TABLE kept USING fts5 (body, content = 'content', content_rowid = 'id');
         CREATE TRIGGER content_inserted AFTER INSERT ON content BEGIN
             INSERT INTO kept (rowid, body) VALUES (NEW.id, NEW.body);
         END",
        "INSERT INTO content (body) VALUES (?1)",
    ],
    ["CREATE VIRTUAL TABLE kept USING fts4 (body)", "INSERT INTO kept (body) VALUES (?1)"],
    [
        "CREATE VIRTUAL TABLE kept USING rtree (id, a, b, +body)",
        "INSERT INTO kept (a, b, body) VALUES (1, 2, ?1)",
    ],
];

/// A query that uses the index.
fn search(schema: &str) -> &'static str {
    match schema.contains("fts") {
        true => "SELECT count(*) FROM kept WHERE kept MATCH 'a'",
        false => "SELECT count(*) FROM kept WHERE a = 1",
    }
}

/// Puts `rows` rows into the table with the insert `sql`. Each row has a thousand words, and no word occurs twice.
fn put(tx: &Transaction, sql: &str, rows: usize) -> rusqlite::Result<()> {
    for _ in 0..rows {
        let first: i64 = tx.query_row("SELECT abs(random() / 2)", [], |row| row.get(0))?;
        let words: Vec<String> = (first..first + 1000).map(|word| format!("{word:x}")).collect();
        tx.prepare_cached(sql)?.execute([words.join(" ")])?;
    }
    Ok(())
}

#[test]
fn a06_a_canceled_call_does_not_stop_a_module_from_storing_what_its_neighbours_wrote() {
    check(|db| {
        for [schema, sql] in WRITES_OF_MODULES {
            db.blocking_write(move |tx| tx.execute_batch(schema)).expect("the table is made");
            let search = search(schema);
            for round in 0..count(3, 50) {
                let held = HeldWriter::hold(db);
                let first = queue!(db.write(move |tx| {
                    // The query leaves the index's own statement open for the rest of the transaction.
                    tx.query_row(search, [], |_| Ok(()))?;
                    put(tx, sql, 40)
                }));
                let (writes, is_writing) = mpsc::channel();
                let canceled = queue!(db.write(move |tx| {
                    writes.send(()).expect("the test waits");
                    put(tx, sql, 1)?;
                    // If nothing before has stopped this call, the loop lets it be stopped.
                    loop {
                        tx.query_row("SELECT 1", [], |_| Ok(()))?;
                    }
                    #[expect(unreachable_code, reason = "the closure has a type")]
                    Ok(())
                }));
                let last = queue!(db.write(move |tx| put(tx, sql, 1)));
                held.release();
                // Cancels the second call while its savepoint begins and the module stores what the first call wrote.
                is_writing.recv_timeout(HANG).expect("the call runs");
                drop(canceled);
                let case = format!("{schema}, round {round}");
                block_on(first).unwrap_or_else(|error| panic!("{case}, first: {error:?}"));
                block_on(last).unwrap_or_else(|error| panic!("{case}, last: {error:?}"));
            }
            let check = "SELECT group_concat(integrity_check) FROM pragma_integrity_check";
            let found = db.blocking_read(|s| s.query_row(check, [], |row| row.get::<_, String>(0)));
            assert_eq!(found.expect("it can be read"), "ok", "{schema}");
            let drop = "DROP TABLE kept; DROP TABLE IF EXISTS content";
            db.blocking_write(|tx| tx.execute_batch(drop)).expect("the table is dropped");
        }
    });
}

#[test]
fn a06_a_module_that_cannot_store_what_was_written_fails_the_call_and_no_more() {
    within_each(HANG, |place| {
        for [schema, sql] in WRITES_OF_MODULES {
            let (_dir, db) = db_at(place, |builder| {
                // The limit of pages acts like a full disk, in a memory database too.
                builder.readers(1).setup(|conn| conn.execute_batch("PRAGMA max_page_count = 300"))
            });
            db.blocking_write(move |tx| tx.execute_batch(schema)).expect("the table is made");
            let search = search(schema);
            // Rows that fit into memory but not into the file are refused when the module stores them: when a savepoint
            // begins, or at COMMIT.
            for rows in [20, 60, 200, 20, 60] {
                db.blocking_read(|s| s.query_row(search, [], |_| Ok(()))).expect("it can be read");
                let alone = db.blocking_write(move |tx| {
                    put(tx, sql, rows)?;
                    tx.query_row(search, [], |_| Ok(()))
                });
                let alone = alone.map_err(|error| error.kind());
                assert!(
                    matches!(alone, Ok(()) | Err(ErrorKind::Call | ErrorKind::DiskFull)),
                    "{schema}: {alone:?}"
                );
                let held = HeldWriter::hold(&db);
                let first = queue!(db.write(move |tx| {
                    put(tx, sql, rows)?;
                    tx.query_row(search, [], |_| Ok(()))
                }));
                let second = queue!(db.write(move |tx| put(tx, sql, 100)));
                let last = queue!(db.write(|tx| insert(tx, 1)));
                held.release();
                let _ = block_on(first);
                let full = kind(block_on(second));
                assert!(
                    matches!(full, ErrorKind::Call | ErrorKind::DiskFull),
                    "{schema}: {full:?}"
                );
                block_on(last).unwrap_or_else(|error| panic!("{schema}: {error:?}"));
                assert_eq!(ids(&db), [1], "{schema}");
                db.blocking_write(|tx| tx.execute("DELETE FROM t", [])).expect("there is room");
            }
            db.blocking_close().expect("the database closes");
        }
    });
}
