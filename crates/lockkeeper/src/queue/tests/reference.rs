//! The lanes against a reference: one list per lane with all its waiting calls, in order.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::super::lane::QUANTUM;
use super::super::lanes::{AGEING, Lanes};
use super::super::{LaneId, MAIN, Position, Priority, Scope, Taken};

/// A step of a random program.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Open(usize),
    Retire(usize),
    Push(usize),
    TryPush(usize),
    Remove(usize),
    Weight(usize, u32),
    Priority(usize, bool),
    /// Runs a batch of up to this many calls; each call is charged this many microseconds.
    Batch(usize, u64),
    /// As `Batch`, but takes calls as readers do: only calls that waited before the batch began.
    Reads(usize, u64),
    ClearOverflow,
    ClearAll,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..4_usize).prop_map(Step::Open),
        1 => (0..8_usize).prop_map(Step::Retire),
        12 => (0..8_usize).prop_map(Step::Push),
        4 => (0..8_usize).prop_map(Step::TryPush),
        6 => any::<usize>().prop_map(Step::Remove),
        1 => (0..8_usize, 0..5_u32).prop_map(|(lane, weight)| Step::Weight(lane, weight)),
        1 => (0..8_usize, any::<bool>()).prop_map(|(lane, low)| Step::Priority(lane, low)),
        4 => (1..12_usize, 0..400_u64).prop_map(|(calls, run)| Step::Batch(calls, run)),
        2 => (1..12_usize, 0..400_u64).prop_map(|(calls, run)| Step::Reads(calls, run)),
        1 => Just(Step::ClearOverflow),
        1 => prop_oneof![9 => Just(Step::ClearOverflow), 1 => Just(Step::ClearAll)],
    ];
    prop::collection::vec(step, 1..200)
}

/// One lane as it should be: its waiting calls, in order. The first `capacity` are accepted.
#[derive(Default)]
struct Expected {
    waiting: VecDeque<(Position, u32)>,
    /// The greatest weight that the lane has had.
    weight: u32,
    low: bool,
    handles: usize,
}

pub(super) struct Reference {
    lanes: Lanes<u32>,
    capacity: usize,
    expected: HashMap<usize, Expected>,
    /// Handles that are open: the number of the name, and the lane.
    handles: Vec<(usize, LaneId)>,
    /// All positions that were given out. Steps remove some of them at random, possibly twice.
    positions: Vec<(usize, Position)>,
    next_call: u32,
    taken: Vec<u32>,
    removed: Vec<u32>,
    pushed: Vec<u32>,
    /// Batches in a row in which low calls waited from the beginning and none was taken.
    low_passed: u32,
}

/// The number of the main lane's name.
const MAIN_NAME: usize = usize::MAX;

impl Reference {
    pub(super) fn new(capacity: usize) -> Self {
        let main = Expected { weight: 1, handles: 1, ..Expected::default() };
        Self {
            lanes: Lanes::new(capacity),
            capacity,
            expected: HashMap::from([(MAIN_NAME, main)]),
            handles: vec![(MAIN_NAME, MAIN)],
            positions: Vec::new(),
            next_call: 0,
            taken: Vec::new(),
            removed: Vec::new(),
            pushed: Vec::new(),
            low_passed: 0,
        }
    }

    fn handle(&self, which: usize) -> (usize, LaneId) {
        self.handles[which % self.handles.len()]
    }

    fn lane(&mut self, name: usize) -> &mut Expected {
        self.expected.get_mut(&name).expect("a lane with a handle is kept")
    }

    /// The name of the lane whose first accepted call is `call`.
    fn owner_of_front(&self, call: u32) -> usize {
        let owner = self
            .expected
            .iter()
            .find(|(_, lane)| lane.waiting.front().is_some_and(|(_, front)| *front == call));
        *owner.expect("LANE1: what is taken is the first of its lane").0
    }

    fn forget_lanes_that_are_over(&mut self) {
        self.expected.retain(|_, lane| lane.handles > 0 || !lane.waiting.is_empty());
    }

    fn others_wait(&self, name: usize) -> bool {
        self.expected.iter().any(|(other, lane)| *other != name && !lane.waiting.is_empty())
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Open(name) => {
                let id = self.lanes.open(&name.to_string());
                self.handles.push((name, id));
                let fresh = || Expected { weight: 1, ..Expected::default() };
                self.expected.entry(name).or_insert_with(fresh).handles += 1;
            }
            Step::Retire(which) => {
                let which = which % self.handles.len();
                if self.handles[which].0 != MAIN_NAME {
                    let (name, id) = self.handles.remove(which);
                    self.lane(name).handles -= 1;
                    self.lanes.retire(id);
                }
            }
            Step::Push(which) => self.push(which, false),
            Step::TryPush(which) => self.push(which, true),
            Step::Remove(which) => self.remove(which),
            Step::Weight(which, weight) => {
                let (name, id) = self.handle(which);
                self.lanes.set_weight(id, weight);
                // A turn that was cut short keeps the credit that it was granted at the old weight.
                let lane = self.lane(name);
                lane.weight = lane.weight.max(weight);
            }
            Step::Priority(which, low) => {
                let (name, id) = self.handle(which);
                self.lanes.set_priority(id, if low { Priority::Low } else { Priority::High });
                self.lane(name).low = low;
                self.low_passed = 0;
            }
            Step::Batch(calls, run) => self.batch(calls, run, false),
            Step::Reads(calls, run) => self.batch(calls, run, true),
            Step::ClearOverflow => self.clear(true),
            Step::ClearAll => self.clear(false),
        }
        self.forget_lanes_that_are_over();
        self.check();
    }

    fn push(&mut self, which: usize, only_with_room: bool) {
        let (name, id) = self.handle(which);
        let call = self.next_call;
        self.next_call += 1;
        let capacity = self.capacity;
        let full = self.lane(name).waiting.len() >= capacity;
        let pushed = match only_with_room {
            true => self.lanes.try_push(id, call),
            false => self.lanes.push(id, call),
        };
        match pushed {
            Ok(position) => {
                assert!(!(only_with_room && full), "no room, and yet accepted");
                self.lane(name).waiting.push_back((position, call));
                self.positions.push((name, position));
                self.pushed.push(call);
            }
            Err(back) => {
                assert_eq!(back, call);
                assert!(only_with_room && full, "refused a call although there is room");
            }
        }
    }

    fn remove(&mut self, which: usize) {
        if self.positions.is_empty() {
            return;
        }
        let (name, position) = self.positions[which % self.positions.len()];
        let capacity = self.capacity;
        let expected = self.expected.get_mut(&name).and_then(|lane| {
            let index = lane.waiting.iter().position(|(other, _)| *other == position)?;
            let waits_for_room = self.lanes.waits_for_room(position);
            assert_eq!(waits_for_room, index >= capacity, "LANE2");
            lane.waiting.remove(index).map(|(_, call)| call)
        });
        // If the lane was removed, another lane may have its number. Then the position is not used.
        if expected.is_some() || self.expected.contains_key(&name) {
            let removed = self.lanes.remove(position);
            assert_eq!(removed, expected);
            self.removed.extend(removed);
        }
    }

    fn clear(&mut self, overflow_only: bool) {
        let mut expected: Vec<u32> = Vec::new();
        for lane in self.expected.values_mut() {
            let from = if overflow_only { self.capacity.min(lane.waiting.len()) } else { 0 };
            expected.extend(lane.waiting.drain(from..).map(|(_, call)| call));
        }
        let mut cleared = self.lanes.clear(overflow_only);
        self.removed.extend(&cleared);
        cleared.sort_unstable();
        expected.sort_unstable();
        assert_eq!(cleared, expected);
    }

    /// Runs a batch as a writer does, or with `reads` as a reader does, and checks each call that is taken.
    fn batch(&mut self, calls: usize, run_us: u64, reads: bool) {
        let limit = self.lanes.next_seq();
        self.lanes.begin_batch();
        let run = Duration::from_micros(run_us);
        let low_waits = |reference: &Self| {
            reference.expected.values().any(|lane| lane.low && !lane.waiting.is_empty())
        };
        let low_waited = low_waits(self);
        let mut low_taken = false;
        let mut used: HashMap<usize, Duration> = HashMap::new();
        for n in 0..calls {
            let scope = if reads && n > 0 { Scope::OlderThan(limit) } else { Scope::Batch };
            let waiting = self.expected.values().any(|lane| !lane.waiting.is_empty());
            let Some(Taken { lane: id, call, .. }) = self.lanes.pick(scope) else {
                assert!(n > 0 || !waiting, "a batch without a call although calls wait");
                break;
            };
            let name = self.owner_of_front(call);
            let others_wait = self.others_wait(name);
            let lane = self.lane(name);
            let (position, _) = lane.waiting.pop_front().expect("it was the front");
            let (weight, low) = (lane.weight, lane.low);
            if scope != Scope::Batch {
                assert!(position.seq < limit, "READ1: younger than the batch");
            } else if n > 0 && (low_taken || !low) {
                let others_took_part = used.keys().any(|other| *other != name);
                let spent = used.get(&name).copied().unwrap_or_default();
                let grant = QUANTUM * weight;
                assert!(spent < grant || !(others_wait || others_took_part), "LANE4: {spent:?}");
            }
            low_taken |= low;
            *used.entry(name).or_default() += run;
            self.taken.push(call);
            self.lanes.charge(id, run);
            // The lane may have been removed; then another lane may get its number.
            self.forget_lanes_that_are_over();
        }
        // LANE5
        self.low_passed = match low_waited && !low_taken {
            true => self.low_passed + 1,
            false => 0,
        };
        assert!(self.low_passed <= AGEING, "LANE5: passed over {} times", self.low_passed);
    }

    fn check(&self) {
        let waiting: usize = self.expected.values().map(|lane| lane.waiting.len()).sum();
        let accepted = |lane: &Expected| lane.waiting.len().min(self.capacity);
        let accepted: usize = self.expected.values().map(accepted).sum();
        assert_eq!(self.lanes.waiting(), waiting);
        assert_eq!(self.lanes.accepted(), accepted, "LANE2");
        self.lanes.check_rings();
    }

    /// Takes all calls that still wait, and checks that every call came out exactly once.
    pub(super) fn drain(mut self) {
        let mut batches = 0;
        while self.lanes.accepted() > 0 {
            self.batch(8, 150, false);
            batches += 1;
            assert!(batches < 100_000, "starves");
        }
        assert_eq!(self.lanes.waiting(), 0);
        let mut out: Vec<u32> = self.taken.iter().chain(&self.removed).copied().collect();
        out.sort_unstable();
        assert_eq!(out, self.pushed, "lost or doubled");
    }
}
