//! The results of a run, as they are stored in a file.

use std::collections::BTreeMap;
use std::path::Path;

use measure::{Figures, Latencies, Synchronous, Workload, median, spread};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::durability::Syncs;
use crate::machine::Machine;

/// One run: when, where and how it was made, and its figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) command: String,
    pub(crate) machine: Machine,
    /// The version of each peer, with the version of its SQLite.
    pub(crate) peers: BTreeMap<String, String>,
    pub(crate) measurements: Vec<Measurement>,
    /// How many times each peer synced; empty: this was not counted.
    #[serde(default)]
    pub(crate) syncs: Vec<Syncs>,
}

/// The figures of one peer for one workload, of all rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub(crate) workload: Workload,
    pub(crate) tasks: usize,
    pub(crate) synchronous: Synchronous,
    pub(crate) seconds: f64,
    pub(crate) peer: String,
    pub(crate) rounds: Vec<Figures>,
    /// Why rounds have no figures.
    pub(crate) failed: Vec<String>,
}

/// What is measured, without the peer.
pub(crate) type Key = (Workload, Synchronous, usize);

/// The key as text.
pub(crate) fn name((workload, synchronous, tasks): Key) -> String {
    match workload {
        Workload::TinyWrites => {
            format!("{}, {}, {}", workload.name(), synchronous.sql(), count(tasks, "task"))
        }
        Workload::Cancel => {
            let queries = if tasks == 1 { "1 query".into() } else { format!("{tasks} queries") };
            format!("{}, {queries}", workload.name())
        }
        Workload::Bulk | Workload::Fairness => workload.name().to_owned(),
        _ => format!("{}, {}", workload.name(), count(tasks, "task")),
    }
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

impl Run {
    pub(crate) fn load(file: &Path) -> Result<Self> {
        let text =
            std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        serde_json::from_slice(&text).map_err(|e| {
            format!("{} is no file of `lab bench --json` or `lab report`: {e}", file.display())
                .into()
        })
    }

    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let text = serde_json::to_vec(self)?;
        std::fs::write(file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
        Ok(())
    }

    /// The keys of all measurements, in their order.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        for m in &self.measurements {
            if !keys.contains(&m.key()) {
                keys.push(m.key());
            }
        }
        keys
    }

    pub(crate) fn of(&self, key: Key) -> impl Iterator<Item = &Measurement> {
        self.measurements.iter().filter(move |m| m.key() == key)
    }

    pub(crate) fn find(&self, key: Key, peer: &str) -> Option<&Measurement> {
        self.of(key).find(|m| m.peer == peer)
    }
}

impl Measurement {
    pub(crate) fn key(&self) -> Key {
        (self.workload, self.synchronous, self.tasks)
    }

    /// The values of a figure in all rounds.
    pub(crate) fn rounds(&self, figure: &str) -> Vec<f64> {
        self.rounds.iter().filter_map(|f| f.values.get(figure).copied()).collect()
    }

    /// The median of a figure over all rounds.
    pub(crate) fn value(&self, figure: &str) -> Option<f64> {
        median(&self.rounds(figure))
    }

    /// How much a figure differs between the rounds.
    pub(crate) fn noise(&self, figure: &str) -> f64 {
        spread(&self.rounds(figure))
    }

    /// The names of all figures.
    pub(crate) fn figures(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.rounds.iter().flat_map(|f| f.values.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The latencies with this name, of all rounds together.
    pub(crate) fn latencies(&self, name: &str) -> Latencies {
        let mut all = Latencies::default();
        for figures in &self.rounds {
            if let Some(latencies) = figures.latencies.get(name) {
                all.merge(latencies);
            }
        }
        all
    }

    /// The numbers of failed calls, of unanswered calls and of rounds without figures, and the first message.
    pub(crate) fn troubles(&self) -> (u64, u64, usize, Option<&str>) {
        let errors = self.rounds.iter().map(|f| f.errors).sum();
        let unanswered = self.rounds.iter().map(|f| f.unanswered).sum();
        let said = self.rounds.iter().find_map(|f| f.first_error.as_deref());
        let said = said.or_else(|| self.failed.first().map(String::as_str));
        (errors, unanswered, self.failed.len(), said)
    }
}

/// Whether higher values of a figure are better; `None`: neither higher nor lower values are.
pub(crate) fn more_is_better(figure: &str) -> Option<bool> {
    if figure.ends_with("_per_s") || figure.starts_with("jain") || figure == "least_polite_keeps" {
        Some(true)
    } else if figure.ends_with("_ms") || figure.contains("_us_per_") || figure == "cores_burning" {
        Some(false)
    } else {
        None
    }
}
