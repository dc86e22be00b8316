//! What Lockkeeper counts of the database.
//!
//! Its distributions are given as summaries: quantiles since the server started, and the sum and the number, whose rates
//! tell the present.

use std::time::Duration;

use crate::measure::{Kind, Text};
use lockkeeper::{Distribution, Holder, Stats};

/// The quantiles of summaries.
const QUANTILES: [(&str, f64); 3] = [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99)];

/// The label of the calls of the database's own handle.
const MAIN: &str = "(main)";

pub(super) fn write(text: &mut Text, stats: &Stats, bytes: Option<u64>) {
    times(text, stats);
    sizes(text, stats, bytes);
    counts(text, stats);
    let help =
        "Calls that wait in a queue of the database, by the part of the server that made them";
    let mut family = text.family("brigandine_database_waiting_calls", Kind::Gauge, help);
    for client in &stats.clients {
        let name = client.name.as_deref().unwrap_or(MAIN);
        for (queue, lane) in [("write", client.writes), ("read", client.reads)] {
            family.sample(&[("client", name), ("queue", queue)], lane.waiting);
        }
    }
}

fn times(text: &mut Text, stats: &Stats) {
    for (name, help, distribution) in [
        (
            "brigandine_database_write_wait_seconds",
            "From the submission of a write to its run",
            &stats.writes.wait,
        ),
        (
            "brigandine_database_write_run_seconds",
            "The run of a write, without its commit",
            &stats.writes.run,
        ),
        (
            "brigandine_database_read_wait_seconds",
            "From the submission of a read to its run on a reader thread",
            &stats.reads.wait,
        ),
        (
            "brigandine_database_read_run_seconds",
            "The run of a read on a reader thread; the rate of the sum is the number of busy readers",
            &stats.reads.run,
        ),
        (
            "brigandine_database_commit_seconds",
            "Commits, with the wait for the disk",
            &stats.commit,
        ),
        (
            "brigandine_database_lock_wait_seconds",
            "Getting the write lock of the file, which another program may have",
            &stats.lock_wait,
        ),
        (
            "brigandine_database_checkpoint_seconds",
            "Checkpoints between two commits, for which writes wait",
            &stats.checkpoint,
        ),
    ] {
        summary(text, name, help, distribution, |ns| Duration::from_nanos(ns).as_secs_f64());
    }
    let (name, help) = ("brigandine_database_batch_writes", "Writes that one commit stores");
    summary(text, name, help, &stats.batch_calls, |calls| calls as f64);
}

fn summary(
    text: &mut Text,
    name: &'static str,
    help: &str,
    distribution: &Distribution,
    unit: impl Fn(u64) -> f64,
) {
    let quantiles = QUANTILES.map(|(name, share)| (name, unit(distribution.quantile(share))));
    let mut family = text.family(name, Kind::Summary, help);
    family.summary(&[], &quantiles, unit(distribution.sum()), distribution.count());
}

fn sizes(text: &mut Text, stats: &Stats, bytes: Option<u64>) {
    if let Some(bytes) = bytes {
        let help = "Size of the database, without its WAL";
        text.one("brigandine_database_bytes", Kind::Gauge, help, bytes);
    }
    text.one("brigandine_database_wal_bytes", Kind::Gauge, "Size of the WAL", stats.wal_bytes);
    text.one("brigandine_database_snapshots", Kind::Gauge, "Held snapshots", stats.snapshots);
    let help =
        "Age of the oldest open read, which keeps the WAL from starting over; 0: none is open";
    let oldest = age(stats.oldest_reader.as_ref());
    text.one("brigandine_database_oldest_read_seconds", Kind::Gauge, help, oldest);
    let help = "For how long the present write has been running; 0: none runs";
    let writing = age(stats.writing.as_ref());
    text.one("brigandine_database_writing_seconds", Kind::Gauge, help, writing);
}

/// For how long a call has held its connection; 0: there is none.
fn age(holder: Option<&Holder>) -> f64 {
    holder.map_or(0.0, |holder| holder.age.as_secs_f64())
}

fn counts(text: &mut Text, stats: &Stats) {
    for (name, help, count) in [
        (
            "brigandine_database_short_reads_total",
            "Reads that were served on their caller's thread",
            stats.short_reads,
        ),
        (
            "brigandine_database_busy_waits_total",
            "How often another program had the file locked and a write waited for it",
            stats.busy_waits,
        ),
        (
            "brigandine_database_checkpoints_incomplete_total",
            "Checkpoints that left a part in the WAL, because a read needed it",
            stats.checkpoints_incomplete,
        ),
        (
            "brigandine_database_readers_cut_total",
            "Reads that were ended because the WAL had its maximum size",
            stats.readers_cut,
        ),
        (
            "brigandine_database_wal_over_max_total",
            "How often the WAL stayed at its maximum size in spite of that",
            stats.wal_over_max,
        ),
    ] {
        text.one(name, Kind::Counter, help, count);
    }
}
