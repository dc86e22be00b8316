//! The worst-case guarantees, measured in one run: the WAL's size, checkpoints, the change feed,
//! statistics, backups, other processes.
//!
//! `cargo bench -p lockkeeper --bench day_two -- --full`

#![expect(clippy::disallowed_methods, reason = "measures raw connections and plain threads")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lockkeeper::Synchronous;

mod backup;
mod commits;
#[path = "../../tests/it/feed_model.rs"]
mod feed_model;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../../tests/it/held.rs"]
mod held;
#[path = "../../tests/it/overlap.rs"]
mod overlap;
mod processes;
#[path = "../../tests/it/steady.rs"]
mod steady;
mod wal;

use harness::{Options, Place, compare, drive_writes, is_asked_for_tests, tuned};

const HELP: &str = "\
Figures: wal, checkpoints, stats, backup, feed, processes.

The short form takes about 2 minutes, --full about 14: the WAL 10, two processes 1, the others 3.
Nothing else should run on the machine meanwhile.

Exit status: 0 when every promise was kept, 1 when one was not.";

/// The worst-case guarantees, measured in one run.
#[derive(Parser)]
#[command(after_help = HELP)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// The long forms: --minutes 10 --batches 10000 --mib 1024 --process-seconds 60
    #[arg(long)]
    full: bool,
    /// How long the WAL is watched
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// Random batches that the feed is compared over
    #[arg(long, value_name = "N")]
    batches: Option<u32>,
    /// Size of the file that is backed up
    #[arg(long, value_name = "MIB")]
    mib: Option<usize>,
    /// How long two processes write
    #[arg(long, value_name = "S")]
    process_seconds: Option<u64>,
    /// What a process of this bench that writes beside another is told
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
}

/// Which promises were kept.
#[derive(Default)]
struct Promises(Vec<(String, bool)>);

impl Promises {
    fn check(&mut self, promise: impl Into<String>, kept: bool) {
        self.0.push((promise.into(), kept));
    }
}

fn main() -> ExitCode {
    if is_asked_for_tests() {
        return ExitCode::SUCCESS;
    }
    let Arguments { options, full, minutes, batches, mib, process_seconds, child } =
        Arguments::parse();
    let process_time = Duration::from_secs(process_seconds.unwrap_or(if full { 60 } else { 5 }));
    if let Some(file) = child {
        processes::child(&file, process_time);
        return ExitCode::SUCCESS;
    }
    let minutes = minutes.unwrap_or(if full { 10.0 } else { 0.5 });
    let Ok(wal_time) = Duration::try_from_secs_f64(minutes * 60.0) else {
        eprintln!("day_two: {minutes} minutes are no time to watch the WAL; give a number above 0");
        return ExitCode::from(2);
    };
    let mut promises = Promises::default();
    println!(
        "{:<44} {:>12} {:>12} {:>8}   it is compared with",
        "figure", "ours", "other", "ratio"
    );
    if options.wants("checkpoints") {
        commits::checkpoints(&options, &mut promises);
    }
    if options.wants("stats") {
        stats(&options, &mut promises);
    }
    if options.wants("backup") {
        backup::backup(&options, mib.unwrap_or(if full { 1024 } else { 128 }), &mut promises);
    }
    if options.wants("feed") {
        feed(batches.unwrap_or(if full { 10_000 } else { 1_000 }), &mut promises);
    }
    if options.wants("processes") {
        processes::processes(process_time, &mut promises);
    }
    if options.wants("wal") {
        wal::wal(wal_time, &mut promises);
    }
    println!();
    for (promise, kept) in &promises.0 {
        println!("{:<8} {promise}", if *kept { "kept" } else { "BROKEN" });
    }
    ExitCode::from(u8::from(promises.0.iter().any(|(_, kept)| !kept)))
}

/// Measures the cost of statistics: the rate of writes with statistics, compared with the rate without.
fn stats(options: &Options, promises: &mut Promises) {
    let with = |on: bool| {
        let place = Place::new();
        let db =
            tuned(&place.file("bench.db"), Synchronous::Full, |builder| builder.statistics(on));
        drive_writes(&db, 64, options.run())
    };
    let (on, off) = (|| with(true), || with(false));
    let ratio = compare(options, "stats/writes-64-tasks", "writes/s", "off", on, off);
    promises.check("statistics cost 64 writers at most 3 % of their rate", ratio >= 0.97);
}

/// Checks in random batches that the feed tells what has changed in the tables.
fn feed(batches: u32, promises: &mut Promises) {
    let place = Place::new();
    let db = lockkeeper::Database::blocking_open(place.file("bench.db")).expect("open");
    let told = feed_model::follow(&db, batches);
    db.blocking_close().expect("close");
    let promise = format!("over {batches} random batches the feed is the difference of the tables");
    match told {
        Ok(told) => {
            println!(
                "{:<44} {:>12} of {batches}",
                "feed/batches-equal-to-the-difference", told.batches
            );
            promises.check(promise, told.batches == batches && told.rows > 0 && told.tables > 0);
        }
        Err(error) => {
            println!("{:<44} {error}", "feed/batches-equal-to-the-difference");
            promises.check(promise, false);
        }
    }
}
