//! Reads on the caller's own thread, under a step budget.
//!
//! A point read takes five microseconds, a hop to another thread and back ten times that. A read
//! marked short runs where it is: on a connection kept for that, inside a read transaction, with a
//! progress handler that stops it after [`BUDGET_TICKS`] ticks. A stopped read is run again on a
//! reader thread, so the scheduler is held up for the budget at most (and for a page that has to
//! come from the disk).
//!
//! - P1: at most `max` connections; a caller that finds none goes to the reader threads, which open
//!   one for the next time. Nothing here waits.
//! - P2: after [`ShortReads::close`] no connection is kept; one that is in use is closed by its user.

use std::sync::Arc;

use crate::connection::{self, Role};
use crate::database::Core;
use crate::ffi::Sql;
use crate::queue::{Condvar, Domain, Frame, Mutex, lock, wait};
use crate::transaction::Snapshot;

/// Ticks of 1,000 virtual-machine steps. The first may come early, because SQLite counts a cached
/// statement's steps through all its executions.
pub(crate) const BUDGET_TICKS: u32 = 4;

/// The connections for reads on callers' threads, and spare ones for held snapshots.
pub(crate) struct ShortReads {
    state: Mutex<State>,
    returned: Condvar,
    max: usize,
}

#[derive(Default)]
struct State {
    /// The most recently used last: its cache is the warmest.
    #[expect(clippy::vec_box, reason = "a connection moves between queues as one pointer")]
    idle: Vec<Box<Snapshot>>,
    /// Connections in use by short reads.
    used: usize,
    /// A reader thread was asked to open one.
    asked: bool,
    closed: bool,
}

/// What became of a short read.
pub(crate) enum Short<R> {
    Done(R),
    /// Its budget was used up: it must run on a reader thread.
    TooLong,
    /// There is no connection for it now; true: ask for one.
    NoConnection {
        ask: bool,
    },
}

impl ShortReads {
    pub(crate) fn new(max: usize) -> Self {
        Self { state: Mutex::new(State::default()), returned: Condvar::new(), max }
    }

    /// Takes a connection away for good.
    pub(crate) fn take(&self) -> Option<Box<Snapshot>> {
        lock(&self.state).idle.pop()
    }

    /// Runs `f` on this thread if there is a connection.
    pub(crate) fn run<R>(&self, domain: Domain, f: impl FnOnce(&Snapshot) -> R) -> Short<R> {
        let mut state = lock(&self.state);
        let Some(conn) = state.idle.pop() else {
            let ask = !state.asked && !state.closed && state.used < self.max;
            state.asked |= ask;
            return Short::NoConnection { ask };
        };
        state.used += 1;
        drop(state);
        let mut lent = Lent { home: self, conn: Some(conn), usable: false };
        let Some(conn) = &lent.conn else { return Short::TooLong };
        let link = &conn.link;
        if link.session.run(Sql::Begin).is_err() {
            lent.usable = link.clean();
            return Short::TooLong;
        }
        link.begin_call(true, false);
        let (result, too_long) = {
            let frame = Frame::enter_limited(domain, BUDGET_TICKS);
            let result = f(conn);
            (result, frame.out_of_ticks())
        };
        link.end_call();
        let ended = link.is_lost() || link.session.run(Sql::Commit).is_ok();
        lent.usable = ended || link.clean();
        match too_long {
            true => Short::TooLong,
            false => Short::Done(result),
        }
    }

    /// Opens a connection, on a thread that may do I/O.
    pub(crate) fn open_one(&self, core: &Core) {
        // A failure is met again, and reported, by the reader threads.
        let conn = connection::open(&core.config, Role::Reader).ok();
        lock(&self.state).asked = false;
        if let Some(conn) = conn {
            self.put_back(Box::new(conn));
        }
    }

    /// Keeps a clean connection for later, or closes it.
    pub(crate) fn put_back(&self, conn: Box<Snapshot>) {
        if !conn.link.clean() {
            return;
        }
        let mut state = lock(&self.state);
        if !state.closed && state.idle.len() + state.used < self.max {
            state.idle.push(conn);
            return;
        }
        drop(state);
        drop(conn);
    }

    /// Closes the idle connections and waits for those in use.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        while state.used > 0 {
            state = wait(&self.returned, state);
        }
        drop(state);
        drop(idle);
    }

    /// After a fork the connections are the parent's: forget them without closing.
    pub(crate) fn forget(&self) {
        std::mem::forget(std::mem::take(&mut lock(&self.state).idle));
    }
}

/// A connection in use; goes back when dropped, also by a panic of the read.
struct Lent<'s> {
    home: &'s ShortReads,
    conn: Option<Box<Snapshot>>,
    usable: bool,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut gone = self.conn.take();
        if !self.usable {
            self.usable = gone.as_ref().is_some_and(|conn| {
                conn.link.end_call();
                conn.link.clean()
            });
        }
        let mut state = lock(&self.home.state);
        if self.usable
            && !state.closed
            && let Some(conn) = gone.take()
        {
            state.idle.push(conn);
        }
        drop(state);
        // Closed before it is counted as returned: whoever waits for it wants it closed.
        drop(gone);
        lock(&self.home.state).used -= 1;
        self.home.returned.notify_all();
    }
}

/// Asks a reader thread for another connection.
pub(crate) fn ask(core: &Arc<Core>) {
    let item = crate::job::ReaderItem::OpenShort;
    // Refused: the database is closing, or its readers have more urgent things to do.
    if core.readers.try_push(crate::queue::MAIN, item).is_err() {
        core.short.not_opened();
    }
}

impl ShortReads {
    fn not_opened(&self) {
        lock(&self.state).asked = false;
    }
}
