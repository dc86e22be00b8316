//! Where a short read runs, so that a loop of them leaves others their turns.
//!
//! A future that is always ready never gives its executor a turn. And many callers that each run their reads
//! themselves are slower than reader threads, which share transactions, and take CPU time from the
//! writer.
//!
//! - TURN1: a thread answers short reads for [`TURN`] at most, then the next one returns `Pending` once, with its
//!   waker called, before it runs. So its executor polls the other tasks, its timers and its sockets.
//! - TURN2: while [`CROWD`] short reads of a database wait, for their turn or for a reader thread, further ones go to the
//!   reader threads. A caller in a loop is counted from one call to the next; a lone one never is.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// For how long a thread answers short reads before one gives way (TURN1). Tokio looks at its timers and sockets
/// after 61 polls, and 61 turns must not take more than a few milliseconds.
const TURN: Duration = Duration::from_micros(70);

/// The most answers in a turn, whatever the clock says.
const TURN_ANSWERS: u32 = 32;

/// Callers that wait at once from which on the reader threads are faster (TURN2): two readers that share their
/// transactions need about as many to be busy.
const CROWD: usize = 8;

thread_local! {
    /// What is left of this thread's turn (TURN1). One for all databases, because they share the executor.
    static TURN_LEFT: Cell<(Duration, u32)> = const { Cell::new((TURN, TURN_ANSWERS)) };
}

/// Where a short read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It may run on this thread.
    Inline,
    /// It gives its executor a turn first (TURN1).
    Yield,
    /// It joins the others (TURN2).
    Readers,
}

/// The short reads of a database that wait.
#[derive(Default)]
pub(crate) struct Turns {
    /// Those that have given way, or gone to the reader threads because of the crowd, and are not over. Nothing
    /// else rests on it, so it is relaxed.
    waiting: AtomicUsize,
}

impl Turns {
    /// Where a short read goes that is polled on this thread; `gave_way`: it has done so.
    pub(crate) fn way(&self, gave_way: bool) -> Way {
        if self.waiting.load(Ordering::Relaxed) >= CROWD {
            return Way::Readers;
        }
        let (time, answers) = TURN_LEFT.get();
        let is_over = time.is_zero() || answers == 0;
        if is_over {
            TURN_LEFT.set((TURN, TURN_ANSWERS));
        }
        if is_over && !gave_way { Way::Yield } else { Way::Inline }
    }

    /// A short read begins to wait; to be ended by [`Turns::waited`].
    pub(crate) fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn waited(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes an answer that took so long off this thread's turn.
pub(crate) fn spend(run: Duration) {
    let (time, answers) = TURN_LEFT.get();
    TURN_LEFT.set((time.saturating_sub(run), answers.saturating_sub(1)));
}
