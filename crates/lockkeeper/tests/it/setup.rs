//! The effects of `setup` are on every connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use lockkeeper::{Database, ErrorKind, Snapshot};
use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::limits::Limit;

use crate::support::{Dir, HANG, PLACES, Place, TABLE, block_on, insert, kind, poll_once, within};

/// A database whose `setup` defines a function, attaches a file, sets a PRAGMA, and switches foreign keys off, which
/// the library undoes. Also returns a counter of its runs.
fn with_setup(dir: &Dir, place: Place) -> (Database, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let side = dir.file("side.db");
    rusqlite::Connection::open(&side)
        .and_then(|conn| {
            conn.execute_batch("CREATE TABLE IF NOT EXISTS s (v); INSERT INTO s VALUES (5)")
        })
        .expect("the side file");
    let db = dir
        .builder(place)
        .readers(1)
        .readers_max(4)
        .setup(move |conn| {
            counted.fetch_add(1, Ordering::SeqCst);
            conn.create_scalar_function("twice", 1, FunctionFlags::SQLITE_UTF8, |context| {
                Ok(2 * context.get::<i64>(0)?)
            })
        })
        .setup(move |conn| {
            let path = side.to_str().expect("a path in UTF-8");
            conn.execute("ATTACH ?1 AS side", [path])?;
            conn.execute_batch("PRAGMA case_sensitive_like = ON; PRAGMA foreign_keys = OFF")
        })
        .blocking_open()
        .expect("opens");
    db.blocking_write(|tx| {
        tx.execute_batch(TABLE)?;
        tx.execute_batch("CREATE TABLE IF NOT EXISTS child (t REFERENCES t (id))")
    })
    .expect("the tables");
    (db, runs)
}

/// Checks all effects of `setup` on the connection.
fn check(s: &Snapshot) -> rusqlite::Result<()> {
    let seen: (i64, i64, bool, bool) = s.query_row(
        "SELECT twice(21), (SELECT v FROM side.s), 'a' LIKE 'A', (SELECT * FROM pragma_foreign_keys)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    // The library promises that foreign keys are on.
    assert_eq!(seen, (42, 5, false, true));
    Ok(())
}

#[test]
fn a34_setup_runs_on_every_connection_also_on_those_opened_later() {
    for place in PLACES {
        within(HANG, move || {
            let dir = Dir::new();
            let (db, runs) = with_setup(&dir, place);
            db.blocking_write(|tx| check(tx)).expect("the writer has it");
            db.blocking_read(check).expect("the reader has it");
            if place == Place::File {
                // While one reader is held up, the pool opens another one.
                let (begun, has_begun) = mpsc::channel();
                let (release, released) = mpsc::channel::<()>();
                let mut holds = db.read_once(move |s| {
                    begun.send(()).expect("somebody waits");
                    let _ = released.recv();
                    check(s)
                });
                assert!(poll_once(&mut holds).is_pending());
                has_begun.recv().expect("it runs");
                db.blocking_read(check).expect("a further reader has it");
                // The other reader may have been opened before. The read ran beside the first one, so there are two.
                assert!(runs.load(Ordering::SeqCst) >= 3, "the writer and two readers");
                drop(release);
                block_on(holds).expect("the first reader has it");
                let snapshot = block_on(db.snapshot()).expect("a snapshot");
                snapshot.blocking_read(check).expect("the snapshot has it");
                drop(snapshot);
                for _ in 0..20 {
                    block_on(db.read(check).short()).expect("a short read has it");
                }
                // If the writer's connection is lost, the writer opens a new one.
                let before = runs.load(Ordering::SeqCst);
                db.blocking_exclusive(|conn| {
                    *conn = rusqlite::Connection::open_in_memory()?;
                    Ok(())
                })
                .expect("the call itself");
                db.blocking_write(|tx| check(tx)).expect("the writer's successor has it");
                assert!(runs.load(Ordering::SeqCst) > before, "a new connection");
            }
            let orphan = db.blocking_write(|tx| tx.execute("INSERT INTO child VALUES (7)", []));
            assert_eq!(kind(orphan), ErrorKind::Call, "foreign keys are enforced on {place:?}");
            db.blocking_write(|tx| insert(tx, 7)).expect("a write");
            db.blocking_close().expect("closes");
        });
    }
}

#[test]
fn a34_a_setup_that_fails_is_told_when_opening() {
    let dir = Dir::new();
    for place in PLACES {
        let opened = dir.builder(place).setup(|conn| conn.execute_batch("nonsense"));
        let error = opened.blocking_open().expect_err("it fails");
        assert_eq!(error.kind(), ErrorKind::Open, "{place:?}");
        assert!(error.to_string().contains("in the caller's setup"), "{error}");
    }
}

/// With a rollback journal a reader would keep every writer of the attached file waiting until the reader ends.
#[test]
fn a34_a_snapshot_of_an_attached_file_does_not_hold_up_writes_to_it() {
    within(HANG, || {
        let dir = Dir::new();
        let side = dir.file("side.db");
        let journal = |path: &std::path::Path| -> String {
            let conn = rusqlite::Connection::open(path).expect("the side file");
            conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("its mode")
        };
        rusqlite::Connection::open(&side)
            .and_then(|conn| conn.execute_batch("CREATE TABLE s (v); INSERT INTO s VALUES (5)"))
            .expect("the side file");
        assert_eq!(journal(&side), "delete");
        let attach = |side: std::path::PathBuf| {
            move |conn: &rusqlite::Connection| {
                conn.execute("ATTACH ?1 AS side", [side.to_str().expect("a path in UTF-8")])?;
                Ok(())
            }
        };
        let db = dir.builder(Place::File).setup(attach(side.clone()));
        let db = db.blocking_open().expect("opens");
        let sum = |s: &Snapshot| s.query_row("SELECT sum(v) FROM side.s", [], |row| row.get(0));
        let snapshot = block_on(db.snapshot()).expect("a snapshot");
        assert_eq!(snapshot.blocking_read(sum).ok(), Some(5));
        db.blocking_write(|tx| tx.execute("INSERT INTO side.s VALUES (6)", [])).expect("no wait");
        assert_eq!(snapshot.blocking_read(sum).ok(), Some(5), "it stays as it was");
        assert_eq!(db.blocking_read(sum).ok(), Some(11));
        // A file that an exclusive call attaches is switched to WAL mode, too.
        let create = |path: &std::path::Path| {
            let attached = path.to_owned();
            db.blocking_exclusive(move |conn| {
                let path = attached.to_str().expect("a path in UTF-8");
                conn.execute("ATTACH ?1 AS late", [path])?;
                conn.execute_batch("CREATE TABLE late.l (v)")
            })
        };
        // The second call has another connection, which may create files just as the first one.
        let (late, later) = (dir.file("late.db"), dir.file("later.db"));
        create(&late).expect("attached");
        create(&later).expect("attached by a connection that was opened later");
        drop(snapshot);
        db.blocking_close().expect("closes");
        assert_eq!([journal(&side), journal(&late), journal(&later)], ["wal", "wal", "wal"]);
    });
}

/// The lock would keep all other connections of the database waiting for the busy timeout, in vain.
#[test]
fn a34_a_setup_that_locks_the_file_for_one_connection_is_refused_at_once() {
    within(HANG, || {
        let dir = Dir::new();
        let locking = "PRAGMA locking_mode = EXCLUSIVE";
        let builder = dir.builder(Place::File).busy_timeout(2 * HANG);
        let error = builder.setup(|conn| conn.execute_batch(locking)).blocking_open();
        let error = error.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("locking_mode"), "{error}");
        // A memory database has no other connections, so the setting is harmless.
        let db = Database::builder(":memory:").setup(|conn| conn.execute_batch(locking));
        let db = db.blocking_open().expect("opens");
        db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
        db.blocking_close().expect("closes");
    });
}

type Setup = Box<dyn Fn(&rusqlite::Connection) -> rusqlite::Result<()> + Send + Sync>;

/// Settings with which no call could be served, and what the error names.
fn refused(place: Place) -> Vec<(String, Setup)> {
    let sql = |said: &str, sql: &'static str| {
        let setup: Setup = Box::new(move |conn| conn.execute_batch(sql));
        (said.to_owned(), setup)
    };
    let mut all = vec![
        sql("`query_only`", "PRAGMA query_only = ON"),
        sql("`count_changes`", "PRAGMA count_changes = ON"),
    ];
    if place == Place::File {
        for mode in ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"] {
            let sql = format!("PRAGMA journal_mode = {mode}");
            let setup: Setup = Box::new(move |conn| conn.execute_batch(&sql));
            all.push((format!("`journal_mode` to {mode}"), setup));
        }
    }
    let reset = DbConfig::SQLITE_DBCONFIG_RESET_DATABASE;
    let said = String::from("SQLITE_DBCONFIG_RESET_DATABASE");
    all.push((said, Box::new(move |conn| conn.set_db_config(reset, true).map(drop))));
    for limit in LIMITS {
        for value in [0, 1, 3] {
            let setup: Setup = Box::new(move |conn| conn.set_limit(limit, value).map(drop));
            all.push((format!("{limit:?} to"), setup));
        }
    }
    all
}

const LIMITS: [Limit; 6] = [
    Limit::SQLITE_LIMIT_LENGTH,
    Limit::SQLITE_LIMIT_SQL_LENGTH,
    Limit::SQLITE_LIMIT_COLUMN,
    Limit::SQLITE_LIMIT_EXPR_DEPTH,
    Limit::SQLITE_LIMIT_VDBE_OP,
    Limit::SQLITE_LIMIT_FUNCTION_ARG,
];

#[test]
fn a34_what_setup_may_not_leave_is_refused_by_its_name() {
    within(HANG, || {
        for place in PLACES {
            for (said, setup) in refused(place) {
                let dir = Dir::new();
                let opened = dir.builder(place).setup(setup).blocking_open();
                let error = opened.expect_err("no call could be served");
                assert_eq!(error.kind(), ErrorKind::Config, "{said}: {error}");
                let text = error.to_string();
                assert!(text.contains("`setup`") && text.contains(&said), "{said}: {text}");
            }
        }
    });
}

/// Uses the database in every way for which the library runs statements of its own.
fn use_it(db: &Database) -> Result<(), lockkeeper::Error> {
    let mut changes = db.changes();
    db.blocking_write(|tx| tx.execute_batch(TABLE))?;
    let writes: Vec<_> = (1..9).map(|id| db.write(move |tx| insert(tx, id)).submit()).collect();
    writes.into_iter().try_for_each(block_on)?;
    assert!(changes.blocking_next().is_some(), "something is heard");
    db.blocking_write(|tx| {
        tx.execute_batch("CREATE TEMP TABLE own (x); INSERT INTO own VALUES (1)")?;
        tx.savepoint(|tx| insert(tx, 9))
    })?;
    let mut live = db.live_query(|s| s.query_row("SELECT max(id) FROM t", [], |row| row.get(0)));
    assert_eq!(live.blocking_next().transpose()?, Some(9));
    assert_eq!(block_on(db.read(|s| s.table_exists(None, "t")).short()).ok(), Some(true));
    drop(block_on(db.snapshot())?);
    let mut lease = block_on(db.lease())?;
    lease.blocking_run(|tx| insert(tx, 10))?;
    lease.blocking_commit()?;
    db.blocking_exclusive(|conn| conn.execute_batch("VACUUM"))?;
    db.blocking_write(|tx| insert(tx, 11))
}

/// The error for a limit that is too small names the smallest one that is accepted. With that limit everything works.
#[test]
fn a34_limits_that_setup_may_set_are_enough() {
    within(HANG, || {
        for place in PLACES {
            for limit in LIMITS {
                let dir = Dir::new();
                let set =
                    move |conn: &rusqlite::Connection, to| conn.set_limit(limit, to).map(drop);
                let error = dir.builder(place).setup(move |conn| set(conn, 1)).blocking_open();
                let text = error.expect_err("too small").to_string();
                let (_, least) = text.rsplit_once(' ').expect("words");
                let least: i32 = least.parse().expect("a number");
                let db = dir.builder(place).setup(move |conn| set(conn, least));
                let db = db.blocking_open().unwrap_or_else(|error| panic!("{limit:?}: {error}"));
                use_it(&db).unwrap_or_else(|error| panic!("{limit:?}: {error}"));
                db.blocking_close().expect("closes");
            }
        }
    });
}

/// Inside a transaction SQLite ignores `PRAGMA foreign_keys`.
#[test]
fn a34_foreign_keys_are_on_whatever_setup_leaves_open() {
    within(HANG, || {
        for place in PLACES {
            for begin in ["BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT s"] {
                let dir = Dir::new();
                let sql =
                    format!("PRAGMA foreign_keys = OFF; {begin}; SELECT * FROM sqlite_schema");
                let db = dir.builder(place).setup(move |conn| conn.execute_batch(&sql));
                let db = db.blocking_open().expect("opens");
                db.blocking_write(|tx| {
                    tx.execute_batch(TABLE)?;
                    tx.execute_batch("CREATE TABLE child (t REFERENCES t (id))")
                })
                .expect("the tables");
                let orphan = db.blocking_write(|tx| tx.execute("INSERT INTO child VALUES (7)", []));
                assert_eq!(kind(orphan), ErrorKind::Call, "{begin} on {place:?}");
                db.blocking_close().expect("closes");
            }
        }
    });
}

#[test]
fn a34_a_setup_that_writes_is_told_that_readers_run_it_too() {
    within(HANG, || {
        let dir = Dir::new();
        let file = "CREATE TABLE IF NOT EXISTS kept (x); INSERT INTO kept VALUES (1)";
        let opened =
            dir.builder(Place::File).setup(|conn| conn.execute_batch(file)).blocking_open();
        let text = opened.expect_err("a reader cannot").to_string();
        assert!(text.contains("every connection") && text.contains("migrations"), "{text}");
    });
}
