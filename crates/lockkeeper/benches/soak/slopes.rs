//! What is measured while the load runs, and the check that it does not grow.
//!
//! The slope is Theil's: the median of the slopes between all pairs of samples. A few outliers, such as a backup or a
//! VACUUM, do not affect it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A value that is measured repeatedly and may grow.
struct Series {
    name: &'static str,
    unit: &'static str,
    /// How much the value may have grown at the end of the evaluated part, given its median in that part.
    bound: fn(f64) -> f64,
    values: Vec<f64>,
}

pub(crate) struct Samples {
    began: Instant,
    wal: PathBuf,
    times: Vec<f64>,
    series: Vec<Series>,
}

/// The median and the 99th percentile of the latencies in one interval, in microseconds.
pub(crate) struct Latencies {
    pub(crate) write: [f64; 2],
    pub(crate) read: [f64; 2],
}

impl Samples {
    pub(crate) fn new(file: &Path) -> Self {
        let series = |name, unit, bound| Series { name, unit, bound, values: Vec::new() };
        // Each bound is a constant, for values that still settle, and a share of the median, for values that scatter.
        let memory = |level: f64| 8.0 + level / 10.0;
        // Up to sixteen readers start and end, depending on how busy the machine is. So the check after the load is the
        // more exact one.
        let descriptors = |level: f64| 48.0 + level / 10.0;
        let threads = |level: f64| 16.0 + level / 10.0;
        let megabytes = |_| 4.0;
        let twice = |level: f64| level;
        Self {
            began: Instant::now(),
            wal: file.with_extension("db-wal"),
            times: Vec::new(),
            series: vec![
                series("memory", "MiB", memory),
                series("descriptors", "", descriptors),
                series("threads", "", threads),
                series("WAL", "MiB", megabytes),
                series("write, median", "us", twice),
                series("write, p99", "us", twice),
                series("read, median", "us", twice),
                series("read, p99", "us", twice),
            ],
        }
    }

    pub(crate) fn take(&mut self, latencies: &Latencies) {
        let mib = f64::from(1 << 20);
        let wal = std::fs::metadata(&self.wal).map_or(0, |file| file.len());
        let ([write, write_p99], [read, read_p99]) = (latencies.write, latencies.read);
        let held = Held::now();
        let now = [
            resident_bytes() as f64 / mib,
            held.descriptors as f64,
            held.threads as f64,
            wal as f64 / mib,
            write,
            write_p99,
            read,
            read_p99,
        ];
        self.times.push(self.began.elapsed().as_secs_f64() / 60.0);
        for (series, value) in self.series.iter_mut().zip(now) {
            series.values.push(value);
        }
    }

    /// Prints every series. Returns whether none of them grows.
    pub(crate) fn report(&self) -> bool {
        let warm = self.times.len() / 4;
        let times = &self.times[warm..];
        let minutes = times.last().unwrap_or(&0.0) - times.first().unwrap_or(&0.0);
        println!("{:<14} {:>10} {:>10} {:>10} {:>10}", "", "median", "per min", "grown", "bound");
        let mut right = true;
        for Series { name, unit, bound, values } in &self.series {
            let values = &values[warm..];
            let (level, slope) = (median(values.to_vec()), slope(times, values));
            let (grown, bound) = (slope * minutes, bound(level));
            let grows = grown > bound;
            let mark = if grows { "  GROWS" } else { "" };
            println!(
                "{name:<14} {level:>10.2} {slope:>+10.3} {grown:>+10.2} {bound:>10.2} {unit}{mark}"
            );
            right &= !grows;
        }
        right
    }
}

/// The resources of this process that the kernel counts.
pub(crate) struct Held {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Held {
    pub(crate) fn now() -> Self {
        let count = |place| std::fs::read_dir(place).map_or(0, Iterator::count);
        Self { descriptors: count("/proc/self/fd"), threads: count("/proc/self/task") }
    }

    /// Waits until nothing has been released for a while, longer than surplus readers stay. Returns what is still held
    /// beyond `self`.
    pub(crate) fn left_when_settled(&self) -> Self {
        const SETTLES: Duration = Duration::from_secs(15);
        let (mut fewest, mut since) = (usize::MAX, Instant::now());
        loop {
            let now = Self::now();
            if now.descriptors + now.threads < fewest {
                (fewest, since) = (now.descriptors + now.threads, Instant::now());
            }
            if since.elapsed() > SETTLES {
                return Self {
                    descriptors: now.descriptors.saturating_sub(self.descriptors),
                    threads: now.threads.saturating_sub(self.threads),
                };
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} descriptors and {} threads", self.descriptors, self.threads)
    }
}

/// The median of the slopes between all pairs of samples.
fn slope(times: &[f64], values: &[f64]) -> f64 {
    let mut slopes = Vec::new();
    for (first, (time, value)) in times.iter().zip(values).enumerate() {
        for (later_time, later) in times.iter().zip(values).skip(first + 1) {
            if later_time > time {
                slopes.push((later - value) / (later_time - time));
            }
        }
    }
    median(slopes)
}

pub(crate) fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

pub(crate) fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
