//! What the lab asks of a binary, and what it gets back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Latencies;

/// What is done; `lab/README.md` describes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Every task inserts one row at a time.
    TinyWrites,
    /// Every task reads one row by key at a time.
    PointReads,
    /// Eight writers and `tasks` readers at once.
    Mixed,
    /// Another process holds the write lock for two seconds while `tasks` writes wait.
    Stall,
    /// Seven clients with one call in flight beside one with 256.
    Fairness,
    /// `tasks` point readers beside a scan of the whole table.
    LongScan,
    /// The futures of `tasks` endless queries are dropped.
    Cancel,
    /// A million rows in one transaction.
    Bulk,
    /// A page of five queries by `tasks` readers while four tasks write.
    ReadPage,
}

impl Workload {
    /// All, in the order of the report.
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

    /// Its name on the command line and in files.
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

    /// Tasks when nobody says otherwise.
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
    /// Synced at each commit.
    #[default]
    Full,
    /// Synced at checkpoints.
    Normal,
}

impl Synchronous {
    /// As SQLite spells it.
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
    /// What is done.
    pub workload: Workload,
    /// Who does it.
    pub peer: String,
    /// How many tasks; what they do depends on the workload.
    pub tasks: usize,
    /// When a commit reaches the disk.
    pub synchronous: Synchronous,
    /// How long to measure, after a warm-up of a quarter of it (0.75 s at least where rows are looked
    /// up).
    pub seconds: f64,
    /// The database, already made and in WAL mode.
    pub file: PathBuf,
    /// The lab itself, which can hold a lock in another process.
    pub lab: PathBuf,
}

/// What a writer did: its first calls, in the order of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its keys are those of [`crate::Random::of_task`].
    pub seed: usize,
    /// Calls that came to an end.
    pub calls: u64,
    /// Those of them that failed, ascending.
    pub failed: Vec<u64>,
}

impl Written {
    /// Calls that were answered with success.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.calls - self.failed.len() as u64
    }

    /// For each call in turn, whether it was answered with success.
    pub fn calls(&self) -> impl Iterator<Item = bool> {
        (0..self.calls).map(|call| self.failed.binary_search(&call).is_err())
    }
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// The SQLite that the peer links.
    pub sqlite: String,
    /// Figures by name; what ends in `_per_s` is better higher, what ends in `_ms` better lower.
    pub values: BTreeMap<String, f64>,
    /// Latencies by name.
    pub latencies: BTreeMap<String, Latencies>,
    /// Calls per second of each client.
    pub clients: Vec<f64>,
    /// How late a 1 ms ticker was: milliseconds since the start, milliseconds late.
    pub lateness: Vec<(f64, f64)>,
    /// Who wrote what, warm-up included; the lab looks for each write that was answered with success.
    pub written: Vec<Written>,
    /// Rows of the bulk write that was answered.
    pub bulk_rows: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Calls that nobody answered before the measurement gave up.
    pub unanswered: u64,
    /// What the first failure said.
    pub first_error: Option<String>,
}

impl Figures {
    /// Notes a figure.
    pub fn value(&mut self, name: &str, value: f64) {
        self.values.insert(name.to_owned(), value);
    }

    /// Writes that were answered with success, each in a call of its own.
    #[must_use]
    pub fn answered_writes(&self) -> u64 {
        self.written.iter().map(Written::answered).sum()
    }

    /// Notes calls of one name: how many ended per second, and how long those in flight took.
    pub fn calls(&mut self, name: &str, per_s: f64, latencies: Latencies) {
        let summary = latencies.summary();
        self.value(&format!("{name}s_per_s"), per_s);
        self.value(&format!("{name}_p50_ms"), summary.p50);
        self.value(&format!("{name}_p99_ms"), summary.p99);
        self.value(&format!("{name}_p999_ms"), summary.p999);
        self.value(&format!("{name}_max_ms"), summary.max);
        self.latencies.insert(name.to_owned(), latencies);
    }

    /// Notes a failed call.
    pub fn failed(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }
}
