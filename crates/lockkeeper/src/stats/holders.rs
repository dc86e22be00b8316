//! For each connection: which call runs on it, since when, from which place in the caller's program, and its last
//! statement.
//!
//! From this, the error of a call that timed out names the call that holds the writer, and the statistics name the
//! reader that keeps the WAL from starting over. Each connection has a slot, and the thread that uses the connection
//! writes the slot. That costs an uncontended lock per call and per prepared statement.
//!
//! - HOLDR1: a slot is written before the call's code runs, so the slot of a running call always names it.
//! - HOLDR2: bounded: one slot per open connection, and [`SQL_MAX`] bytes of a statement's text. Texts are kept as they were
//!   prepared, so they never hold bound values.

use std::fmt;
use std::panic::Location;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::place::Role;
use crate::queue::{Clock, Deadline, Interrupt, Interruptible, after};
use crate::sync::{Mutex, lock, now};

/// How many bytes of a statement's text are kept.
const SQL_MAX: usize = 300;

/// What a call is, and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) kind: HolderKind,
    /// The client's name; `None`: the database's own handle.
    pub(crate) client: Option<Arc<str>>,
    pub(crate) place: &'static Location<'static>,
}

/// What one connection is used for at this moment.
#[derive(Default)]
pub(crate) struct Slot(Mutex<Use>);

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Use {
    /// The call that runs, or ran last, and when it began.
    call: Option<(Origin, Instant)>,
    running: bool,
    /// Since when a read transaction is open; `None`: no read transaction is open.
    reading: Option<Instant>,
    /// The call that holds the snapshot on this connection; `None`: no snapshot is held.
    held: Option<Origin>,
    /// The running read, which is stopped when the WAL is at its maximum.
    stop: Option<Arc<dyn Interruptible>>,
    /// Since when the connection waits for the file's lock; `None`: it does not wait.
    locked: Option<Instant>,
    sql: String,
}

impl Slot {
    /// To be called before the code of a call runs on this connection (HOLDR1).
    pub(crate) fn begin_call(
        &self,
        origin: Origin,
        at: Instant,
        stop: Option<Arc<dyn Interruptible>>,
    ) {
        let mut slot = lock(&self.0);
        slot.stop = stop;
        slot.call = Some((origin, at));
        slot.running = true;
        slot.sql.clear();
    }

    /// To be called when neither a call runs on this connection nor a transaction is open.
    pub(crate) fn rest(&self) {
        let mut slot = lock(&self.0);
        slot.running = false;
        slot.reading = None;
        slot.held = None;
        slot.stop = None;
    }

    /// Stops the running read if its transaction is at least as old as `age`; returns whether it stopped one. Held
    /// snapshots and backups go on.
    fn cut(&self, age: Duration) -> bool {
        let slot = lock(&self.0);
        let old = slot.reading.is_some_and(|since| now().saturating_duration_since(since) >= age);
        match &slot.stop {
            Some(stop) if old && slot.running && slot.held.is_none() && !slot.is_backup() => {
                stop.token().raise(Interrupt::Expired);
                true
            }
            _ => false,
        }
    }

    /// To be called when the connection begins to wait for the file's lock.
    pub(crate) fn wait_for_lock(&self, at: Instant) {
        lock(&self.0).locked.get_or_insert(at);
    }

    /// To be called when the connection no longer waits for the file's lock.
    pub(crate) fn end_wait_for_lock(&self) {
        lock(&self.0).locked = None;
    }

    /// To be called when the call has ended and its transaction goes on.
    pub(crate) fn end_call(&self) {
        let mut slot = lock(&self.0);
        slot.running = false;
        slot.stop = None;
    }

    pub(crate) fn begin_reading(&self, at: Instant) {
        lock(&self.0).reading = Some(at);
    }

    pub(crate) fn hold(&self, origin: Origin) {
        let mut slot = lock(&self.0);
        // The kind is replaced, because a write can hold a snapshot too (`and_snapshot`).
        slot.held = Some(Origin { kind: HolderKind::Snapshot, ..origin });
        slot.reading = Some(now());
    }

    pub(crate) fn prepared(&self, sql: &str) {
        let mut end = sql.len().min(SQL_MAX);
        while !sql.is_char_boundary(end) {
            end -= 1;
        }
        let mut slot = lock(&self.0);
        slot.sql.clear();
        slot.sql.push_str(&sql[..end]);
    }

    /// The running call; `None`: no call runs.
    pub(crate) fn call(&self) -> Option<Holder> {
        let slot = lock(&self.0);
        let (origin, since) = slot.call.as_ref().filter(|_| slot.running)?;
        Some(Holder::new(origin, *since, &slot.sql))
    }

    /// The open read transaction and its beginning; `None`: no read transaction is open.
    fn reader(&self) -> Option<(Instant, Holder)> {
        let slot = lock(&self.0);
        let since = slot.reading?;
        let origin = slot.held.as_ref().or(slot.call.as_ref().map(|(origin, _)| origin))?;
        Some((since, Holder::new(origin, since, &slot.sql)))
    }
}

impl Use {
    fn is_backup(&self) -> bool {
        self.running && matches!(&self.call, Some((origin, _)) if origin.kind == HolderKind::Backup)
    }
}

/// Who holds the writer, a reader or a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// What holds the connection.
    pub kind: HolderKind,
    /// The client's name; `None`: the database's own handle.
    pub client: Option<Arc<str>>,
    /// Where in the program the call was made.
    pub place: &'static Location<'static>,
    /// For how long it has held the connection, or has had its read transaction open.
    pub age: Duration,
    /// The text of the statement that was prepared last, cut to 300 bytes, without the values bound to it. `None`: no
    /// statement was prepared.
    pub sql: Option<String>,
}

/// What holds a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HolderKind {
    /// A write.
    Write,
    /// An exclusive call.
    Exclusive,
    /// A lease, from its turn to its end, including its holder's pauses.
    Lease,
    /// A read.
    Read,
    /// A held snapshot.
    Snapshot,
    /// A backup.
    Backup,
}

impl fmt::Display for HolderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exclusive => f.write_str("an exclusive call"),
            kind => write!(f, "a {}", kind.name()),
        }
    }
}

impl HolderKind {
    /// The name of the tracing span of a call of this kind.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Exclusive => "exclusive",
            Self::Lease => "lease",
            Self::Read => "read",
            Self::Snapshot => "snapshot",
            Self::Backup => "backup",
        }
    }
}

impl Holder {
    fn new(origin: &Origin, since: Instant, sql: &str) -> Self {
        Self {
            kind: origin.kind,
            client: origin.client.clone(),
            place: origin.place,
            age: now().saturating_duration_since(since),
            sql: (!sql.is_empty()).then(|| sql.to_owned()),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(client) = &self.client {
            write!(f, " of client `{client}`")?;
        }
        write!(f, " made at {}, for {:.1?}", self.place, self.age)?;
        match &self.sql {
            Some(sql) => write!(f, ", last statement: {}", sql.trim()),
            None => Ok(()),
        }
    }
}

/// What kept a call waiting when its deadline passed; written by the clock, read by the caller's future.
#[derive(Clone, Debug, Default)]
pub(crate) struct Why(Option<Arc<OnceLock<String>>>);

impl Why {
    /// A deadline that asks `holder` for the reason before it ends the call.
    pub(crate) fn deadline<'c>(
        &mut self,
        board: &Arc<Board>,
        clock: &'c Clock,
        timeout: Duration,
        holder: fn(&Board) -> String,
    ) -> Deadline<'c> {
        let answer = Arc::new(OnceLock::new());
        self.0 = Some(Arc::clone(&answer));
        let board = Arc::clone(board);
        let expiring = Box::new(move || _ = answer.set(holder(&board)));
        Deadline { at: after(timeout), clock, expiring: Some(expiring) }
    }

    /// Adds the reason to the error of a call that timed out.
    pub(crate) fn explain<E>(&self, error: Error<E>) -> Error<E> {
        match self.0.as_ref().and_then(|answer| answer.get()) {
            Some(why) if error.is_timeout() => error.detail(why.clone()),
            _ => error,
        }
    }
}

/// The slots of all open connections.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Vec<(Role, Weak<Slot>)>>);

impl Board {
    pub(crate) fn register(&self, role: Role, slot: &Arc<Slot>) {
        let mut slots = lock(&self.0);
        slots.retain(|(_, slot)| slot.strong_count() > 0);
        slots.push((role, Arc::downgrade(slot)));
    }

    /// The slots of the connections whose role is `wanted`.
    fn slots(&self, wanted: impl Fn(Role) -> bool) -> Vec<Arc<Slot>> {
        let slots = lock(&self.0);
        let slots = slots.iter().filter(|(role, _)| wanted(*role));
        slots.filter_map(|(_, slot)| slot.upgrade()).collect()
    }

    /// The slots of the connections that read the file: they pin its WAL.
    fn readers(&self) -> Vec<Arc<Slot>> {
        self.slots(|role| role == Role::Reader)
    }

    /// The call that the writer runs; `None`: it runs none.
    pub(crate) fn writing(&self) -> Option<Holder> {
        self.slots(|role| role == Role::Writer).iter().find_map(|slot| slot.call())
    }

    /// The oldest open read transaction of the file; `None`: none is open. The WAL cannot start over before it ends.
    pub(crate) fn oldest_reader(&self) -> Option<Holder> {
        let readers = self.readers();
        let oldest = readers.iter().filter_map(|slot| slot.reader());
        oldest.min_by_key(|(since, _)| *since).map(|(_, holder)| holder)
    }

    /// Whether a backup runs. A backup pins the WAL until it has ended, and is never stopped for that.
    pub(crate) fn backup_runs(&self) -> bool {
        self.readers().iter().any(|slot| lock(&slot.0).is_backup())
    }

    /// Stops reads whose transactions are at least as old as `age`, but no backups. Returns how many it stopped.
    pub(crate) fn cut_reads(&self, age: Duration) -> u64 {
        self.readers().iter().map(|slot| u64::from(slot.cut(age))).sum()
    }

    /// Says why a write that timed out had to wait, for its error.
    pub(crate) fn why_no_writer(&self) -> String {
        if let Some(holder) = self.writing() {
            return format!("the writer is held by {holder}");
        }
        let writer = self.slots(|role| role == Role::Writer);
        match writer.first().and_then(|slot| lock(&slot.0).locked) {
            Some(since) => {
                let age = now().saturating_duration_since(since);
                format!("another process or connection has held the file's lock for {age:.1?}")
            }
            None => String::from("the writer was between two calls"),
        }
    }

    /// Says why a read that timed out had to wait, for its error.
    pub(crate) fn why_no_reader(&self) -> String {
        let slots = self.slots(|role| role != Role::Writer);
        match slots.iter().filter_map(|slot| slot.call()).max_by_key(|holder| holder.age) {
            Some(holder) => format!("the longest is {holder}; see `readers_max`"),
            None => String::from("the readers were between two calls"),
        }
    }
}
