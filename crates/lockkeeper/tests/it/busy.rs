//! Many callers of one file never get "database is locked".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{Dir, HANG, PLACES, count, within};

/// Each call reads the counter of its task, writes the next value, and logs it. A lost or doubled update makes the sums
/// differ, and so does a read that sees half a call.
#[test]
#[expect(clippy::too_many_lines, reason = "writers, readers and what they check of each other")]
fn a01_no_caller_meets_busy_or_locked() {
    const TASKS: usize = 64;
    const READERS: usize = 8;
    for place in PLACES {
        let calls = count(40, 2_000);
        within(HANG * 2, move || {
            let dir = Dir::new();
            // Checkpoints are frequent, so that they coincide with reads and commits.
            let db = dir.builder(place).checkpoint_wal_bytes(64 << 10).blocking_open();
            let db = db.expect("the database opens");
            db.blocking_write(|tx| {
                tx.execute_batch(
                    "CREATE TABLE counter (task INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT;
                     CREATE TABLE log (task INTEGER NOT NULL, n INTEGER NOT NULL) STRICT;",
                )?;
                for task in 0..TASKS {
                    tx.execute("INSERT INTO counter VALUES (?1, 0)", [task as i64])?;
                }
                Ok(())
            })
            .expect("the tables are created");
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
            let runtime = runtime.expect("a runtime");
            let over = Arc::new(AtomicBool::new(false));
            let reads = Arc::new(AtomicUsize::new(0));
            runtime.block_on(async {
                let readers: Vec<_> = (0..READERS)
                    .map(|_| {
                        let (db, over, reads) = (db.clone(), Arc::clone(&over), Arc::clone(&reads));
                        tokio::spawn(async move {
                            while !over.load(Ordering::Relaxed) {
                                let sums = db.read(|s| {
                                    let sum = "SELECT sum(n) FROM counter";
                                    let n: i64 = s.query_row(sum, [], |row| row.get(0))?;
                                    let rows = "SELECT count(*) FROM log";
                                    Ok((n, s.query_row(rows, [], |row| row.get(0))?))
                                });
                                let (n, rows): (i64, i64) = sums.await.expect("a read");
                                assert_eq!(n, rows, "half a call is visible");
                                reads.fetch_add(1, Ordering::Relaxed);
                            }
                        })
                    })
                    .collect();
                let writers: Vec<_> = (0..TASKS as i64)
                    .map(|task| {
                        let db = db.clone();
                        tokio::spawn(async move {
                            for expected in 1..=calls as i64 {
                                let write = db.write(move |tx| {
                                    let sql = "SELECT n FROM counter WHERE task = ?1";
                                    let n: i64 = tx.query_row(sql, [task], |row| row.get(0))?;
                                    let sql = "UPDATE counter SET n = ?2 WHERE task = ?1";
                                    tx.execute(sql, [task, n + 1])?;
                                    tx.execute("INSERT INTO log VALUES (?1, ?2)", [task, n + 1])?;
                                    Ok(n + 1)
                                });
                                assert_eq!(write.await.expect("a write"), expected);
                            }
                        })
                    })
                    .collect();
                for writer in writers {
                    writer.await.expect("the writer ends");
                }
                over.store(true, Ordering::Relaxed);
                for reader in readers {
                    reader.await.expect("the reader ends");
                }
            });
            let wrong: i64 = db
                .blocking_read(|s| {
                    s.query_row(
                        "SELECT count(*) FROM counter c WHERE n <> (SELECT count(*) FROM log l
                         WHERE l.task = c.task) OR n <> (SELECT max(n) FROM log l
                         WHERE l.task = c.task)",
                        [],
                        |row| row.get(0),
                    )
                })
                .expect("a read");
            assert_eq!(wrong, 0);
            let reads = reads.load(Ordering::Relaxed);
            println!("{place:?}: {} writes, {reads} reads, no BUSY", TASKS * calls);
            db.blocking_close().expect("closes");
        });
    }
}
