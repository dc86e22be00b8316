//! One client's lane with its waiting calls. `lanes.rs` decides which call is next.

use std::collections::VecDeque;
use std::time::Duration;

/// Running time that one turn grants to a lane of weight 1.
///
/// A greedy client whose calls take 5 to 10 microseconds can put three to six of them into a commit that other clients
/// wait for; `docs/design/fairness.md` has the figures for other settings.
pub(crate) const QUANTUM: Duration = Duration::from_micros(30);

/// Which lanes are served first while calls of both priorities wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Priority {
    /// Served first.
    #[default]
    High,
    /// Served when no high-priority call waits, and at least once in every nine batches.
    Low,
}

/// Where a waiting call is. Valid until the call is taken or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) lane: LaneId,
    pub(crate) seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaneId(pub(super) usize);

/// The lane of the handle that opened the queue.
pub(crate) const MAIN: LaneId = LaneId(0);

/// A call that left its lane to be run.
#[derive(Debug)]
pub(crate) struct Taken<C> {
    pub(crate) lane: LaneId,
    pub(crate) call: C,
    /// Accepted calls of all lanes that still waited when this one was taken.
    pub(crate) behind: usize,
}

pub(super) struct Entry<C> {
    pub(super) seq: u64,
    /// `None`: the call was removed, and the entry is a tombstone.
    pub(super) call: Option<C>,
}

pub(super) struct Lane<C> {
    pub(super) name: Option<String>,
    pub(super) weight: u32,
    pub(super) priority: Priority,
    pub(super) capacity: usize,
    /// Calls that wait for their turn, and tombstones.
    pub(super) accepted: VecDeque<Entry<C>>,
    /// Calls that wait for room, behind those in `accepted`, and tombstones.
    pub(super) overflow: VecDeque<Entry<C>>,
    /// The calls in `accepted` without the tombstones.
    pub(super) accepted_live: usize,
    /// The calls in `overflow` without the tombstones.
    pub(super) overflow_live: usize,
    pub(super) in_ring: bool,
    pub(super) credit_ns: i64,
    /// The round in which `credit_ns` was last granted.
    pub(super) granted_in: u64,
    /// The batch in which this lane last ran a call.
    pub(super) served_in: u64,
    /// Running time of the lane's calls in the batch `served_in`, in nanoseconds.
    pub(super) spent_ns: i64,
    /// Handles of this lane. At 0 the lane is removed when it is empty.
    pub(super) handles: usize,
    /// Calls taken so far.
    pub(super) taken: u64,
    /// Total running time of the calls taken so far.
    pub(super) run: Duration,
}

impl<C> Lane<C> {
    /// An empty lane with one handle.
    pub(super) fn new(name: Option<String>, capacity: usize) -> Self {
        Self {
            name,
            weight: 1,
            priority: Priority::High,
            capacity,
            accepted: VecDeque::new(),
            overflow: VecDeque::new(),
            accepted_live: 0,
            overflow_live: 0,
            in_ring: false,
            credit_ns: 0,
            granted_in: 0,
            served_in: 0,
            spent_ns: 0,
            handles: 1,
            taken: 0,
            run: Duration::ZERO,
        }
    }
}

/// How many calls a lane has run and for how long, and how many wait in it.
#[derive(Clone, Debug)]
pub(crate) struct LaneFigures {
    /// `None`: the main lane.
    pub(crate) name: Option<String>,
    pub(crate) waiting: usize,
    pub(crate) taken: u64,
    pub(crate) run: Duration,
}

/// The credit that one turn grants to a lane of this weight, in nanoseconds.
pub(super) fn grant_ns(weight: u32) -> i64 {
    i64::try_from(QUANTUM.as_nanos()).unwrap_or(i64::MAX).saturating_mul(i64::from(weight))
}

/// Turns the entry `seq` of `entries` into a tombstone and returns its call (LANE6).
pub(super) fn bury<C>(entries: &mut VecDeque<Entry<C>>, live: usize, seq: u64) -> Option<C> {
    let index = entries.partition_point(|entry| entry.seq < seq);
    let entry = entries.get_mut(index).filter(|entry| entry.seq == seq)?;
    let call = entry.call.take()?;
    if entries.len() > 2 * live + 16 {
        entries.retain(|entry| entry.call.is_some());
    }
    Some(call)
}
