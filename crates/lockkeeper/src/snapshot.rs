//! A read transaction that outlives one call.
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | idle | the connection is here, its snapshot pinned | a read, release, expiry |
//! | running | a reader thread has the connection; further reads wait in `pending` | the end of the read |
//! | over | no connection; `why` says why | never |
//!
//! - H1: whoever takes the connection out brings it back, or finds the snapshot over and drops it, which
//!   gives it back to where the connections are counted (`short.rs` P2).
//! - H2: a snapshot is released by its last handle's drop ([`Hold`]), by its age, or by the close of
//!   the database, whichever comes first; releasing never does I/O on the caller's thread (P3).
//! - H3: release gives the place among the held ones back at once, before it returns, though a reader
//!   thread may keep the connection for the rest of a read: who drops one may take the next.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::Backup;

use crate::connection;
use crate::database::Core;
use crate::error::{Error, ErrorKind};
use crate::ffi::Sql;
use crate::holders::Origin;
use crate::job::ReadJob;
use crate::place::Role;
use crate::queue::{self, Alarm, Interrupt, Interruptible, Mutex, after, lock, now};
use crate::reader;
use crate::short::Pinned;
use crate::transaction::Transaction;

/// A held snapshot: what its handle, its reads and the clock share.
pub(crate) struct Held {
    core: Weak<Core>,
    state: Mutex<State>,
    commit: Option<u64>,
    since: Instant,
    alarm: Mutex<Option<Alarm>>,
}

/// A caller's share in a held snapshot: the last one that is dropped releases it (H2).
///
/// Apart from [`Held`], to which a reader thread may still have a reference after it has answered
/// the last read.
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
        // After a fork nothing may be touched; the drop of `Held` sees to that.
        if !self.0.is_of_another_process() {
            self.0.release(ErrorKind::Closed);
        }
    }
}

struct State {
    conn: Conn,
    /// The thread that has run it last, or runs it.
    thread: u64,
    pending: VecDeque<Box<dyn ReadJob>>,
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
    /// Pins the present state on a connection of its own.
    pub(crate) fn pin(
        core: &Arc<Core>,
        commit: Option<u64>,
        origin: Origin,
    ) -> Result<Arc<Self>, Error> {
        core.opener.file.check()?;
        let conn = Pinned::take(core)?;
        let sqlite = |error| Error::of_own(error);
        conn.link.session.run(Sql::Begin).map_err(sqlite)?;
        // BEGIN takes no snapshot; the first read does.
        conn.link.session.run(Sql::Pin).map_err(sqlite)?;
        Ok(Self::hold(core, conn, commit, origin))
    }

    /// Copies a memory database: its only connection cannot hold one state and go on.
    pub(crate) fn copy(
        core: &Arc<Core>,
        tx: &Transaction,
        commit: u64,
        origin: Origin,
    ) -> Result<Arc<Self>, Error> {
        let copy = Pinned::make(core, || {
            let sqlite = |error| Error::of_own(error);
            let mut copy = connection::open(&core.opener, Role::Copy)?;
            let run = |conn: &mut Connection| {
                let backup = Backup::new(tx.link.session.conn(), conn)?;
                backup.run_to_completion(i32::MAX, Duration::ZERO, None)
            };
            let (copied, prepared) = copy.link.session.lend(run, |_| ());
            copied.and(prepared).map_err(sqlite)?;
            copy.link.session.run(Sql::Begin).map_err(sqlite)?;
            Ok(copy)
        })?;
        Ok(Self::hold(core, copy, Some(commit), origin))
    }

    fn hold(core: &Arc<Core>, conn: Pinned, commit: Option<u64>, origin: Origin) -> Arc<Self> {
        if conn.link.noted {
            conn.link.guard.slot.hold(origin);
        }
        let state = State { conn: Conn::Idle(conn), thread: 0, pending: VecDeque::new() };
        let held = Arc::new(Self {
            core: Arc::downgrade(core),
            state: Mutex::new(state),
            commit,
            since: now(),
            alarm: Mutex::new(None),
        });
        core.register(&held);
        let weak = Arc::downgrade(&held);
        let alarm = core.clock.set(after(core.config.snapshot_age_max), move || {
            if let Some(held) = weak.upgrade() {
                held.release(ErrorKind::SnapshotExpired);
            }
        });
        *lock(&held.alarm) = Some(alarm);
        held
    }

    pub(crate) fn age(&self) -> Duration {
        now().saturating_duration_since(self.since)
    }

    pub(crate) fn commit(&self) -> Option<u64> {
        self.commit
    }

    /// Runs `job` on this snapshot, on a reader thread, after the reads that wait for it.
    pub(crate) fn serve(self: &Arc<Self>, job: Box<dyn ReadJob>) {
        let mut state = lock(&self.state);
        let conn = match &state.conn {
            Conn::Over(kind) => {
                let kind = *kind;
                drop(state);
                job.refuse(Error::new(kind));
                return;
            }
            Conn::Running(_) => {
                if queue::behind(job.interruptible(), state.thread) {
                    state.pending.push_back(job);
                    return;
                }
                drop(state);
                job.refuse(Error::new(ErrorKind::Nested));
                return;
            }
            Conn::Idle(_) => std::mem::replace(&mut state.conn, Conn::Running(job.interruptible())),
        };
        state.thread = queue::this_thread();
        drop(state);
        let Conn::Idle(conn) = conn else { return };
        let mut job = job;
        let Some(core) = self.core.upgrade() else { return };
        loop {
            reader::run_held(&conn, &core, job);
            let mut state = lock(&self.state);
            if let Conn::Over(_) = state.conn {
                drop(state);
                conn.drop_late();
                return;
            }
            // H1
            match state.pending.pop_front() {
                None => {
                    state.conn = Conn::Idle(conn);
                    return;
                }
                Some(next) => {
                    state.conn = Conn::Running(next.interruptible());
                    job = next;
                }
            }
        }
    }

    /// Ends the snapshot (H2); later reads are answered with `why`. False: it had ended before.
    pub(crate) fn release(&self, why: ErrorKind) -> bool {
        let mut state = lock(&self.state);
        if let Conn::Over(_) = state.conn {
            return false;
        }
        let conn = std::mem::replace(&mut state.conn, Conn::Over(why));
        let pending = std::mem::take(&mut state.pending);
        if let Conn::Running(_) = conn
            && let Some(core) = self.core.upgrade()
        {
            // H3. Before the reader thread sees that the snapshot is over, and gives the connection back.
            core.short.outlasted();
        }
        drop(state);
        match conn {
            // H3
            Conn::Idle(conn) => drop(conn),
            Conn::Running(Some(running)) => running.token().raise(match why {
                ErrorKind::SnapshotExpired => Interrupt::Expired,
                _ => Interrupt::Aborted,
            }),
            Conn::Running(None) | Conn::Over(_) => {}
        }
        for job in pending {
            job.refuse(Error::new(why));
        }
        true
    }

    /// Stops the running read and refuses those that wait for it.
    pub(crate) fn abort(&self) {
        let mut state = lock(&self.state);
        let pending = std::mem::take(&mut state.pending);
        if let Conn::Running(Some(running)) = &state.conn {
            running.token().raise(Interrupt::Aborted);
        }
        drop(state);
        for job in pending {
            job.refuse(Error::new(ErrorKind::Closed));
        }
    }

    fn is_of_another_process(&self) -> bool {
        self.core.upgrade().is_some_and(|core| core.check_process().is_err())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if self.is_of_another_process() {
            // After a fork the connection is the parent's: not to be used, nor closed.
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
