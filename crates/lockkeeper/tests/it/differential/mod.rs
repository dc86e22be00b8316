//! Random batches of calls, which fail and are canceled in every possible way, compared with a model that runs the same
//! calls one by one on a plain connection.
//!
//! The answer of each caller, and every row at the end, must be as if the calls had run alone, one after another. A
//! canceled call may have been stored or not, but only as a whole. Each canceled call first writes its number into
//! `ledger`, so the file shows which of them were stored.
//!
//! To make a batch, a first call holds the writer until all others are queued. To cancel a call at a given point, the
//! running closure asks the test's thread to drop a future, and waits until that is done.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lockkeeper::Synchronous;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use rusqlite::{Connection, ffi};

use crate::support::{Dir, Place, count, long, rich};
use batch::{CALLS, CANCELED, NOT_APPLIED, RUNS, Wire, add_rung, earn_trust, run_batch, said};
use draw::{BATCHES_PER_PROGRAM, program};
use interpret::interpret;
use program::{Call, Failure, Outcome, Program, Seen, code, victims};
use schema::{DUMP, SCHEMA};
use view::{Plain, fetch};

pub(crate) mod batch;
pub(crate) mod draw;
pub(crate) mod interpret;
pub(crate) mod program;
pub(crate) mod schema;
pub(crate) mod view;

fn run_alone(model: &Connection, call: &Call, index: usize, canceled: bool) -> Outcome {
    run_alone_with(model, || interpret(&Plain(model), call, index as i64, canceled))
}

/// Runs `body` as the library runs a call: in a transaction, and without leaving temporary objects.
pub(crate) fn run_alone_with(
    model: &Connection,
    body: impl FnOnce() -> Result<Vec<Seen>, Failure>,
) -> Outcome {
    let sql = |text| model.execute_batch(text).expect("the model runs");
    // The call may have set this PRAGMA. It takes effect when it is prepared, even in a call whose transaction is lost.
    sql("PRAGMA defer_foreign_keys = OFF; BEGIN IMMEDIATE");
    let ran = catch_unwind(AssertUnwindSafe(body));
    let outcome = match ran {
        Ok(Ok(_)) if model.is_autocommit() => Outcome::RolledBack,
        Ok(Ok(seen)) => match model.execute_batch("COMMIT") {
            Ok(()) => Outcome::Good(seen),
            Err(error) => commit_failed(&error),
        },
        Ok(Err(failure)) => Outcome::Failed(failure.seen, failure.code),
        Err(payload) => Outcome::Panicked(said(payload)),
    };
    if !model.is_autocommit() {
        sql("ROLLBACK");
    }
    drop_temporary(model);
    outcome
}

/// The expected outcome of a call whose COMMIT fails with `error`.
pub(crate) fn commit_failed(error: &rusqlite::Error) -> Outcome {
    match code(error) {
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => Outcome::ForeignKey,
        code => Outcome::CommitFailed(code),
    }
}

/// Drops every temporary object.
pub(crate) fn drop_temporary(conn: &Connection) {
    // Virtual tables go first, because dropping them drops the tables that belong to them.
    let next = "SELECT printf ('DROP %s temp.\"%w\"', type, name) FROM sqlite_temp_schema
                WHERE type IN ('table', 'view', 'trigger')
                ORDER BY sql LIKE 'CREATE VIRTUAL%' DESC LIMIT 1";
    while let Some(drop) = fetch_one(conn, next) {
        conn.execute_batch(&drop).expect("a temporary object can be dropped");
    }
}

fn fetch_one(conn: &Connection, sql: &str) -> Option<String> {
    let mut statement = conn.prepare(sql).expect("a query");
    let mut rows = statement.query([]).expect("a query");
    rows.next().expect("a row").map(|row| row.get(0).expect("a text"))
}

pub(crate) fn dump(conn: &Connection, rich: bool) -> Vec<String> {
    let rows =
        |sql| fetch(conn.prepare(sql).expect("a dump").query([]).expect("a dump")).expect("a dump");
    let mut all = rows(DUMP);
    if rich {
        all.extend(rows(rich::DUMP));
    }
    all
}

/// Denies to the model what the library denies to calls.
pub(crate) fn deny_strays(model: &mut Connection) {
    model
        .authorizer(Some(|context: rusqlite::hooks::AuthContext<'_>| {
            use rusqlite::hooks::{AuthAction, Authorization};
            match context.action {
                AuthAction::Savepoint { savepoint_name: "model", .. } => Authorization::Allow,
                AuthAction::Savepoint { .. } | AuthAction::Attach { .. } => Authorization::Deny,
                _ => Authorization::Allow,
            }
        }))
        .expect("the model opens");
}

#[expect(clippy::too_many_lines, reason = "a batch, the same calls alone, and what is compared")]
fn check(program: &Program) -> Result<(), TestCaseError> {
    let dir = Dir::new();
    let wire: Wire = Arc::default();
    let (rung, pages_max, rich) = (Arc::clone(&wire), program.pages_max, program.rich);
    let place = if program.memory { Place::Memory } else { Place::File };
    let plain_db = dir
        .builder(place)
        .readers(1)
        .synchronous(Synchronous::Off)
        .batch_max(program.calls_max, Duration::from_secs(60), u64::MAX)
        .setup(move |conn| {
            add_rung(conn, Some(Arc::clone(&rung)))?;
            conn.query_row(&format!("PRAGMA max_page_count = {pages_max}"), [], |_| Ok(()))
        })
        .blocking_open()
        .expect("the database opens");
    let schema = if program.rich { [SCHEMA, rich::SCHEMA].concat() } else { SCHEMA.to_owned() };
    let made = schema.clone();
    plain_db.blocking_write(move |tx| tx.execute_batch(&made)).expect("the schema is made");
    let db = plain_db.with_error::<Failure>();
    if program.trusted {
        earn_trust(&db);
    }

    let mut model = Connection::open_in_memory().expect("the model opens");
    add_rung(&model, None).expect("the model opens");
    model
        .execute_batch(&format!(
            "PRAGMA foreign_keys = ON; {schema} PRAGMA max_page_count = {pages_max};"
        ))
        .expect("the model opens");
    deny_strays(&mut model);

    for batch in &program.batches {
        let outcomes = run_batch(&db, batch, &wire);
        CALLS.fetch_add(batch.len(), Ordering::Relaxed);
        let (happened, after) = db
            .blocking_write(move |tx| {
                let happened = tx
                    .prepare("DELETE FROM ledger RETURNING call")
                    .and_then(|mut statement| {
                        statement.query_map([], |row| Ok(row.get::<_, i64>(0)? as usize))?.collect()
                    })
                    .map_err(Failure::from)?;
                let happened: HashSet<usize> = happened;
                let mut rows = fetch(tx.prepare(DUMP)?.query([])?)?;
                if rich {
                    rows.extend(fetch(tx.prepare(rich::DUMP)?.query([])?)?);
                }
                Ok((happened, rows))
            })
            .expect("the rows can be read");

        let victims = victims(batch);
        for (index, (call, outcome)) in batch.iter().zip(outcomes).enumerate() {
            let may_repeat = call.may_repeat();
            let canceled = victims.contains(&index);
            match outcome {
                // The call was canceled and is not stored.
                None if !happened.contains(&index) => {}
                None => {
                    let alone = run_alone(&model, &call.unstrayed(), index, canceled);
                    prop_assert!(
                        matches!(alone, Outcome::Good(_)),
                        "call {index} was canceled and is stored, alone it would be {alone:?}"
                    );
                }
                Some(Outcome::NotApplied) => {
                    NOT_APPLIED.fetch_add(1, Ordering::Relaxed);
                    prop_assert!(!may_repeat, "call {index} may be run again, but was not");
                    prop_assert!(!happened.contains(&index), "call {index} is stored");
                }
                // The caller gets the panic even if the call was lost with its transaction and may not run again. Its
                // text may then name rows that were never stored, so only its form is compared.
                Some(Outcome::Panicked(text)) if !may_repeat => {
                    prop_assert!(text.starts_with('['), "call {index} panicked with {text:?}");
                }
                Some(outcome) => {
                    let alone = run_alone(&model, &call.unstrayed(), index, canceled);
                    prop_assert_eq!(&outcome, &alone, "call {} (real, alone)", index);
                }
            }
        }
        model.execute_batch("DELETE FROM ledger").expect("the model runs");
        prop_assert_eq!(after, dump(&model, rich), "rows (real, alone)");
    }
    if rich {
        let checked = plain_db.blocking_exclusive(|conn| {
            rich::check_whole(conn);
            Ok(())
        });
        checked.expect("an exclusive call");
    }
    plain_db.blocking_close().expect("the database closes");
    Ok(())
}

#[test]
fn a06_a_batch_is_told_and_leaves_what_its_calls_would_alone() {
    let batches = count(2_400, 50_000);
    let config = ProptestConfig {
        cases: (batches / BATCHES_PER_PROGRAM) as u32,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    };
    // The default form draws the same programs every time; the long form draws new ones.
    let mut runner = match long() {
        true => TestRunner::new(config),
        false => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let quiet = Quiet::panics_of_calls();
    let result = runner.run(&program(), |program| check(&program));
    drop(quiet);
    let (calls, runs) = (CALLS.load(Ordering::Relaxed), RUNS.load(Ordering::Relaxed));
    let canceled = CANCELED.load(Ordering::Relaxed);
    let not_applied = NOT_APPLIED.load(Ordering::Relaxed);
    println!(
        "{batches} batches, {calls} calls, {runs} runs of closures, {canceled} canceled, \
         {not_applied} not applied"
    );
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(runs > calls, "no call was ever run again: the test has lost its teeth");
    assert!(canceled > calls / 100 && not_applied > 0);
}

/// Keeps the intended panics of the calls out of the test's output.
pub(crate) struct Quiet;

impl Quiet {
    pub(crate) fn panics_of_calls() -> Self {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let own = info.payload().is::<String>() && thread.name() == Some("lockkeeper-writer");
            let model = info.payload().downcast_ref::<String>().is_some_and(|s| s.starts_with('['));
            if !own && !model {
                hook(info);
            }
        }));
        Self
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        drop(std::panic::take_hook());
    }
}
