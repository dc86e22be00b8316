//! Calls that run without a savepoint, because earlier calls of the same closure type needed none
//! (`src/writer/elision.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lockkeeper::{Client, ErrorKind, Transaction};

use crate::support::{HeldWriter, PLACES, block_on, db_at, ids, insert, poll_once};

/// More runs than a closure type needs to be trusted.
const TRUSTED: i64 = 32;

/// All closures from this function have one type. Each run inserts a row, and fails afterwards if `fail` is `true`.
fn one_row(
    id: i64,
    fail: bool,
    runs: Arc<AtomicUsize>,
) -> impl FnMut(&Transaction) -> rusqlite::Result<()> + Send + 'static {
    move |tx| {
        runs.fetch_add(1, Ordering::Relaxed);
        insert(tx, id)?;
        if fail { Err(rusqlite::Error::InvalidQuery) } else { Ok(()) }
    }
}

fn earn_trust(db: &Client) {
    for id in 0..TRUSTED {
        db.blocking_write(one_row(id, false, Arc::default())).expect("the row is new");
    }
}

#[test]
fn a06_a_trusted_closure_that_fails_after_writing_is_undone_alone() {
    for place in PLACES {
        let (_dir, db) = db_at(place, |builder| builder);
        earn_trust(&db);
        let held = HeldWriter::hold(&db);
        let runs: [Arc<AtomicUsize>; 3] = Default::default();
        let mut before = db.write(one_row(100, false, Arc::clone(&runs[0])));
        let mut fails = db.write(one_row(101, true, Arc::clone(&runs[1])));
        let mut after = db.write(one_row(102, false, Arc::clone(&runs[2])));
        assert!(poll_once(&mut before).is_pending());
        assert!(poll_once(&mut fails).is_pending());
        assert!(poll_once(&mut after).is_pending());
        held.release();
        block_on(before).expect("a neighbour's failure is not its own");
        let error = block_on(fails).expect_err("it returned an error");
        assert_eq!(error.into_call().expect("its own error"), rusqlite::Error::InvalidQuery);
        block_on(after).expect("a neighbour's failure is not its own");
        let mut expected: Vec<i64> = (0..TRUSTED).collect();
        expected.extend([100, 102]);
        assert_eq!(ids(&db), expected);
        // The failing call ran without a savepoint. With a savepoint, the call before it would have run only once.
        assert_eq!(runs[0].load(Ordering::Relaxed), 2, "the call before it is run again");
        db.blocking_close().expect("the database closes");
    }
}

#[test]
fn a07_a_call_that_may_run_once_is_not_put_at_risk_by_a_trusted_neighbour() {
    for place in PLACES {
        let (_dir, db) = db_at(place, |builder| builder);
        earn_trust(&db);
        let held = HeldWriter::hold(&db);
        let mut once = db.write_once(|tx| insert(tx, 100));
        let mut fails = db.write(one_row(101, true, Arc::default()));
        assert!(poll_once(&mut once).is_pending());
        assert!(poll_once(&mut fails).is_pending());
        held.release();
        block_on(once).expect("its neighbour ran in a savepoint");
        assert_eq!(block_on(fails).expect_err("it returned an error").kind(), ErrorKind::Call);
        let mut expected: Vec<i64> = (0..TRUSTED).collect();
        expected.push(100);
        assert_eq!(ids(&db), expected);
        db.blocking_close().expect("the database closes");
    }
}
