//! The library does not hold up the threads and schedulers of its callers.

use std::time::{Duration, Instant};

use lockkeeper::RefusedReason;

use crate::support::{
    Committed, Dir, ENDLESS, HANG, HeldWriter, Place, TABLE, block_on, count, file_db, insert,
    kind, lock_of_another, poll_once, within,
};

/// If a ticker of 1 ms that is the only ready task is later than this, its scheduler was blocked.
const STOOD_STILL: Duration = Duration::from_millis(100);

/// How late a ticker of 1 ms is at worst during `ticks` ticks.
async fn worst_tick(ticks: u32) -> Duration {
    let mut worst = Duration::ZERO;
    for _ in 0..ticks {
        let due = Instant::now() + Duration::from_millis(1);
        tokio::time::sleep_until(due.into()).await;
        worst = worst.max(due.elapsed());
    }
    worst
}

#[test]
fn a02_a_single_threaded_scheduler_ticks_on_while_everything_waits() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder.queue_capacity(4));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let idle = worst_tick(200).await;
            let lock = lock_of_another(&dir.file("test.db"));
            let writes: Vec<_> = (0..64)
                .map(|id| {
                    let db = db.clone();
                    tokio::spawn(async move { db.write(move |tx| insert(tx, id)).await })
                })
                .collect();
            let reader = db.clone();
            let query = tokio::spawn(async move {
                reader.read(|s| s.query_row(ENDLESS, [], |row| row.get::<_, i64>(0))).await
            });
            tokio::task::yield_now().await;
            // When the queue is full, one call waits for the lock, four wait for their turn, and the others wait for
            // room.
            let refused = loop {
                match db.try_write(|_| Ok(())) {
                    Err(refused) => break refused,
                    Ok(write) => drop(write),
                }
                tokio::task::yield_now().await;
            };
            assert_eq!(refused.reason, RefusedReason::Full);
            // Other programs may take the processor for longer in one round. A call that blocks the scheduler does so
            // in every round.
            let mut loaded = worst_tick(300).await;
            for _ in 0..9 {
                if loaded < STOOD_STILL {
                    break;
                }
                loaded = worst_tick(300).await;
            }
            assert!(!query.is_finished(), "the query still runs");
            assert!(writes.iter().all(|write| !write.is_finished()), "the writes still wait");
            let released = Instant::now();
            drop(lock);
            for write in writes {
                write.await.expect("the task ends").expect("the write succeeds");
            }
            println!(
                "worst tick {loaded:?} (idle {idle:?}); 64 writes {:?} after the release",
                released.elapsed()
            );
            query.abort();
            assert!(query.await.is_err_and(|error| error.is_cancelled()));
            assert!(loaded < STOOD_STILL, "the scheduler stood still: {loaded:?}");
        });
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a03_a_single_caller_gets_a_commit_of_its_own_at_once() {
    let n = count(500, 20_000) as i64;
    let (dir, db) = file_db(|builder| builder);
    let committed = Committed::new(&dir);
    for id in 0..n {
        db.blocking_write(move |tx| insert(tx, id)).expect("a write");
        assert_eq!(committed.now(), id, "answered before its commit");
    }
    db.blocking_close().expect("closes");
}

#[test]
fn a03_calls_that_wait_share_one_commit() {
    // The limit is long, because a busy machine may take the processor from the writer for longer than a batch may run.
    let (dir, db) = file_db(|builder| builder.batch_max(1024, Duration::from_secs(60), 16 << 20));
    let committed = Committed::new(&dir);
    let held = HeldWriter::hold(&db);
    let write = |id| {
        let committed = committed.clone();
        db.write(move |tx| {
            insert(tx, id)?;
            Ok(committed.now())
        })
    };
    let mut writes: Vec<_> = (0..64).map(write).collect();
    for write in &mut writes {
        assert!(poll_once(write).is_pending());
    }
    held.release();
    for write in writes {
        assert_eq!(block_on(write).expect("a write"), -1, "an earlier call was committed before");
    }
    assert_eq!(committed.now(), 63);
    db.blocking_close().expect("closes");
}

/// Compared with a raw connection in the same run. A write may cost the hand-off to the thread, but not a timer's
/// delay.
#[test]
fn a03_a_single_caller_pays_the_hand_off_only() {
    let n = count(300, 20_000) as i64;
    let dir = Dir::new();
    let raw = rusqlite::Connection::open(dir.file("raw.db")).expect("a connection");
    raw.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).expect("WAL");
    raw.execute_batch("PRAGMA synchronous = NORMAL").expect("NORMAL");
    raw.execute_batch(TABLE).expect("the table");
    let began = Instant::now();
    for id in 0..n {
        raw.execute_batch("BEGIN IMMEDIATE").expect("begin");
        let mut insert = raw.prepare_cached("INSERT INTO t VALUES (?1, ?1)").expect("a statement");
        insert.execute([id]).expect("an insert");
        raw.execute_batch("COMMIT").expect("commit");
    }
    let plain = began.elapsed();
    let db = dir.builder(Place::File).synchronous(lockkeeper::Synchronous::Normal);
    let db = db.blocking_open().expect("the database opens");
    db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table is created");
    let began = Instant::now();
    for id in 0..n {
        db.blocking_write(move |tx| insert(tx, id)).expect("a write");
    }
    let ours = began.elapsed();
    println!("{n} writes: raw {plain:?}, here {ours:?}");
    // The limit allows for a busy machine, but a timer of 10 ms in each write would exceed it.
    assert!(ours < plain * 10 + Duration::from_millis(5) * n as u32, "{ours:?} for {plain:?}");
    db.blocking_close().expect("closes");
}

#[test]
fn a16_a_deadline_covers_the_wait_for_the_lock() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder.queue_capacity(2));
        let lock = lock_of_another(&dir.file("test.db"));
        let patience = Duration::from_millis(200);
        let began = Instant::now();
        // Later calls have shorter deadlines. If an earlier call gave up first, the calls behind it would move up and
        // fail in another phase.
        let patiences = [patience, patience / 2, patience / 2, patience / 4];
        let mut writes: Vec<_> = patiences
            .into_iter()
            .enumerate()
            .map(|(id, patience)| db.write(move |tx| insert(tx, id as i64)).deadline(patience))
            .collect();
        // The writer takes the first call and waits for the lock. Then two calls wait for their turn.
        assert!(poll_once(&mut writes[0]).is_pending());
        wait_until_taken(&db);
        for write in &mut writes[1..] {
            assert!(poll_once(write).is_pending());
        }
        let kinds: Vec<_> = writes.into_iter().map(|write| kind(block_on(write))).collect();
        let waited = began.elapsed();
        use lockkeeper::{ErrorKind::Timeout, Phase};
        assert_eq!(
            kinds,
            [
                Timeout(Phase::Locked),
                Timeout(Phase::Queued),
                Timeout(Phase::Queued),
                Timeout(Phase::Room)
            ]
        );
        println!("four calls with a deadline of {patience:?} answered after {waited:?}");
        assert!(waited >= patience, "too early: {waited:?}");
        assert!(waited < Duration::from_millis(2_500), "too late: {waited:?}");
        drop(lock);
        db.blocking_write(|tx| insert(tx, 9)).expect("a write after the lock is free");
        assert_eq!(crate::support::ids(&db), [9]);
        db.blocking_close().expect("closes");
    });
}

/// Waits until the writer has taken the accepted call, so that the queue has room for two calls.
fn wait_until_taken(db: &lockkeeper::Database) {
    let mut fillers = Vec::new();
    loop {
        while let Ok(write) = db.try_write(|_| Ok(())) {
            fillers.push(write);
        }
        let full = fillers.len() == 2;
        fillers.clear();
        if full {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a16_a_deadline_covers_the_run() {
    crate::support::on_each_place(|db, place| {
        use lockkeeper::{ErrorKind::Timeout, Phase};
        let patience = Duration::from_millis(50);
        let began = Instant::now();
        let endless =
            |s: &lockkeeper::Snapshot| s.query_row(ENDLESS, [], |row| row.get::<_, i64>(0));
        let write = db.write(move |tx| {
            insert(tx, 1)?;
            endless(tx)
        });
        assert_eq!(kind(block_on(write.deadline(patience))), Timeout(Phase::Running), "{place:?}");
        let read = db.read(endless).deadline(patience);
        assert_eq!(kind(block_on(read)), Timeout(Phase::Running), "{place:?}");
        let exclusive =
            db.exclusive(|conn| conn.query_row(ENDLESS, [], |row| row.get::<_, i64>(0)));
        assert_eq!(kind(block_on(exclusive.deadline(patience))), Timeout(Phase::Running));
        println!("{place:?}: three endless calls of {patience:?} each took {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(5));
        // A call that runs no SQL asks whether it should stop.
        let write = db.write(|tx| {
            while tx.should_stop().is_none() {
                std::thread::yield_now();
            }
            insert(tx, 2)
        });
        assert_eq!(kind(block_on(write.deadline(patience))), Timeout(Phase::Running), "{place:?}");
        assert_eq!(crate::support::ids(db), []);
    });
}

#[test]
fn a16_a_read_that_waits_for_a_reader_times_out_in_the_queue() {
    use lockkeeper::{ErrorKind::Timeout, Phase};
    let (_dir, db) = file_db(|builder| builder.readers(1).readers_max(1));
    let mut endless = db.read(|s| s.query_row(ENDLESS, [], |row| row.get::<_, i64>(0)));
    assert!(poll_once(&mut endless).is_pending());
    let read = db.read(|_| Ok(())).deadline(Duration::from_millis(30));
    assert_eq!(kind(block_on(read)), Timeout(Phase::Queued));
    drop(endless);
    db.blocking_read(|_| Ok(())).expect("the reader is free again");
    db.blocking_close().expect("closes");
}

#[test]
fn a16_canceling_ends_the_wait_for_the_lock() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder);
        let lock = lock_of_another(&dir.file("test.db"));
        let mut write =
            db.write(|_| -> rusqlite::Result<()> { panic!("canceled, and yet it ran") });
        assert!(poll_once(&mut write).is_pending());
        drop(write);
        // The lock is still held, and an exclusive call needs no lock. So the call runs only if the cancel has freed
        // the writer.
        db.blocking_exclusive(|_| Ok(())).expect("the writer has given up the canceled call");
        drop(lock);
        db.blocking_write(|tx| insert(tx, 1)).expect("a write");
        db.blocking_close().expect("closes");
    });
}
