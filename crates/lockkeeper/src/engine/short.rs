//! Reads on the caller's own thread, under a step budget.
//!
//! A point read takes five microseconds, a hop to another thread and back ten times that. A read
//! marked short runs where it is: on a connection kept for that, inside a read transaction, with a
//! progress handler that stops it after [`BUDGET_TICKS`] ticks. A stopped read is run again on a
//! reader thread, so the scheduler is held up for the budget at most (and for a page that has to
//! come from the disk).
//!
//! The same connections serve held snapshots (`held.rs`), one each, so they are counted here:
//!
//! | connection | what may be trusted | left by |
//! |---|---|---|
//! | idle | clean; the next read or snapshot takes it | `run`, `pin`, `close` |
//! | used | a short read runs on it, on its caller's thread | the end of the read |
//! | held | a snapshot has it, or a read that outlasts its snapshot | the drop of [`Pinned`] |
//! | surplus | to be closed; the next snapshot takes it instead, if it is clean | `pin`, `trim`, `close` |
//! | closing | being closed by a thread that may do I/O | that thread |
//!
//! - SHORT1: at most `max` connections are idle or used; a caller that finds none goes to the reader threads, which
//!   open one for the next time. A short read never waits.
//! - SHORT2: a connection counts until it is closed: a snapshot that is given another one than a surplus one
//!   waits until those held, surplus and closing are at most `snapshots_max`, its own included. So they are
//!   never more, apart from those on which a reader thread still ran a read when its snapshot was over.
//! - SHORT3: giving a connection back does no I/O, so callers may. What is too much is closed by a reader thread,
//!   which is asked ahead of the calls (`queue/mod.rs` QUEUE9).
//! - SHORT4: [`ShortReads::close`] returns when every connection of these has been closed, lent ones included.
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

/// Ticks of 1,000 virtual-machine steps. The first may come early, because SQLite counts a cached
/// statement's steps through all its executions.
pub(crate) const BUDGET_TICKS: u32 = 4;

/// What a reader thread is asked to do here, because it may do I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Opens a connection for reads on the callers' threads.
    Open,
    /// Closes a surplus connection of a snapshot.
    Close,
}

/// Asks a reader thread; false: the same was asked before, or the database is closing.
pub(crate) type Ask = Box<dyn Fn(Errand) -> bool + Send + Sync>;

/// The connections for reads on callers' threads, and those of held snapshots.
pub(crate) struct ShortReads {
    opener: Arc<Opener>,
    ask: Ask,
    /// The process that has the connections.
    pid: u32,
    state: Mutex<State>,
    /// Rung when a connection has been given back or closed.
    returned: Condvar,
    max: usize,
    pub(crate) turns: Turns,
}

#[derive(Default)]
struct State {
    /// The most recently used last: its cache is the warmest.
    #[expect(clippy::vec_box, reason = "a connection moves between queues as one pointer")]
    idle: Vec<Box<Snapshot>>,
    /// Connections in use by short reads.
    used: usize,
    /// Snapshots that are held.
    held: usize,
    /// Connections with a reader thread whose snapshot is over. At most one per reader thread.
    outlasting: usize,
    surplus: Vec<Surplus>,
    closing: usize,
    /// A reader thread was asked to open one.
    asked: bool,
    closed: bool,
    /// Short reads that were served.
    served: u64,
}

struct Surplus {
    conn: Box<Snapshot>,
    /// It is clean, and shows the file.
    usable: bool,
}

impl ShortReads {
    /// For `max` short reads at once.
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

    /// Whether the connections are those of another process.
    pub(super) fn is_forked(&self) -> bool {
        process::id() != self.pid
    }

    /// Short reads so far.
    pub(crate) fn served(&self) -> u64 {
        lock(&self.state).served
    }

    /// Snapshots that are held.
    pub(crate) fn held(&self) -> usize {
        lock(&self.state).held
    }

    /// Makes place for a snapshot; the connection for it, or none: one may be opened.
    ///
    /// To be called on a thread that may do I/O; `reuse`: those that are there will do.
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

    /// Closes a connection that was taken off a list, outside the lock.
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

    /// A snapshot is over while a reader thread has its connection.
    pub(crate) fn outlasted(&self) {
        let mut state = lock(&self.state);
        state.held -= 1;
        state.outlasting += 1;
    }

    /// Takes a connection back from a snapshot; true: a reader thread must be asked to close something.
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

    /// Closes one surplus connection; true: there are more.
    fn trim(&self) -> bool {
        let mut state = lock(&self.state);
        if let Some(surplus) = state.surplus.pop() {
            state = self.close_one(state, surplus);
        }
        !state.surplus.is_empty() && !state.closed
    }

    /// Does what was asked for, on a thread that may do I/O.
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

    /// Runs `f` on this thread. `None`: it must run on a reader thread, because there is no connection for it
    /// now, or because it has used up its budget.
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
        // A failure is met again, and reported, by the reader threads.
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

    /// SHORT4. To be called when nothing pins a snapshot any more, and those held were told to end.
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

    /// After a fork the connections are the parent's: forget them without closing.
    pub(crate) fn forget(&self) {
        let mut state = lock(&self.state);
        std::mem::forget((std::mem::take(&mut state.idle), std::mem::take(&mut state.surplus)));
    }
}

/// The connection of a held snapshot; goes back when dropped.
pub(crate) struct Pinned {
    home: Weak<ShortReads>,
    /// `None`: it could not be opened, or is on its way back.
    conn: Option<Box<Snapshot>>,
    /// It shows the file, not a copy.
    reuse: bool,
    /// Its snapshot was over before a reader thread was done with it.
    outlasted: bool,
}

impl Pinned {
    /// A connection to the file for a snapshot, opened if there is none.
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

    /// Drops it after [`ShortReads::outlasted`].
    pub(super) fn drop_late(mut self) {
        self.outlasted = true;
    }
}

impl Deref for Pinned {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        match &self.conn {
            Some(conn) => conn,
            None => unreachable!("it is taken out by `drop` alone"),
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let surplus = self.conn.take().map(|conn| {
            // Ends the read transaction at once, so that the WAL can start over: no I/O, only locks.
            let clean = conn.link.clean();
            conn.link.callbacks.slot.rest();
            Surplus { conn, usable: clean && self.reuse }
        });
        // Without its home every thread has ended; what is dropped here is closed here.
        let Some(home) = self.home.upgrade() else { return };
        if home.give_back(surplus, self.outlasted) {
            // Refused: it is on its way already, or the database is closing.
            (home.ask)(Errand::Close);
        }
    }
}

/// A connection in use; goes back when dropped, also by a panic of the read.
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
        // Closed before it is counted as returned: `close` waits until it is closed.
        drop(gone);
        lock(&self.home.state).used -= 1;
        self.home.returned.notify_all();
    }
}
