//! The raw rusqlite loops with which Lockkeeper is compared.

use std::path::Path;
use std::time::{Duration, Instant};

use lockkeeper::Synchronous;
use rusqlite::Connection;

use crate::harness::{CACHE_BYTES, INSERT, Place, Random, SCHEMA};

pub(crate) const SELECT: &str = "SELECT age FROM person WHERE name = ?1";

pub(crate) fn raw_open(path: &Path, synchronous: Synchronous) -> Connection {
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

pub(crate) fn fill(path: &Path, rows: u64) {
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

pub(crate) fn person(n: u64) -> String {
    format!("person-{n:07}")
}

pub(crate) fn raw_writes(synchronous: Synchronous, group: usize, run: Duration) -> f64 {
    let place = Place::new();
    let mut conn = raw_open(&place.file("bench.db"), synchronous);
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

pub(crate) fn raw_reads(path: &Path, threads: usize, run: Duration) -> f64 {
    let began = Instant::now();
    let done: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| raw_reader(path, run, began))).collect();
        threads.into_iter().map(|thread| thread.join().expect("reader")).sum()
    });
    done as f64 / began.elapsed().as_secs_f64()
}

pub(crate) fn raw_reader(path: &Path, run: Duration, began: Instant) -> u64 {
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

pub(crate) fn raw_mixed(path: &Path, run: Duration) -> (f64, f64, f64) {
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
