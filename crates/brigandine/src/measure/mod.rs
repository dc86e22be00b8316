//! What a running server counts about itself, and the text format in which monitors read it.
//!
//! Every number is kept when it changes, and a monitor reads it. The bounds of histograms are fixed, and so are the
//! values of labels, so the memory does not grow with the load.

mod histogram;
mod text;

pub(crate) use histogram::Histogram;
pub(crate) use text::{Kind, Text};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::model::{self, BuildStatus, Changed, EvaluationStatus, Timestamp};

/// The pause between two measurements of the scheduler's lag.
const LAG_PAUSE: Duration = Duration::from_secs(1);

const BUILD_BOUNDS: &[f64] =
    &[1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 86_400.0];
const EVALUATION_BOUNDS: &[f64] =
    &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0];
const LAG_BOUNDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// What a server counts, except what the web server counts itself.
#[derive(Debug)]
pub(crate) struct Meters {
    /// When the server started.
    pub(crate) started_at: Timestamp,
    builds: Counts<BuildStatus, { BuildStatus::ALL.len() }>,
    /// The times of builds from their start to the write that stores their end.
    pub(crate) build_times: Histogram,
    evaluations: Counts<EvaluationStatus, { EvaluationStatus::ALL.len() }>,
    /// The times of evaluations from their start to the write that stores their end.
    pub(crate) evaluation_times: Histogram,
    /// How late the runtime wakes a task whose time has come.
    pub(crate) lag: Histogram,
    /// Held while the figures are gathered that a slow disk may delay, so that at most one thread waits for it.
    pub(crate) gathering: Arc<Semaphore>,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            started_at: model::now(),
            builds: Counts::new(BuildStatus::ALL),
            build_times: Histogram::new(BUILD_BOUNDS),
            evaluations: Counts::new(EvaluationStatus::ALL),
            evaluation_times: Histogram::new(EVALUATION_BOUNDS),
            lag: Histogram::new(LAG_BOUNDS),
            gathering: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Meters {
    /// Counts those of the builds that have ended. Must be called after the commit.
    pub(crate) fn builds_changed(&self, changed: &[Changed]) {
        changed.iter().filter(|build| build.status.is_finished()).for_each(|build| {
            self.builds.add(build.status, 1);
        });
    }

    /// Counts builds that failed when they were registered, because a build that they need had failed before. Must be
    /// called after the commit.
    pub(crate) fn builds_broken(&self, number: usize) {
        self.builds.add(BuildStatus::FailedDependency, number as u64);
    }

    /// Counts an evaluation that has ended. Must be called after the commit.
    pub(crate) fn evaluation_ended(&self, status: EvaluationStatus, took: Duration) {
        self.evaluations.add(status, 1);
        self.evaluation_times.record(took);
    }

    /// Counts evaluations that a recovery has ended, whose time nobody knows. Must be called after the commit.
    pub(crate) fn evaluations_aborted(&self, number: usize) {
        self.evaluations.add(EvaluationStatus::Aborted, number as u64);
    }

    /// How many builds have ended, by status.
    pub(crate) fn builds_ended(&self) -> impl Iterator<Item = (BuildStatus, u64)> + '_ {
        self.builds.read().filter(|(status, _)| status.is_finished())
    }

    /// How many evaluations have ended, by status.
    pub(crate) fn evaluations_ended(&self) -> impl Iterator<Item = (EvaluationStatus, u64)> + '_ {
        self.evaluations.read().filter(|(status, _)| *status != EvaluationStatus::Started)
    }

    /// Measures every second how late the runtime wakes this task.
    pub(crate) async fn measure_lag(&self) {
        loop {
            let at = Instant::now() + LAG_PAUSE;
            tokio::time::sleep_until(at.into()).await;
            self.lag.record(at.elapsed());
        }
    }
}

/// A count for each of the values of a type.
#[derive(Debug)]
struct Counts<T: 'static, const N: usize> {
    values: &'static [T],
    counts: [AtomicU64; N],
}

impl<T: Copy + PartialEq, const N: usize> Counts<T, N> {
    fn new(values: &'static [T]) -> Self {
        Self { values, counts: [const { AtomicU64::new(0) }; N] }
    }

    fn add(&self, value: T, number: u64) {
        let at = self.values.iter().position(|known| *known == value);
        if let Some(count) = at.and_then(|at| self.counts.get(at)) {
            count.fetch_add(number, Ordering::Relaxed);
        }
    }

    fn read(&self) -> impl Iterator<Item = (T, u64)> + '_ {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        self.values.iter().copied().zip(counts)
    }
}
