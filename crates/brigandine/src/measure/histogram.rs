//! A histogram of times with fixed bounds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many times were at most as long as each of some bounds.
///
/// A recorder adds to one bucket and to the sum, without a lock. A reader may see the one without the other.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// In seconds, ascending.
    bounds: &'static [f64],
    /// One for each bound, and the last for longer times. Not cumulative.
    buckets: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum_ns: AtomicU64::new(0) }
    }

    /// Counts a time.
    pub(crate) fn record(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let at = self.bounds.partition_point(|bound| *bound < seconds);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// For each bound how many times were not longer, and then how many there were in all.
    pub(super) fn read(&self) -> (Vec<(f64, u64)>, u64) {
        let mut sum = 0;
        let mut up_to = |bucket: &AtomicU64| {
            sum += bucket.load(Ordering::Relaxed);
            sum
        };
        let all: Vec<u64> = self.buckets.iter().map(&mut up_to).collect();
        let count = all.last().copied().unwrap_or(0);
        (self.bounds.iter().copied().zip(all).collect(), count)
    }

    /// The sum of all times, in seconds.
    pub(super) fn sum(&self) -> f64 {
        Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::Histogram;
    use std::time::Duration;

    #[test]
    fn a_time_counts_for_each_bound_that_it_does_not_exceed() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        for ms in [0, 99, 100, 101, 1000, 5000] {
            histogram.record(Duration::from_millis(ms));
        }
        assert_eq!(histogram.read(), (vec![(0.1, 3), (1.0, 5)], 6));
        assert!((histogram.sum() - 6.3).abs() < 1e-9, "{}", histogram.sum());
    }
}
