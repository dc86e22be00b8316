//! Threads that write for some time. This is a file of its own, because the bench `day_two` uses it too.

use std::time::{Duration, Instant};

use lockkeeper::Database;

/// The results of [`write_for`].
pub(crate) struct Steady {
    pub(crate) writes: usize,
    pub(crate) failed: usize,
    pub(crate) p99_us: u64,
    pub(crate) worst_us: u64,
}

/// Runs `sql` repeatedly on `threads` threads for `time`. Prints the reason of each failure.
pub(crate) fn write_for(
    db: &Database,
    sql: &'static str,
    threads: usize,
    time: Duration,
) -> Steady {
    let until = Instant::now() + time;
    let results: Vec<(Vec<u64>, usize)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let (mut waits, mut failed) = (Vec::new(), 0);
                    while Instant::now() < until {
                        let began = Instant::now();
                        match db.blocking_write(move |tx| tx.execute(sql, [])) {
                            Ok(_) => waits.push(began.elapsed().as_micros() as u64),
                            Err(error) => {
                                eprintln!("a write failed: {error}");
                                failed += 1;
                            }
                        }
                    }
                    (waits, failed)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let failed = results.iter().map(|(_, failed)| failed).sum();
    let mut waits: Vec<u64> = results.into_iter().flat_map(|(waits, _)| waits).collect();
    waits.sort_unstable();
    let p99_us = waits.get(waits.len() * 99 / 100).copied().unwrap_or(0);
    let worst_us = waits.last().copied().unwrap_or(0);
    Steady { writes: waits.len(), failed, p99_us, worst_us }
}
