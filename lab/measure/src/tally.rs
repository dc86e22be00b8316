//! Which calls count.
//!
//! - A rate counts the calls that *ended* in the measured time, whenever they began: what the peer answered in it.
//! - Latencies are those of all calls that were in flight in the measured time, also in a part of it: one that
//!   began in the warm-up or that ends after the measured time is among them. So a peer that starves a few
//!   callers for longer than the measurement cannot hide them.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::{Latencies, Outcome, Written};

/// The part of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing counts yet.
    WarmUp,
    /// What is measured.
    Measured,
    /// No call begins any more.
    Over,
}

/// The present phase, for all who call.
#[derive(Debug, Default)]
pub struct Phases(AtomicU8);

impl Phases {
    /// The phase now.
    #[must_use]
    pub fn now(&self) -> Phase {
        // Relaxed: the phase guards nothing but which calls count.
        match self.0.load(Ordering::Relaxed) {
            0 => Phase::WarmUp,
            1 => Phase::Measured,
            _ => Phase::Over,
        }
    }

    /// The next phase begins.
    pub fn begin(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }
}

/// What the calls of one task have to show.
#[derive(Debug)]
pub struct Tally {
    /// Of all that were in flight in the measured time.
    pub latencies: Latencies,
    /// Calls that ended in the measured time.
    pub done: u64,
    /// Calls that failed.
    pub errors: u64,
    /// What the first failure said.
    pub first_error: Option<String>,
    /// Which calls were answered.
    pub written: Written,
    /// Since when there has been a call in flight.
    since: Instant,
}

impl Tally {
    /// Of the task whose keys are those of [`crate::Random::of_task`].
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

    /// A call that began and ended in these phases took so long. The next one begins.
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

    /// The measurement gives up on the call in flight: it took at least as long as it has been waited for.
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
