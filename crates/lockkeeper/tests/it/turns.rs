//! Short reads do not starve other tasks (A51). The tests count turns and compare threads, but measure no time.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;
use std::time::Duration;

use lockkeeper::{Database, Error, ErrorKind, Phase};

use crate::support::{Dir, HANG, block_on, file_db, poll_once, within};

/// The number of short reads that are answered in a loop.
const ANSWERS: usize = 2_000;

/// The most short reads that are answered before one gives way (`src/engine/turns.rs`).
const TURN_ANSWERS: usize = 32;

/// If this many short reads wait at the same time, further ones run on reader threads (`src/engine/turns.rs`).
const CROWD: usize = 8;

/// A short read that returns the thread on which it runs.
fn thread_of_short(db: &Database) -> impl Future<Output = Result<ThreadId, Error>> + Unpin + use<> {
    db.read(|s| s.query_row("SELECT count(*) FROM t", [], |_| Ok(std::thread::current().id())))
        .short()
}

/// A database that has opened its connection for short reads.
fn warm_db() -> (Dir, Database) {
    let (dir, db) = file_db(|builder| builder);
    let here = std::thread::current().id();
    while block_on(thread_of_short(&db)).expect("a read") != here {}
    (dir, db)
}

/// How many turns another task had while [`ANSWERS`] short reads were answered on this thread.
async fn turns_beside(db: &Database, turns: &AtomicUsize) -> usize {
    let (mut answers, mut seen) = (0, 0);
    while answers < ANSWERS {
        let before = turns.load(Ordering::Relaxed);
        let thread = thread_of_short(db).await.expect("a read");
        if thread == std::thread::current().id() {
            answers += 1;
            seen += turns.load(Ordering::Relaxed) - before;
        }
    }
    seen
}

#[test]
fn a51_a_loop_of_short_reads_lets_another_task_of_tokio_run() {
    within(HANG, || {
        let (_dir, db) = warm_db();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        let seen = runtime.block_on(async {
            let other = tokio::spawn(async move {
                loop {
                    counted.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            });
            let seen = turns_beside(&db, &turns).await;
            other.abort();
            seen
        });
        assert!(seen >= ANSWERS / TURN_ANSWERS, "{seen} turns beside {ANSWERS} reads");
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a51_a_loop_of_short_reads_lets_another_task_of_smol_run() {
    within(HANG, || {
        let (_dir, db) = warm_db();
        let executor = smol::LocalExecutor::new();
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        let _other = executor.spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                smol::future::yield_now().await;
            }
        });
        let reading = executor.spawn({
            let db = db.clone();
            async move { turns_beside(&db, &turns).await }
        });
        let seen = smol::block_on(executor.run(reading));
        assert!(seen >= ANSWERS / TURN_ANSWERS, "{seen} turns beside {ANSWERS} reads");
        db.blocking_close().expect("closes");
    });
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls short reads until one gives way, and returns that read. The others are answered when they are polled.
fn one_that_gives_way<F: Future + Unpin>(mut read: impl FnMut() -> F) -> F {
    for _ in 0..=TURN_ANSWERS {
        let mut read = read();
        if poll_once(&mut read).is_pending() {
            return read;
        }
    }
    panic!("{TURN_ANSWERS} short reads, and none has given way");
}

#[test]
fn a51_a_short_read_that_gives_way_has_called_its_waker_and_is_answered_next_time() {
    within(HANG, || {
        let (_dir, db) = warm_db();
        let here = std::thread::current().id();
        let mut gave_way = 0;
        for _ in 0..10 * TURN_ANSWERS {
            let woken = Arc::new(Woken::default());
            let waker = Waker::from(Arc::clone(&woken));
            let mut context = Context::from_waker(&waker);
            let mut read = pin!(thread_of_short(&db));
            let mut polled = read.as_mut().poll(&mut context);
            if polled.is_pending() {
                gave_way += 1;
                assert!(woken.0.load(Ordering::Relaxed), "it is polled again at once");
                polled = read.as_mut().poll(&mut context);
            }
            match polled {
                Poll::Ready(thread) => assert_eq!(thread.expect("a read"), here),
                Poll::Pending => panic!("it gave way twice"),
            }
        }
        assert!(gave_way >= 9, "{gave_way}");
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a14_a_short_read_that_is_dropped_after_it_gave_way_never_runs() {
    within(HANG, || {
        let (_dir, db) = warm_db();
        let runs = Arc::new(AtomicUsize::new(0));
        let begun = std::cell::Cell::new(0);
        let read = || {
            begun.set(begun.get() + 1);
            let runs = Arc::clone(&runs);
            db.read(move |_| Ok(runs.fetch_add(1, Ordering::Relaxed))).short()
        };
        drop(one_that_gives_way(read));
        assert_eq!(runs.load(Ordering::Relaxed) + 1, begun.get());
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a16_a_deadline_that_passes_while_a_short_read_gives_way_is_kept() {
    within(HANG, || {
        let (_dir, db) = warm_db();
        let mut late =
            one_that_gives_way(|| db.read(|_| Ok(())).short().deadline(Duration::from_nanos(1)));
        match poll_once(&mut late) {
            Poll::Ready(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Queued));
            }
            other => panic!("{other:?}"),
        }
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a51_short_reads_join_the_others_while_many_wait() {
    within(HANG, || {
        let (_dir, db) = warm_db();
        let here = std::thread::current().id();
        let mut waiting = Vec::new();
        while waiting.len() < CROWD {
            waiting.push(one_that_gives_way(|| thread_of_short(&db)));
        }
        for _ in 0..3 {
            assert_ne!(block_on(thread_of_short(&db)).expect("a read"), here);
        }
        // One of them goes on. Then fewer wait than a crowd.
        let one = waiting.pop().expect("a crowd");
        assert_eq!(block_on(one).expect("a read"), here);
        assert_eq!(block_on(thread_of_short(&db)).expect("a read"), here);
        drop(waiting);
        db.blocking_close().expect("closes");
    });
}
