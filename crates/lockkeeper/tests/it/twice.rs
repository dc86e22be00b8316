//! `run_writes_twice`: tests find closures that must not run more than once (promise A50).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockkeeper::{Change, Client, Database, ErrorKind, Transaction};

use crate::support::{
    Dir, HANG, HeldWriter, PLACES, Place, block_on, db_at, ids, insert, kind, poll_once, within,
    within_each,
};

fn twice(place: Place) -> (Dir, Database) {
    db_at(place, |builder| builder.run_writes_twice(true))
}

/// A count of the runs of a closure.
#[derive(Clone, Default)]
struct Runs(Arc<AtomicUsize>);

impl Runs {
    /// Counts a run. Returns its number, beginning with 1.
    fn count(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn so_far(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn a50_a_write_runs_twice_and_its_second_run_is_kept() {
    for place in PLACES {
        let (_dir, db) = twice(place);
        let runs = Runs::default();
        let counted = runs.clone();
        let answer = db.blocking_write(move |tx| {
            let run = counted.count();
            let before: i64 = tx.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?;
            tx.execute("INSERT INTO t (v) VALUES (?1)", [run as i64])?;
            tx.execute_batch("CREATE TABLE made (a); CREATE TEMP TABLE temporary (a)")?;
            Ok((run, before, tx.last_insert_rowid(), tx.changes()))
        });
        assert_eq!(answer.expect("stored"), (2, 0, 1, 1), "the second run, which finds no trace");
        let stored: Vec<i64> = db
            .blocking_read(|s| {
                s.prepare("SELECT v FROM t")?.query_map([], |row| row.get(0))?.collect()
            })
            .expect("rows");
        assert_eq!((stored, runs.so_far()), (vec![2], 2), "{place:?}");
        let tried = runs.clone();
        let submitted = db.try_write(move |_| Ok(tried.count())).map_err(|_| ()).expect("room");
        assert_eq!(block_on(submitted).expect("stored"), 4);
        db.blocking_close().expect("closes");
    }
}

#[test]
fn a50_what_may_run_once_runs_once() {
    for place in PLACES {
        let (_dir, db) = twice(place);
        let runs = Runs::default();
        let count = || {
            let runs = runs.clone();
            move || runs.count()
        };
        let once = count();
        assert_eq!(block_on(db.write_once(move |_| Ok(once()))).ok(), Some(1));
        let once = count();
        assert_eq!(db.blocking_exclusive(move |_| Ok(once())).ok(), Some(2));
        let mut lease = block_on(db.lease()).expect("a lease");
        let once = count();
        assert_eq!(lease.blocking_run(move |_| Ok(once())).ok(), Some(3));
        lease.blocking_commit().expect("commits");
        let once = count();
        assert_eq!(db.blocking_read(move |_| Ok(once())).ok(), Some(4));
        // A write inside a write that runs once is a part of that write, so it runs once too.
        let (once, other) = (count(), db.clone());
        let nested = db.write_once(move |_| {
            other.blocking_write(move |_| Ok(once())).map_err(|_| rusqlite::Error::InvalidQuery)
        });
        assert_eq!(block_on(nested).ok(), Some(5), "{place:?}");
        db.blocking_close().expect("closes");
    }
}

/// The result of the first run is dropped, whether that is a value, an error, a panic or a lost transaction.
#[test]
fn a50_whatever_the_first_run_came_to_the_second_is_the_answer() {
    within_each(HANG, |place| {
        type First = fn(&Transaction) -> rusqlite::Result<()>;
        let firsts: [(&str, First); 5] = [
            ("succeeds", |tx| insert(tx, 8)),
            ("fails", |tx| insert(tx, 8).and(Err(rusqlite::Error::InvalidQuery))),
            ("panics", |_| std::panic::resume_unwind(Box::new("as ordered"))),
            ("loses the transaction", |tx| {
                let lost = tx.execute("INSERT OR ROLLBACK INTO t VALUES (4, 4), (4, 4)", []);
                let after = tx.query_row("SELECT 1", [], |_| Ok(()));
                assert!(after.is_err(), "nothing runs any more");
                lost.map(drop)
            }),
            ("leaves a statement unfinished", |tx| {
                let mut insert = tx.prepare("INSERT INTO t VALUES (8, 8), (9, 9) RETURNING id")?;
                let mut rows = insert.query([])?;
                rows.next()?;
                Ok(())
            }),
        ];
        for (how, first) in firsts {
            let (_dir, db) = twice(place);
            let held = HeldWriter::hold(&db);
            let (runs, before, behind) = (Runs::default(), Runs::default(), Runs::default());
            let (counted, earlier, later) = (runs.clone(), before.clone(), behind.clone());
            let mut neighbour = db.write(move |tx| {
                earlier.count();
                insert(tx, 1)
            });
            let mut call = db.write(move |tx| match counted.count() {
                1 => first(tx).map(|()| 1),
                run => insert(tx, 2).map(|()| run),
            });
            let mut last = db.write(move |tx| {
                later.count();
                insert(tx, 3)
            });
            assert!(poll_once(&mut neighbour).is_pending());
            assert!(poll_once(&mut call).is_pending());
            assert!(poll_once(&mut last).is_pending());
            held.release();
            block_on(neighbour).expect("the neighbour is stored");
            assert_eq!(block_on(call).expect("stored"), 2, "it {how} first, {place:?}");
            block_on(last).expect("the one behind is stored");
            assert_eq!(ids(&db), [1, 2, 3], "it {how} first, {place:?}");
            assert_eq!(runs.so_far(), 2, "it {how} first");
            assert!(before.so_far() >= 2 && behind.so_far() == 2);
            db.blocking_close().expect("closes");
        }
    });
}

/// If only the second run fails, its failure is the answer.
#[test]
fn a50_a_second_run_that_fails_is_the_answer_and_nothing_is_stored() {
    for place in PLACES {
        let (_dir, db) = twice(place);
        let runs = Runs::default();
        let fails = db.blocking_write(move |tx| {
            insert(tx, 1)?;
            if runs.count() == 2 { Err(rusqlite::Error::InvalidQuery) } else { Ok(()) }
        });
        assert_eq!(kind(fails), ErrorKind::Call);
        let runs = Runs::default();
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            db.blocking_write(move |tx| {
                insert(tx, 1)?;
                if runs.count() == 2 {
                    std::panic::resume_unwind(Box::new("as ordered"));
                }
                Ok(())
            })
        }));
        assert!(panics.is_err());
        assert_eq!(ids(&db), [], "{place:?}");
        db.blocking_close().expect("closes");
    }
}

/// The change feed and the statistics report only one run.
#[test]
fn a50_changes_and_statistics_are_those_of_one_run() {
    for place in PLACES {
        let (_dir, db) = twice(place);
        let mut changes = db.changes();
        let before = db.stats().writes.run.count();
        let runs = Runs::default();
        db.blocking_write(move |tx| {
            let first = runs.count() == 1;
            tx.execute_batch("CREATE TEMP TABLE aside (a); INSERT INTO aside VALUES (1)")?;
            insert(tx, if first { 8 } else { 9 })
        })
        .expect("a write");
        let Some(Change::Commit(commit)) = block_on(changes.next()) else { panic!("no commit") };
        let rows: Vec<_> = commit
            .calls()
            .iter()
            .flat_map(|call| call.tables())
            .flat_map(|table| table.rows().expect("named").iter().map(|row| row.rowid))
            .collect();
        assert_eq!(rows, [9], "{place:?}");
        assert_eq!(db.stats().writes.run.count() - before, 1);
        db.blocking_close().expect("closes");
    }
}

/// If a call is asked to stop in its first run, it has no second run.
#[test]
fn a50_a_call_that_is_stopped_in_its_first_run_has_no_second() {
    within(HANG, || {
        for place in PLACES {
            let (_dir, db) = twice(place);
            let runs = Runs::default();
            let counted = runs.clone();
            let late = db
                .write(move |tx| {
                    counted.count();
                    insert(tx, 1)?;
                    tx.query_row(crate::support::ENDLESS, [], |_| Ok(()))
                })
                .deadline(Duration::from_millis(50));
            let error = block_on(late).expect_err("it runs out of time");
            assert!(error.is_timeout(), "{error:?}");
            assert_eq!((runs.so_far(), ids(&db)), (1, vec![]), "{place:?}");
            db.blocking_write(|tx| insert(tx, 2)).expect("the next");
            db.blocking_close().expect("closes");
        }
    });
}

/// The program that this setting was made for: it counts outside the database.
#[test]
fn a50_a_counter_in_an_arc_is_caught() {
    let program = |db: &Client| {
        let list = Arc::new(Mutex::new(Vec::new()));
        let outside = Arc::clone(&list);
        db.blocking_write(move |tx| {
            outside.lock().expect("no panic").push(1);
            insert(tx, 1)
        })
        .expect("stored");
        let counted = list.lock().expect("no panic").len();
        counted == ids(db).len()
    };
    let (_dir, db) = db_at(Place::File, |builder| builder);
    assert!(program(&db), "nothing shows it");
    let (_dir, db) = twice(Place::File);
    assert!(!program(&db), "it is shown");
}
