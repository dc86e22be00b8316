//! The figures of the README: Lockkeeper compared with a raw rusqlite loop in the same run.
//!
//! `cargo bench -p lockkeeper --bench figures -- [NAME...] [--seconds S] [--repeat R]`
//!
//! Each figure is measured `R` times, with Lockkeeper and the raw loop by turns. The median of the ratios is printed
//! with the medians of both sides. Speeds vary between machines and runs, so only the ratios of one run can be
//! compared. The bench `day_two` measures the worst-case guarantees (WAL, feed, statistics, backups, other processes).

#![expect(clippy::disallowed_methods, reason = "measures raw connections and plain threads")]

use std::time::Instant;

use clap::Parser;
use lockkeeper::Synchronous;

#[path = "../harness/mod.rs"]
mod harness;
mod ours;
mod raw;
mod short;

use harness::{
    INSERT, Options, Place, SCHEMA, compare, drive_writes, is_asked_for_tests, median, open,
    print_row, runtime,
};
use ours::{
    our_cancel, our_clients, our_lock_wait, our_mixed, our_reads, our_snapshots, our_writes,
};
use raw::{fill, raw_mixed, raw_open, raw_reads, raw_writes};

/// The figures of the README: ours and a raw rusqlite loop in turn. All of them take some four minutes.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() {
    if is_asked_for_tests() {
        return;
    }
    let Arguments { options } = Arguments::parse();
    println!("{:<44} {:>12} {:>12} {:>8}   raw is", "figure", "ours", "raw", "ratio");
    writes(&options);
    reads(&options);
    short::figures(&options);
    mixed(&options);
    lock_wait(&options);
    fairness(&options);
    cancel(&options);
    snapshot(&options);
    bulk(&options);
    feed(&options);
}

fn writes(options: &Options) {
    for (synchronous, label, tasks) in
        [(Synchronous::Full, "FULL", vec![1, 64, 512]), (Synchronous::Normal, "NORMAL", vec![64])]
    {
        for tasks in tasks {
            let name = format!("writes/{label}/{tasks}-tasks");
            if !options.wants(&name) {
                continue;
            }
            let raw = || raw_writes(synchronous, 1, options.run());
            let ours = || our_writes(synchronous, tasks, options.run());
            compare(options, &name, "writes/s", "one transaction per write", ours, raw);
            if tasks == 64 {
                let raw = || raw_writes(synchronous, 64, options.run());
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
    fill(&place.file("bench.db"), 1_000_000);
    if options.wants("reads/64-tasks") {
        let ours = || our_reads(&runtime(), &place.file("bench.db"), 64, false, options.run());
        let raw = || raw_reads(&place.file("bench.db"), 2, options.run());
        compare(options, "reads/64-tasks", "reads/s", "two threads", ours, raw);
    }
    if options.wants("reads/short/1-task") {
        let ours = || our_reads(&runtime(), &place.file("bench.db"), 1, true, options.run());
        let raw = || raw_reads(&place.file("bench.db"), 1, options.run());
        compare(options, "reads/short/1-task", "reads/s", "one thread", ours, raw);
    }
    if options.wants("reads/1-task") {
        let ours = || our_reads(&runtime(), &place.file("bench.db"), 1, false, options.run());
        let raw = || raw_reads(&place.file("bench.db"), 1, options.run());
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
    for _ in 0..options.repeat() {
        let place = Place::new();
        fill(&place.file("bench.db"), 1_000_000);
        let ours = our_mixed(&runtime(), &place.file("bench.db"), false, options.run());
        let place = Place::new();
        fill(&place.file("bench.db"), 1_000_000);
        let raw = raw_mixed(&place.file("bench.db"), options.run());
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
    for _ in 0..options.repeat() {
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
    for _ in 0..options.repeat() {
        let polite = our_clients(&[1; 8], options.run());
        let mut greedy = [1; 8];
        greedy[7] = 256;
        let mixed = our_clients(&greedy, options.run());
        let raw = raw_writes(Synchronous::Full, 1, options.run());
        let alone = polite.iter().sum::<f64>() / 8.0;
        let beside = mixed[..7].iter().copied().fold(f64::MAX, f64::min);
        kept.push((beside, alone));
        total.push((mixed.iter().sum::<f64>(), raw));
        let busy = our_clients(&[32; 8], options.run());
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
        let rows: Vec<_> = (0..options.repeat()).map(|_| our_cancel(queries)).collect();
        let answer = median(rows.clone(), |row| row.0);
        let burned = median(rows, |row| row.1);
        println!(
            "{:<44} {answer:>9.2} ms until a read is answered, {burned:.0} ms of CPU in 1 s after",
            format!("cancel/{queries}-long-queries")
        );
    }
}

/// How much longer a write takes if a snapshot of its commit is taken too. The writer pauses for that time.
fn snapshot(options: &Options) {
    if !options.wants("snapshot") {
        return;
    }
    let rows: Vec<_> = (0..options.repeat()).map(|_| our_snapshots(options.run())).collect();
    let (half, nearly_all) = (median(rows.clone(), |row| row.0), median(rows, |row| row.1));
    println!(
        "{:<44} {half:>9.3} ms at the median, {nearly_all:.3} ms at the 99th percentile",
        "snapshot/writers-pause"
    );
}

/// The cost of the change feed: the rate of writes with a subscriber that takes every change, compared with the rate
/// without.
fn feed(options: &Options) {
    if !options.wants("feed") {
        return;
    }
    let silent = || our_writes(Synchronous::Full, 64, options.run());
    let followed = || {
        let place = Place::new();
        let db = open(&place.file("bench.db"), Synchronous::Full);
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
        let rate = drive_writes(&db, 64, options.run());
        assert!(listener.join().expect("listener") > 0, "the feed tells of writes");
        rate
    };
    compare(options, "feed/writes-64-tasks", "writes/s", "nobody subscribed", followed, silent);
}

fn bulk(options: &Options) {
    if !options.wants("bulk") {
        return;
    }
    let ours = || {
        let place = Place::new();
        let db = open(&place.file("bench.db"), Synchronous::Full);
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
        let mut conn = raw_open(&place.file("bench.db"), Synchronous::Full);
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
