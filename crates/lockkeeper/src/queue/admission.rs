//! Load shedding: which calls an overloaded queue refuses, so that it still serves the others in time.
//!
//! If callers do not slow down (because each request from outside is a new caller), the queue grows until it serves
//! every call too late. So the queue watches each lane: when for a whole interval every call of the lane has waited
//! longer than the target, the queue begins to refuse the lane's calls that have waited longer than the target. It
//! stops when an interval passes in which no call of the lane waited so long. This is CoDel (RFC 8289) for requests:
//! the only measure is the time in the queue, and a refused request is answered immediately.
//!
//! A pure data structure: the time is an argument.
//!
//! | state of a lane | what may be trusted | left by |
//! |---|---|---|
//! | calm (no entry) | its last call was in time | a call that waited too long |
//! | above | every call since `since` waited too long; they are still served | a call in time; an interval |
//! | overloaded | calls that waited too long are refused | an interval without such a call |
//!
//! - ADM1: each lane is judged by itself. The backlog of one client does not make the queue refuse calls of another.
//! - ADM2: an entry that has not changed for an interval is ignored. So the entry of a removed lane affects the next
//!   lane with the same number for an interval at most. Bound: an entry per lane number.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::LaneId;

/// The interval as a multiple of the target. Calls that wait too long for less than an interval are a burst.
const INTERVAL_TARGETS: u32 = 10;

pub(crate) struct Admission {
    target: Duration,
    interval: Duration,
    lanes: HashMap<LaneId, Above>,
}

struct Above {
    since: Instant,
    last: Instant,
    overloaded: bool,
}

impl Admission {
    pub(crate) fn new(target: Duration) -> Self {
        let interval = target.saturating_mul(INTERVAL_TARGETS);
        Self { target, interval, lanes: HashMap::new() }
    }

    /// Whether to refuse a call of `lane` that waited from `submitted` until `now`.
    pub(crate) fn sheds(&mut self, lane: LaneId, submitted: Instant, now: Instant) -> bool {
        // ADM2
        let entry = self.lanes.get_mut(&lane).filter(|above| now - above.last < self.interval);
        if now.saturating_duration_since(submitted) <= self.target {
            if entry.is_none_or(|above| !above.overloaded) {
                self.lanes.remove(&lane);
            }
            return false;
        }
        let Some(above) = entry else {
            self.lanes.insert(lane, Above { since: now, last: now, overloaded: false });
            return false;
        };
        above.last = now;
        above.overloaded |= now - above.since >= self.interval;
        above.overloaded
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;

    use super::super::MAIN;
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const TARGET: Duration = Duration::from_millis(20);

    /// Simulates, in virtual time, one server that needs `service` for each call; a new call arrives every `apart`.
    /// Returns how long each served call had waited, in order, and how many calls were refused.
    fn simulate(arrivals: u32, apart: Duration, service: Duration) -> (Vec<Duration>, usize) {
        let began = Instant::now();
        let mut admission = Admission::new(TARGET);
        let mut waiting: VecDeque<Instant> = (0..arrivals).map(|n| began + apart * n).collect();
        let (mut now, mut served, mut refused) = (began, Vec::new(), 0);
        while let Some(submitted) = waiting.pop_front() {
            now = now.max(submitted);
            if admission.sheds(MAIN, submitted, now) {
                refused += 1;
                continue;
            }
            served.push(now - submitted);
            now += service;
        }
        (served, refused)
    }

    #[test]
    fn b05_under_threefold_overload_accepted_calls_wait_no_longer_than_the_target() {
        let (served, refused) = simulate(30_000, MS, 3 * MS);
        assert_eq!(served.len() + refused, 30_000);
        // The queue notices the overload only after an interval, and its backlog grows until then.
        let interval = (TARGET * INTERVAL_TARGETS).as_millis() as usize;
        let late = served.iter().filter(|waited| **waited > TARGET).count();
        assert!(late <= interval / 3 + 8, "{late} late ones");
        let mut sorted = served.clone();
        sorted.sort();
        let p99 = sorted[sorted.len() * 99 / 100];
        assert!(p99 <= TARGET, "{p99:?}");
        // The server is never idle. A call takes three times as long as the time between two arrivals, so a third of
        // the calls is served.
        assert!((9_900..=10_100).contains(&served.len()), "{} served", served.len());
    }

    #[test]
    fn b05_a_burst_shorter_than_the_interval_is_served_whole() {
        let interval = TARGET * INTERVAL_TARGETS;
        let calls = u32::try_from(interval.as_millis()).expect("small") - 2;
        let (served, refused) = simulate(calls, Duration::ZERO, MS);
        assert_eq!((served.len(), refused), (calls as usize, 0));
    }

    #[test]
    fn b05_a_queue_that_keeps_up_refuses_nothing() {
        assert_eq!(simulate(10_000, MS, MS).1, 0);
    }

    #[test]
    fn b05_the_overload_of_one_lane_is_not_anothers() {
        let mut admission = Admission::new(TARGET);
        let mut lanes = super::super::lanes::Lanes::<()>::new(1);
        let other = lanes.open("other");
        let began = Instant::now();
        let late = |admission: &mut Admission, lane, ms: u32| {
            admission.sheds(lane, began + MS * ms, began + MS * ms + 2 * TARGET)
        };
        for ms in 0..200 {
            assert!(!late(&mut admission, MAIN, ms), "{ms}");
        }
        assert!(late(&mut admission, MAIN, 200));
        assert!(!late(&mut admission, other, 201));
        // After an interval without a late call, the first late call is served again.
        assert!(!late(&mut admission, MAIN, 400));
    }
}
