//! The latency of writes with checkpoints, compared with writes without any.

use std::time::{Duration, Instant};

use lockkeeper::{Database, Synchronous};

use crate::Promises;
use crate::harness::{Options, Place, Random, compare, runtime, tuned, write_one};

/// How long writes take at the 99.9th percentile with checkpoints, compared with a WAL that is never copied back during
/// the run.
pub(crate) fn checkpoints(options: &Options, promises: &mut Promises) {
    let slowest = |bytes: u64| {
        let place = Place::new();
        let db = tuned(&place.file("bench.db"), Synchronous::Full, |builder| {
            let share = if bytes == u64::MAX { bytes } else { bytes / 2 };
            builder.wal_bytes_max(bytes).checkpoint_wal_bytes(share)
        });
        let slowest = slowest_writes(&db, 64, options.run());
        let stats = db.stats();
        assert_eq!(stats.checkpoint.count() > 0, bytes < u64::MAX, "{stats:?}");
        db.blocking_close().expect("close");
        slowest * 1e6
    };
    let of = "us at the 99.9th percentile";
    let (with, without) = (|| slowest(64 << 20), || slowest(u64::MAX));
    let ratio = compare(options, "checkpoints/write-p99.9", of, "no checkpoints", with, without);
    promises.check("commits at p99.9 take at most twice as long with checkpoints", ratio <= 2.0);
}

/// The 99.9th percentile of the time from the submission of a write to its answer, in seconds.
fn slowest_writes(db: &Database, tasks: usize, run: Duration) -> f64 {
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
    waits.sort_by(f64::total_cmp);
    waits[waits.len() * 999 / 1000]
}
