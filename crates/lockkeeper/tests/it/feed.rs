//! What the change feed tells its subscribers, and what live queries deliver.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use lockkeeper::{Change, Changes, Client, Database, ErrorKind, RowKind};
use rusqlite::{Connection, ffi};

use crate::feed_model::{SCHEMA, follow};
use crate::support::fault_vfs::{self, Fault, Plan};
use crate::support::{
    Dir, HANG, HeldWriter, PLACES, Place, TABLE, block_on, count, file_db, ids, insert,
    on_each_place, poll_once, within,
};

#[test]
fn a27_the_feed_of_random_batches_is_the_difference_of_the_tables() {
    let batches = count(400, 5_000) as u32;
    within(HANG * 10, move || {
        let dir = Dir::new();
        let db = dir.builder(Place::File).blocking_open().expect("opens");
        let told = follow(&db, batches).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(told.batches, batches);
        // Rows must be named where SQLite reports them.
        assert!(told.rows > 10 && told.tables > 5, "{told:?}");
        db.blocking_close().expect("closes");
    });
}

/// What the feed reports for one call, a line for each table: the table's name alone, or with its rows (`+1 ~2 -3`).
/// `?`: anything may have changed.
fn told(db: &Client, sql: &'static str) -> Vec<String> {
    let mut changes = db.changes();
    db.blocking_write(move |tx| tx.execute_batch(sql)).expect("it runs");
    let mut told = Vec::new();
    while let Some(change) = changes.try_next() {
        let Change::Commit(commit) = change else {
            told.push(String::from("?"));
            continue;
        };
        for table in commit.calls().iter().flat_map(|call| call.tables()) {
            let mut line = table.table().to_owned();
            for row in table.rows().unwrap_or_default() {
                let sign = match row.kind {
                    RowKind::Insert => '+',
                    RowKind::Update => '~',
                    RowKind::Delete => '-',
                };
                line += &format!(" {sign}{}", row.rowid);
            }
            told.push(line);
        }
    }
    told
}

#[test]
fn a27_rows_are_named_where_sqlite_can_and_tables_where_it_cannot() {
    on_each_place(|db, _| {
        db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("the tables");
        for (sql, expected) in [
            ("INSERT INTO plain VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3)", &["plain +1 +2 +3"][..]),
            ("UPDATE plain SET v = 9 WHERE id > 1", &["plain ~2 ~3"]),
            ("DELETE FROM plain WHERE id = 2", &["plain -2"]),
            ("DELETE FROM plain WHERE id = 2", &[]),
            ("SELECT * FROM plain", &[]),
            ("INSERT OR REPLACE INTO plain VALUES (7, 1, 1)", &["plain"]),
            ("UPDATE plain SET id = 8 WHERE id = 7", &["plain"]),
            ("DELETE FROM plain", &["plain"]),
            ("INSERT INTO audited VALUES (1, 1, 1)", &["audit +1", "audited +1"]),
            ("INSERT INTO keyed VALUES (1, 1, 1)", &["keyed"]),
            ("INSERT INTO own_conflict VALUES (1, 1, 1)", &["own_conflict"]),
            (
                "INSERT INTO parent VALUES (1, 1, 1); INSERT INTO child VALUES (5, 5, 1)",
                &["parent +1", "child +5"],
            ),
            ("DELETE FROM parent WHERE id = 1", &["child -5", "parent -1"]),
            ("CREATE TEMP TABLE mine (x); INSERT INTO mine VALUES (1)", &[]),
            ("DROP TABLE own_conflict", &["own_conflict"]),
            ("CREATE TABLE made AS SELECT 1 AS x", &["made"]),
            ("ALTER TABLE made ADD COLUMN y", &["made", "?"]),
        ] {
            let mut told = told(db, sql);
            told.sort_by_key(|line| expected.iter().position(|other| other == line));
            assert_eq!(told, expected, "{sql}");
        }
    });
}

#[test]
fn a27_more_rows_than_can_be_named_are_told_as_their_table() {
    on_each_place(|db, _| {
        let mut changes = db.changes();
        db.blocking_write(|tx| {
            tx.execute_batch(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10001)
                 INSERT INTO t SELECT i, i FROM n",
            )
        })
        .expect("many rows");
        let Some(Change::Commit(commit)) = changes.try_next() else { panic!("a commit") };
        assert_eq!(commit.calls().len(), 1);
        let table = &commit.calls()[0].tables()[0];
        assert_eq!((table.table(), table.rows()), ("t", None));
    });
}

#[test]
fn a27_commits_come_in_order_with_their_calls_and_without_the_failed_ones() {
    on_each_place(|db, _| {
        let mut changes = db.changes();
        let held = HeldWriter::hold(db);
        let mut writes = Vec::new();
        for id in 1..=6 {
            writes.push(
                db.try_write(move |tx| {
                    insert(tx, id)?;
                    if id % 3 == 0 { Err(rusqlite::Error::InvalidQuery) } else { Ok(()) }
                })
                .expect("room"),
            );
        }
        held.release();
        let stored: Vec<bool> = writes.into_iter().map(|write| block_on(write).is_ok()).collect();
        assert_eq!(stored, [true, true, false, true, true, false]);
        let mut seen = Vec::new();
        while let Some(change) = changes.try_next() {
            let Change::Commit(commit) = change else { panic!("{change:?}") };
            for call in commit.calls() {
                let rows = call.tables()[0].rows().expect("named");
                seen.push((call.tables().len(), rows.len(), rows[0].rowid));
            }
        }
        assert_eq!(seen, [(1, 1, 1), (1, 1, 2), (1, 1, 4), (1, 1, 5)]);
    });
}

#[test]
fn a27_a_stalled_subscriber_is_told_that_it_lagged_and_holds_up_nobody() {
    for place in PLACES {
        within(HANG, move || {
            let dir = Dir::new();
            let db = dir.builder(place).feed_capacity(100).blocking_open().expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
            let mut stalled = db.changes();
            let mut quick = db.changes();
            let mut seen = Vec::new();
            for id in 0..1000 {
                db.blocking_write(move |tx| insert(tx, id)).expect("nobody holds it up");
                let change = quick.try_next().expect("published before the answer");
                let Change::Commit(commit) = change else { panic!("{change:?}") };
                seen.push(commit.number());
            }
            assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "every commit, in order");
            let first = stalled.try_next().expect("the mark");
            let Change::Lagged { commit } = first else { panic!("{first:?}") };
            let rest: Vec<u64> = std::iter::from_fn(|| stalled.try_next())
                .map(|change| match change {
                    Change::Commit(commit) => commit.number(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert!(rest.len() <= 50, "each costs two: {}", rest.len());
            let last = *seen.last().expect("commits");
            assert_eq!(rest, (commit + 1..=last).collect::<Vec<_>>(), "whole after the mark");
            db.blocking_close().expect("closes");
            assert!(stalled.blocking_next().is_none(), "a closed database ends the stream");
        });
    }
}

#[test]
fn a27_a_transaction_that_was_under_way_when_somebody_subscribed_is_told_as_unknown() {
    on_each_place(|db, _| {
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let mut write = db.write_once(move |tx| {
            insert(tx, 1)?;
            begun.send(()).expect("somebody waits");
            let _ = released.recv();
            Ok(())
        });
        assert!(poll_once(&mut write).is_pending());
        has_begun.recv().expect("it runs");
        let mut changes = db.changes();
        let mut watch = db.watch(["t"]);
        drop(release);
        block_on(write).expect("stored");
        assert!(matches!(changes.try_next(), Some(Change::Unknown { .. })));
        assert!(watch.try_next().is_some());
        db.blocking_write(|tx| insert(tx, 2)).expect("stored");
        assert!(matches!(changes.try_next(), Some(Change::Commit(_))));
        assert!(changes.try_next().is_none());
    });
}

#[test]
fn a27_what_an_exclusive_call_did_is_told_as_unknown() {
    on_each_place(|db, _| {
        let mut changes = db.changes();
        db.blocking_exclusive(|conn| conn.execute_batch("INSERT INTO t VALUES (1, 1)"))
            .expect("runs");
        assert!(matches!(changes.blocking_next(), Some(Change::Unknown { .. })));
        db.blocking_write(|tx| insert(tx, 2)).expect("stored");
        let Some(Change::Commit(commit)) = changes.try_next() else { panic!("a commit") };
        assert!(commit.calls()[0].tables()[0].rows().is_some(), "the hook is back");
    });
}

#[test]
fn a27_a_commit_of_another_process_is_noticed_idle_or_busy() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder);
        let mut changes = db.changes();
        let other = Connection::open(dir.file("test.db")).expect("another program");
        other.execute_batch("INSERT INTO t VALUES (1, 1)").expect("its write");
        // This database writes nothing, so the writer checks by itself for commits of other processes.
        assert!(matches!(changes.blocking_next(), Some(Change::Unknown { .. })));
        other.execute_batch("INSERT INTO t VALUES (2, 2)").expect("its write");
        db.blocking_write(|tx| insert(tx, 3)).expect("stored");
        // The other process's commit comes first, because the write saw it.
        assert!(matches!(changes.blocking_next(), Some(Change::Unknown { .. })));
        assert!(matches!(changes.blocking_next(), Some(Change::Commit(_))));
        assert!(changes.try_next().is_none());
        drop(other);
        db.blocking_close().expect("closes");
    });
}

/// A COMMIT that fails in such a way that the writer closes its connection.
fn fail_commit(db: &Database, plan: &Plan) {
    plan.arm(Some(Fault { nth: 1, goes_on: false, torn: false, code: ffi::SQLITE_IOERR }));
    let error = db.blocking_write(|tx| insert(tx, 1)).expect_err("the disk fails");
    plan.disarm();
    assert_eq!(error.kind(), ErrorKind::Unknown);
}

/// writer                        | another program
/// ------------------------------+-----------------
/// its connection is replaced    |
/// opens a connection: `setup`   |
///                               | COMMIT
/// asks for the version          |
#[test]
fn a27_a_commit_of_another_process_while_the_connection_is_replaced_is_told() {
    type Replace = fn(&Database, &Plan);
    let ways: [(&str, Replace); 3] = [
        ("an exclusive call", |db, _| db.blocking_exclusive(|_| Ok(())).expect("runs")),
        ("a table that a call left", |db, _| {
            let sql = "CREATE TEMP TABLE own (id INTEGER PRIMARY KEY AUTOINCREMENT)";
            db.blocking_write(move |tx| tx.execute_batch(sql)).expect("runs");
        }),
        ("a COMMIT that failed", fail_commit),
    ];
    for (way, replace) in ways {
        within(HANG, move || {
            let dir = Dir::new();
            let plan = Plan::of(dir.path());
            let file = dir.file("test.db");
            let changes: Arc<Mutex<Option<Changes>>> = Arc::default();
            let told = Arc::clone(&changes);
            let db = dir
                .builder(Place::File)
                .vfs(fault_vfs::NAME)
                .other_processes(None)
                .setup(move |conn| {
                    let mut told = told.lock().expect("no panic");
                    let Some(told) = told.as_mut().filter(|_| !is_readonly(conn)) else {
                        return Ok(());
                    };
                    while told.try_next().is_some() {}
                    let other = Connection::open(&file)?;
                    other.execute_batch("INSERT INTO t VALUES (100, 100)")
                })
                .blocking_open()
                .expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
            *changes.lock().expect("no panic") = Some(db.changes());
            replace(&db, &plan);
            // The new connection is open when this is answered.
            db.blocking_write(|_| Ok(())).expect("runs");
            let mut changes = changes.lock().expect("no panic").take().expect("subscribed");
            assert!(matches!(changes.try_next(), Some(Change::Unknown { .. })), "{way}");
            assert_eq!(changes.try_next(), None, "{way}: told once");
            assert!(ids(&db).contains(&100), "{way}");
            db.blocking_close().expect("closes");
        });
    }
}

/// Whether the connection is a reader's.
fn is_readonly(conn: &Connection) -> bool {
    conn.is_readonly(rusqlite::MAIN_DB).expect("the file is open")
}

#[test]
fn a27_a_commit_of_another_process_is_noticed_after_the_writer_has_lost_its_connection() {
    within(HANG, || {
        let dir = Dir::new();
        let plan = Plan::of(dir.path());
        let builder = dir.builder(Place::File).vfs(fault_vfs::NAME);
        let db = builder.other_processes(Some(Duration::from_millis(1))).blocking_open();
        let db = db.expect("opens");
        db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
        let mut changes = db.changes();
        fail_commit(&db, &plan);
        // One for the COMMIT, one for the connection that the next check opens.
        for _ in 0..2 {
            assert!(matches!(changes.blocking_next(), Some(Change::Unknown { .. })));
        }
        let other = Connection::open(dir.file("test.db")).expect("another program");
        other.execute_batch("INSERT INTO t VALUES (100, 100)").expect("its write");
        assert!(matches!(changes.blocking_next(), Some(Change::Unknown { .. })));
        drop(other);
        db.blocking_close().expect("closes");
    });
}

#[test]
fn b04_a_watch_tells_of_its_tables_only_and_once() {
    on_each_place(|db, _| {
        db.blocking_write(|tx| tx.execute_batch("CREATE TABLE other (x)")).expect("the table");
        let mut watch = db.watch(["T"]);
        db.blocking_write(|tx| tx.execute("INSERT INTO other VALUES (1)", [])).expect("stored");
        assert_eq!(watch.try_next(), None);
        for id in 0..10 {
            db.blocking_write(move |tx| insert(tx, id)).expect("stored");
        }
        assert!(watch.try_next().is_some());
        assert_eq!(watch.try_next(), None, "ten commits are one answer");
    });
}

/// A live query that returns the number of rows of `t` and counts its runs. With a gate, each run waits for a signal.
fn counting(
    db: &Database,
    runs: &Arc<AtomicUsize>,
    gate: Option<Mutex<mpsc::Receiver<()>>>,
) -> lockkeeper::Live<i64, rusqlite::Error> {
    let runs = Arc::clone(runs);
    db.live(["t"], move |s| {
        let rows = s.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?;
        runs.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &gate {
            let _ = gate.lock().expect("no panic").recv();
        }
        Ok(rows)
    })
}

#[test]
fn b04_a_burst_of_commits_costs_a_live_query_two_runs_and_ends_with_the_last_state() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder);
        let runs = Arc::new(AtomicUsize::new(0));
        let (open, gate) = mpsc::channel();
        let mut live = counting(&db, &runs, Some(Mutex::new(gate)));
        open.send(()).expect("a listener");
        assert_eq!(block_on(live.next()).expect("open").expect("counted"), 0);
        // The first commit starts a run. The other commits come during that run.
        db.blocking_write(|tx| insert(tx, 0)).expect("stored");
        {
            let mut next = std::pin::pin!(live.next());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(next.as_mut().poll(&mut context).is_pending());
            while runs.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            for id in 1..50 {
                db.blocking_write(move |tx| insert(tx, id)).expect("stored");
            }
            open.send(()).expect("a listener");
            assert_eq!(block_on(next).expect("open").expect("counted"), 1);
        }
        open.send(()).expect("a listener");
        assert_eq!(block_on(live.next()).expect("open").expect("counted"), 50);
        assert_eq!(runs.load(Ordering::SeqCst), 3, "one at first, two for fifty commits");
        let mut next = std::pin::pin!(live.next());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(next.as_mut().poll(&mut context).is_pending(), "nothing has changed since");
    });
}

#[test]
fn b04_a_live_query_starts_with_the_present_state_and_ends_with_the_database() {
    for place in PLACES {
        within(HANG, move || {
            let dir = Dir::new();
            let db = dir.builder(place).blocking_open().expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
            let runs = Arc::new(AtomicUsize::new(0));
            let mut live = counting(&db, &runs, None);
            assert_eq!(live.blocking_next().expect("open").expect("counted"), 0);
            for id in 0..20 {
                db.blocking_write(move |tx| insert(tx, id)).expect("stored");
            }
            assert_eq!(live.blocking_next().expect("open").expect("counted"), 20);
            assert_eq!(runs.load(Ordering::SeqCst), 2, "a burst that nobody watched is one run");
            // The query returns the error and goes on.
            db.blocking_write(|tx| tx.execute_batch("ALTER TABLE t RENAME TO gone"))
                .expect("renamed");
            assert!(live.blocking_next().expect("open").is_err());
            db.blocking_write(|tx| tx.execute_batch("ALTER TABLE gone RENAME TO t"))
                .expect("renamed");
            assert_eq!(live.blocking_next().expect("open").expect("counted"), 20);
            db.blocking_close().expect("closes");
            assert!(live.blocking_next().is_none());
        });
    }
}
