//! Decides which waiting call is next: a pure data structure, without threads and without a clock.
//!
//! Each client has a *lane*. A lane serves its calls first in, first out. The lanes take turns by deficit round robin
//! over running time: a turn grants a lane `QUANTUM x weight` of credit, each call is charged its running time, and a
//! lane without credit waits for its next turn. A *batch* is the calls that a writer commits together, or that a reader
//! serves on one snapshot. A *round* is a turn for each lane.
//!
//! - LANE1: inside a lane, calls leave in the order of their sequence numbers.
//! - LANE2: `accepted` holds at most `capacity` live calls. The other calls of the lane wait in `overflow`, and each
//!   sequence number there is larger than any in `accepted`.
//! - LANE3: a lane with an accepted live call is in the ring of its priority. A ring may also hold lanes that have
//!   become empty; `eligible` removes them.
//! - LANE4: a lane may exceed its credit in a batch only while no other lane waits or takes part in the batch. So the
//!   worker is never idle while calls wait, and one client delays another client's single call by one batch at most.
//! - LANE5: low-priority lanes are passed over in at most `AGEING` batches in a row. Then one of their
//!   calls is taken even if its lane has no credit.
//! - LANE6: a removed call leaves a tombstone. Tombstones are compacted when they outnumber the live calls.
//! - LANE7: a batch that reaches one of its ceilings may end in the middle of a round. The next batch finishes that
//!   round, beginning with the lanes that the last batch did not serve, and goes on with a new round. In one batch a
//!   lane runs for no longer than a turn. If one lane alone filled a batch, the next batch begins with a new round. So
//!   no lane, of whatever weight, makes another wait for more than one whole batch.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::lane::{
    Entry, Lane, LaneFigures, LaneId, MAIN, Position, Priority, Taken, bury, grant_ns,
};

/// The most running time that a lane can owe. The rest of a longer call is not charged, so that a bulk write does not
/// shut its client out for seconds.
const DEBT_MAX_NS: i64 = 50_000_000;

/// The number of batches in a row that may pass over waiting low-priority lanes (LANE5).
pub(crate) const AGEING: u32 = 8;

/// Which calls may be taken next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Calls of the batch that began with [`Lanes::begin_batch`], until LANE4 ends it.
    Batch,
    /// Calls with a smaller sequence number than this, in as many rounds as needed.
    OlderThan(u64),
}

pub(crate) struct Lanes<C> {
    lanes: Vec<Option<Lane<C>>>,
    names: HashMap<String, LaneId>,
    /// Lanes that may have accepted calls, by priority.
    rings: [VecDeque<LaneId>; 2],
    capacity: usize,
    next_seq: u64,
    round: u64,
    batch: u64,
    /// Whether this batch began in the middle of a round that has not ended yet (LANE7).
    continues: bool,
    /// Distinct lanes that ran a call in this batch.
    participants: usize,
    /// Batches (for readers: reads) in a row in which low-priority calls waited and none was taken.
    low_passed: u32,
    /// Accepted calls of all lanes, without tombstones.
    accepted_live: usize,
    /// All waiting calls, accepted or waiting for room, without tombstones.
    waiting_live: usize,
}

impl<C> Lanes<C> {
    pub(crate) fn new(capacity: usize) -> Self {
        let mut lanes = Self {
            lanes: Vec::new(),
            names: HashMap::new(),
            rings: [VecDeque::new(), VecDeque::new()],
            capacity,
            next_seq: 0,
            round: 1,
            batch: 1,
            continues: false,
            participants: 0,
            low_passed: 0,
            accepted_live: 0,
            waiting_live: 0,
        };
        let main = lanes.insert(None);
        debug_assert_eq!(main, MAIN);
        lanes
    }

    fn insert(&mut self, name: Option<String>) -> LaneId {
        let lane = Lane::new(name, self.capacity);
        let free = self.lanes.iter().position(Option::is_none);
        let index = free.unwrap_or(self.lanes.len());
        match free {
            Some(free) => self.lanes[free] = Some(lane),
            None => self.lanes.push(Some(lane)),
        }
        LaneId(index)
    }

    /// The lane called `name`, which is made if it does not exist. The caller must give it back with [`Lanes::retire`].
    pub(crate) fn open(&mut self, name: &str) -> LaneId {
        if let Some(&id) = self.names.get(name) {
            if let Some(lane) = self.lane_mut(id) {
                lane.handles += 1;
            }
            return id;
        }
        let id = self.insert(Some(name.to_owned()));
        self.names.insert(name.to_owned(), id);
        id
    }

    /// Gives back one handle of this lane.
    pub(crate) fn retire(&mut self, id: LaneId) {
        if id == MAIN {
            return;
        }
        if let Some(lane) = self.lane_mut(id) {
            lane.handles -= 1;
        }
        self.forget_if_over(id);
    }

    fn forget_if_over(&mut self, id: LaneId) {
        let over = self.lane_mut(id).is_some_and(|lane| {
            lane.handles == 0 && lane.accepted_live == 0 && lane.overflow_live == 0
        });
        if !over {
            return;
        }
        for ring in &mut self.rings {
            ring.retain(|&other| other != id);
        }
        if let Some(name) = self.lanes[id.0].take().and_then(|lane| lane.name) {
            self.names.remove(&name);
        }
    }

    pub(crate) fn set_weight(&mut self, id: LaneId, weight: u32) {
        if let Some(lane) = self.lane_mut(id) {
            lane.weight = weight.max(1);
        }
    }

    pub(crate) fn set_priority(&mut self, id: LaneId, priority: Priority) {
        let Some(lane) = self.lane_mut(id) else { return };
        if lane.priority == priority {
            return;
        }
        lane.priority = priority;
        let was_in_ring = std::mem::replace(&mut lane.in_ring, false);
        if was_in_ring {
            for ring in &mut self.rings {
                ring.retain(|&other| other != id);
            }
            self.enter_ring(id);
        }
    }

    fn lane_mut(&mut self, id: LaneId) -> Option<&mut Lane<C>> {
        self.lanes.get_mut(id.0).and_then(Option::as_mut)
    }

    /// The number of waiting calls, including those that wait for room.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting_live
    }

    /// The number of accepted calls that wait for their turn.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted_live
    }

    /// Whether a call with a smaller sequence number waits.
    pub(crate) fn has_older_than(&self, seq: u64) -> bool {
        let oldest = |calls: &VecDeque<Entry<C>>| {
            calls.iter().find(|entry| entry.call.is_some()).is_some_and(|entry| entry.seq < seq)
        };
        // LANE1, LANE2
        self.lanes.iter().flatten().any(|lane| oldest(&lane.accepted) || oldest(&lane.overflow))
    }

    /// The sequence number of the next call.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Adds a call at the end of its lane. If the lane is full, the call waits for room.
    pub(crate) fn push(&mut self, id: LaneId, call: C) -> Result<Position, C> {
        let seq = self.next_seq;
        let Some(lane) = self.lanes.get_mut(id.0).and_then(Option::as_mut) else {
            return Err(call);
        };
        self.next_seq += 1;
        self.waiting_live += 1;
        let entry = Entry { seq, call: Some(call) };
        if lane.accepted_live < lane.capacity && lane.overflow_live == 0 {
            lane.accepted.push_back(entry);
            lane.accepted_live += 1;
            self.accepted_live += 1;
            self.enter_ring(id);
        } else {
            lane.overflow.push_back(entry);
            lane.overflow_live += 1;
        }
        Ok(Position { lane: id, seq })
    }

    /// Adds a call at the end of its lane if there is room; otherwise returns the call.
    pub(crate) fn try_push(&mut self, id: LaneId, call: C) -> Result<Position, C> {
        match self.lane_mut(id) {
            Some(lane) if lane.accepted_live < lane.capacity && lane.overflow_live == 0 => {
                self.push(id, call)
            }
            _ => Err(call),
        }
    }

    fn enter_ring(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id.0).and_then(Option::as_mut) else { return };
        if !lane.in_ring && lane.accepted_live > 0 {
            lane.in_ring = true;
            self.rings[lane.priority as usize].push_back(id);
        }
    }

    /// Removes a waiting call, whose place becomes free immediately. `None`: the call was taken or removed before.
    pub(crate) fn remove(&mut self, position: Position) -> Option<C> {
        let lane = self.lanes.get_mut(position.lane.0)?.as_mut()?;
        if let Some(call) = bury(&mut lane.accepted, lane.accepted_live, position.seq) {
            lane.accepted_live -= 1;
            self.accepted_live -= 1;
            self.waiting_live -= 1;
            self.promote(position.lane);
            self.forget_if_over(position.lane);
            return Some(call);
        }
        let call = bury(&mut lane.overflow, lane.overflow_live, position.seq)?;
        lane.overflow_live -= 1;
        self.waiting_live -= 1;
        self.forget_if_over(position.lane);
        Some(call)
    }

    /// Whether the call waits for room rather than for its turn.
    pub(crate) fn waits_for_room(&self, position: Position) -> bool {
        let lane = self.lanes.get(position.lane.0).and_then(Option::as_ref);
        lane.and_then(|lane| lane.overflow.front()).is_some_and(|front| front.seq <= position.seq)
    }

    /// Accepts calls that wait for room, as far as there is room.
    fn promote(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id.0).and_then(Option::as_mut) else { return };
        while lane.accepted_live < lane.capacity {
            let Some(entry) = lane.overflow.pop_front() else { break };
            if entry.call.is_some() {
                lane.overflow_live -= 1;
                lane.accepted_live += 1;
                self.accepted_live += 1;
                lane.accepted.push_back(entry);
            }
        }
        self.enter_ring(id);
    }

    /// Begins a batch, in which each lane gets a turn.
    pub(crate) fn begin_batch(&mut self) {
        for ring in 0..self.rings.len() {
            self.put_unserved_first(ring);
        }
        // If one lane filled the last batch alone, the round ends, because that lane would keep the others waiting.
        self.continues = self.participants > 1 && self.is_amid_round();
        self.batch += 1;
        self.participants = 0;
        if !self.continues {
            self.round += 1;
        }
        if !self.rings[Priority::Low as usize].is_empty() {
            self.low_passed += 1;
        }
    }

    /// Moves the lanes that the last batch did not serve to the front (LANE7). If the front lane was not served, they
    /// are at the front already.
    fn put_unserved_first(&mut self, ring: usize) {
        let (lanes, batch) = (&self.lanes, self.batch);
        let served = |id: &LaneId| lanes[id.0].as_ref().is_some_and(|lane| lane.served_in == batch);
        if self.rings[ring].front().is_some_and(served) {
            self.rings[ring].make_contiguous().sort_by_key(served);
        }
    }

    /// Whether the round can go on: in the first ring with waiting calls, a lane with calls has a turn or credit left.
    fn is_amid_round(&self) -> bool {
        let lane = |id: &LaneId| self.lanes[id.0].as_ref().filter(|lane| lane.accepted_live > 0);
        let ring = self.rings.iter().find(|ring| ring.iter().any(|id| lane(id).is_some()));
        let has_turn = |lane: &Lane<C>| lane.granted_in != self.round || lane.credit_ns > 0;
        ring.is_some_and(|ring| ring.iter().filter_map(lane).any(has_turn))
    }

    /// Takes the next call in `scope`. `None`: no call in `scope` may be taken now. If no lane has run a call in the
    /// batch yet, a call is found whenever one waits.
    pub(crate) fn pick(&mut self, scope: Scope) -> Option<Taken<C>> {
        let taken = self.pick_in_round(scope);
        if taken.is_some() || scope != Scope::Batch || !std::mem::take(&mut self.continues) {
            return taken;
        }
        self.round += 1;
        self.pick_in_round(scope)
    }

    fn pick_in_round(&mut self, scope: Scope) -> Option<Taken<C>> {
        if self.accepted_live == 0 {
            return None;
        }
        // LANE5
        if self.low_passed > AGEING
            && let Some(id) = self.front_waiting(Priority::Low as usize, scope)
        {
            return self.take(id, Priority::Low as usize, scope);
        }
        for ring in [0, 1] {
            if let Some(id) = self.eligible(ring, scope) {
                return self.take(id, ring, scope);
            }
            // A high-priority lane has used up its turn. It waits for the next batch, and so do the low-priority lanes.
            if !self.rings[ring].is_empty() && scope == Scope::Batch && self.participants > 0 {
                return None;
            }
        }
        if scope == Scope::Batch && self.participants > 0 {
            return None;
        }
        // Every waiting lane is in debt. Grant as many rounds as are needed until the first lane can be served.
        self.grant_until_served();
        [0, 1].into_iter().find_map(|ring| {
            let id = self.eligible(ring, scope)?;
            self.take(id, ring, scope)
        })
    }

    /// Rotates the ring to a lane that may run a call and returns it, or else returns a lane that waits for credit.
    fn front_waiting(&mut self, ring: usize, scope: Scope) -> Option<LaneId> {
        // `eligible` has removed the empty lanes, so those left in the ring have waiting calls.
        self.eligible(ring, scope).or_else(|| self.rings[ring].front().copied())
    }

    /// Rotates the ring to the first lane that may run a call; removes empty lanes on the way.
    fn eligible(&mut self, ring: usize, scope: Scope) -> Option<LaneId> {
        for _ in 0..self.rings[ring].len() {
            let id = *self.rings[ring].front()?;
            let alone = self.alone(id);
            let (round, batch) = (self.round, self.batch);
            let lane = self.lanes.get_mut(id.0).and_then(Option::as_mut);
            let Some(lane) = lane.filter(|lane| lane.accepted_live > 0) else {
                self.rings[ring].pop_front();
                if let Some(lane) = self.lane_mut(id) {
                    lane.in_ring = false;
                    lane.credit_ns = 0;
                }
                continue;
            };
            if lane.granted_in != round {
                lane.granted_in = round;
                lane.credit_ns = lane.credit_ns.min(0) + grant_ns(lane.weight);
            }
            let over = scope == Scope::Batch
                && lane.served_in == batch
                && lane.spent_ns >= grant_ns(lane.weight);
            if (lane.credit_ns > 0 && !over) || alone {
                return Some(id);
            }
            self.rings[ring].rotate_left(1);
        }
        None
    }

    /// Whether no other lane has an accepted call or takes part in this batch (LANE4).
    fn alone(&self, id: LaneId) -> bool {
        let Some(lane) = self.lanes[id.0].as_ref() else { return false };
        let served = usize::from(lane.served_in == self.batch && self.participants > 0);
        lane.accepted_live == self.accepted_live && self.participants == served
    }

    fn grant_until_served(&mut self) {
        let rings = &self.rings;
        let waiting = |id: &LaneId| self.lanes[id.0].as_ref().filter(|lane| lane.accepted_live > 0);
        let rounds = rings
            .iter()
            .flatten()
            .filter_map(waiting)
            .map(|lane| (-lane.credit_ns).max(0) / grant_ns(lane.weight) + 1)
            .min()
            .unwrap_or(0);
        for id in self.rings.iter().flatten() {
            if let Some(lane) = self.lanes[id.0].as_mut() {
                lane.credit_ns += rounds * grant_ns(lane.weight);
            }
        }
    }

    fn take(&mut self, id: LaneId, ring: usize, scope: Scope) -> Option<Taken<C>> {
        let lane = self.lanes.get_mut(id.0)?.as_mut()?;
        while lane.accepted.front().is_some_and(|entry| entry.call.is_none()) {
            lane.accepted.pop_front();
        }
        if let Scope::OlderThan(limit) = scope
            && lane.accepted.front().is_some_and(|entry| entry.seq >= limit)
        {
            return None;
        }
        let call = lane.accepted.pop_front()?.call?;
        lane.accepted_live -= 1;
        lane.taken += 1;
        self.accepted_live -= 1;
        self.waiting_live -= 1;
        if lane.served_in != self.batch {
            lane.served_in = self.batch;
            lane.spent_ns = 0;
            self.participants += 1;
        }
        if ring == Priority::Low as usize {
            self.low_passed = 0;
        } else if scope != Scope::Batch && !self.rings[Priority::Low as usize].is_empty() {
            self.low_passed += 1;
        }
        self.promote(id);
        self.forget_if_over(id);
        Some(Taken { lane: id, call, behind: self.accepted_live })
    }

    /// Charges a lane for the running time of its call.
    pub(crate) fn charge(&mut self, id: LaneId, run: Duration) {
        // A lane that is alone delays no other lane, so it does not go into debt.
        let floor = if self.lanes.get(id.0).is_some_and(Option::is_some) && self.alone(id) {
            0
        } else {
            -DEBT_MAX_NS
        };
        if let Some(lane) = self.lane_mut(id) {
            lane.run += run;
            let run = i64::try_from(run.as_nanos()).unwrap_or(i64::MAX);
            lane.spent_ns = lane.spent_ns.saturating_add(run);
            lane.credit_ns = lane.credit_ns.saturating_sub(run).max(floor);
        }
    }

    /// The figures of the main lane first, then those of the other lanes in no particular order.
    pub(crate) fn figures(&self) -> Vec<LaneFigures> {
        let figures = |lane: &Lane<C>| LaneFigures {
            name: lane.name.clone(),
            waiting: lane.accepted_live + lane.overflow_live,
            taken: lane.taken,
            run: lane.run,
        };
        self.lanes.iter().flatten().map(figures).collect()
    }

    /// Removes and returns the calls that wait for room, and the accepted calls unless `overflow_only`.
    pub(crate) fn clear(&mut self, overflow_only: bool) -> Vec<C> {
        let mut calls = Vec::new();
        for lane in self.lanes.iter_mut().flatten() {
            if !overflow_only {
                calls.extend(lane.accepted.drain(..).filter_map(|entry| entry.call));
                lane.accepted_live = 0;
            }
            calls.extend(lane.overflow.drain(..).filter_map(|entry| entry.call));
            lane.overflow_live = 0;
        }
        self.accepted_live = self.lanes.iter().flatten().map(|lane| lane.accepted_live).sum();
        self.waiting_live = self.accepted_live;
        for index in 0..self.lanes.len() {
            self.forget_if_over(LaneId(index));
        }
        calls
    }
}

#[cfg(all(test, not(loom)))]
impl<C> Lanes<C> {
    /// Asserts LANE3 and LANE6, for the tests.
    pub(crate) fn check_rings(&self) {
        for (index, lane) in self.lanes.iter().enumerate() {
            let Some(lane) = lane else { continue };
            let id = LaneId(index);
            let places =
                |ring: usize| self.rings[ring].iter().filter(|other| **other == id).count();
            let (own, other) = (lane.priority as usize, 1 - lane.priority as usize);
            assert_eq!((places(own), places(other)), (usize::from(lane.in_ring), 0), "LANE3");
            assert!(lane.in_ring || lane.accepted_live == 0, "LANE3");
            for (entries, live) in
                [(&lane.accepted, lane.accepted_live), (&lane.overflow, lane.overflow_live)]
            {
                assert_eq!(entries.iter().filter(|entry| entry.call.is_some()).count(), live);
                assert!(entries.len() <= 2 * live + 18, "LANE6: {} for {live}", entries.len());
                assert!(entries.iter().zip(entries.iter().skip(1)).all(|(a, b)| a.seq < b.seq));
            }
        }
    }
}
