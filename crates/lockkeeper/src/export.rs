//! Exports the statistics to the recorder of the crate `metrics`, whenever the program asks.
//!
//! The library does not record each event when it happens: that would cost each call a virtual call per number, and
//! most recorders keep every value of a histogram until the next scrape. Instead [`Exporter::export`] compares the
//! statistics with those of the last export and records the difference (`docs/design/statistics.md`).
//!
//! - EXP1: counters and histograms are increased by the difference since the last export. So nothing is counted twice.
//!   If a database is opened after another one of the same name, the numbers of both add up.
//! - EXP2: the number of labels is bounded: [`CLIENTS_MAX`] clients have a label of their own, and all others share
//!   one. Of clients that do not exist any more, only the names that have a label are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use metrics::{Label, SharedString, Unit};

use crate::engine::core::Core;
use crate::stats::{Distribution, LaneStats, Stats};

/// The most clients that have a label of their own.
const CLIENTS_MAX: usize = 64;

/// The label of the database's own handle, in parentheses so that no client has this name by accident.
const MAIN: &str = "(main)";

/// The label of the clients beyond [`CLIENTS_MAX`].
const OTHERS: &str = "(other)";

/// A metric: its name, unit and description, and how to read it from [`Stats`].
struct Figure<G> {
    name: &'static str,
    unit: Unit,
    what: &'static str,
    get: G,
}

type OfHistogram = Figure<fn(&Stats) -> &Distribution>;
type OfCounter = Figure<fn(&Stats) -> u64>;
type OfGauge = Figure<fn(&Stats) -> f64>;

/// A table of metrics: name, unit and value, then the description.
macro_rules! figures {
    ($($name:literal, $unit:ident, |$stats:ident| $value:expr, $what:literal;)*) => {
        [$(Figure { name: $name, unit: Unit::$unit, what: $what, get: |$stats| $value }),*]
    };
}

/// Times are nanoseconds in the statistics and seconds here.
const HISTOGRAMS: [OfHistogram; 13] = figures! {
    "lockkeeper_write_wait_seconds", Seconds, |stats| &stats.writes.wait,
        "From the submission of a write to the beginning of its run";
    "lockkeeper_write_run_seconds", Seconds, |stats| &stats.writes.run,
        "In the closure of a write, without its commit";
    "lockkeeper_exclusive_wait_seconds", Seconds, |stats| &stats.exclusive.wait,
        "From the submission of an exclusive call to the beginning of its run";
    "lockkeeper_exclusive_run_seconds", Seconds, |stats| &stats.exclusive.run,
        "For how long an exclusive call had the writer to itself";
    "lockkeeper_lease_wait_seconds", Seconds, |stats| &stats.leases.wait,
        "From the submission of a lease to its turn";
    "lockkeeper_lease_run_seconds", Seconds, |stats| &stats.leases.run,
        "For how long a lease had the writer to itself";
    "lockkeeper_read_wait_seconds", Seconds, |stats| &stats.reads.wait,
        "From the submission of a read to the beginning of its run on a reader thread";
    "lockkeeper_read_run_seconds", Seconds, |stats| &stats.reads.run,
        "In the closure of a read on a reader thread";
    "lockkeeper_commit_seconds", Seconds, |stats| &stats.commit,
        "COMMIT, the sync included";
    "lockkeeper_lock_wait_seconds", Seconds, |stats| &stats.lock_wait,
        "Getting the write lock of the file";
    "lockkeeper_checkpoint_seconds", Seconds, |stats| &stats.checkpoint,
        "Checkpoints on the writer's thread, between two commits";
    "lockkeeper_checkpoint_copy_seconds", Seconds, |stats| &stats.checkpoint_copy,
        "Copies from the WAL to the file, beside the writer";
    "lockkeeper_batch_calls", Count, |stats| &stats.batch_calls,
        "Calls per commit";
};

const COUNTERS: [OfCounter; 5] = figures! {
    "lockkeeper_short_reads_total", Count, |stats| stats.short_reads,
        "Reads that were served on their caller's thread";
    "lockkeeper_busy_waits_total", Count, |stats| stats.busy_waits,
        "Times that the writer found the file locked by another process and waited";
    "lockkeeper_checkpoints_incomplete_total", Count, |stats| stats.checkpoints_incomplete,
        "Checkpoints that could not fold everything back, because a reader needed a part";
    "lockkeeper_readers_cut_total", Count, |stats| stats.readers_cut,
        "Snapshots and reads that were ended because the WAL had reached its maximum size";
    "lockkeeper_wal_over_max_total", Count, |stats| stats.wal_over_max,
        "Times that the WAL stayed at its maximum size in spite of that";
};

const GAUGES: [OfGauge; 4] = figures! {
    "lockkeeper_wal_bytes", Bytes, |stats| stats.wal_bytes as f64,
        "Size of the WAL";
    "lockkeeper_oldest_reader_seconds", Seconds,
        |stats| stats.oldest_reader.as_ref().map_or(0.0, |holder| holder.age.as_secs_f64()),
        "Age of the oldest open read transaction, which keeps the WAL from starting over";
    "lockkeeper_writing_seconds", Seconds,
        |stats| stats.writing.as_ref().map_or(0.0, |holder| holder.age.as_secs_f64()),
        "For how long the writer has been running its present call";
    "lockkeeper_snapshots", Count, |stats| stats.snapshots as f64,
        "Held snapshots";
};

const WAITING: &str = "lockkeeper_client_waiting";
const CALLS: &str = "lockkeeper_client_calls_total";
const RUN: &str = "lockkeeper_client_run_microseconds_total";

/// Exports a database's statistics to the recorder of the crate [`metrics`]; see
/// [`Database::exporter`](crate::Database::exporter).
#[derive(Debug)]
pub struct Exporter {
    core: Weak<Core>,
    database: SharedString,
    described: bool,
    /// The statistics at the last export.
    before: Stats,
    clients: Clients,
}

/// The clients at the last export (EXP2).
#[derive(Debug, Default)]
struct Clients {
    /// Names with a label of their own, which they keep. Bound: [`CLIENTS_MAX`].
    named: BTreeSet<String>,
    /// The writes and reads of each client at the last export.
    before: BTreeMap<Option<String>, [LaneStats; 2]>,
}

/// What an export records for one label and queue.
#[derive(Clone, Copy, Debug, Default)]
struct Added {
    waiting: usize,
    calls: u64,
    run_us: u64,
}

impl Exporter {
    pub(crate) fn new(core: &Arc<Core>, database: SharedString) -> Self {
        Self {
            core: Arc::downgrade(core),
            database,
            described: false,
            before: Stats::default(),
            clients: Clients::default(),
        }
    }

    /// Records the difference since the last export, and the present values of the gauges.
    ///
    /// Call it before each scrape, or every few seconds. It costs as much as
    /// [`Database::stats`](crate::Database::stats), plus the recorder's time for the values of the histograms. `false`:
    /// the database is closed, and its gauges are 0 from then on.
    ///
    /// The first export describes the metrics, so install the recorder before the first export.
    pub fn export(&mut self) -> bool {
        if !self.described {
            self.described = true;
            describe();
        }
        let core = self.core.upgrade();
        let now = match &core {
            Some(core) => core.stats(),
            // The counters stay as they were at the last export, and the gauges become 0.
            None => Stats {
                wal_bytes: 0,
                oldest_reader: None,
                writing: None,
                snapshots: 0,
                clients: Vec::new(),
                ..self.before.clone()
            },
        };
        let labels = vec![Label::new("database", self.database.clone())];
        for Figure { name, unit, get, .. } in HISTOGRAMS {
            let scale = if unit == Unit::Seconds { 1e-9 } else { 1.0 };
            let histogram = metrics::histogram!(name, labels.clone());
            for (value, count) in get(&now).since(get(&self.before)) {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                histogram.record_many(value as f64 * scale, count);
            }
        }
        for Figure { name, get, .. } in COUNTERS {
            let added = get(&now).saturating_sub(get(&self.before));
            metrics::counter!(name, labels.clone()).increment(added);
        }
        for Figure { name, get, .. } in GAUGES {
            metrics::gauge!(name, labels.clone()).set(get(&now));
        }
        for ((client, queue), added) in self.clients.added(&now) {
            let labels = vec![
                Label::new("database", self.database.clone()),
                Label::new("client", client),
                Label::new("queue", queue),
            ];
            metrics::gauge!(WAITING, labels.clone()).set(added.waiting as f64);
            metrics::counter!(CALLS, labels.clone()).increment(added.calls);
            metrics::counter!(RUN, labels).increment(added.run_us);
        }
        self.before = now;
        core.is_some()
    }
}

impl Clients {
    /// The differences since the last export, by label and queue.
    fn added(&mut self, now: &Stats) -> BTreeMap<(String, &'static str), Added> {
        let mut all: BTreeMap<(String, &'static str), Added> = BTreeMap::new();
        // Clients that do not exist any more are reported with 0 waiting calls.
        let others = (self.named.len() >= CLIENTS_MAX).then_some(OTHERS);
        for name in self.named.iter().map(String::as_str).chain([MAIN]).chain(others) {
            for queue in ["write", "read"] {
                all.insert((name.to_owned(), queue), Added::default());
            }
        }
        let mut seen = BTreeMap::new();
        for client in &now.clients {
            let label = self.label(client.name.as_deref());
            let before = self.before.get(&client.name).copied().unwrap_or_default();
            let after = [client.writes, client.reads];
            for ((queue, before), after) in ["write", "read"].into_iter().zip(before).zip(after) {
                let added = all.entry((label.clone(), queue)).or_default();
                added.waiting += after.waiting;
                // If a number is lower than before, the client was dropped, and this is a new client with the same
                // name.
                let fresh = after.taken < before.taken || after.run < before.run;
                let before = if fresh { LaneStats::default() } else { before };
                added.calls += after.taken - before.taken;
                let run_us = after.run.as_micros() - before.run.as_micros();
                added.run_us += u64::try_from(run_us).unwrap_or(u64::MAX);
            }
            seen.insert(client.name.clone(), after);
        }
        self.before = seen;
        all
    }

    fn label(&mut self, name: Option<&str>) -> String {
        let Some(name) = name else { return String::from(MAIN) };
        if self.named.len() >= CLIENTS_MAX && !self.named.contains(name) {
            return String::from(OTHERS);
        }
        self.named.insert(name.to_owned());
        name.to_owned()
    }
}

fn describe() {
    for Figure { name, unit, what, .. } in HISTOGRAMS {
        metrics::describe_histogram!(name, unit, what);
    }
    for Figure { name, unit, what, .. } in COUNTERS {
        metrics::describe_counter!(name, unit, what);
    }
    for Figure { name, unit, what, .. } in GAUGES {
        metrics::describe_gauge!(name, unit, what);
    }
    let waiting = "Calls of a client that wait, those waiting for room included";
    metrics::describe_gauge!(WAITING, Unit::Count, waiting);
    metrics::describe_counter!(CALLS, Unit::Count, "Calls of a client that were taken");
    let run = "Running time of a client's calls, by which shares are reckoned";
    metrics::describe_counter!(RUN, Unit::Microseconds, run);
}
