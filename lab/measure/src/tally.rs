//! Which calls a measurement counts.
//!
//! - A rate counts the successful calls that *ended* in the measured time, whenever they began.
//! - Latencies are those of all calls that were in flight during some of the measured time, unless they failed. A call
//!   that began in the warm-up, or that ended after the measured time, is included. So a peer cannot hide that a few
//!   calls waited for longer than the measurement.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::{Latencies, Outcome, Written};

/// The phases of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Calls that end now are not counted.
    WarmUp,
    /// Calls that end now are counted.
    Measured,
    /// No call begins any more.
    Over,
}

/// The current phase, shared by all tasks.
#[derive(Debug, Default)]
pub struct Phases(AtomicU8);

impl Phases {
    /// Returns the current phase.
    #[must_use]
    pub fn now(&self) -> Phase {
        // Relaxed, because the phase protects no other data: it only decides which calls are counted.
        match self.0.load(Ordering::Relaxed) {
            0 => Phase::WarmUp,
            1 => Phase::Measured,
            _ => Phase::Over,
        }
    }

    /// Begins a phase.
    pub fn begin(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }
}

/// The calls of one task.
#[derive(Debug)]
pub struct Tally {
    /// The latencies of the calls that were in flight in the measured time.
    pub latencies: Latencies,
    /// The number of successful calls that ended in the measured time.
    pub done: u64,
    /// The number of failed calls.
    pub errors: u64,
    /// The message of the first failure.
    pub first_error: Option<String>,
    /// Which calls succeeded.
    pub written: Written,
    /// When the call in flight began.
    since: Instant,
}

impl Tally {
    /// An empty tally for the task whose keys have this seed ([`crate::Random::of_task`]).
    #[must_use]
    pub fn new(seed: usize) -> Self {
        Self {
            latencies: Latencies::default(),
            done: 0,
            errors: 0,
            first_error: None,
            written: Written { seed, calls: 0, failed: Vec::new() },
            since: Instant::now(),
        }
    }

    /// Notes a call with the phases in which it began and ended, and its duration. The next call begins now.
    pub fn note(&mut self, began: Phase, ended: Phase, outcome: Outcome<()>, took: Duration) {
        match outcome {
            Ok(()) => {
                self.done += u64::from(ended == Phase::Measured);
                if began != Phase::Over && ended != Phase::WarmUp {
                    self.latencies.add(took);
                }
            }
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert(error);
                self.written.failed.push(self.written.calls);
            }
        }
        self.written.calls += 1;
        self.since = Instant::now();
    }

    /// Notes the call in flight as ended, because the measurement does not wait for it any longer.
    pub fn give_up(&mut self) {
        self.latencies.add(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_counts_what_ended_in_the_measured_time_and_latencies_what_was_in_flight_in_it() {
        use Phase::{Measured, Over, WarmUp};
        for (began, ended, is_done, is_timed) in [
            (WarmUp, WarmUp, 0, 0),
            (WarmUp, Measured, 1, 1),
            (WarmUp, Over, 0, 1),
            (Measured, Measured, 1, 1),
            (Measured, Over, 0, 1),
        ] {
            let mut tally = Tally::new(0);
            tally.note(began, ended, Ok(()), Duration::from_millis(1));
            assert_eq!(
                (tally.done, tally.latencies.count()),
                (is_done, is_timed),
                "from {began:?} to {ended:?}"
            );
            tally.note(began, ended, Err("no".to_owned()), Duration::from_millis(1));
            assert_eq!((tally.done, tally.latencies.count()), (is_done, is_timed));
            assert_eq!((tally.errors, tally.written.calls), (1, 2));
            assert_eq!(tally.written.failed, [1]);
        }
    }

    #[test]
    fn a_call_that_is_given_up_took_at_least_as_long_as_it_was_waited_for() {
        let mut tally = Tally::new(0);
        tally.since = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        tally.give_up();
        assert_eq!(tally.done, 0);
        assert!(tally.latencies.summary().max >= 5000.0);
    }
}
