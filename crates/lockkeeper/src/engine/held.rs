//! A read transaction that outlives one call.
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | idle | the connection is here, its snapshot pinned | a read, release, expiry |
//! | running | a reader thread has the connection; further reads wait in `pending` | the end of the read |
//! | over | there is no connection; the error kind says why | never |
//!
//! - HELD1: the thread that takes the connection out of the snapshot puts it back. If the snapshot is over by then, the
//!   thread drops the connection, which returns to `short.rs`, because it is counted there (SHORT2).
//! - HELD2: the drop of the last handle ([`Hold`]), the maximum age or the close of the database releases a snapshot,
//!   whichever comes first. Releasing never does I/O on the caller's thread (SHORT3).
//! - HELD3: `release` frees the snapshot's place among the held snapshots before it returns, even while a reader thread
//!   still has the connection for the rest of a read. So a caller that drops a snapshot may immediately take the next
//!   one.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::Backup;

use super::call::ReadCall;
use super::short::{Pinned, ShortReads};
use crate::error::{Error, ErrorKind};
use crate::ffi::Sql;
use crate::place::Role;
use crate::queue::{self, Alarm, Clock, Interrupt, Interruptible, after};
use crate::sqlite::{snapshot::Snapshot, transaction::Transaction};
use crate::stats::holders::Origin;
use crate::sync::{Mutex, lock, now};

/// The held snapshots of a database.
pub(crate) struct HeldSnapshots {
    connections: Arc<ShortReads>,
    clock: Arc<Clock>,
    /// The snapshots that end when they are too old or when the database is closed. Bound: `snapshots_max`; entries of
    /// dropped snapshots are removed when the next snapshot is added.
    held: Mutex<Vec<Weak<Held>>>,
}

impl HeldSnapshots {
    pub(crate) fn new(connections: Arc<ShortReads>, clock: Arc<Clock>) -> Self {
        Self { connections, clock, held: Mutex::default() }
    }

    /// Takes a snapshot of the present state of the file, on a connection of its own.
    pub(crate) fn pin(&self, commit: Option<u64>, origin: Origin) -> Result<Arc<Held>, Error> {
        self.connections.opener().file.check()?;
        let conn = Pinned::take(&self.connections)?;
        conn.link.session.run(Sql::Begin).map_err(Error::of_own)?;
        // BEGIN takes no snapshot; the first read does.
        conn.link.session.run(Sql::Pin).map_err(Error::of_own)?;
        Ok(self.hold(conn, commit, origin))
    }

    /// Takes a snapshot of a memory database as a copy, because the only connection of the database cannot keep one
    /// state and serve further writes.
    pub(crate) fn copy(
        &self,
        tx: &Transaction,
        commit: u64,
        origin: Origin,
    ) -> Result<Arc<Held>, Error> {
        let copy = Pinned::make(&self.connections, || {
            let mut copy = self.connections.opener().open(Role::Copy)?;
            let run = |conn: &mut Connection| {
                let backup = Backup::new(tx.link.session.conn(), conn)?;
                backup.run_to_completion(i32::MAX, Duration::ZERO, None)
            };
            let (copied, prepared) = copy.link.session.lend(run, |_| ());
            copied.and(prepared).map_err(Error::of_own)?;
            copy.link.session.run(Sql::Begin).map_err(Error::of_own)?;
            Ok(copy)
        })?;
        Ok(self.hold(copy, Some(commit), origin))
    }

    fn hold(&self, conn: Pinned, commit: Option<u64>, origin: Origin) -> Arc<Held> {
        if conn.link.noted {
            conn.link.callbacks.slot.hold(origin);
        }
        let state = State { conn: Conn::Idle(conn), thread: 0, pending: VecDeque::new() };
        let held = Arc::new(Held {
            connections: Arc::downgrade(&self.connections),
            state: Mutex::new(state),
            commit,
            since: now(),
            alarm: Mutex::new(None),
        });
        let mut all = lock(&self.held);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&held));
        drop(all);
        let end = after(self.connections.opener().config.snapshot_age_max);
        let alarm = self.clock.set_for(&held, end, |held| {
            held.release(ErrorKind::SnapshotExpired);
        });
        *lock(&held.alarm) = Some(alarm);
        held
    }

    fn all(&self) -> Vec<Arc<Held>> {
        lock(&self.held).iter().filter_map(Weak::upgrade).collect()
    }

    /// Ends the snapshots older than `age`; returns how many.
    pub(crate) fn cut(&self, age: Duration) -> u64 {
        let old = self.all().into_iter().filter(|held| held.age() >= age);
        old.map(|held| u64::from(held.release(ErrorKind::SnapshotExpired))).sum()
    }

    /// Asks the reads on all snapshots to stop. A reader thread runs the pending reads of a snapshot one after another,
    /// and the queue knows only the first of them, so an abort of the queue does not reach the others.
    pub(crate) fn abort(&self) {
        self.all().iter().for_each(|held| held.abort());
    }

    /// Releases all snapshots, because the database is closing.
    pub(crate) fn release(&self) {
        let held = std::mem::take(&mut *lock(&self.held));
        // If a snapshot has no references left, its last holder is releasing it. `ShortReads::close` waits for that.
        for held in held.iter().filter_map(Weak::upgrade) {
            held.release(ErrorKind::Closed);
        }
    }
}

/// A held snapshot, which its handles, its reads and the clock share.
pub(crate) struct Held {
    connections: Weak<ShortReads>,
    state: Mutex<State>,
    commit: Option<u64>,
    since: Instant,
    alarm: Mutex<Option<Alarm>>,
}

/// What a snapshot's handles and reads share. The drop of the last reference releases the snapshot (HELD2).
///
/// [`Held`] itself may live on: a reader thread can still have a reference after it has answered the last read.
#[derive(Debug)]
pub(crate) struct Hold(Arc<Held>);

impl Hold {
    pub(crate) fn new(held: Arc<Held>) -> Arc<Self> {
        Arc::new(Self(held))
    }

    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // In a forked child the connection is the parent's; the drop of `Held` leaves it alone.
        if !self.0.is_of_another_process() {
            self.0.release(ErrorKind::Closed);
        }
    }
}

struct State {
    conn: Conn,
    /// The thread that runs reads on the snapshot, or ran the last one; 0: no read has run.
    thread: u64,
    pending: VecDeque<Box<dyn ReadCall>>,
}

enum Conn {
    Idle(Pinned),
    Running(Option<Arc<dyn Interruptible>>),
    Over(ErrorKind),
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("commit", &self.commit).finish_non_exhaustive()
    }
}

impl Held {
    fn age(&self) -> Duration {
        now().saturating_duration_since(self.since)
    }

    pub(crate) fn commit(&self) -> Option<u64> {
        self.commit
    }

    /// Runs `call` with `run` on this snapshot, then each read that has come meanwhile. Called on a reader thread.
    pub(crate) fn serve(
        &self,
        call: Box<dyn ReadCall>,
        run: impl Fn(&Snapshot, Box<dyn ReadCall>),
    ) {
        let mut state = lock(&self.state);
        let refused = match &state.conn {
            Conn::Idle(_) => None,
            Conn::Running(_) if queue::behind(call.interruptible(), state.thread) => {
                state.pending.push_back(call);
                return;
            }
            Conn::Running(_) => Some(ErrorKind::Nested),
            Conn::Over(kind) => Some(*kind),
        };
        if let Some(kind) = refused {
            drop(state);
            call.refuse(Error::new(kind));
            return;
        }
        let running = Conn::Running(call.interruptible());
        let Conn::Idle(conn) = std::mem::replace(&mut state.conn, running) else { return };
        state.thread = queue::this_thread();
        drop(state);
        let mut call = call;
        loop {
            run(&conn, call);
            let mut state = lock(&self.state);
            if let Conn::Over(_) = state.conn {
                drop(state);
                conn.drop_late();
                return;
            }
            // HELD1
            match state.pending.pop_front() {
                None => {
                    state.conn = Conn::Idle(conn);
                    return;
                }
                Some(next) => {
                    state.conn = Conn::Running(next.interruptible());
                    call = next;
                }
            }
        }
    }

    /// Ends the snapshot (HELD2). Later reads fail with `why`. `false`: the snapshot had ended before.
    pub(crate) fn release(&self, why: ErrorKind) -> bool {
        let mut state = lock(&self.state);
        if let Conn::Over(_) = state.conn {
            return false;
        }
        let conn = std::mem::replace(&mut state.conn, Conn::Over(why));
        let pending = std::mem::take(&mut state.pending);
        if let Conn::Running(_) = conn
            && let Some(connections) = self.connections.upgrade()
        {
            // HELD3. Called under the lock, before the reader thread can see that the snapshot is over and give the
            // connection back.
            connections.outlasted();
        }
        drop(state);
        match conn {
            // HELD3
            Conn::Idle(conn) => drop(conn),
            Conn::Running(Some(running)) => running.token().raise(match why {
                ErrorKind::SnapshotExpired => Interrupt::Expired,
                _ => Interrupt::Aborted,
            }),
            Conn::Running(None) | Conn::Over(_) => {}
        }
        for call in pending {
            call.refuse(Error::new(why));
        }
        true
    }

    /// Asks the running read to stop and refuses the waiting ones.
    fn abort(&self) {
        let mut state = lock(&self.state);
        let pending = std::mem::take(&mut state.pending);
        if let Conn::Running(Some(running)) = &state.conn {
            running.token().raise(Interrupt::Aborted);
        }
        drop(state);
        for call in pending {
            call.refuse(Error::new(ErrorKind::Closed));
        }
    }

    fn is_of_another_process(&self) -> bool {
        self.connections.upgrade().is_some_and(|connections| connections.is_forked())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if self.is_of_another_process() {
            // In a forked child the connection is the parent's: it must neither be used nor closed.
            std::mem::forget(std::mem::replace(&mut state.conn, Conn::Over(ErrorKind::Forked)));
            return;
        }
        let idle = matches!(state.conn, Conn::Idle(_));
        drop(state);
        if idle {
            self.release(ErrorKind::Closed);
        }
    }
}
