//! How much of a run is done, and how long the rest will take.

use std::time::{Duration, Instant};

use measure::Workload;

use crate::bench::Item;

/// The time for starting a process, copying a database and checking it.
const AROUND: Duration = Duration::from_millis(200);

/// The clock of a run. The remaining time is the planned time of the rest, multiplied by how much slower than planned
/// the run has been so far.
pub(crate) struct Progress {
    began: Instant,
    planned: Duration,
    done: Duration,
}

impl Progress {
    /// `counted` is the number of peers whose syncs are counted at the end.
    pub(crate) fn new(plan: &[Item], counted: usize, seconds: f64, repeat: u32) -> Self {
        let rounds: Duration = plan.iter().map(|item| takes(item, seconds)).sum();
        let counting = 2 * (Workload::TinyWrites.takes(seconds) + AROUND) * counted as u32;
        Self { began: Instant::now(), planned: rounds * repeat + counting, done: Duration::ZERO }
    }

    /// Notes that all peers of an item have been measured once.
    pub(crate) fn measured(&mut self, item: &Item, seconds: f64) {
        self.done += takes(item, seconds);
    }

    /// A line with the time that has passed, the time that is left, and the next thing to do.
    pub(crate) fn line(&self, next: &str) -> String {
        let passed = self.began.elapsed();
        format!("{} passed, about {} left: {next}", clock(passed), clock(self.left(passed)))
    }

    fn left(&self, passed: Duration) -> Duration {
        let left = self.planned.saturating_sub(self.done);
        if self.done.is_zero() {
            return left;
        }
        left.mul_f64(passed.as_secs_f64() / self.done.as_secs_f64())
    }
}

fn takes(item: &Item, seconds: f64) -> Duration {
    (item.workload.takes(seconds) + AROUND) * item.peers.len() as u32
}

fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use measure::Synchronous;

    use super::*;

    #[test]
    fn what_is_left_is_corrected_by_what_has_been_done() {
        let item = Item {
            workload: Workload::TinyWrites,
            tasks: 1,
            synchronous: Synchronous::Full,
            peers: vec!["raw".to_owned(), "mutex".to_owned()],
        };
        let plan = [item];
        let mut progress = Progress::new(&plan, 0, 0.8, 3);
        // Three rounds with two peers: six measurements of 1 s, and the time around each.
        assert_eq!(progress.left(Duration::ZERO), (Duration::from_secs(1) + AROUND) * 6);
        progress.measured(&plan[0], 0.8);
        // The round took twice as long as planned, so the two other rounds will too.
        let round = (Duration::from_secs(1) + AROUND) * 2;
        let left = progress.left(round * 2);
        assert!(left.abs_diff(round * 4) < Duration::from_millis(1), "{left:?}");
        progress.measured(&plan[0], 0.8);
        progress.measured(&plan[0], 0.8);
        assert_eq!(progress.left(round * 6), Duration::ZERO);
        assert_eq!(clock(Duration::from_secs(754)), "12:34");
    }
}
