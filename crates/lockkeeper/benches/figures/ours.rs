//! Lockkeeper under the loads that are measured.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{Client, Synchronous};
use tokio::runtime::Runtime;

use crate::harness::{INSERT, Place, Random, drive_writes, open, runtime, write_one};
use crate::raw::{SELECT, person, raw_open};

pub(crate) fn our_writes(synchronous: Synchronous, tasks: usize, run: Duration) -> f64 {
    let place = Place::new();
    drive_writes(&open(&place.file("bench.db"), synchronous), tasks, run)
}

pub(crate) async fn read_one(client: &Client, random: &mut Random, short: bool) {
    let key = person(random.next() % 1_000_000);
    let read = client.read(move |s| s.prepare_cached(SELECT)?.query_row([&key], |row| row.get(0)));
    let age: i64 = if short { read.short().await } else { read.await }.expect("read");
    assert_eq!(age, 1);
}

/// The number of reads per second of `tasks` tasks on `runtime`.
pub(crate) fn our_reads(
    runtime: &Runtime,
    path: &Path,
    tasks: usize,
    short: bool,
    run: Duration,
) -> f64 {
    let db = open(path, Synchronous::Full);
    let rate = runtime.block_on(async {
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                let (db, stop) = (db.clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut random = Random::seeded();
                    let mut done = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        read_one(&db, &mut random, short).await;
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        tokio::time::sleep(run).await;
        stop.store(true, Ordering::Relaxed);
        let mut done = 0;
        for task in tasks {
            done += task.await.expect("task");
        }
        done as f64 / began.elapsed().as_secs_f64()
    });
    db.blocking_close().expect("close");
    rate
}

/// Under a mixed load: writes per second, reads per second, and the 99th percentile of the writes' latency in
/// milliseconds.
pub(crate) fn our_mixed(
    runtime: &Runtime,
    path: &Path,
    short: bool,
    run: Duration,
) -> (f64, f64, f64) {
    let db = open(path, Synchronous::Full);
    let result = runtime.block_on(async {
        let stop = Arc::new(AtomicBool::new(false));
        let reads = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let mut readers = Vec::new();
        for _ in 0..64 {
            let (db, stop, reads) = (db.clone(), Arc::clone(&stop), Arc::clone(&reads));
            readers.push(tokio::spawn(async move {
                let mut random = Random::seeded();
                while !stop.load(Ordering::Relaxed) {
                    read_one(&db, &mut random, short).await;
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        let mut writers = Vec::new();
        for _ in 0..8 {
            let (db, stop) = (db.clone(), Arc::clone(&stop));
            writers.push(tokio::spawn(async move {
                let mut random = Random::seeded();
                let mut waits = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    write_one(&db, &mut random).await;
                    waits.push(began.elapsed().as_secs_f64() * 1e3);
                }
                waits
            }));
        }
        tokio::time::sleep(run).await;
        stop.store(true, Ordering::Relaxed);
        let mut waits = Vec::new();
        for writer in writers {
            waits.extend(writer.await.expect("writer"));
        }
        for reader in readers {
            reader.await.expect("reader");
        }
        let seconds = began.elapsed().as_secs_f64();
        waits.sort_by(f64::total_cmp);
        let p99 = waits[waits.len() * 99 / 100];
        (waits.len() as f64 / seconds, reads.load(Ordering::Relaxed) as f64 / seconds, p99)
    });
    db.blocking_close().expect("close");
    result
}

/// In milliseconds: how late a ticker of 1 ms is at worst when idle, and while another connection holds the write lock
/// for two seconds and 64 writes wait; then the time from the release of the lock to the first write.
pub(crate) fn our_lock_wait() -> (f64, f64, f64) {
    let place = Place::new();
    let db = open(&place.file("bench.db"), Synchronous::Full);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // A raw connection takes the lock as another process would, because SQLite's locks belong to connections, even
    // inside one process.
    let other = raw_open(&place.file("bench.db"), Synchronous::Full);
    runtime.block_on(async {
        let idle = worst_tick(Duration::from_secs(1)).await;
        other.execute_batch("BEGIN IMMEDIATE").expect("lock");
        let released = Arc::new(std::sync::Mutex::new(None));
        let unlock = {
            let released = Arc::clone(&released);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(2));
                other.execute_batch("COMMIT").expect("unlock");
                *released.lock().expect("lock") = Some(Instant::now());
            })
        };
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let db = db.clone();
                tokio::spawn(async move {
                    write_one(&db, &mut Random::seeded()).await;
                    Instant::now()
                })
            })
            .collect();
        let locked = worst_tick(Duration::from_millis(2200)).await;
        let mut first = None;
        for task in tasks {
            let answered = task.await.expect("task");
            first = Some(first.map_or(answered, |first: Instant| first.min(answered)));
        }
        unlock.join().expect("unlock");
        let released = released.lock().expect("lock").expect("released");
        let after = first.expect("64 writes").saturating_duration_since(released);
        (idle, locked, after.as_secs_f64() * 1e3)
    })
}

pub(crate) async fn worst_tick(run: Duration) -> f64 {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut last = Instant::now();
    let mut worst = 0.0_f64;
    while began.elapsed() < run {
        ticks.tick().await;
        let late = last.elapsed().saturating_sub(Duration::from_millis(1));
        worst = worst.max(late.as_secs_f64() * 1e3);
        last = Instant::now();
    }
    worst
}

/// The writes per second of each client, where the n-th client has `in_flight[n]` calls in flight.
pub(crate) fn our_clients(in_flight: &[usize], run: Duration) -> Vec<f64> {
    let place = Place::new();
    let db = open(&place.file("bench.db"), Synchronous::Full);
    let rates = runtime().block_on(async {
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let mut tasks = Vec::new();
        for (n, &calls) in in_flight.iter().enumerate() {
            let client = db.client(&format!("client-{n}"));
            for _ in 0..calls {
                let (client, stop) = (client.clone(), Arc::clone(&stop));
                tasks.push(tokio::spawn(async move {
                    let mut random = Random::seeded();
                    let mut done = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        write_one(&client, &mut random).await;
                        done += 1;
                    }
                    (n, done)
                }));
            }
        }
        tokio::time::sleep(run).await;
        stop.store(true, Ordering::Relaxed);
        let seconds = began.elapsed().as_secs_f64();
        let mut rates = vec![0.0; in_flight.len()];
        for task in tasks {
            let (n, done) = task.await.expect("task");
            rates[n] += done as f64 / seconds;
        }
        rates
    });
    db.blocking_close().expect("close");
    rates
}

/// After long queries were dropped: the milliseconds until another read is answered, and the CPU time that the process
/// uses in the second after that.
pub(crate) fn our_cancel(queries: usize) -> (f64, f64) {
    const LONG: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT \
                        1000000000) SELECT count(*) FROM n";
    let place = Place::new();
    let db = open(&place.file("bench.db"), Synchronous::Full);
    runtime().block_on(async {
        let long: Vec<_> = (0..queries)
            .map(|_| {
                let db = db.clone();
                tokio::spawn(async move {
                    let query = db.read(|s| s.query_row(LONG, [], |row| row.get::<_, i64>(0)));
                    tokio::time::timeout(Duration::from_millis(300), query).await.is_err()
                })
            })
            .collect();
        for task in long {
            assert!(task.await.expect("task"), "the long query must outlive its caller");
        }
        let began = Instant::now();
        let one: i64 =
            db.read(|s| s.query_row("SELECT 1", [], |row| row.get(0))).await.expect("read");
        let answered = began.elapsed().as_secs_f64() * 1e3;
        assert_eq!(one, 1);
        let before = cpu_ms();
        tokio::time::sleep(Duration::from_secs(1)).await;
        (answered, cpu_ms() - before)
    })
}

/// By how many milliseconds a write with a snapshot of its commit is slower than one without, at the median and at the
/// 99th percentile. The two kinds of writes take turns.
pub(crate) fn our_snapshots(run: Duration) -> (f64, f64) {
    let place = Place::new();
    let db = open(&place.file("bench.db"), Synchronous::Full);
    let (mut plain, mut pinned) = (Vec::new(), Vec::new());
    runtime().block_on(async {
        let mut random = Random::seeded();
        let began = Instant::now();
        while began.elapsed() < run {
            let asked = Instant::now();
            write_one(&db, &mut random).await;
            plain.push(asked.elapsed().as_secs_f64() * 1e3);
            let key = random.key();
            let asked = Instant::now();
            let write = db.write(move |tx| tx.prepare_cached(INSERT)?.execute((&key, 1)));
            let (_, snapshot) = write.and_snapshot().await.expect("write");
            pinned.push(asked.elapsed().as_secs_f64() * 1e3);
            drop(snapshot);
        }
    });
    db.blocking_close().expect("close");
    let at = |times: &mut Vec<f64>, share: f64| {
        times.sort_by(f64::total_cmp);
        times[(times.len() as f64 * share) as usize]
    };
    let pause = |share| at(&mut pinned.clone(), share) - at(&mut plain.clone(), share);
    (pause(0.5), pause(0.99))
}

/// User and system time of this process so far, in milliseconds (Linux: `proc_pid_stat(5)`).
pub(crate) fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    // Fields 14 and 15 of the line, in clock ticks, which are 10 ms.
    (ticks(11) + ticks(12)) * 10.0
}
