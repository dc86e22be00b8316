//! Runs a program on the library. Then a plain connection runs the same calls one by one, in the order of the commits,
//! and the answers of the clients are compared with its answers.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use lockkeeper::{Database, Synchronous};
use rusqlite::Connection;

use super::play::{LOG, Plan, Rows, Told, ask, play};
use super::program::{Item, Program, Query};
use crate::differential::batch::said;
use crate::differential::interpret::interpret;
use crate::differential::program::{Call, Failure, Outcome, code};
use crate::differential::schema::SCHEMA;
use crate::differential::view::{Plain, Sql, fetch, lost};
use crate::differential::{commit_failed, deny_strays, drop_temporary, dump, run_alone_with};
use crate::support::{Dir, Place, rich};

/// What is stored after a session: the numbers of the writes in their order, and every row.
struct Left {
    log: Vec<i64>,
    rows: Vec<String>,
}

/// Panics if the program finds a fault.
pub(crate) fn judge(program: &Program) {
    let dir = Dir::new();
    let mut model = new_model();
    let mut before = 0;
    for (plan, abort_after) in sessions(program) {
        if program.settings.memory {
            (model, before) = (new_model(), 0);
        }
        // If a memory database is aborted, its content is lost and cannot be compared. So its sessions are not aborted.
        let abort_after = abort_after.filter(|_| !program.settings.memory);
        let db = open(&dir, program);
        let told = play(&db, plan, abort_after);
        let left = match program.settings.memory {
            true => db.blocking_exclusive(|conn| Ok(left_in(conn))).expect("the rows can be read"),
            false => {
                db.blocking_close().expect("the database closes");
                left_in(&Connection::open(dir.file("test.db")).expect("a plain connection"))
            }
        };
        compare(&model, told, &left, before);
        before = left.log.len();
        db.blocking_close().expect("the database closes");
    }
}

/// The commands of each client in each session, and after how many commands the session is aborted.
fn sessions(program: &Program) -> Vec<(Plan, Option<usize>)> {
    let mut sessions = vec![(Plan::new(), None)];
    for (number, item) in (0..).zip(&program.items) {
        let now = sessions.last_mut().expect("one at least");
        match item {
            Item::Do { client, command } => {
                now.0.entry(*client).or_default().push((number, command.clone()));
            }
            Item::Reopen { abort_after } => {
                now.1 = *abort_after;
                sessions.push((Plan::new(), None));
            }
        }
    }
    sessions
}

fn schema() -> String {
    [SCHEMA, rich::SCHEMA, LOG].concat()
}

fn open(dir: &Dir, program: &Program) -> Database<Failure> {
    let settings = program.settings;
    let db = dir
        .builder(if settings.memory { Place::Memory } else { Place::File })
        .readers(2)
        .readers_max(4)
        .synchronous(Synchronous::Off)
        .queue_capacity(settings.queue)
        .batch_max(settings.calls_max, std::time::Duration::from_millis(20), u64::MAX)
        .run_writes_twice(settings.twice)
        .blocking_open()
        .expect("the database opens");
    let make = |tx: &lockkeeper::Transaction| match tx.table_exists(None, "log")? {
        true => Ok(()),
        false => tx.execute_batch(&schema()),
    };
    db.blocking_write(make).expect("the tables are made");
    db.with_error()
}

fn new_model() -> Connection {
    let mut model = Connection::open_in_memory().expect("the model opens");
    model
        .execute_batch(&format!("PRAGMA foreign_keys = ON; {}", schema()))
        .expect("the model opens");
    deny_strays(&mut model);
    model
}

fn rows(conn: &Connection, sql: &str, taken: &[i64]) -> Sql<Vec<String>> {
    fetch(conn.prepare(sql)?.query(rusqlite::params_from_iter(taken))?)
}

fn left_in(conn: &Connection) -> Left {
    rich::check_whole(conn);
    let mut statement = conn.prepare("SELECT number FROM log ORDER BY at").expect("the log");
    let log = statement.query_map([], |row| row.get(0)).expect("the log");
    Left { log: log.collect::<Sql<_>>().expect("the log"), rows: dump(conn, true) }
}

fn compare(model: &Connection, told: Vec<Told>, left: &Left, before: usize) {
    let new = left.log.get(before..).expect("writes of earlier sessions are there");
    let mut writes: HashMap<i64, Told> = HashMap::new();
    // Calls that stored nothing, by the number of writes before them.
    let mut others: BTreeMap<i64, Vec<Told>> = BTreeMap::new();
    for told in told {
        let (number, at) = match &told {
            Told::Write { number, at, .. } => (Some(*number), *at),
            Told::Lease { number, at, .. } => (Some(*number), Some(*at)),
            Told::Read { at, .. } => (None, Some(*at)),
        };
        match number.filter(|number| new.contains(number)) {
            Some(number) => drop(writes.insert(number, told)),
            None => {
                assert!(!told.is_stored(), "an answered write is gone: {told:?}");
                if let Some(at) = at {
                    others.entry(at).or_default().push(told);
                }
            }
        }
    }
    for at in before..=left.log.len() {
        for told in others.remove(&(at as i64)).unwrap_or_default() {
            replay(model, at, told, false);
        }
        if let Some(number) = left.log.get(at) {
            let told = writes.remove(number);
            let told = told.unwrap_or_else(|| panic!("write {number} is stored, once too often"));
            assert!(told.may_be_stored(), "is stored: {told:?}");
            replay(model, at, told, true);
        }
    }
    // The batch of such a call may be lost, and the writes that the call saw with it. Then the call is not compared.
    others.values_mut().for_each(|told| told.retain(|told| told.is_compared(false)));
    others.retain(|_, told| !told.is_empty());
    assert!(others.is_empty(), "was told of more writes than there are: {others:?}");
    assert_eq!(left.rows, dump(model, true), "rows (real, alone)");
}

impl Told {
    fn is_stored(&self) -> bool {
        match self {
            Self::Write { outcome, .. } => matches!(outcome, Some(Outcome::Good(_))),
            Self::Lease { end, .. } => matches!(end, Outcome::Good(_)),
            Self::Read { .. } => false,
        }
    }

    /// The write of a dropped call may be stored or not.
    fn may_be_stored(&self) -> bool {
        self.is_stored() || matches!(self, Self::Write { outcome: None, .. })
    }

    /// Whether the plain connection must give the same answer. `false` for calls that something other than their own
    /// statements ended.
    fn is_compared(&self, stored: bool) -> bool {
        let Self::Write { number, call, outcome, .. } = self else { return true };
        match outcome {
            Some(Outcome::NotApplied) => {
                assert!(!call.may_repeat(), "write {number} may be run again, but was not");
                false
            }
            // The text of the panic may name rows that were lost with a neighbour's transaction.
            Some(Outcome::Panicked(text)) if !call.may_repeat() => {
                assert!(text.starts_with('['), "write {number} panicked with {text:?}");
                false
            }
            Some(outcome) if was_stopped(outcome) => false,
            // The call was dropped and may have been stopped at any point.
            None => stored,
            Some(Outcome::Other(_)) => false,
            _ => true,
        }
    }
}

/// Whether the deadline stopped a statement (SQLITE_INTERRUPT, 9) whose error the call ignored before it panicked.
fn was_stopped(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Panicked(text) if text.contains("Failed(9)"))
}

/// Runs on the model a call that ran after `at` writes, and compares the answers.
fn replay(model: &Connection, at: usize, told: Told, stored: bool) {
    if !told.is_compared(stored) {
        return;
    }
    match told {
        Told::Read { queries, rows: seen, .. } => {
            let ask = |query: &Query| ask(query, |sql, taken| rows(model, sql, taken));
            let alone: Vec<Rows> = queries.iter().map(ask).collect();
            assert_eq!(seen, alone, "a read after {at} writes (real, alone): {queries:?}");
        }
        Told::Write { number, call, outcome, .. } => {
            let alone = run_alone_with(model, || {
                log(model, number)?;
                interpret(&Plain(model), &call.unstrayed(), number, false)
            });
            match outcome {
                None => {
                    let good = matches!(alone, Outcome::Good(_));
                    assert!(good, "write {number} was dropped and is stored: {alone:?}: {call:?}");
                }
                Some(outcome) => assert_eq!(
                    outcome, alone,
                    "write {number} after {at} writes (real, alone): {call:?}"
                ),
            }
        }
        Told::Lease { number, calls, outcomes, end, .. } => {
            replay_lease(model, number, &calls, &outcomes, &end);
        }
    }
}

fn log(model: &Connection, number: i64) -> Sql<()> {
    model.execute("INSERT INTO log (number) VALUES (?1)", [number]).map(drop)
}

fn replay_lease(
    model: &Connection,
    number: i64,
    calls: &[Call],
    outcomes: &[Outcome],
    end: &Outcome,
) {
    let sql = |text| model.execute_batch(text).expect("the model runs");
    sql("PRAGMA defer_foreign_keys = OFF; BEGIN IMMEDIATE");
    log(model, number).expect("the model runs");
    let mut told = outcomes.iter();
    for call in calls {
        let Some(told) = told.next() else { break };
        if was_stopped(told) {
            assert!(!matches!(end, Outcome::Good(_)), "lease {number} is stored after its time");
            break;
        }
        // The savepoint may fail after a full-text table was made, written to and undone. The library then fails the
        // call in the same way, or runs it without a savepoint; so the rest of the lease is not compared.
        if let Err(error) = model.execute_batch("SAVEPOINT model") {
            assert_eq!(code(&error), rusqlite::ffi::SQLITE_ERROR, "lease {number}: {error}");
            assert!(!matches!(end, Outcome::Good(_)), "lease {number} is stored, and cannot be");
            break;
        }
        let ran = catch_unwind(AssertUnwindSafe(|| {
            interpret(&Plain(model), &call.unstrayed(), number, false)
        }));
        let outcome = match ran {
            Ok(Ok(seen)) => Outcome::Good(seen),
            Ok(Err(failure)) => Outcome::Failed(failure.seen, failure.code),
            Err(payload) => Outcome::Panicked(said(payload)),
        };
        assert_eq!(*told, outcome, "a call of lease {number} (real, alone): {call:?}");
        if lost(model).is_err() {
            assert!(!matches!(end, Outcome::Good(_)), "lease {number} lost its transaction");
            break;
        }
        if !matches!(outcome, Outcome::Good(_)) {
            sql("ROLLBACK TO model");
        }
        sql("RELEASE model");
    }
    if lost(model).is_ok() {
        match end {
            Outcome::Good(_) => sql("COMMIT"),
            Outcome::ForeignKey | Outcome::CommitFailed(_) => {
                let committed = model.execute_batch("COMMIT");
                let error = committed.expect_err("the commit of a lease failed");
                assert_eq!(
                    *end,
                    commit_failed(&error),
                    "the commit of lease {number} (real, alone)"
                );
                if !model.is_autocommit() {
                    sql("ROLLBACK");
                }
            }
            _ => sql("ROLLBACK"),
        }
    }
    drop_temporary(model);
}
