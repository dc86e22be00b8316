//! Where a short read runs, so that a loop of short reads does not starve other tasks.
//!
//! A future that is always ready never returns to its executor. And when many callers run their reads themselves, they
//! are slower than reader threads, which share transactions, and they take CPU time from the writer.
//!
//! - TURN1: a thread runs short reads for at most [`TURN`]. Then the next one wakes its task and returns `Pending` once
//!   before it runs, so the executor polls its other tasks, timers and sockets.
//! - TURN2: while [`CROWD`] short reads of a database wait, for their executor or for a reader thread, further ones go to
//!   the reader threads. A caller in a loop counts as waiting from one call to the next; a single caller never waits.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long a thread runs short reads before one yields (TURN1). Tokio polls its timers and sockets after 61 polls, and
/// 61 turns should take only a few milliseconds.
const TURN: Duration = Duration::from_micros(70);

/// The most reads in a turn, however little time they take.
const TURN_ANSWERS: u32 = 32;

/// From this many waiting callers on, reader threads are faster (TURN2): two readers that share their transactions need
/// about as many to be busy.
const CROWD: usize = 8;

thread_local! {
    /// What is left of this thread's turn (TURN1). One for all databases, because they share the executor.
    static TURN_LEFT: Cell<(Duration, u32)> = const { Cell::new((TURN, TURN_ANSWERS)) };
}

/// Where a short read runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// On this thread.
    Inline,
    /// On this thread, after its executor has polled others (TURN1).
    Yield,
    /// On a reader thread (TURN2).
    Readers,
}

/// The short reads of a database that wait, for TURN2.
#[derive(Default)]
pub(crate) struct Turns {
    /// How many have yielded, or gone to the reader threads because of TURN2, and have not been answered. Relaxed: it
    /// orders nothing else.
    waiting: AtomicUsize,
}

impl Turns {
    /// Where a short read runs that is polled on this thread. `yielded`: it has yielded before.
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

    /// Counts a short read that begins to wait, until [`Turns::waited`].
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
