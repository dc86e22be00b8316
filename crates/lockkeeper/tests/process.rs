//! Tests that need a process of their own: memory does not grow, and no threads are left.
//!
//! This is apart from the other tests, because their memory and threads would be counted too. It is a single test, so
//! that nothing runs beside it in any test runner.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use lockkeeper::Database;
use lockkeeper::queue::Worker;

/// The bytes of memory that this process uses (`/proc/self/statm`, proc(5); the second field is in pages).
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 =
        statm.split(' ').nth(1).and_then(|field| field.parse().ok()).expect("a number of pages");
    pages * 4096
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("the threads").count()
}

/// In each round, 10,000 tasks make a call each on a queue with room for 256.
fn produce(rounds: usize) {
    let worker = Worker::builder("counter").capacity(256);
    let worker = worker.blocking_spawn(|| Ok::<_, ()>(0_usize)).expect("a worker");
    let executor = smol::LocalExecutor::new();
    futures_lite::future::block_on(executor.run(async {
        for _ in 0..rounds {
            let tasks: Vec<_> = (0..10_000)
                .map(|_| {
                    let worker = worker.clone();
                    executor.spawn(async move { worker.call(|calls| *calls += 1).await })
                })
                .collect();
            for task in tasks {
                task.await.expect("a call");
            }
        }
    }));
    assert_eq!(worker.blocking_call(|calls| *calls).expect("a call"), rounds * 10_000);
    worker.blocking_close().expect("closes");
}

/// Uses everything that starts a thread: the writer, readers, and the clock for deadlines and held snapshots.
fn open_use_close(file: &std::path::Path) {
    let db = Database::builder(file).blocking_open().expect("opens");
    futures_lite::future::block_on(async {
        let create = "CREATE TABLE IF NOT EXISTS t (v)";
        db.write(move |tx| tx.execute_batch(create))
            .deadline(Duration::from_secs(60))
            .await
            .expect("a write");
        let snapshot = db.snapshot().await.expect("a snapshot");
        assert!(snapshot.read(|s| s.table_exists(None, "t")).await.expect("a read"));
        db.close().await.expect("closes");
    });
}

#[test]
fn a13_a22_memory_stays_flat_and_no_thread_is_left() {
    let before = threads();
    produce(1);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("test.db");
    open_use_close(&file);
    let warm = resident_bytes();
    let long = std::env::var_os("LOCKKEEPER_LONG").is_some_and(|value| value == "1");
    produce(if long { 100 } else { 10 });
    for _ in 0..if long { 500 } else { 50 } {
        open_use_close(&file);
    }
    // If each of 100,000 calls leaked 64 bytes, or a connection leaked, the limit would be exceeded.
    let grown = resident_bytes().saturating_sub(warm);
    assert!(grown < 6 << 20, "{grown} bytes more than after the first round");
    // The system may list a joined thread for a moment longer.
    let give_up_at = Instant::now() + Duration::from_secs(60);
    while threads() > before {
        assert!(Instant::now() < give_up_at, "{} threads, {before} before", threads());
        std::thread::yield_now();
    }
    println!("{grown} bytes more, {before} threads");
}
