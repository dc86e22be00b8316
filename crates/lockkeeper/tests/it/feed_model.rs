//! Random batches, and a check that the feed tells what has changed in the tables. This is a file of its own, because
//! the bench `day_two` uses it too.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_lite::future::block_on;
use lockkeeper::{Change, Client, Database, RowKind, Transaction};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::held::HeldWriter;

/// Tables of each kind for which SQLite's update hook misses something.
pub(crate) const SCHEMA: &str = "
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

/// Statements. `?1` and `?2` are small numbers, so that conflicts are frequent; `?3` is a value that was never used
/// before.
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
    /// With `RETURNING`; only the first row is fetched.
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
        // If a statement fails, the call goes on.
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

/// The rows of one table by id, with all their values.
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

/// Compares what the feed tells of a batch with the difference between the tables before and after it.
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
        // All changes name rows, so applying them in order must lead from the old rows to the new ones.
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
            // A value is never used twice, so each row that was written differs from before.
            let differs = before.get(id) != Some(values);
            prop_assert_eq!(differs, last.contains_key(id), "{} {}: {:?}", table, id, told);
        }
    }
    Ok(())
}

/// The result of [`follow`].
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) batches: u32,
    /// How many rows were named when the statements ran once more at the end. `tables`: how many tables were reported
    /// without rows then.
    pub(crate) rows: usize,
    pub(crate) tables: usize,
}

/// Runs random batches and compares what the feed tells of each with the difference of the tables before and after it.
/// The database must have no tables. The error describes the first difference.
pub(crate) fn follow(db: &Database, batches: u32) -> Result<Told, String> {
    db.blocking_write(|tx| {
        tx.execute_batch(SCHEMA)?;
        tx.execute_batch(
            "CREATE TABLE generate_some (value INTEGER);
             INSERT INTO generate_some VALUES (1), (2), (3), (4), (5), (6), (7)",
        )
    })
    .map_err(|error| error.to_string())?;
    let changes = RefCell::new(db.changes());
    let fresh = Arc::new(AtomicUsize::new(0));
    let compared = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config {
        cases: batches,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..Config::default()
    });
    runner
        .run(&calls(), |calls| {
            let before = state(db);
            let held = HeldWriter::hold(db);
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
            let after = state(db);
            let told: Vec<_> = std::iter::from_fn(|| changes.borrow_mut().try_next()).collect();
            compared.set(compared.get() + 1);
            check(&before, &after, &told)
        })
        .map_err(|error| error.to_string())?;
    drop(changes);
    // Runs the statements once more, to count how often rows are named.
    let mut told = Told { batches: compared.get(), rows: 0, tables: 0 };
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
                Some(rows) => told.rows += rows.len(),
                None => told.tables += 1,
            }
        }
    }
    Ok(told)
}
