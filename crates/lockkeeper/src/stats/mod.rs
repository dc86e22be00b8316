//! Counters and histograms of what a database does.
//!
//! - STAT1: recording is a few relaxed atomic additions, without a lock. One thread writes the writer's numbers; those of
//!   the readers are spread over [`SHARDS`], so that two threads seldom write to the same cache lines.
//! - STAT2: [`Stats`] are not of one instant: the numbers that are read first may lack the latest calls.
//! - STAT3: bounded: every histogram has [`BUCKETS`] numbers.

pub(crate) mod holders;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use holders::{Holder, HolderKind};

use crate::queue::LaneFigures;

/// Eight steps per power of two: a quantile is at most an eighth too large.
const STEPS: usize = 8;

/// Enough for values up to 2^45 nanoseconds, nearly ten hours; larger values are counted in the last bucket.
const BUCKETS: usize = STEPS * 43;

/// The number of parts over which the readers' numbers are spread.
const SHARDS: usize = 4;

/// A log-linear histogram.
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}

impl Histogram {
    /// Counts a value (STAT1).
    pub(crate) fn record(&self, value: u64) {
        self.buckets[bucket(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
        if value > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn record_time(&self, time: Duration) {
        self.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    fn read(&self) -> Distribution {
        let mut all = Distribution::default();
        all.add(self);
        all
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    let octave = 63 - value.leading_zeros() as usize;
    let step = (value >> (octave - 3)) as usize & (STEPS - 1);
    ((octave - 2) * STEPS + step).min(BUCKETS - 1)
}

/// The largest value that falls into the bucket.
fn upper_end(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (octave, step) = (bucket / STEPS + 2, (bucket % STEPS) as u64);
    ((STEPS as u64 + step + 1) << (octave - 3)) - 1
}

/// How often each value occurred, in buckets. Times are in nanoseconds.
#[derive(Clone, PartialEq, Eq)]
pub struct Distribution {
    buckets: Box<[u64; BUCKETS]>,
    sum: u64,
    max: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), sum: 0, max: 0 }
    }
}

impl Distribution {
    fn add(&mut self, histogram: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *mine += theirs.load(Ordering::Relaxed);
        }
        self.sum = self.sum.saturating_add(histogram.sum.load(Ordering::Relaxed));
        self.max = self.max.max(histogram.max.load(Ordering::Relaxed));
    }

    /// What was added since `before`: each value and how often it occurred. Each value is the middle of its bucket, so
    /// it is at most a sixteenth off.
    #[cfg(feature = "metrics")]
    pub(crate) fn since(&self, before: &Self) -> impl Iterator<Item = (u64, u64)> {
        let pairs = self.buckets.iter().zip(before.buckets.iter()).enumerate();
        pairs.filter(|(_, (now, before))| now > before).map(|(bucket, (now, before))| {
            let lower = bucket.checked_sub(1).map_or(0, |below| upper_end(below) + 1);
            (lower + (upper_end(bucket) - lower) / 2, now - before)
        })
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest value; 0 when there were none.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value that this share of all values does not exceed (`0.99`: the 99th percentile), at most
    /// an eighth too large; 0 when there were none.
    pub fn quantile(&self, share: f64) -> u64 {
        let count = self.count();
        let wanted = ((count as f64 * share).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        for (bucket, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= wanted {
                return upper_end(bucket).min(self.max);
            }
        }
        0
    }

    /// As [`Distribution::quantile`], for a distribution of times.
    pub fn quantile_time(&self, share: f64) -> Duration {
        Duration::from_nanos(self.quantile(share))
    }
}

impl fmt::Debug for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distribution")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

/// How long the calls of one kind waited and ran.
#[derive(Debug, Default)]
pub(crate) struct CallMeter {
    pub(crate) wait: Histogram,
    pub(crate) run: Histogram,
}

impl CallMeter {
    pub(crate) fn record(&self, wait: Duration, run: Duration) {
        self.wait.record_time(wait);
        self.run.record_time(run);
    }

    fn read(&self) -> CallStats {
        CallStats { wait: self.wait.read(), run: self.run.read() }
    }
}

/// The numbers of one database.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    pub(crate) writes: CallMeter,
    pub(crate) exclusive: CallMeter,
    pub(crate) leases: CallMeter,
    reads: [CallMeter; SHARDS],
    next_shard: AtomicUsize,
    pub(crate) commit: Histogram,
    pub(crate) batch_calls: Histogram,
    /// Times of `BEGIN IMMEDIATE`, which waits for other processes.
    pub(crate) lock_wait: Histogram,
    pub(crate) busy_waits: AtomicU64,
    pub(crate) checkpoint: Histogram,
    pub(crate) checkpoint_copy: Histogram,
    pub(crate) checkpoints_incomplete: AtomicU64,
    pub(crate) wal_over_max: AtomicU64,
    pub(crate) readers_cut: AtomicU64,
}

impl Meters {
    /// The part of the readers' numbers for a new reader thread.
    pub(crate) fn shard(&self) -> usize {
        self.next_shard.fetch_add(1, Ordering::Relaxed) % SHARDS
    }

    pub(crate) fn reads(&self, shard: usize) -> &CallMeter {
        &self.reads[shard % SHARDS]
    }

    pub(crate) fn read(&self) -> Stats {
        let mut reads = CallStats::default();
        for shard in &self.reads {
            reads.wait.add(&shard.wait);
            reads.run.add(&shard.run);
        }
        Stats {
            writes: self.writes.read(),
            exclusive: self.exclusive.read(),
            leases: self.leases.read(),
            reads,
            commit: self.commit.read(),
            batch_calls: self.batch_calls.read(),
            lock_wait: self.lock_wait.read(),
            busy_waits: self.busy_waits.load(Ordering::Relaxed),
            checkpoint: self.checkpoint.read(),
            checkpoint_copy: self.checkpoint_copy.read(),
            checkpoints_incomplete: self.checkpoints_incomplete.load(Ordering::Relaxed),
            wal_over_max: self.wal_over_max.load(Ordering::Relaxed),
            readers_cut: self.readers_cut.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }
}

/// How long the calls of one kind waited and ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallStats {
    /// The time from submission to the beginning of the run.
    pub wait: Distribution,
    /// The running time of the closure; for a write, without the commit. If a closure runs again, each run is counted.
    /// For an exclusive call or a lease: the time for which it had the writer to itself.
    pub run: Distribution,
}

/// What the database has done since it was opened, and what it does now; see
/// [`Database::stats`](crate::Database::stats).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Writes that ran.
    pub writes: CallStats,
    /// Exclusive calls that ran. The running time includes restoring the connection's settings afterwards.
    pub exclusive: CallStats,
    /// Leases that were served. The running time begins with the lease's turn and ends with the commit or rollback; it
    /// includes the holder's pauses.
    pub leases: CallStats,
    /// Reads that ran on reader threads.
    pub reads: CallStats,
    /// Reads that were served on their caller's thread.
    pub short_reads: u64,
    /// Times of COMMIT, including the sync.
    pub commit: Distribution,
    /// Numbers of calls per commit.
    pub batch_calls: Distribution,
    /// Times of getting the file's write lock. A time of more than some microseconds means that another process held
    /// the lock.
    pub lock_wait: Distribution,
    /// How often the writer found the file locked and waited.
    pub busy_waits: u64,
    /// Times of checkpoints on the writer's thread, between two commits. The next batch may have waited that long.
    pub checkpoint: Distribution,
    /// Times of copies from the WAL to the file, made while the writer goes on.
    pub checkpoint_copy: Distribution,
    /// Checkpoints that did not copy everything back, because a reader still needed a part.
    pub checkpoints_incomplete: u64,
    /// Snapshots and reads that were ended because the WAL had reached its maximum size.
    pub readers_cut: u64,
    /// How often the WAL stayed at its maximum size although snapshots and reads were ended, because a backup, another
    /// process, or a closure that waits outside of SQLite pinned it.
    pub wal_over_max: u64,
    /// The size of the `-wal` file in bytes.
    pub wal_bytes: u64,
    /// The oldest open read transaction; `None`: none is open. While it lasts, the WAL cannot start over.
    pub oldest_reader: Option<Holder>,
    /// The call that the writer runs; `None`: it runs none.
    pub writing: Option<Holder>,
    /// The number of held snapshots.
    pub snapshots: usize,
    /// The clients that exist now.
    pub clients: Vec<ClientStats>,
}

/// One client. All handles with the same name are one client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// The client's name; `None`: the database's own handle.
    pub name: Option<String>,
    /// The client's calls in the writer's queue.
    pub writes: LaneStats,
    /// The client's calls in the readers' queue.
    pub reads: LaneStats,
}

impl ClientStats {
    /// Pairs the lanes of the two queues by client.
    pub(crate) fn of_lanes(writes: Vec<LaneFigures>, reads: Vec<LaneFigures>) -> Vec<Self> {
        let mut clients: Vec<Self> = Vec::new();
        let numbers =
            |LaneFigures { name, waiting, taken, run }| (name, LaneStats { waiting, taken, run });
        for (name, writes) in writes.into_iter().map(numbers) {
            clients.push(Self { name, writes, reads: LaneStats::default() });
        }
        for (name, reads) in reads.into_iter().map(numbers) {
            match clients.iter_mut().find(|client| client.name == name) {
                Some(client) => client.reads = reads,
                None => clients.push(Self { name, writes: LaneStats::default(), reads }),
            }
        }
        clients
    }
}

/// The calls of one client in one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStats {
    /// Calls that wait now, including those that wait for room.
    pub waiting: usize,
    /// Calls that a thread has taken out of the queue.
    pub taken: u64,
    /// The running time of these calls, by which the clients' shares are computed.
    pub run: Duration,
}

/// A call that took long; see [`Builder::on_slow`](crate::Builder::on_slow).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slow {
    /// A write, an exclusive call, a lease or a read.
    pub kind: HolderKind,
    /// The client's name; `None`: the database's own handle.
    pub client: Option<Arc<str>>,
    /// Where in the program the call was made.
    pub place: &'static Location<'static>,
    /// The time from submission to the beginning of the run.
    pub waited: Duration,
    /// The time in the closure; for an exclusive call or a lease: the time for which it had the writer to itself.
    pub ran: Duration,
    /// The text of the statement that the call prepared last, cut to 300 bytes, without the values bound to it. If that
    /// was one of several statements of an `execute_batch`: the text of all of them. `None`: the call has prepared none.
    pub sql: Option<String>,
    /// The work that the call's statements did because an index was missing. All 0 for an exclusive call, whose
    /// statements are not counted.
    pub work: Work,
    /// The query plan of the statement that the call prepared last, at most 16 lines. Empty if `work` is all 0, if that
    /// statement has no plan (a `PRAGMA`, for example), if it is longer than 64 KiB, or if it uses a temporary object
    /// that ended with the call.
    pub plan: Vec<String>,
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(client) = &self.client {
            write!(f, " of client `{client}`")?;
        }
        write!(f, " made at {} waited {:.1?} and ran {:.1?}", self.place, self.waited, self.ran)?;
        let Work { full_scan_steps, sorts, automatic_indexes } = self.work;
        write!(
            f,
            "; {full_scan_steps} full-scan steps, {sorts} sorts, {automatic_indexes} rows indexed on \
             the fly"
        )?;
        if let Some(sql) = &self.sql {
            write!(f, "; last statement: {}", sql.trim())?;
        }
        match self.plan.is_empty() {
            true => Ok(()),
            false => write!(f, "; plan: {}", self.plan.join(", ")),
        }
    }
}

/// The work that statements did because an index was missing, as SQLite counts it
/// (<https://www.sqlite.org/c3ref/c_stmtstatus_counter.html>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Work {
    /// Steps forward in a full table scan.
    pub full_scan_steps: u64,
    /// Sort operations.
    pub sorts: u64,
    /// Rows that SQLite put into automatic indexes, each of which it made for one statement.
    pub automatic_indexes: u64,
}

impl std::ops::Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            full_scan_steps: self.full_scan_steps.saturating_add(other.full_scan_steps),
            sorts: self.sorts.saturating_add(other.sorts),
            automatic_indexes: self.automatic_indexes.saturating_add(other.automatic_indexes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Distribution, Histogram, bucket, upper_end};

    #[test]
    fn buckets_are_in_order_and_an_eighth_wide() {
        let mut last = 0;
        for value in (0..5000).chain((13..43).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 7])) {
            let at = bucket(value);
            assert!(at >= last && at < BUCKETS, "{value}");
            last = at;
            let end = upper_end(at);
            assert!(end >= value && end - value <= value / 8, "{value} in {at}, up to {end}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let histogram = Histogram::default();
        (1..=1000).for_each(|value| histogram.record(value));
        let all: Distribution = histogram.read();
        assert_eq!((all.count(), all.sum(), all.max()), (1000, 500_500, 1000));
        for (share, exact) in [(0.5, 500), (0.99, 990), (0.001, 1), (1.0, 1000)] {
            let said = all.quantile(share);
            assert!(said >= exact && said <= exact + exact / 8, "{share}: {said}");
        }
        assert_eq!(Distribution::default().quantile(0.5), 0);
    }
}
