//! Reads on the caller's own thread, under a step budget.
//!
//! A point read takes five microseconds, a hop to another thread and back ten times that. So a short read runs on its
//! caller's thread: on a connection kept for such reads, inside a read transaction, with a progress handler that stops
//! it after [`BUDGET_TICKS`] ticks. A stopped read runs again on a reader thread. So a short read blocks the executor
//! at most for the budget, and for pages that are read from the disk.
//!
//! Held snapshots (`held.rs`) use connections from here too, one connection each:
//!
//! | connection | what may be trusted | left by |
//! |---|---|---|
//! | idle | clean; the next read or snapshot takes it | `run`, `pin`, `close` |
//! | used | a short read runs on it, on its caller's thread | the end of the read |
//! | held | a snapshot has it, or a read that outlasts its snapshot | the drop of [`Pinned`] |
//! | surplus | a reader thread will close it, unless a snapshot takes it first, if it is clean | `pin`, `trim`, `close` |
//! | closing | a thread that may do I/O closes it | that thread |
//!
//! - SHORT1: at most `max` connections are idle or used. A short read that finds none idle goes to the reader threads,
//!   one of which opens a connection for the next short read. A short read never waits for a connection.
//! - SHORT2: a connection is counted until it is closed. A snapshot that gets no surplus connection waits until the
//!   held, surplus and closing connections, including its own, are at most `snapshots_max`. So there are never more
//!   than that, apart from connections on which a reader thread still runs a read although the snapshot is over.
//! - SHORT3: giving a connection back does no I/O, so callers may do it. A reader thread closes the surplus
//!   connections. It is asked by an errand, which goes ahead of the calls (`queue/mod.rs` QUEUE9).
//! - SHORT4: [`ShortReads::close`] returns when all these connections are closed, used and held ones included.
//!
//! Lock order: a held snapshot's state, then `state`. Lists are bounded by SHORT1 and SHORT2.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use super::turns::{self, Turns};
use crate::error::{Error, ErrorKind};
use crate::ffi::Sql;
use crate::place::Role;
use crate::process;
use crate::queue::{Domain, Frame};
use crate::sqlite::{opener::Opener, snapshot::Snapshot};
use crate::sync::{Condvar, Mutex, MutexGuard, lock, now, wait};

/// The budget in ticks of 1,000 virtual-machine steps. The first tick may come early, because SQLite goes on counting
/// the steps of a cached statement from its previous execution.
pub(crate) const BUDGET_TICKS: u32 = 4;

/// What a short read or a snapshot asks a reader thread to do, because callers' threads must do no I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Open a connection for short reads.
    Open,
    /// Close a surplus connection.
    Close,
}

/// Asks a reader thread to do an errand. `false`: the same errand waits already, or the database is closing.
pub(crate) type Ask = Box<dyn Fn(Errand) -> bool + Send + Sync>;

/// The connections for reads on callers' threads, and those of held snapshots.
pub(crate) struct ShortReads {
    opener: Arc<Opener>,
    ask: Ask,
    /// The process that opened the connections.
    pid: u32,
    state: Mutex<State>,
    /// Notified when a connection was given back or closed.
    returned: Condvar,
    max: usize,
    pub(crate) turns: Turns,
}

#[derive(Default)]
struct State {
    /// The most recently used connection is last, and is taken first, because its cache is the warmest.
    #[expect(clippy::vec_box, reason = "a connection moves between queues as one pointer")]
    idle: Vec<Box<Snapshot>>,
    /// Connections in use by short reads.
    used: usize,
    /// Held snapshots, each with a connection.
    held: usize,
    /// Connections on which a reader thread runs a read although the snapshot is over. At most one per reader thread.
    outlasting: usize,
    surplus: Vec<Surplus>,
    closing: usize,
    /// Whether a reader thread was asked to open a connection.
    asked: bool,
    closed: bool,
    /// Short reads served so far.
    served: u64,
}

struct Surplus {
    conn: Box<Snapshot>,
    /// Whether a snapshot may take the connection: it is clean, and open on the file, not on a copy.
    usable: bool,
}

impl ShortReads {
    /// Connections for at most `max` short reads at the same time.
    pub(crate) fn new(opener: Arc<Opener>, max: usize, ask: Ask) -> Self {
        Self {
            opener,
            ask,
            pid: process::id(),
            state: Mutex::new(State::default()),
            returned: Condvar::new(),
            max,
            turns: Turns::default(),
        }
    }

    pub(super) fn opener(&self) -> &Opener {
        &self.opener
    }

    /// Whether this process was forked from the one that opened the connections.
    pub(super) fn is_forked(&self) -> bool {
        process::id() != self.pid
    }

    /// Short reads served so far.
    pub(crate) fn served(&self) -> u64 {
        lock(&self.state).served
    }

    /// The number of held snapshots.
    pub(crate) fn held(&self) -> usize {
        lock(&self.state).held
    }

    /// Reserves a place for a snapshot, on a thread that may do I/O. Returns a connection for the snapshot; `None`: the
    /// caller must open one. `reuse`: the snapshot can use an open connection to the file.
    fn reserve(&self, reuse: bool) -> Result<Option<Box<Snapshot>>, Error> {
        let max = self.opener.config.snapshots_max;
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Error::new(ErrorKind::Closed));
        }
        if state.held >= max {
            let detail = format!("{} are held; drop some, or raise `snapshots_max`", state.held);
            return Err(Error::new(ErrorKind::TooManySnapshots).detail(detail));
        }
        state.held += 1;
        loop {
            let usable = state.surplus.iter().rposition(|surplus| surplus.usable && reuse);
            if let Some(index) = usable {
                return Ok(Some(state.surplus.swap_remove(index).conn));
            }
            // SHORT2
            if state.held + state.surplus.len() + state.closing <= max {
                return Ok(if reuse { state.idle.pop() } else { None });
            }
            state = match state.surplus.pop() {
                Some(surplus) => self.close_one(state, surplus),
                None => wait(&self.returned, state),
            };
        }
    }

    /// Closes a connection, outside the lock.
    fn close_one<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        surplus: Surplus,
    ) -> MutexGuard<'s, State> {
        state.closing += 1;
        drop(state);
        drop(surplus);
        let mut state = lock(&self.state);
        state.closing -= 1;
        self.returned.notify_all();
        state
    }

    /// Notes that a snapshot is over while a reader thread has its connection.
    pub(crate) fn outlasted(&self) {
        let mut state = lock(&self.state);
        state.held -= 1;
        state.outlasting += 1;
    }

    /// Takes a connection back from a snapshot. `true`: the caller must ask a reader thread to close a surplus one.
    fn give_back(&self, conn: Option<Surplus>, outlasted: bool) -> bool {
        let mut state = lock(&self.state);
        match outlasted {
            true => state.outlasting -= 1,
            false => state.held -= 1,
        }
        let room = !state.closed && state.idle.len() + state.used < self.max;
        match conn {
            Some(Surplus { conn, usable: true }) if room => state.idle.push(conn),
            Some(surplus) => state.surplus.push(surplus),
            None => {}
        }
        let ask = !state.surplus.is_empty() && !state.closed;
        drop(state);
        self.returned.notify_all();
        ask
    }

    /// Closes one surplus connection. `true`: there are more.
    fn trim(&self) -> bool {
        let mut state = lock(&self.state);
        if let Some(surplus) = state.surplus.pop() {
            state = self.close_one(state, surplus);
        }
        !state.surplus.is_empty() && !state.closed
    }

    /// Does an errand, on a thread that may do I/O.
    pub(crate) fn do_errand(&self, errand: Errand) {
        match errand {
            Errand::Open => self.open_one(),
            Errand::Close => {
                if self.trim() {
                    (self.ask)(Errand::Close);
                }
            }
        }
    }

    /// Runs `f` on this thread. `None`: it must run on a reader thread, because no connection is idle or `f` has used up
    /// its budget.
    pub(crate) fn run<R>(&self, domain: Domain, f: impl FnOnce(&Snapshot) -> R) -> Option<R> {
        let mut state = lock(&self.state);
        let Some(conn) = state.idle.pop() else {
            let ask = !state.asked && !state.closed && state.used < self.max;
            state.asked |= ask;
            drop(state);
            if ask && !(self.ask)(Errand::Open) {
                lock(&self.state).asked = false;
            }
            return None;
        };
        state.used += 1;
        drop(state);
        let began = now();
        let mut lent = Lent { home: self, conn: Some(conn), usable: false, served: false };
        let conn = lent.conn.as_ref()?;
        let link = &conn.link;
        if link.session.run(Sql::Begin).is_err() {
            lent.usable = link.clean();
            return None;
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
        lent.served = !too_long;
        turns::spend(now() - began);
        (!too_long).then_some(result)
    }

    /// Opens a connection, on a thread that may do I/O.
    fn open_one(&self) {
        // If opening fails here, it fails on the reader threads as well, and they report the error.
        let conn = self.opener.open(Role::Reader).ok();
        let mut state = lock(&self.state);
        state.asked = false;
        let room = !state.closed && state.idle.len() + state.used < self.max;
        match conn {
            Some(conn) if room => state.idle.push(Box::new(conn)),
            surplus => {
                drop(state);
                drop(surplus);
            }
        }
    }

    /// Closes the connections (SHORT4). Call it when no snapshot can be taken any more and the held ones have been
    /// released.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        loop {
            let idle = std::mem::take(&mut state.idle);
            let surplus = std::mem::take(&mut state.surplus);
            if !idle.is_empty() || !surplus.is_empty() {
                drop(state);
                drop((idle, surplus));
                state = lock(&self.state);
            } else if state.used + state.held + state.outlasting + state.closing > 0 {
                state = wait(&self.returned, state);
            } else {
                return;
            }
        }
    }

    /// For a forked child: forgets the connections, which are the parent's, without closing them.
    pub(crate) fn forget(&self) {
        let mut state = lock(&self.state);
        std::mem::forget((std::mem::take(&mut state.idle), std::mem::take(&mut state.surplus)));
    }
}

/// The connection of a held snapshot. The drop gives it back.
pub(crate) struct Pinned {
    home: Weak<ShortReads>,
    /// `None`: the connection could not be opened, or the drop is giving it back.
    conn: Option<Box<Snapshot>>,
    /// Whether another read or snapshot may use the connection next: it is open on the file, not on a copy.
    reuse: bool,
    /// Whether the snapshot ended before a reader thread had finished a read on the connection.
    outlasted: bool,
}

impl Pinned {
    /// A connection to the file for a snapshot; opens one if none is free.
    pub(super) fn take(home: &Arc<ShortReads>) -> Result<Self, Error> {
        Self::new(home, true, || home.opener.open(Role::Reader))
    }

    /// A connection that `open` makes, such as a copy of a memory database.
    pub(super) fn make(
        home: &Arc<ShortReads>,
        open: impl FnOnce() -> Result<Snapshot, Error>,
    ) -> Result<Self, Error> {
        Self::new(home, false, open)
    }

    fn new(
        home: &Arc<ShortReads>,
        reuse: bool,
        open: impl FnOnce() -> Result<Snapshot, Error>,
    ) -> Result<Self, Error> {
        let conn = home.reserve(reuse)?;
        let mut pinned = Self { home: Arc::downgrade(home), conn, reuse, outlasted: false };
        if pinned.conn.is_none() {
            pinned.conn = Some(Box::new(open()?));
        }
        Ok(pinned)
    }

    /// Drops the connection of a snapshot for which [`ShortReads::outlasted`] was called.
    pub(super) fn drop_late(mut self) {
        self.outlasted = true;
    }
}

impl Deref for Pinned {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        match &self.conn {
            Some(conn) => conn,
            None => unreachable!("only `drop` takes it out"),
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let surplus = self.conn.take().map(|conn| {
            // Ends the read transaction immediately, so that the WAL can start over. This releases locks and does no
            // I/O.
            let clean = conn.link.clean();
            conn.link.callbacks.slot.rest();
            Surplus { conn, usable: clean && self.reuse }
        });
        // If the home is gone, all threads have ended, and the drop of `surplus` closes the connection here.
        let Some(home) = self.home.upgrade() else { return };
        if home.give_back(surplus, self.outlasted) {
            // A refusal means that such an errand waits already, or that the database is closing.
            (home.ask)(Errand::Close);
        }
    }
}

/// A connection that a short read uses. The drop gives it back, also when the read panics.
struct Lent<'s> {
    home: &'s ShortReads,
    conn: Option<Box<Snapshot>>,
    usable: bool,
    served: bool,
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
        state.served += u64::from(self.served);
        if self.usable
            && !state.closed
            && let Some(conn) = gone.take()
        {
            state.idle.push(conn);
        }
        drop(state);
        // An unusable connection is closed before it is uncounted, since `close` waits until all are closed.
        drop(gone);
        lock(&self.home.state).used -= 1;
        self.home.returned.notify_all();
    }
}
