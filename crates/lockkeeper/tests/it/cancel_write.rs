//! Writes that are canceled at any time, among writes that are not.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::Duration;

use lockkeeper::{ErrorKind, Transaction};

use crate::support::{HANG, block_on, count, db_at, poll_once, within_each};

/// The rows of each call. The first and the last statement write one each, a long statement in between writes the
/// others, so that the call can be stopped in the middle.
const ROWS: i64 = 300;

fn write_whole(tx: &Transaction, call: i64) -> rusqlite::Result<i64> {
    tx.execute("INSERT INTO whole (call, n) VALUES (?1, 0)", [call])?;
    tx.execute(
        "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?2 - 2)
         INSERT INTO whole (call, n) SELECT ?1, n FROM c",
        [call, ROWS],
    )?;
    tx.execute("INSERT INTO whole (call, n) VALUES (?1, ?2)", [call, ROWS - 1])?;
    Ok(call)
}

type BoxedWrite = Pin<Box<dyn Future<Output = Result<i64, lockkeeper::Error>> + Send>>;

/// A few random bits; their quality does not matter here.
fn draw(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[test]
#[expect(clippy::too_many_lines, reason = "the calls, their end, and what each end leaves")]
fn a17_a_write_canceled_at_any_time_is_undone_or_stored_whole_and_alone() {
    within_each(HANG * 4, move |place| {
        let calls = count(3_000, 50_000) as i64;
        let (_dir, db) = db_at(place, |builder| {
            builder.readers(1).synchronous(lockkeeper::Synchronous::Off).batch_max(
                64,
                Duration::from_secs(1),
                u64::MAX,
            )
        });
        let schema = "CREATE TABLE whole (call INTEGER, n INTEGER, PRIMARY KEY (call, n)) STRICT";
        db.blocking_write(move |tx| tx.execute_batch(schema)).expect("the table is created");

        // submitter                  | canceler
        // ---------------------------+---------------------------------
        // submit call n              |
        // hand over half of them     | drop it after a while
        // await the others           |
        let (hand_over, handed_over) = mpsc::channel::<(BoxedWrite, i64)>();
        let canceler = std::thread::spawn(move || {
            let mut seed = 0x2545_F491_4F6C_DD1D_u64;
            let mut canceled = 0_usize;
            while let Ok((mut future, call)) = handed_over.recv() {
                for _ in 0..draw(&mut seed) % 40_000 {
                    std::hint::spin_loop();
                }
                // The call may have been answered before it is canceled.
                match poll_once(&mut future) {
                    Poll::Pending => canceled += 1,
                    Poll::Ready(answer) => assert_eq!(answer.ok(), Some(call)),
                }
                drop(future);
            }
            canceled
        });
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        let runs = Arc::new(AtomicUsize::new(0));
        let mut stays = HashSet::new();
        let mut waiting = Vec::new();
        for call in 0..calls {
            let runs = Arc::clone(&runs);
            let mut future = db.write(move |tx| {
                runs.fetch_add(1, Ordering::Relaxed);
                write_whole(tx, call)
            });
            if let Poll::Ready(answer) = poll_once(&mut future) {
                assert_eq!(answer.expect("nobody canceled this call"), call);
                stays.insert(call);
                continue;
            }
            if draw(&mut seed).is_multiple_of(2) {
                hand_over.send((Box::pin(future), call)).expect("the canceler listens");
            } else {
                stays.insert(call);
                waiting.push((future, call));
            }
            if waiting.len() == 32 {
                for (future, call) in waiting.drain(..) {
                    assert_eq!(block_on(future).expect("nobody canceled this call"), call);
                }
            }
        }
        for (future, call) in waiting {
            assert_eq!(block_on(future).expect("nobody canceled this call"), call);
        }
        drop(hand_over);
        let canceled = canceler.join().expect("the canceler ends");

        // A canceled call may still run. The next write waits for it in the queue.
        db.blocking_write(|_| Ok(())).expect("the writer lives");
        let stored: Vec<(i64, i64)> = db
            .blocking_read(|s| {
                s.prepare("SELECT call, count(*) FROM whole GROUP BY call")?
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect()
            })
            .expect("the rows can be read");
        for &(call, rows) in &stored {
            assert_eq!(rows, ROWS, "call {call} is stored in part");
        }
        let stored: HashSet<i64> = stored.into_iter().map(|(call, _)| call).collect();
        let missing: Vec<_> = stays.difference(&stored).collect();
        assert!(missing.is_empty(), "acked, but not stored: {missing:?}");
        let (runs, stored) = (runs.load(Ordering::Relaxed), stored.len());
        println!("{calls} writes, {canceled} canceled, {runs} runs, {stored} stored");
        // How many calls were canceled while they ran depends on the machine. The tests below and the differential test
        // cancel at exact points.
        db.blocking_close().expect("the database closes");
    });
}

#[test]
fn a17_a_call_that_forgives_its_interrupted_statement_is_not_stored_in_part() {
    within_each(HANG, move |place| {
        let (_dir, db) = db_at(place, |builder| builder.readers(1));
        let (begun, has_begun) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let mut future = db.write_once(move |tx| {
            tx.execute("INSERT INTO t (id, v) VALUES (1, 1)", [])?;
            begun.send(()).expect("the test waits");
            goes_on.recv_timeout(HANG).expect("the test goes on");
            // The call was canceled meanwhile, so this statement fails. The call ignores the error.
            let _ = tx.execute("INSERT INTO t (id, v) VALUES (2, 2)", []);
            Ok(())
        });
        assert!(poll_once(&mut future).is_pending());
        has_begun.recv_timeout(HANG).expect("the call begins");
        drop(future);
        go_on.send(()).expect("the call waits");
        db.blocking_write(|_| Ok(())).expect("the writer lives");
        assert_eq!(crate::support::ids(&db), Vec::<i64>::new());
    });
}

#[test]
fn a17_a_call_past_its_deadline_is_undone_and_its_neighbours_are_stored() {
    within_each(HANG, move |place| {
        let (_dir, db) = db_at(place, |builder| {
            builder.readers(1).batch_max(1024, Duration::from_secs(60), u64::MAX)
        });
        let held = crate::support::HeldWriter::hold(&db);
        let mut before = db.write(|tx| crate::support::insert(tx, 1));
        assert!(poll_once(&mut before).is_pending());
        // This call runs until it is stopped.
        let mut endless = db
            .write(|tx| {
                crate::support::insert(tx, 2)?;
                tx.execute(
                    "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)
                     INSERT INTO t (v) SELECT 0 FROM c WHERE n < 0",
                    [],
                )
            })
            .deadline(Duration::from_secs(1));
        assert!(poll_once(&mut endless).is_pending());
        let mut after = db.write(|tx| crate::support::insert(tx, 3));
        assert!(poll_once(&mut after).is_pending());
        held.release();
        block_on(before).expect("the neighbour is stored");
        let error = block_on(endless).expect_err("it never ends by itself");
        assert_eq!(error.kind(), ErrorKind::Timeout(lockkeeper::Phase::Running));
        block_on(after).expect("the neighbour is stored");
        assert_eq!(crate::support::ids(&db), [1, 3]);
    });
}
