//! What subscribers are told of commits, and what queries that follow them deliver.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use lockkeeper::{Change, Client, Database, RowKind, Transaction};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{
    Dir, HANG, HeldWriter, PLACES, Place, block_on, count, file_db, insert, on_each_place,
    poll_once, within,
};

/// Tables of every kind that SQLite's own hook is silent about in one way or another.
const SCHEMA: &str = "
    CREATE TABLE plain (id INTEGER PRIMARY KEY, u INTEGER UNIQUE, v INTEGER);
    CREATE TABLE audited (id INTEGER PRIMARY KEY, u INTEGER UNIQUE, v INTEGER);
    CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, v INTEGER);
    CREATE TABLE keyed (id INTEGER PRIMARY KEY, u INTEGER UNIQUE, v INTEGER) WITHOUT ROWID;
    CREATE TABLE own_conflict (id INTEGER PRIMARY KEY, u INTEGER UNIQUE ON CONFLICT REPLACE, v INTEGER);
    CREATE TABLE parent (id INTEGER PRIMARY KEY, u INTEGER UNIQUE, v INTEGER);
    CREATE TABLE child (id INTEGER PRIMARY KEY, v INTEGER,
        p INTEGER REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE INDEX child_p ON child (p);
    CREATE TRIGGER audited_insert BEFORE INSERT ON audited
        BEGIN INSERT INTO audit (v) VALUES (new.v); END;
    CREATE TRIGGER audited_delete AFTER DELETE ON audited
        BEGIN UPDATE keyed SET v = v + 1000000 WHERE id = old.id; END;";

const TABLES: [&str; 7] = ["plain", "audited", "audit", "keyed", "own_conflict", "parent", "child"];

/// A statement; `?1`, `?2`: small numbers, so that conflicts are common; `?3`: a value never used.
const STATEMENTS: [&str; 24] = [
    "INSERT INTO plain VALUES (?1, ?2, ?3)",
    "INSERT OR REPLACE INTO plain VALUES (?1, ?2, ?3)",
    "INSERT INTO plain VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET v = ?3",
    "INSERT OR FAIL INTO plain SELECT value, value, ?3 FROM generate_some WHERE value >= ?1",
    "INSERT INTO plain SELECT value, value, ?3 FROM generate_some WHERE value >= ?1",
    "INSERT OR IGNORE INTO plain SELECT value, value + ?1 - ?1, ?3 FROM generate_some",
    "UPDATE plain SET v = ?3 + id WHERE id > ?1 AND ?2 > 0",
    "UPDATE plain SET id = ?2, v = ?3 WHERE id = ?1",
    "UPDATE OR REPLACE plain SET u = ?2, v = ?3 WHERE id = ?1",
    "DELETE FROM plain WHERE id = ?1 AND ?2 > 0 AND ?3 > 0",
    "DELETE FROM plain",
    "INSERT INTO audited VALUES (?1, ?2, ?3)",
    "DELETE FROM audited WHERE id < ?1 AND ?2 > 0 AND ?3 > 0",
    "INSERT INTO keyed VALUES (?1, ?2, ?3)",
    "UPDATE keyed SET v = ?3 WHERE id = ?1 AND ?2 > 0",
    "DELETE FROM keyed",
    "INSERT INTO own_conflict VALUES (?1, ?2, ?3)",
    "INSERT INTO parent VALUES (?1, ?2, ?3)",
    "INSERT INTO child VALUES (?2, ?3, ?1)",
    "DELETE FROM parent WHERE id = ?1 AND ?2 > 0 AND ?3 > 0",
    "UPDATE parent SET id = ?2, v = ?3 WHERE id = ?1",
    "DELETE FROM parent",
    "INSERT OR ROLLBACK INTO plain VALUES (?1, ?2, ?3)",
    "CREATE TABLE IF NOT EXISTS made (id INTEGER PRIMARY KEY)",
];

/// How a statement is run.
#[derive(Clone, Copy, Debug)]
enum How {
    /// To its end, by `execute`.
    Execute,
    /// With `RETURNING`, and only the first row is fetched.
    FirstRow,
    /// In a savepoint that is undone.
    Undone,
    /// In a savepoint that is kept.
    Nested,
}

#[derive(Clone, Debug)]
struct Step {
    statement: usize,
    a: i64,
    b: i64,
    how: How,
}

#[derive(Clone, Debug)]
struct Call {
    steps: Vec<Step>,
    fails: bool,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let how = prop_oneof![
        4 => Just(How::Execute),
        1 => Just(How::FirstRow),
        1 => Just(How::Undone),
        1 => Just(How::Nested),
    ];
    let step = (0..STATEMENTS.len(), 1..8_i64, 1..8_i64, how)
        .prop_map(|(statement, a, b, how)| Step { statement, a, b, how });
    let call = (prop::collection::vec(step, 1..4), prop::bool::weighted(0.15))
        .prop_map(|(steps, fails)| Call { steps, fails });
    prop::collection::vec(call, 1..5)
}

fn run_step(tx: &Transaction, step: &Step, fresh: i64) -> rusqlite::Result<()> {
    let sql = STATEMENTS[step.statement];
    let args = [step.a, step.b, fresh];
    let n = tx.prepare_cached(sql)?.parameter_count();
    let args = &args[..n];
    match step.how {
        How::FirstRow if n > 0 => {
            let sql = format!("{sql} RETURNING *");
            let mut statement = tx.prepare_cached(&sql)?;
            statement.query(rusqlite::params_from_iter(args))?.next().map(drop)
        }
        _ => tx.execute(sql, rusqlite::params_from_iter(args)).map(drop),
    }
}

fn run_call(tx: &Transaction, call: &Call, fresh: &AtomicUsize) -> rusqlite::Result<()> {
    for step in &call.steps {
        let fresh = 100 * fresh.fetch_add(1, Ordering::SeqCst) as i64 + 100;
        // What fails is forgiven: the call goes on and is stored.
        match step.how {
            How::Undone => {
                let undone: rusqlite::Result<()> = tx.savepoint(|tx| {
                    run_step(tx, step, fresh)?;
                    Err(rusqlite::Error::InvalidQuery)
                });
                drop(undone);
            }
            How::Nested => drop(tx.savepoint(|tx| run_step(tx, step, fresh))),
            How::Execute | How::FirstRow => drop(run_step(tx, step, fresh)),
        }
    }
    match call.fails {
        true => Err(rusqlite::Error::InvalidQuery),
        false => Ok(()),
    }
}

/// Rows of one table by id, with all their values.
type Rows = BTreeMap<i64, Vec<Option<i64>>>;

fn rows(db: &Client, table: &'static str) -> Rows {
    db.blocking_read(move |s| {
        let mut all = s.prepare_cached(&format!("SELECT * FROM {table}"))?;
        let columns = all.column_count();
        let rows = all.query_map([], |row| {
            Ok((row.get(0)?, (0..columns).map(|n| row.get(n)).collect::<Result<_, _>>()?))
        })?;
        rows.collect()
    })
    .expect("the rows")
}

fn state(db: &Client) -> BTreeMap<&'static str, Rows> {
    TABLES.into_iter().map(|table| (table, rows(db, table))).collect()
}

/// Compares what the feed says of a batch with what became of the tables.
fn check(
    before: &BTreeMap<&'static str, Rows>,
    after: &BTreeMap<&'static str, Rows>,
    changes: &[Change],
) -> Result<(), TestCaseError> {
    let commits: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Change::Commit(commit) => Ok(commit),
            other => Err(TestCaseError::fail(format!("not a commit: {other:?}"))),
        })
        .collect::<Result<_, _>>()?;
    prop_assert!(commits.windows(2).all(|pair| pair[0].number() < pair[1].number()));
    for table in TABLES {
        let (before, after) = (&before[table], &after[table]);
        let told: Vec<_> = commits
            .iter()
            .flat_map(|commit| commit.calls())
            .flat_map(|call| call.tables())
            .filter(|change| change.table() == table)
            .collect();
        if told.iter().any(|change| change.rows().is_none()) {
            continue;
        }
        // Every row by row: the events must lead from the one state to the other.
        let mut present: BTreeMap<i64, bool> = before.keys().map(|id| (*id, true)).collect();
        let mut last = BTreeMap::new();
        for row in told.iter().flat_map(|change| change.rows().unwrap_or_default()) {
            let is = present.insert(row.rowid, row.kind != RowKind::Delete).unwrap_or(false);
            prop_assert_eq!(is, row.kind != RowKind::Insert, "{}: {:?} of {:?}", table, row, told);
            last.insert(row.rowid, row.kind);
        }
        present.retain(|_, is| *is);
        let ids: Vec<_> = after.keys().collect();
        prop_assert_eq!(present.keys().collect::<Vec<_>>(), ids, "{}: {:?}", table, told);
        for (id, values) in after {
            // Values are never used twice, so whatever was touched differs.
            let differs = before.get(id) != Some(values);
            prop_assert_eq!(differs, last.contains_key(id), "{} {}: {:?}", table, id, told);
        }
    }
    Ok(())
}

#[test]
fn a27_the_feed_of_random_batches_is_the_difference_of_the_tables() {
    let cases = count(400, 10_000) as u32;
    within(HANG * 10, move || {
        let dir = Dir::new();
        let db = dir.builder(Place::File).blocking_open().expect("opens");
        db.blocking_write(|tx| {
            tx.execute_batch(SCHEMA)?;
            tx.execute_batch(
                "CREATE TABLE generate_some (value INTEGER);
                 INSERT INTO generate_some VALUES (1), (2), (3), (4), (5), (6), (7)",
            )
        })
        .expect("the tables");
        let changes = std::cell::RefCell::new(db.changes());
        let fresh = Arc::new(AtomicUsize::new(0));
        let (mut named, mut alone) = (0_u64, 0_u64);
        let mut runner = TestRunner::new(Config {
            cases,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..Config::default()
        });
        runner
            .run(&calls(), |calls| {
                let before = state(&db);
                let held = HeldWriter::hold(&db);
                let writes: Vec<_> = calls
                    .into_iter()
                    .map(|call| {
                        let fresh = Arc::clone(&fresh);
                        db.try_write(move |tx| run_call(tx, &call, &fresh)).expect("room")
                    })
                    .collect();
                held.release();
                for write in writes {
                    drop(block_on(write));
                }
                let after = state(&db);
                let told: Vec<_> = std::iter::from_fn(|| changes.borrow_mut().try_next()).collect();
                check(&before, &after, &told)
            })
            .unwrap_or_else(|error| panic!("{error}"));
        drop(changes);
        // The same statements, once more, to see that rows are indeed named where they can be.
        let mut changes = db.changes();
        for sql in STATEMENTS.iter().take(20) {
            for n in 1..4 {
                let fresh = 100 * fresh.fetch_add(1, Ordering::SeqCst) as i64 + 100;
                let _ = db.blocking_write(move |tx| tx.execute(sql, [n, n, fresh]));
            }
        }
        while let Some(Change::Commit(commit)) = changes.try_next() {
            for table in commit.calls().iter().flat_map(|call| call.tables()) {
                match table.rows() {
                    Some(rows) => named += rows.len() as u64,
                    None => alone += 1,
                }
            }
        }
        assert!(named > 10 && alone > 5, "{named} rows named, {alone} tables alone");
        db.blocking_close().expect("closes");
    });
}

/// What one call is reported as: `table` alone, or `table +1 ~2 -3`; `?`: anything.
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
            db.blocking_write(|tx| tx.execute_batch(crate::support::TABLE)).expect("the table");
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
        let other = rusqlite::Connection::open(dir.file("test.db")).expect("another program");
        other.execute_batch("INSERT INTO t VALUES (1, 1)").expect("its write");
        // Nothing is written here: the writer looks by itself.
        assert!(matches!(changes.blocking_next(), Some(Change::Unknown { .. })));
        other.execute_batch("INSERT INTO t VALUES (2, 2)").expect("its write");
        db.blocking_write(|tx| insert(tx, 3)).expect("stored");
        // In order: what the write saw comes before it.
        assert!(matches!(changes.blocking_next(), Some(Change::Unknown { .. })));
        assert!(matches!(changes.blocking_next(), Some(Change::Commit(_))));
        assert!(changes.try_next().is_none());
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

/// A query that counts the rows of `t`, its own runs, and waits for a signal in each if asked to.
fn counting(
    db: &Database,
    runs: &Arc<AtomicUsize>,
    gate: Option<std::sync::Mutex<mpsc::Receiver<()>>>,
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
        let mut live = counting(&db, &runs, Some(std::sync::Mutex::new(gate)));
        open.send(()).expect("a listener");
        assert_eq!(block_on(live.next()).expect("open").expect("counted"), 0);
        // The first commit starts a run; the others come while it is under way.
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
            db.blocking_write(|tx| tx.execute_batch(crate::support::TABLE)).expect("the table");
            let runs = Arc::new(AtomicUsize::new(0));
            let mut live = counting(&db, &runs, None);
            assert_eq!(live.blocking_next().expect("open").expect("counted"), 0);
            for id in 0..20 {
                db.blocking_write(move |tx| insert(tx, id)).expect("stored");
            }
            assert_eq!(live.blocking_next().expect("open").expect("counted"), 20);
            assert_eq!(runs.load(Ordering::SeqCst), 2, "a burst that nobody watched is one run");
            // An error is told, and the query goes on.
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
