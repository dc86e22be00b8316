//! The figures of the README: Lockkeeper against a raw rusqlite loop, in the same run.
//!
//! `cargo bench -p lockkeeper --bench figures -- [NAME...] [--seconds S] [--repeat R]`
//!
//! Each figure is measured `R` times, ours and the raw loop in turn, and the median of the ratios
//! is printed with the medians of both. Machines are noisy; ratios of one run are what counts.

#![expect(clippy::disallowed_methods, reason = "measures raw connections and plain threads")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{Client, Database, Synchronous};
use rusqlite::Connection;
use tokio::runtime::Runtime;

const SCHEMA: &str = "CREATE TABLE person (name TEXT PRIMARY KEY, age INTEGER)";
const INSERT: &str = "INSERT INTO person (name, age) VALUES (?1, ?2)";
const SELECT: &str = "SELECT age FROM person WHERE name = ?1";
const CACHE_BYTES: usize = 64 << 20;

struct Options {
    names: Vec<String>,
    run: Duration,
    repeat: usize,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| name.contains(wanted.as_str()))
    }
}

fn main() {
    let mut options = Options { names: Vec::new(), run: Duration::from_millis(1500), repeat: 5 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--seconds" => options.run = Duration::from_secs_f64(value().parse().expect("seconds")),
            "--repeat" => options.repeat = value().parse().expect("a number of runs"),
            // cargo's own; there is nothing to list or to test here.
            "--bench" => {}
            "--test" | "--list" => return,
            name => options.names.push(name.to_owned()),
        }
    }
    println!("{:<44} {:>12} {:>12} {:>8}   raw is", "figure", "ours", "raw", "ratio");
    writes(&options);
    reads(&options);
    mixed(&options);
    lock_wait(&options);
    fairness(&options);
    cancel(&options);
    snapshot(&options);
    bulk(&options);
    feed(&options);
    stats(&options);
    checkpoints(&options);
}

// What is measured.

fn writes(options: &Options) {
    for (synchronous, label, tasks) in
        [(Synchronous::Full, "FULL", vec![1, 64, 512]), (Synchronous::Normal, "NORMAL", vec![64])]
    {
        for tasks in tasks {
            let name = format!("writes/{label}/{tasks}-tasks");
            if !options.wants(&name) {
                continue;
            }
            let raw = || raw_writes(synchronous, 1, options.run);
            let ours = || our_writes(synchronous, tasks, options.run);
            compare(options, &name, "writes/s", "one transaction per write", ours, raw);
            if tasks == 64 {
                let raw = || raw_writes(synchronous, 64, options.run);
                let name = format!("{name}/of-grouped");
                compare(options, &name, "writes/s", "64 rows per transaction", ours, raw);
            }
        }
    }
}

fn reads(options: &Options) {
    if !["reads/64-tasks", "reads/short/1-task", "reads/1-task"].iter().any(|n| options.wants(n)) {
        return;
    }
    let place = Place::new();
    fill(&place.file(), 1_000_000);
    if options.wants("reads/64-tasks") {
        let ours = || our_reads(&place.file(), 64, false, options.run);
        let raw = || raw_reads(&place.file(), 2, options.run);
        compare(options, "reads/64-tasks", "reads/s", "two threads", ours, raw);
    }
    if options.wants("reads/short/1-task") {
        let ours = || our_reads(&place.file(), 1, true, options.run);
        let raw = || raw_reads(&place.file(), 1, options.run);
        compare(options, "reads/short/1-task", "reads/s", "one thread", ours, raw);
    }
    if options.wants("reads/1-task") {
        let ours = || our_reads(&place.file(), 1, false, options.run);
        let raw = || raw_reads(&place.file(), 1, options.run);
        compare(options, "reads/1-task", "reads/s", "one thread", ours, raw);
    }
}

fn mixed(options: &Options) {
    if !options.wants("mixed") {
        return;
    }
    let mut writes = Vec::new();
    let mut reads = Vec::new();
    let mut p99 = Vec::new();
    for _ in 0..options.repeat {
        let place = Place::new();
        fill(&place.file(), 1_000_000);
        let ours = our_mixed(&place.file(), options.run);
        let place = Place::new();
        fill(&place.file(), 1_000_000);
        let raw = raw_mixed(&place.file(), options.run);
        writes.push((ours.0, raw.0));
        reads.push((ours.1, raw.1));
        p99.push((ours.2, ours.2));
    }
    print_row("mixed/8-writers-64-readers/writes", "writes/s", "one writer, one reader", &writes);
    print_row("mixed/8-writers-64-readers/reads", "reads/s", "one writer, one reader", &reads);
    println!("{:<44} {:>9.2} ms", "mixed/8-writers-64-readers/write-p99", median(p99, |p| p.0));
}

fn lock_wait(options: &Options) {
    if !options.wants("lock-wait") {
        return;
    }
    let mut rows = Vec::new();
    for _ in 0..options.repeat {
        rows.push(our_lock_wait());
    }
    let idle = median(rows.clone(), |row| row.0);
    let locked = median(rows.clone(), |row| row.1);
    let first = median(rows, |row| row.2);
    println!("{:<44} {locked:>9.2} ms (idle: {idle:.2} ms)", "lock-wait/worst-tick");
    println!("{:<44} {first:>9.2} ms", "lock-wait/first-write-after-release");
}

fn fairness(options: &Options) {
    if !options.wants("fairness") {
        return;
    }
    let mut kept = Vec::new();
    let mut total = Vec::new();
    let mut jain = Vec::new();
    for _ in 0..options.repeat {
        let polite = our_clients(&[1; 8], options.run);
        let mut greedy = [1; 8];
        greedy[7] = 256;
        let mixed = our_clients(&greedy, options.run);
        let raw = raw_writes(Synchronous::Full, 1, options.run);
        let alone = polite.iter().sum::<f64>() / 8.0;
        let beside = mixed[..7].iter().copied().fold(f64::MAX, f64::min);
        kept.push((beside, alone));
        total.push((mixed.iter().sum::<f64>(), raw));
        let busy = our_clients(&[32; 8], options.run);
        let (sum, squares) = busy.iter().fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
        jain.push((sum * sum / (8.0 * squares), 1.0));
    }
    print_row("fairness/least-polite-beside-greedy", "writes/s", "all eight polite", &kept);
    print_row("fairness/all-together", "writes/s", "one transaction per write", &total);
    println!("{:<44} {:>12.4}", "fairness/jain-8-clients-32-in-flight", median(jain, |j| j.0));
}

fn cancel(options: &Options) {
    if !options.wants("cancel") {
        return;
    }
    for queries in [1, 16] {
        let rows: Vec<_> = (0..options.repeat).map(|_| our_cancel(queries)).collect();
        let answer = median(rows.clone(), |row| row.0);
        let burned = median(rows, |row| row.1);
        println!(
            "{:<44} {answer:>9.2} ms until a read is answered, {burned:.0} ms of CPU in 1 s after",
            format!("cancel/{queries}-long-queries")
        );
    }
}

/// How much longer a write takes when a snapshot of its commit is taken too: as long the writer
/// pauses for it.
fn snapshot(options: &Options) {
    if !options.wants("snapshot") {
        return;
    }
    let rows: Vec<_> = (0..options.repeat).map(|_| our_snapshots(options.run)).collect();
    let (half, nearly_all) = (median(rows.clone(), |row| row.0), median(rows, |row| row.1));
    println!(
        "{:<44} {half:>9.3} ms at the median, {nearly_all:.3} ms at the 99th percentile",
        "snapshot/writers-pause"
    );
}

/// What it costs to be listened to: a subscriber that takes every change, against none.
fn feed(options: &Options) {
    if !options.wants("feed") {
        return;
    }
    let silent = || our_writes(Synchronous::Full, 64, options.run);
    let followed = || {
        let place = Place::new();
        let db = open(&place.file(), Synchronous::Full);
        let mut changes = db.changes();
        let listener = std::thread::spawn(move || {
            let mut calls = 0;
            while let Some(change) = changes.blocking_next() {
                if let lockkeeper::Change::Commit(commit) = change {
                    calls += commit.calls().len();
                }
            }
            calls
        });
        let rate = drive_writes(&db, 64, options.run);
        assert!(listener.join().expect("listener") > 0, "the feed tells of writes");
        rate
    };
    compare(options, "feed/writes-64-tasks", "writes/s", "nobody subscribed", followed, silent);
}

/// What the statistics cost: with them, against without.
fn stats(options: &Options) {
    if !options.wants("stats") {
        return;
    }
    let with = |on: bool| {
        let place = Place::new();
        let db = tuned(&place.file(), Synchronous::Full, |builder| builder.statistics(on));
        drive_writes(&db, 64, options.run)
    };
    compare(options, "stats/writes-64-tasks", "writes/s", "off", || with(true), || with(false));
}

/// How long writes take at the 99.9th percentile with checkpoints, against a WAL that is never folded
/// back during the run.
fn checkpoints(options: &Options) {
    if !options.wants("checkpoints") {
        return;
    }
    let slowest = |bytes: u64| {
        let place = Place::new();
        let db = tuned(&place.file(), Synchronous::Full, |builder| {
            let share = if bytes == u64::MAX { bytes } else { bytes / 2 };
            builder.wal_bytes_max(bytes).checkpoint_wal_bytes(share)
        });
        let kept = db.clone();
        drive_writes_to(&db, 64, options.run, move || {
            let stats = kept.stats();
            let checkpoints = stats.checkpoint.count();
            assert_eq!(checkpoints > 0, bytes < u64::MAX, "{stats:?}");
        })
    };
    let of = "us at the 99.9th percentile";
    let mut with = || slowest(64 << 20) * 1e6;
    let mut without = || slowest(u64::MAX) * 1e6;
    compare(options, "checkpoints/write-p99.9", of, "no checkpoints", &mut with, &mut without);
}

fn bulk(options: &Options) {
    if !options.wants("bulk") {
        return;
    }
    let ours = || {
        let place = Place::new();
        let db = open(&place.file(), Synchronous::Full);
        let began = Instant::now();
        db.blocking_write(|tx| {
            let mut insert = tx.prepare_cached(INSERT)?;
            for n in 0..1_000_000_u64 {
                insert.execute((format!("{n:016x}"), 1))?;
            }
            Ok(())
        })
        .expect("bulk write");
        let rate = 1e6 / began.elapsed().as_secs_f64();
        db.blocking_close().expect("close");
        rate
    };
    let raw = || {
        let place = Place::new();
        let mut conn = raw_open(&place.file(), Synchronous::Full);
        conn.execute_batch(SCHEMA).expect("schema");
        let began = Instant::now();
        let tx = conn.transaction().expect("begin");
        {
            let mut insert = tx.prepare_cached(INSERT).expect("prepare");
            for n in 0..1_000_000_u64 {
                insert.execute((format!("{n:016x}"), 1)).expect("insert");
            }
        }
        tx.commit().expect("commit");
        1e6 / began.elapsed().as_secs_f64()
    };
    compare(options, "bulk/1,000,000-rows-one-write", "rows/s", "one transaction", ours, raw);
}

// How it is measured.

fn compare(
    options: &Options,
    name: &str,
    unit: &str,
    raw_is: &str,
    mut ours: impl FnMut() -> f64,
    mut raw: impl FnMut() -> f64,
) {
    let pairs: Vec<_> = (0..options.repeat).map(|_| (ours(), raw())).collect();
    print_row(name, unit, raw_is, &pairs);
}

fn print_row(name: &str, unit: &str, raw_is: &str, pairs: &[(f64, f64)]) {
    let ratios = |pair: (f64, f64)| pair.0 / pair.1;
    let ratio = median(pairs.to_vec(), ratios);
    let least = pairs.iter().copied().map(ratios).fold(f64::MAX, f64::min);
    let most = pairs.iter().copied().map(ratios).fold(0.0, f64::max);
    let (ours, raw) = (median(pairs.to_vec(), |p| p.0), median(pairs.to_vec(), |p| p.1));
    println!(
        "{name:<44} {ours:>12.0} {raw:>12.0} {ratio:>8.2}   {raw_is}; {unit}; {least:.2} to {most:.2}"
    );
}

fn median<T: Copy>(rows: Vec<T>, figure: impl Fn(T) -> f64) -> f64 {
    let mut figures: Vec<f64> = rows.into_iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A directory that goes when it is dropped, on the disk that holds the build.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = base.join(format!("figures-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory to measure in");
        Self(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.join("bench.db")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// xorshift64: keys need no more.
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0x9E37_79B9_7F4A_7C15);
        Self(NEXT.fetch_add(0x2545_F491_4F6C_DD1D, Ordering::Relaxed) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn key(&mut self) -> String {
        format!("{:016x}", self.next())
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn open(path: &Path, synchronous: Synchronous) -> Database {
    tuned(path, synchronous, |builder| builder)
}

fn tuned(
    path: &Path,
    synchronous: Synchronous,
    tune: impl FnOnce(lockkeeper::Builder) -> lockkeeper::Builder,
) -> Database {
    let new = !path.exists();
    let builder = Database::builder(path).synchronous(synchronous).page_cache_bytes(CACHE_BYTES);
    let db = tune(builder).blocking_open().expect("open");
    if new {
        db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("schema");
    }
    db
}

fn raw_open(path: &Path, synchronous: Synchronous) -> Connection {
    let conn = Connection::open(path).expect("open");
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).expect("WAL");
    let level = if synchronous == Synchronous::Full { "FULL" } else { "NORMAL" };
    conn.execute_batch(&format!(
        "PRAGMA synchronous = {level}; PRAGMA cache_size = -{}",
        CACHE_BYTES / 1024
    ))
    .expect("pragmas");
    conn
}

fn fill(path: &Path, rows: u64) {
    let mut conn = raw_open(path, Synchronous::Normal);
    conn.execute_batch(SCHEMA).expect("schema");
    let tx = conn.transaction().expect("begin");
    {
        let mut insert = tx.prepare(INSERT).expect("prepare");
        for n in 0..rows {
            insert.execute((person(n), 1)).expect("insert");
        }
    }
    tx.commit().expect("commit");
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("checkpoint");
}

fn person(n: u64) -> String {
    format!("person-{n:07}")
}

fn raw_writes(synchronous: Synchronous, group: usize, run: Duration) -> f64 {
    let place = Place::new();
    let mut conn = raw_open(&place.file(), synchronous);
    conn.execute_batch(SCHEMA).expect("schema");
    let mut random = Random::seeded();
    let began = Instant::now();
    let mut rows = 0;
    while began.elapsed() < run {
        if group == 1 {
            conn.prepare_cached(INSERT)
                .and_then(|mut insert| insert.execute((random.key(), 1)))
                .expect("insert");
            rows += 1;
            continue;
        }
        let tx = conn.transaction().expect("begin");
        for _ in 0..group {
            tx.prepare_cached(INSERT)
                .and_then(|mut insert| insert.execute((random.key(), 1)))
                .expect("insert");
        }
        tx.commit().expect("commit");
        rows += group;
    }
    rows as f64 / began.elapsed().as_secs_f64()
}

async fn write_one(client: &Client, random: &mut Random) {
    let key = random.key();
    client.write(move |tx| tx.prepare_cached(INSERT)?.execute((&key, 1))).await.expect("write");
}

fn our_writes(synchronous: Synchronous, tasks: usize, run: Duration) -> f64 {
    let place = Place::new();
    drive_writes(&open(&place.file(), synchronous), tasks, run)
}

/// Writes/s of so many tasks; closes the database.
fn drive_writes(db: &Database, tasks: usize, run: Duration) -> f64 {
    let rate = runtime().block_on(async {
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                let (db, stop) = (db.clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut random = Random::seeded();
                    let mut done = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        write_one(&db, &mut random).await;
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

/// The 99.9th percentile of the time that a write takes its caller, in seconds; `before_close` looks at
/// the database at the end.
fn drive_writes_to(db: &Database, tasks: usize, run: Duration, before_close: impl FnOnce()) -> f64 {
    let mut waits = runtime().block_on(async {
        let began = Instant::now();
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                let db = db.clone();
                tokio::spawn(async move {
                    let mut random = Random::seeded();
                    let mut waits = Vec::new();
                    while began.elapsed() < run {
                        let asked = Instant::now();
                        write_one(&db, &mut random).await;
                        waits.push(asked.elapsed().as_secs_f64());
                    }
                    waits
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("task"));
        }
        all
    });
    before_close();
    db.blocking_close().expect("close");
    waits.sort_by(f64::total_cmp);
    waits[waits.len() * 999 / 1000]
}

fn raw_reads(path: &Path, threads: usize, run: Duration) -> f64 {
    let began = Instant::now();
    let done: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| raw_reader(path, run, began))).collect();
        threads.into_iter().map(|thread| thread.join().expect("reader")).sum()
    });
    done as f64 / began.elapsed().as_secs_f64()
}

fn raw_reader(path: &Path, run: Duration, began: Instant) -> u64 {
    let conn = raw_open(path, Synchronous::Full);
    let mut random = Random::seeded();
    let mut done = 0;
    while began.elapsed() < run {
        let mut select = conn.prepare_cached(SELECT).expect("prepare");
        let key = person(random.next() % 1_000_000);
        let age: i64 = select.query_row([key], |row| row.get(0)).expect("read");
        assert_eq!(age, 1);
        done += 1;
    }
    done
}

async fn read_one(client: &Client, random: &mut Random, short: bool) {
    let key = person(random.next() % 1_000_000);
    let read = client.read(move |s| s.prepare_cached(SELECT)?.query_row([&key], |row| row.get(0)));
    let age: i64 = if short { read.short().await } else { read.await }.expect("read");
    assert_eq!(age, 1);
}

fn our_reads(path: &Path, tasks: usize, short: bool, run: Duration) -> f64 {
    let db = open(path, Synchronous::Full);
    let rate = runtime().block_on(async {
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
                        if short && done.is_multiple_of(64) {
                            tokio::task::yield_now().await;
                        }
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

/// Writes/s, reads/s and the writes' p99 in milliseconds.
fn our_mixed(path: &Path, run: Duration) -> (f64, f64, f64) {
    let db = open(path, Synchronous::Full);
    let result = runtime().block_on(async {
        let stop = Arc::new(AtomicBool::new(false));
        let reads = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let mut readers = Vec::new();
        for _ in 0..64 {
            let (db, stop, reads) = (db.clone(), Arc::clone(&stop), Arc::clone(&reads));
            readers.push(tokio::spawn(async move {
                let mut random = Random::seeded();
                while !stop.load(Ordering::Relaxed) {
                    read_one(&db, &mut random, false).await;
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

fn raw_mixed(path: &Path, run: Duration) -> (f64, f64, f64) {
    let began = Instant::now();
    let (writes, reads) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let conn = raw_open(path, Synchronous::Full);
            let mut random = Random::seeded();
            let mut done = 0_u64;
            while began.elapsed() < run {
                conn.prepare_cached(INSERT)
                    .and_then(|mut insert| insert.execute((random.key(), 1)))
                    .expect("insert");
                done += 1;
            }
            done
        });
        let reader = scope.spawn(|| raw_reader(path, run, began));
        (writer.join().expect("writer"), reader.join().expect("reader"))
    });
    let seconds = began.elapsed().as_secs_f64();
    (writes as f64 / seconds, reads as f64 / seconds, 0.0)
}

/// The worst lateness of a 1 ms ticker, idle and while another connection holds the write lock
/// for two seconds and 64 writes wait; and the first write after the release. In milliseconds.
fn our_lock_wait() -> (f64, f64, f64) {
    let place = Place::new();
    let db = open(&place.file(), Synchronous::Full);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // A connection of its own takes the lock as another process would: SQLite's locks are held per
    // connection inside one process as well.
    let other = raw_open(&place.file(), Synchronous::Full);
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

async fn worst_tick(run: Duration) -> f64 {
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

/// Writes/s of each client, with so many calls in flight.
fn our_clients(in_flight: &[usize], run: Duration) -> Vec<f64> {
    let place = Place::new();
    let db = open(&place.file(), Synchronous::Full);
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

/// Milliseconds until a read is answered after long queries were dropped, and the CPU time that
/// the process uses in the second after that.
fn our_cancel(queries: usize) -> (f64, f64) {
    const LONG: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT \
                        1000000000) SELECT count(*) FROM n";
    let place = Place::new();
    let db = open(&place.file(), Synchronous::Full);
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

/// Milliseconds by which writes with a snapshot of their commit are slower than writes without, by
/// turns, at the median and at the 99th percentile.
fn our_snapshots(run: Duration) -> (f64, f64) {
    let place = Place::new();
    let db = open(&place.file(), Synchronous::Full);
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
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    // Fields 14 and 15 of the line, in clock ticks of 10 ms.
    (ticks(11) + ticks(12)) * 10.0
}
