//! Measures a disk: durable writes, and a backup that runs beside them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::Database;
use serde_json::json;

use crate::file::wal_bytes;
use crate::stop::Stop;
use crate::{Answer, Failure, Outcome};

pub(crate) fn bench(
    dir: &Path,
    writers: usize,
    time: Duration,
    mib: usize,
    stop: &Stop,
) -> Outcome {
    if !dir.is_dir() {
        return Err(format!("{}: there is no such directory", dir.display()).into());
    }
    let dir = tempfile::Builder::new()
        .prefix("lockkeeper-bench-")
        .tempdir_in(dir)
        .map_err(|error| format!("{}: {error}", dir.display()))?;
    let file = dir.path().join("bench.db");
    let db = Database::blocking_open(&file)?;
    db.blocking_write(|tx| {
        tx.execute_batch("CREATE TABLE bench (id INTEGER PRIMARY KEY, data BLOB)")
    })?;
    for _ in 0..mib {
        go_on(stop)?;
        db.blocking_write(|tx| {
            let rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 256)
                        INSERT INTO bench (data) SELECT randomblob(4000) FROM n";
            tx.execute(rows, [])
        })?;
    }
    let copy = dir.path().join("copy.db");
    let idle = db.backup(&copy).blocking_run()?;
    go_on(stop)?;
    let alone = measure(&db, writers, || {
        let until = Instant::now() + time;
        // Checks every tenth of a second whether the command was stopped.
        while Instant::now() < until {
            go_on(stop)?;
            std::thread::park_timeout(Duration::from_millis(100).min(time));
        }
        Ok(())
    })?;
    go_on(stop)?;
    let mut busy = Duration::ZERO;
    let beside = measure(&db, writers, || {
        busy = db.backup(&copy).blocking_run()?.elapsed;
        Ok(())
    })?;
    let wal = wal_bytes(&file);
    db.blocking_close()?;
    let facts = json!({
        "writers": writers,
        "durable_writes_per_second": alone,
        "durable_writes_per_second_beside_backup": beside,
        "backup_bytes": idle.bytes,
        "backup_milliseconds_idle": idle.elapsed.as_millis() as u64,
        "backup_milliseconds_beside_writes": busy.as_millis() as u64,
        "wal_bytes_after_backup": wal,
    });
    Ok(Answer { facts, good: true })
}

fn go_on(stop: &Stop) -> Result<(), Failure> {
    match stop.is_wanted() {
        true => Err("stopped; what was measured in is removed".into()),
        false => Ok(()),
    }
}

/// Writes single rows from many threads while `f` runs. Returns the number of rows per second.
fn measure(
    db: &Database,
    writers: usize,
    f: impl FnOnce() -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let (over, stored) = (AtomicBool::new(false), AtomicU64::new(0));
    let write = || -> Result<(), Failure> {
        while !over.load(Ordering::Relaxed) {
            let sql = "INSERT INTO bench (data) VALUES (randomblob(100))";
            db.blocking_write(move |tx| tx.execute(sql, []))?;
            stored.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(write)).collect();
        let result = f();
        over.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err("a writer panicked".into()))
        })?;
        result
    })?;
    Ok((stored.into_inner() as f64 / began.elapsed().as_secs_f64()) as u64)
}
