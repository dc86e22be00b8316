//! Latencies in buckets: memory is bounded however long a run is, and two runs can be merged.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The number of buckets per power of two. A latency is reported at most 1.6 % too high.
const FINE: u64 = 64;
/// The number of buckets, which is enough for about 73 minutes in nanoseconds.
const BUCKETS: usize = 37 * FINE as usize;

/// How many times each latency occurred.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latencies {
    /// The counts by bucket. In JSON, pairs of bucket and count, without empty buckets.
    #[serde(with = "sparse")]
    counts: Vec<u64>,
    count: u64,
    longest_ns: u64,
}

/// The figures that tables show, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Half of the calls were faster.
    pub p50: f64,
    /// One call in a hundred was slower.
    pub p99: f64,
    /// One call in a thousand was slower.
    pub p999: f64,
    /// The slowest call.
    pub max: f64,
}

impl Latencies {
    /// Adds a latency.
    pub fn add(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        self.counts[bucket(ns)] += 1;
        self.count += 1;
        self.longest_ns = self.longest_ns.max(ns);
    }

    /// Adds the latencies of `other`.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }

    /// The number of latencies.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The latency in milliseconds below which this share of the calls stays, from 0 to 1; 0: there are no latencies.
    #[must_use]
    pub fn at(&self, part: f64) -> f64 {
        let wanted = ((self.count as f64 * part).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_ns(bucket).min(self.longest_ns) as f64 / 1e6;
            }
        }
        0.0
    }

    /// The figures for the tables.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            p50: self.at(0.5),
            p99: self.at(0.99),
            p999: self.at(0.999),
            max: self.longest_ns as f64 / 1e6,
        }
    }
}

fn bucket(ns: u64) -> usize {
    if ns < FINE {
        return ns as usize;
    }
    let power = u64::from(63 - ns.leading_zeros());
    let shift = power - 6;
    let index = (power - 5) * FINE + ((ns >> shift) - FINE);
    usize::try_from(index).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The highest latency that belongs to a bucket.
fn upper_ns(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < FINE {
        return bucket;
    }
    let shift = bucket / FINE - 1;
    ((bucket % FINE + FINE + 1) << shift) - 1
}

mod sparse {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(counts: &[u64], to: S) -> Result<S::Ok, S::Error> {
        let met: Vec<(usize, u64)> =
            counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect();
        met.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
        let met = Vec::<(usize, u64)>::deserialize(from)?;
        let mut counts = vec![0; super::BUCKETS];
        for (bucket, count) in met {
            *counts.get_mut(bucket).ok_or_else(|| {
                serde::de::Error::custom(format!("latency bucket {bucket} does not exist"))
            })? += count;
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_at_most_a_bucket_too_high() {
        let mut latencies = Latencies::default();
        for ms in 1..=1000 {
            latencies.add(Duration::from_millis(ms));
        }
        for (part, exact) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
            let found = latencies.at(part);
            assert!(found >= exact && found <= exact * 1.02, "{part}: {found} for {exact}");
        }
        assert_eq!(latencies.summary().max, 1000.0);
    }

    #[test]
    fn every_nanosecond_falls_into_the_bucket_that_covers_it() {
        let mut last = 0;
        for ns in (0..5000).chain((1..31).flat_map(|p| [(1 << p) - 1, 1 << p, (1 << p) + 1])) {
            let upper = upper_ns(bucket(ns));
            assert!(upper >= ns, "{ns} lies above its bucket's end {upper}");
            assert!(upper as f64 <= ns as f64 * 1.02 + 1.0, "{ns} is shown as {upper}");
            last = last.max(bucket(ns));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert!(last < BUCKETS - 1);
    }

    #[test]
    fn merged_and_stored_latencies_are_the_same() {
        let (mut left, mut right) = (Latencies::default(), Latencies::default());
        left.add(Duration::from_micros(10));
        right.add(Duration::from_millis(7));
        left.merge(&right);
        left.merge(&Latencies::default());
        let stored = serde_json::to_string(&left).unwrap();
        let back: Latencies = serde_json::from_str(&stored).unwrap();
        assert_eq!(back.count(), 2);
        assert_eq!(back.at(0.5), left.at(0.5));
        assert_eq!(back.summary().max, 7.0);
        assert!(
            serde_json::from_str::<Latencies>(r#"{"counts":[[99999,1]],"count":1,"longest_ns":1}"#)
                .is_err()
        );
    }

    #[test]
    fn no_latencies_are_zero() {
        assert_eq!(Latencies::default().at(0.99), 0.0);
    }
}
