//! Shared parts of the benches: options, keys, databases, writing tasks, and the output of ratios.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use lockkeeper::{Client, Database, Synchronous};
use tokio::runtime::Runtime;

mod place;

pub(crate) use place::Place;

pub(crate) const SCHEMA: &str = "CREATE TABLE person (name TEXT PRIMARY KEY, age INTEGER)";
pub(crate) const INSERT: &str = "INSERT INTO person (name, age) VALUES (?1, ?2)";
pub(crate) const CACHE_BYTES: usize = 64 << 20;

/// What every bench with ratios understands.
#[derive(Args)]
pub(crate) struct Options {
    /// Only the figures whose names contain one of these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Length of one run
    #[arg(long, value_name = "S", default_value_t = 1.5)]
    seconds: f64,
    /// Runs of each side; the median counts
    #[arg(long, value_name = "R", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    repeat: u64,
    /// Passed by `cargo bench`; has no effect
    #[arg(long, hide = true)]
    bench: bool,
}

/// Whether cargo asks this bench to list or run tests. It has none.
pub(crate) fn is_asked_for_tests() -> bool {
    std::env::args().any(|word| word == "--test" || word == "--list")
}

impl Options {
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| name.contains(wanted.as_str()))
    }

    pub(crate) fn run(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or(Duration::from_secs(1))
    }

    pub(crate) fn repeat(&self) -> usize {
        usize::try_from(self.repeat).unwrap_or(usize::MAX)
    }
}

/// Measures both sides by turns. Returns the median of the ratios.
pub(crate) fn compare(
    options: &Options,
    name: &str,
    unit: &str,
    raw_is: &str,
    mut ours: impl FnMut() -> f64,
    mut raw: impl FnMut() -> f64,
) -> f64 {
    let pairs: Vec<_> = (0..options.repeat()).map(|_| (ours(), raw())).collect();
    print_row(name, unit, raw_is, &pairs)
}

pub(crate) fn print_row(name: &str, unit: &str, raw_is: &str, pairs: &[(f64, f64)]) -> f64 {
    let ratios = |pair: (f64, f64)| pair.0 / pair.1;
    let ratio = median(pairs.to_vec(), ratios);
    let least = pairs.iter().copied().map(ratios).fold(f64::MAX, f64::min);
    let most = pairs.iter().copied().map(ratios).fold(0.0, f64::max);
    let (ours, raw) = (median(pairs.to_vec(), |p| p.0), median(pairs.to_vec(), |p| p.1));
    println!(
        "{name:<44} {ours:>12.0} {raw:>12.0} {ratio:>8.2}   {raw_is}; {unit}; {least:.2} to {most:.2}"
    );
    ratio
}

pub(crate) fn median<T: Copy>(rows: Vec<T>, figure: impl Fn(T) -> f64) -> f64 {
    let mut figures: Vec<f64> = rows.into_iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A random number generator (xorshift64). Its quality suffices for keys.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0x9E37_79B9_7F4A_7C15);
        Self(NEXT.fetch_add(0x2545_F491_4F6C_DD1D, Ordering::Relaxed) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn key(&mut self) -> String {
        format!("{:016x}", self.next())
    }
}

/// The multi-threaded runtime that most programs use, here with two threads.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

pub(crate) fn open(path: &Path, synchronous: Synchronous) -> Database {
    tuned(path, synchronous, |builder| builder)
}

pub(crate) fn tuned(
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

pub(crate) async fn write_one(client: &Client, random: &mut Random) {
    let key = random.key();
    client.write(move |tx| tx.prepare_cached(INSERT)?.execute((&key, 1))).await.expect("write");
}

/// The number of writes per second of `tasks` tasks. Closes the database.
pub(crate) fn drive_writes(db: &Database, tasks: usize, run: Duration) -> f64 {
    let (rate, ()) = write_while(db, tasks, || std::thread::sleep(run));
    db.blocking_close().expect("close");
    rate
}

/// The number of writes per second of `tasks` tasks while `f` runs, and the result of `f`.
pub(crate) fn write_while<T>(db: &Database, tasks: usize, f: impl FnOnce() -> T) -> (f64, T) {
    let runtime = runtime();
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let (db, stop) = (db.clone(), Arc::clone(&stop));
            runtime.spawn(async move {
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
    let value = f();
    stop.store(true, Ordering::Relaxed);
    let done: u64 = runtime.block_on(async {
        let mut done = 0;
        for task in tasks {
            done += task.await.expect("task");
        }
        done
    });
    (done as f64 / began.elapsed().as_secs_f64(), value)
}
