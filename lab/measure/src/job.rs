//! The job that the lab gives to a binary, and the figures that it gets back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Latencies;

/// What is measured; `lab/README.md` describes each workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Every task inserts one row at a time.
    TinyWrites,
    /// Every task reads one row by key at a time.
    PointReads,
    /// Eight writers and `tasks` readers run at the same time.
    Mixed,
    /// Another process holds the write lock for one second while `tasks` writes wait.
    Stall,
    /// Seven clients with one call in flight each, beside one client with 256 calls in flight.
    Fairness,
    /// `tasks` tasks read single rows while one task scans the whole table.
    LongScan,
    /// The futures of `tasks` queries that never end are dropped.
    Cancel,
    /// Inserts a million rows in one transaction.
    Bulk,
    /// `tasks` readers read a page of five queries while four tasks write.
    ReadPage,
}

impl Workload {
    /// All workloads, in the order of the report.
    pub const ALL: [Self; 9] = [
        Self::TinyWrites,
        Self::PointReads,
        Self::Mixed,
        Self::Stall,
        Self::Fairness,
        Self::LongScan,
        Self::Cancel,
        Self::Bulk,
        Self::ReadPage,
    ];

    /// The workload's name on the command line and in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TinyWrites => "tiny-writes",
            Self::PointReads => "point-reads",
            Self::Mixed => "mixed",
            Self::Stall => "stall",
            Self::Fairness => "fairness",
            Self::LongScan => "long-scan",
            Self::Cancel => "cancel",
            Self::Bulk => "bulk",
            Self::ReadPage => "read-page",
        }
    }

    /// The number of tasks, unless the command line names another.
    #[must_use]
    pub fn default_tasks(self) -> usize {
        match self {
            Self::TinyWrites | Self::PointReads | Self::Mixed | Self::Stall => 64,
            Self::LongScan | Self::ReadPage => 32,
            Self::Fairness => 8,
            Self::Cancel => 16,
            Self::Bulk => 1,
        }
    }
}

/// When a commit reaches the disk.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Synchronous {
    /// The file is synced at each commit.
    #[default]
    Full,
    /// The file is synced only at checkpoints.
    Normal,
}

impl Synchronous {
    /// The value of `PRAGMA synchronous`.
    #[must_use]
    pub fn sql(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        }
    }
}

/// One measurement of one peer, in a process of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The workload.
    pub workload: Workload,
    /// The peer's name.
    pub peer: String,
    /// The number of tasks. The workload decides what they do.
    pub tasks: usize,
    /// When a commit reaches the disk.
    pub synchronous: Synchronous,
    /// How many seconds are measured, after a warm-up of a quarter of that time (at least 0.75 s for workloads that
    /// look up rows).
    pub seconds: f64,
    /// The database file, which has its tables and rows, and is in WAL mode.
    pub file: PathBuf,
    /// The lab's own program, which can hold a lock in another process.
    pub lab: PathBuf,
}

/// The writes of one task, in the order of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The seed of the keys ([`crate::Random::of_task`]).
    pub seed: usize,
    /// The number of calls that ended.
    pub calls: u64,
    /// The numbers of the calls that failed, ascending.
    pub failed: Vec<u64>,
}

impl Written {
    /// The number of calls that succeeded.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.calls - self.failed.len() as u64
    }

    /// For each call in turn, whether it succeeded.
    pub fn calls(&self) -> impl Iterator<Item = bool> {
        (0..self.calls).map(|call| self.failed.binary_search(&call).is_err())
    }
}

/// The results of one measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// The version of SQLite that the peer links.
    pub sqlite: String,
    /// Figures by name. Higher is better for names that end in `_per_s`, lower for names that end in `_ms`.
    pub values: BTreeMap<String, f64>,
    /// Latencies by the name of the call.
    pub latencies: BTreeMap<String, Latencies>,
    /// Calls per second of each client.
    pub clients: Vec<f64>,
    /// For the points of a 1 ms ticker: milliseconds since the start, and by how many milliseconds the tick was late.
    pub lateness: Vec<(f64, f64)>,
    /// The writes of each task, those of the warm-up included. The lab checks that each write that succeeded is stored.
    pub written: Vec<Written>,
    /// The number of rows that the bulk write reported as stored.
    pub bulk_rows: u64,
    /// The number of failed calls.
    pub errors: u64,
    /// The number of calls without an answer when the measurement gave up.
    pub unanswered: u64,
    /// The message of the first failure.
    pub first_error: Option<String>,
}

impl Figures {
    /// Sets a figure.
    pub fn value(&mut self, name: &str, value: f64) {
        self.values.insert(name.to_owned(), value);
    }

    /// The number of single writes that succeeded.
    #[must_use]
    pub fn answered_writes(&self) -> u64 {
        self.written.iter().map(Written::answered).sum()
    }

    /// Sets the rate and the latencies of the calls with this name.
    pub fn calls(&mut self, name: &str, per_s: f64, latencies: Latencies) {
        let summary = latencies.summary();
        self.value(&format!("{name}s_per_s"), per_s);
        self.value(&format!("{name}_p50_ms"), summary.p50);
        self.value(&format!("{name}_p99_ms"), summary.p99);
        self.value(&format!("{name}_p999_ms"), summary.p999);
        self.value(&format!("{name}_max_ms"), summary.max);
        self.latencies.insert(name.to_owned(), latencies);
    }

    /// Counts a failed call, and keeps the first message.
    pub fn failed(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }
}
