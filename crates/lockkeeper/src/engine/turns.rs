//! Where a short read runs, so that a loop of short reads does not starve other tasks.
//!
//! A loop over futures that are always ready never returns to its executor. And when many callers run their reads
//! themselves, they are slower than reader threads, which share transactions, and they take CPU time from the writer.
//!
//! - TURN1: a thread runs short reads for at most [`TURN`]. Then the next short read wakes its task and returns
//!   `Pending` once before it runs, so that the executor polls its other tasks, timers and sockets.
//! - TURN2: while [`CROWD`] short reads of a database wait, further ones go to the reader threads. A short read waits
//!   from its `Pending` of TURN1 until it is polled again, or from its submission to the reader threads until its
//!   answer.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long a thread runs short reads before one of them yields (TURN1). Tokio polls its timers and sockets after 61
/// polls, and 61 turns should take only a few milliseconds.
const TURN: Duration = Duration::from_micros(70);

/// The most reads in a turn, even if they take little time.
const TURN_ANSWERS: u32 = 32;

/// If at least this many callers wait, reader threads are faster (TURN2), because two readers that share their
/// transactions need about this many callers to be busy.
const CROWD: usize = 8;

thread_local! {
    /// The time and the number of reads that are left of this thread's turn (TURN1). All databases share the turn,
    /// because they share the executor.
    static TURN_LEFT: Cell<(Duration, u32)> = const { Cell::new((TURN, TURN_ANSWERS)) };
}

/// Where a short read runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// On this thread.
    Inline,
    /// On this thread, after its executor has polled other tasks (TURN1).
    Yield,
    /// On a reader thread (TURN2).
    Readers,
}

/// Counts the short reads of a database that are waiting, for TURN2.
#[derive(Default)]
pub(crate) struct Turns {
    /// How many short reads wait. Relaxed suffices: the number orders nothing else.
    waiting: AtomicUsize,
}

impl Turns {
    /// Decides where a short read that is polled on this thread runs. `yielded`: it has yielded before.
    pub(crate) fn route(&self, yielded: bool) -> Route {
        if self.waiting.load(Ordering::Relaxed) >= CROWD {
            return Route::Readers;
        }
        let (time, answers) = TURN_LEFT.get();
        let is_over = time.is_zero() || answers == 0;
        if is_over {
            TURN_LEFT.set((TURN, TURN_ANSWERS));
        }
        if is_over && !yielded { Route::Yield } else { Route::Inline }
    }

    /// Counts a short read that begins to wait. [`Turns::waited`] uncounts it.
    pub(crate) fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn waited(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Charges this thread's turn for a read that took `run`.
pub(crate) fn spend(run: Duration) {
    let (time, answers) = TURN_LEFT.get();
    TURN_LEFT.set((time.saturating_sub(run), answers.saturating_sub(1)));
}
