//! The size of the WAL under many writers, with readers that keep it from starting over.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use lockkeeper::{Database, ErrorKind};

use crate::Promises;
use crate::harness::{Place, Random, runtime};
use crate::overlap::overlapping;

const WRITERS: u64 = 64;
const ROWS: u64 = 100_000;

/// The most pages that an update of one row may add to the WAL. It should add one, because the row keeps its size.
const PAGES_PER_CALL: u64 = 4;
const FRAME_BYTES: u64 = 4096 + 24;

pub(crate) fn wal(time: Duration, promises: &mut Promises) {
    let place = Place::new();
    let file = place.file("bench.db");
    let cap = 64 << 20;
    // The held snapshots must be ended because of the cap, not because of their age.
    let age_max = Duration::from_secs(3600);
    let builder = Database::builder(&file).wal_bytes_max(cap).snapshot_age_max(age_max);
    let db = builder.blocking_open().expect("open");
    db.blocking_write(|tx| {
        tx.execute_batch("CREATE TABLE load (id INTEGER PRIMARY KEY, data BLOB)")?;
        tx.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?1)
             INSERT INTO load SELECT i, randomblob(300) FROM n",
            [ROWS as i64],
        )
    })
    .expect("rows");

    let stop = Arc::new(AtomicBool::new(false));
    let (over, watched) = watch(&file);
    let readers = overlapping(&db, "SELECT count(*) FROM load WHERE id < 100", &stop);
    let held = hold(&db, &stop);
    let (stored, seconds) = write(&db, time, &stop);
    drop(over);
    let largest = watched.join().expect("the watch");
    let cut = held.join().expect("the held reader");
    let reads: u64 = readers.into_iter().map(|reader| reader.join().expect("a reader")).sum();
    let stats = db.stats();
    db.blocking_close().expect("close");

    let batch = stats.batch_calls.max() * PAGES_PER_CALL * FRAME_BYTES;
    println!(
        "{:<44} {:>12.1} MiB at most in {seconds:.0} s; cap {} MiB, one batch {:.1} MiB at most",
        "wal/64-writers",
        mib(largest),
        cap >> 20,
        mib(batch)
    );
    println!(
        "{:<44} {:>12.0} writes/s, {} checkpoints, {reads} overlapping reads, {cut} held readers cut, \
         p99.9 of a commit {:.1?}",
        "",
        stored as f64 / seconds,
        stats.checkpoint.count(),
        stats.commit.quantile_time(0.999),
    );
    promises.check(
        format!("the WAL of 64 writers stays at or below 64 MiB and one batch for {seconds:.0} s"),
        largest <= cap + batch && stats.wal_over_max == 0,
    );
    // Checks that the run has put the cap to the test.
    promises.check(
        "meanwhile the WAL was filled, a reader was always open, and held ones were cut",
        largest >= cap / 2 && reads > 0 && cut > 0,
    );
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Watches the size of the WAL, every millisecond, until the returned sender is used. The thread returns the largest
/// size. It uses `stat`, because closing a descriptor of the file would drop SQLite's locks.
fn watch(file: &Path) -> (mpsc::Sender<()>, std::thread::JoinHandle<u64>) {
    let (over, is_over) = mpsc::channel::<()>();
    let mut wal = file.as_os_str().to_owned();
    wal.push("-wal");
    let watched = std::thread::spawn(move || {
        let mut largest = 0;
        while is_over.recv_timeout(Duration::from_millis(1)) == Err(mpsc::RecvTimeoutError::Timeout)
        {
            largest = largest.max(std::fs::metadata(&wal).map_or(0, |wal| wal.len()));
        }
        largest
    });
    (over, watched)
}

/// Holds a snapshot until the library ends it, then takes the next one, and so on. The thread returns how many were
/// ended.
fn hold(db: &Database, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    let (db, stop) = (db.clone(), Arc::clone(stop));
    std::thread::spawn(move || {
        let mut cut = 0;
        while !stop.load(Ordering::Relaxed) {
            let snapshot = futures_lite::future::block_on(db.snapshot()).expect("a snapshot");
            while !stop.load(Ordering::Relaxed) {
                let look = |s: &lockkeeper::Snapshot| {
                    s.query_row("SELECT id FROM load WHERE id = 1", [], |row| row.get::<_, i64>(0))
                };
                match snapshot.blocking_read(look) {
                    Ok(_) => std::thread::sleep(Duration::from_millis(5)),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::SnapshotExpired, "{error}");
                        cut += 1;
                        break;
                    }
                }
            }
        }
        cut
    })
}

/// Writes for `time`, then sets `stop`. Returns the number of stored writes, and the seconds that they took.
fn write(db: &Database, time: Duration, stop: &Arc<AtomicBool>) -> (u64, f64) {
    let runtime = runtime();
    let began = Instant::now();
    let tasks: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (db, stop) = (db.clone(), Arc::clone(stop));
            runtime.spawn(async move {
                let (mut random, mut stored) = (Random::seeded(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let id = (random.next() % ROWS) as i64 + 1;
                    let update = "UPDATE load SET data = randomblob(300) WHERE id = ?1";
                    let write = db.write(move |tx| tx.prepare_cached(update)?.execute([id]));
                    assert_eq!(write.await.expect("stored"), 1);
                    stored += 1;
                }
                stored
            })
        })
        .collect();
    std::thread::sleep(time);
    stop.store(true, Ordering::Relaxed);
    let stored = runtime.block_on(async {
        let mut stored = 0;
        for task in tasks {
            stored += task.await.expect("a writer");
        }
        stored
    });
    (stored, began.elapsed().as_secs_f64())
}
