//! What one call does to its connection does not affect the next call (promise A40): temporary objects, row counts, and
//! whatever an exclusive call sets.

use std::sync::{Arc, Mutex};

use lockkeeper::{Client, Database, ErrorKind, Snapshot, Transaction};
use rusqlite::functions::FunctionFlags;
use rusqlite::hooks::{AuthContext, Authorization};
use rusqlite::limits::Limit;

use crate::support::{
    Dir, HANG, HeldWriter, PLACES, Place, TABLE, block_on, db_at, ids, insert, kind, on_each_place,
    poll_once, within_each,
};

/// The names of the temporary objects on the connection that runs the call.
fn temporary(s: &Snapshot) -> rusqlite::Result<Vec<String>> {
    s.prepare("SELECT name FROM sqlite_temp_schema ORDER BY rowid")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Each text makes a temporary object, some of them with further objects that belong to it.
const TEMPORARY: [&str; 8] = [
    "CREATE TEMP TABLE t AS SELECT * FROM main.t",
    "CREATE TEMP VIEW t AS SELECT 1 AS id, 2 AS v",
    "CREATE TEMP TRIGGER tr BEFORE INSERT ON main.t BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TEMP TABLE x (a UNIQUE); CREATE INDEX temp.xi ON x (a); CREATE TEMP TABLE t (id, v)",
    "CREATE TEMP TABLE x (id INTEGER PRIMARY KEY AUTOINCREMENT, a); INSERT INTO x (a) VALUES (1)",
    "CREATE VIRTUAL TABLE temp.t USING fts5 (id, v)",
    "CREATE TABLE temp.p (id INTEGER PRIMARY KEY, c REFERENCES c (id) DEFERRABLE INITIALLY DEFERRED);
     CREATE TABLE temp.c (id INTEGER PRIMARY KEY, p REFERENCES p (id));
     INSERT INTO p VALUES (1, 1); INSERT INTO c VALUES (1, 1)",
    "CREATE TEMP TABLE t (id, v); ALTER TABLE temp.t RENAME COLUMN v TO w;
     CREATE TEMP VIEW tv AS SELECT w FROM t; CREATE TEMP TABLE \"a \"\"quoted\"\" one\" (b)",
];

#[test]
fn a40_temporary_objects_are_gone_after_the_call_that_made_them() {
    within_each(HANG, |place| {
        for made in TEMPORARY {
            let (dir, db) = db_at(place, |builder| builder);
            let seen = db.blocking_write(move |tx| {
                tx.execute_batch(made)?;
                temporary(tx)
            });
            assert_ne!(seen.expect("the call can use them").len(), 0, "{made}");
            assert_eq!(db.blocking_write(|tx| temporary(tx)).ok(), Some(vec![]), "{made}");
            db.blocking_write(|tx| insert(tx, 7)).expect("a write");
            assert_eq!(ids(&db), [7], "after `{made}` on {place:?}");
            db.blocking_close().expect("closes");
            if place == Place::File {
                let db = dir.builder(place).blocking_open().expect("opens again");
                assert_eq!(ids(&db), [7], "stored, after `{made}`");
            }
        }
    });
}

/// Four calls share a batch. The first one makes a temporary object that hides the table `t`; the second writes to `t`.
#[test]
fn a40_the_next_call_of_a_batch_does_not_see_temporary_objects() {
    within_each(HANG, |place| {
        for made in TEMPORARY {
            let (_dir, db) = db_at(place, |builder| builder);
            let held = HeldWriter::hold(&db);
            // After the second call has written, the third runs in a savepoint.
            let mut first = db.write(move |tx| {
                insert(tx, 1)?;
                tx.execute_batch(made)
            });
            let mut second = db.write(|tx| insert(tx, 2));
            let mut third = db.write(move |tx| tx.execute_batch(made));
            let mut fourth = db.write(|tx| insert(tx, 4).and_then(|()| temporary(tx)));
            assert!(poll_once(&mut first).is_pending());
            assert!(poll_once(&mut second).is_pending());
            assert!(poll_once(&mut third).is_pending());
            assert!(poll_once(&mut fourth).is_pending());
            held.release();
            block_on(first).expect("the first");
            block_on(second).expect("the second");
            block_on(third).expect("the third");
            assert_eq!(block_on(fourth).ok(), Some(vec![]), "{made}");
            assert_eq!(ids(&db), [1, 2, 4], "`{made}` on {place:?}");
            db.blocking_close().expect("closes");
        }
    });
}

/// However the call ends: with an error, a panic, an undone savepoint or a lost transaction.
#[test]
fn a40_temporary_objects_are_gone_however_the_call_ended() {
    on_each_place(|db, place| {
        let made = "CREATE TEMP TABLE t (id, v)";
        let fails = |tx: &Transaction| -> rusqlite::Result<()> {
            tx.execute_batch(made)?;
            Err(rusqlite::Error::InvalidQuery)
        };
        assert_eq!(kind(db.blocking_write(fails)), ErrorKind::Call);
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            db.blocking_write(|tx| -> rusqlite::Result<()> {
                tx.execute_batch(made)?;
                std::panic::resume_unwind(Box::new("as ordered"))
            })
        }));
        assert!(panics.is_err());
        db.blocking_write(move |tx| {
            let undone = tx.savepoint(fails);
            assert!(undone.is_err());
            tx.savepoint(|tx| tx.execute_batch(made))
        })
        .expect("a savepoint");
        let lost = db.blocking_write(|tx| {
            tx.execute_batch(made)?;
            let lost = tx.execute("INSERT OR ROLLBACK INTO main.t VALUES (1, 1), (1, 1)", []);
            assert!(temporary(tx).is_err(), "nothing runs any more");
            lost.map(drop)
        });
        assert_eq!(kind(lost), ErrorKind::Call);
        let other = db.clone();
        db.blocking_write(move |_| {
            other
                .blocking_write(|tx| tx.execute_batch(made))
                .map_err(|_| rusqlite::Error::InvalidQuery)
        })
        .expect("a nested call");
        db.blocking_write(|tx| insert(tx, 3).and_then(|()| temporary(tx)))
            .map(|left| assert_eq!(left, Vec::<String>::new(), "{place:?}"))
            .expect("a write");
        assert_eq!(ids(db), [3]);
    });
}

/// One call prepares the statement, the cache keeps it, and later calls run it.
#[test]
fn a40_a_cached_statement_that_makes_a_temporary_table_is_no_way_around() {
    on_each_place(|db, place| {
        let made = "CREATE TEMP TABLE t (id, v)";
        db.blocking_write(|tx| tx.prepare_cached(made).map(drop)).expect("prepared, not run");
        for _ in 0..3 {
            db.blocking_write(|tx| tx.execute(made, []).map(drop)).expect("run");
            let left = db.blocking_write(|tx| temporary(tx));
            assert_eq!(left.ok(), Some(vec![]), "{place:?}");
        }
    });
}

/// A lease is one call, however many calls it makes.
#[test]
fn a40_temporary_objects_of_a_lease_last_as_long_as_the_lease() {
    on_each_place(|db, place| {
        for commit in [true, false] {
            let mut lease = block_on(db.lease()).expect("a lease");
            lease.blocking_run(|tx| tx.execute_batch("CREATE TEMP TABLE t (id, v)")).expect("made");
            let rows = lease.blocking_run(|tx| {
                insert(tx, 1)?;
                tx.query_row("SELECT count(*) FROM temp.t", [], |row| row.get::<_, i64>(0))
            });
            assert_eq!(rows.ok(), Some(1));
            match commit {
                true => lease.blocking_commit().expect("commits"),
                false => lease.rollback(),
            }
            let left = db.blocking_write(|tx| temporary(tx));
            assert_eq!(left.ok(), Some(vec![]), "{place:?}, commit: {commit}");
        }
        db.blocking_write(|tx| insert(tx, 5)).expect("a write");
        assert_eq!(ids(db), [5]);
    });
}

/// A database whose `setup` makes a temporary table and a temporary view.
fn with_scratch(place: Place) -> (Dir, Database) {
    db_at(place, |builder| {
        builder.setup(|conn| {
            conn.execute_batch(
                "CREATE TEMP TABLE seen (id INTEGER PRIMARY KEY AUTOINCREMENT, n);
                 CREATE TEMP VIEW last_seen AS SELECT max(id) AS id FROM seen",
            )
        })
    })
}

#[test]
fn a40_temporary_objects_of_setup_stay_and_so_do_their_rows() {
    for place in PLACES {
        let (_dir, db) = with_scratch(place);
        let before = db.blocking_write(|tx| temporary(tx)).expect("a read");
        assert!(before.contains(&String::from("last_seen")), "{before:?}");
        for n in 1..=3 {
            let last = db.blocking_write(move |tx| {
                tx.execute_batch("CREATE TEMP TABLE t (id, v)")?;
                tx.execute("INSERT INTO seen (n) VALUES (?1)", [n])?;
                tx.query_row("SELECT id FROM last_seen", [], |row| row.get::<_, i64>(0))
            });
            assert_eq!(last.ok(), Some(n), "{place:?}");
        }
        // If a call drops or alters an object of `setup`, the connection is replaced, and the object is there again.
        for taken in ["DROP TABLE seen", "DROP VIEW last_seen", "ALTER TABLE seen ADD COLUMN more"]
        {
            db.blocking_write(move |tx| insert(tx, 1).and_then(|()| tx.execute_batch(taken)))
                .expect("taken away");
            assert_eq!(db.blocking_write(|tx| temporary(tx)).ok(), Some(before.clone()), "{taken}");
            db.blocking_write(|tx| {
                tx.execute_batch("DELETE FROM t; INSERT INTO seen (n) VALUES (1)")
            })
            .expect("it works as before");
        }
        db.blocking_close().expect("closes");
    }
}

/// `last_insert_rowid`, `changes` and `total_changes` as a call sees them: two of them by the methods, then all three
/// by SQL.
fn counts(tx: &Transaction) -> rusqlite::Result<[i64; 5]> {
    let sql = "SELECT last_insert_rowid(), changes(), total_changes()";
    let [a, b, c] = tx.query_row(sql, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?;
    Ok([tx.last_insert_rowid(), i64::try_from(tx.changes()).unwrap_or(-1), a, b, c])
}

#[test]
fn a40_row_counts_never_tell_of_another_call() {
    within_each(HANG, |place| {
        let (_dir, db) = db_at(place, |builder| builder);
        db.blocking_write(|tx| {
            tx.execute_batch("CREATE TABLE one (id INTEGER PRIMARY KEY, v UNIQUE)")
        })
        .expect("a table");
        let fill = || {
            db.blocking_write(|tx| {
                tx.execute("INSERT OR REPLACE INTO one VALUES (777, 1)", [])?;
                counts(tx)
            })
            .map(|seen| assert_eq!(seen[..4], [777, 1, 777, 1], "its own are told"))
            .expect("a row");
        };
        fill();
        assert_eq!(db.blocking_write(counts).ok(), Some([0; 5]), "{place:?}: nothing was done");
        fill();
        for nothing in [
            "INSERT OR IGNORE INTO one VALUES (778, 1)",
            "INSERT INTO one VALUES (778, 1) ON CONFLICT DO NOTHING",
            "UPDATE one SET v = 2 WHERE id = 5",
        ] {
            let seen = db.blocking_write(|tx| tx.execute(nothing, []).and_then(|_| counts(tx)));
            assert_eq!(seen.ok(), Some([0; 5]), "{nothing} on {place:?}");
            fill();
        }
        let upsert = "INSERT INTO one VALUES (5, 1) ON CONFLICT DO UPDATE SET v = 1";
        let seen = db.blocking_write(|tx| tx.execute(upsert, []).and_then(|_| counts(tx)));
        assert_eq!(seen.ok(), Some([0, 1, 0, 1, 1]), "{place:?}");
        let mut lease = block_on(db.lease()).expect("a lease");
        assert_eq!(lease.blocking_run(counts).ok(), Some([0; 5]));
        lease.blocking_run(|tx| tx.execute("INSERT INTO t VALUES (9, 9)", [])).expect("a row");
        assert_eq!(lease.blocking_run(|tx| Ok(tx.last_insert_rowid())).ok(), Some(9));
        drop(lease);
        // The counts in a call that shares its batch, and in a write inside a write.
        let held = HeldWriter::hold(&db);
        let mut first = db.write(|tx| insert(tx, 31));
        let mut second = db.write(counts);
        assert!(poll_once(&mut first).is_pending() && poll_once(&mut second).is_pending());
        held.release();
        block_on(first).expect("the first");
        assert_eq!(block_on(second).ok(), Some([0; 5]), "{place:?}");
        let other = db.clone();
        let around = db.blocking_write(move |tx| {
            insert(tx, 32)?;
            let nested = |f: fn(&Transaction) -> rusqlite::Result<[i64; 5]>| {
                other.blocking_write(f).map_err(|_| rusqlite::Error::InvalidQuery)
            };
            assert_eq!(nested(counts)?, [0; 5]);
            assert_eq!(nested(|tx| insert(tx, 33).and_then(|()| counts(tx)))?[0], 33);
            counts(tx)
        });
        assert_eq!(around.map(|seen| seen[0]).ok(), Some(32), "{place:?}");
        let exclusive = db.blocking_exclusive(|conn| Ok(conn.last_insert_rowid()));
        assert_eq!(exclusive.ok(), Some(0));
        db.blocking_close().expect("closes");
    });
}

/// Everything that an exclusive call can leave on a connection, except PRAGMAs, which `pragmas.rs` covers.
#[test]
fn a40_nothing_of_an_exclusive_call_is_left_on_the_connection() {
    within_each(HANG, |place| {
        let (dir, db) = db_at(place, |builder| {
            builder.setup(|conn| {
                conn.create_scalar_function("mine", 0, FunctionFlags::SQLITE_UTF8, |_| Ok(1))
            })
        });
        let side = dir.file("side.db");
        let heard = Arc::new(Mutex::new(0));
        let hears = Arc::clone(&heard);
        db.blocking_exclusive(move |conn| {
            conn.execute_batch("CREATE TEMP TABLE t (id, v)")?;
            conn.execute("ATTACH ?1 AS side", [side.to_str()])?;
            conn.execute_batch("CREATE TABLE side.kept (a)")?;
            conn.create_scalar_function("mine", 0, FunctionFlags::SQLITE_UTF8, |_| Ok(2))?;
            conn.create_scalar_function("yours", 0, FunctionFlags::SQLITE_UTF8, |_| Ok(3))?;
            conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, 100)?;
            conn.busy_timeout(std::time::Duration::ZERO)?;
            conn.progress_handler(1, Some(|| true))?;
            conn.authorizer(Some(|_: AuthContext<'_>| Authorization::Deny))?;
            conn.commit_hook(Some(|| true))?;
            let told = move |_, _: &str, _: &str, _| *hears.lock().expect("no panic") += 1;
            conn.update_hook(Some(told))
        })
        .expect("an exclusive call");
        for _ in 0..2 {
            let (mine, long): (i64, String) = db
                .blocking_write(|tx| {
                    tx.execute("DELETE FROM t", [])?;
                    insert(tx, 1)?;
                    tx.query_row("SELECT mine(), printf('%.*c', 500, 'x')", [], |row| {
                        Ok((row.get(0)?, row.get(1)?))
                    })
                })
                .unwrap_or_else(|error| panic!("{place:?}: {error:?}"));
            assert_eq!((mine, long.len()), (1, 500));
            for gone in ["SELECT yours()", "SELECT 1 FROM side.kept", "SELECT 1 FROM temp.t"] {
                let error = db.blocking_write(|tx| tx.query_row(gone, [], |_| Ok(())));
                assert_eq!(kind(error), ErrorKind::Call, "{gone} on {place:?}");
            }
        }
        assert_eq!(*heard.lock().expect("no panic"), 0, "the hook is gone");
        assert_eq!(ids(&db), [1]);
        let refused = db.blocking_write(|tx| tx.execute_batch("COMMIT"));
        assert_eq!(kind(refused), ErrorKind::Call, "the library's own authorizer is there");
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a40_the_content_of_a_memory_database_outlives_an_exclusive_call() {
    let db = Database::builder(":memory:")
        .setup(|conn| conn.execute_batch("ATTACH ':memory:' AS side"))
        .blocking_open()
        .expect("opens");
    db.blocking_write(|tx| {
        tx.execute_batch(TABLE)?;
        tx.execute_batch("CREATE TABLE side.s (v); INSERT INTO side.s VALUES (5)")?;
        tx.execute_batch("INSERT INTO t (v) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT i FROM n")
    })
    .expect("rows");
    let all = |db: &Client| {
        let sql = "SELECT (SELECT count(*) FROM t), (SELECT v FROM side.s)";
        db.blocking_write(move |tx| {
            tx.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
        })
    };
    for sql in ["PRAGMA user_version = 3", "VACUUM", "BEGIN; DELETE FROM t", "nonsense"] {
        let _ = db.blocking_exclusive(move |conn| conn.execute_batch(sql));
        assert_eq!(all(&db).ok(), Some((5000, 5)), "after `{sql}`");
    }
    let version =
        |s: &Snapshot| s.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    assert_eq!(db.blocking_read(version).ok(), Some(3));
    db.blocking_close().expect("closes");
}
