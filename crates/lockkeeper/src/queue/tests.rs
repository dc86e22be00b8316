//! The lanes against a one-lock reference, and what becomes of calls when a worker dies.

#![expect(clippy::disallowed_methods, reason = "tests wait for plain channels")]

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

use super::lanes::{AGEING, Lanes, QUANTUM};
use super::*;

/// A step of a random program.
#[derive(Clone, Debug)]
enum Step {
    Open(usize),
    Retire(usize),
    Push(usize),
    TryPush(usize),
    Remove(usize),
    Weight(usize, u32),
    Priority(usize, bool),
    /// Runs up to so many calls of a batch; each is charged so many microseconds.
    Batch(usize, u64),
    /// As `Batch`, in the way of readers: calls that waited before it began.
    Reads(usize, u64),
    ClearOverflow,
    ClearAll,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
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

/// One lane as it should be: everything that waits, in order; the first `capacity` are accepted.
#[derive(Default)]
struct Expected {
    waiting: VecDeque<(Position, u32)>,
    /// The greatest it has had.
    weight: u32,
    low: bool,
    handles: usize,
}

struct Reference {
    lanes: Lanes<u32>,
    capacity: usize,
    expected: HashMap<usize, Expected>,
    /// Handles that are open: the number of the name, and the lane.
    handles: Vec<(usize, LaneId)>,
    /// Positions ever given out, to be removed at random, also twice.
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
    fn new(capacity: usize) -> Self {
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
        *owner.expect("L1: what is taken is the first of its lane").0
    }

    fn forget_lanes_that_are_over(&mut self) {
        self.expected.retain(|_, lane| lane.handles > 0 || !lane.waiting.is_empty());
    }

    fn others_wait(&self, name: usize) -> bool {
        self.expected.iter().any(|(other, lane)| *other != name && !lane.waiting.is_empty())
    }

    fn step(&mut self, step: &Step) {
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
                // A turn that was cut short keeps what it was granted at the old weight.
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
            assert_eq!(waits_for_room, index >= capacity, "L2");
            lane.waiting.remove(index).map(|(_, call)| call)
        });
        // A lane that is over may have left its place to another: positions are not used then.
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

    /// A batch of a writer, or of a reader; checks whose turn it is.
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
                assert!(position.seq < limit, "R1: younger than the batch");
            } else if n > 0 && (low_taken || !low) {
                let others_took_part = used.keys().any(|other| *other != name);
                let spent = used.get(&name).copied().unwrap_or_default();
                let grant = QUANTUM * weight;
                assert!(spent < grant || !(others_wait || others_took_part), "L4: {spent:?}");
            }
            low_taken |= low;
            *used.entry(name).or_default() += run;
            self.taken.push(call);
            self.lanes.charge(id, run);
            // The lane may be over: then its place is free for another.
            self.forget_lanes_that_are_over();
        }
        // L5
        self.low_passed = match low_waited && !low_taken {
            true => self.low_passed + 1,
            false => 0,
        };
        assert!(self.low_passed <= AGEING, "L5: passed over {} times", self.low_passed);
    }

    fn check(&self) {
        let waiting: usize = self.expected.values().map(|lane| lane.waiting.len()).sum();
        let accepted = |lane: &Expected| lane.waiting.len().min(self.capacity);
        let accepted: usize = self.expected.values().map(accepted).sum();
        assert_eq!(self.lanes.waiting(), waiting);
        assert_eq!(self.lanes.accepted(), accepted, "L2");
        self.lanes.check_rings();
    }

    /// Everything that still waits comes out, and every call came out exactly once.
    fn drain(mut self) {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lanes_agree_with_a_one_lock_reference(capacity in 1..6_usize, steps in steps()) {
        let mut reference = Reference::new(capacity);
        for step in &steps {
            reference.step(step);
        }
        reference.drain();
    }
}

/// Random programs, many more in the long form.
fn cases() -> u32 {
    match std::env::var_os("LOCKKEEPER_LONG").is_some_and(|value| value == "1") {
        true => 15_000,
        false => 400,
    }
}

/// Fills lanes with endless calls, runs batches of at most `calls` calls, and counts each lane's
/// running time in microseconds.
fn shares(weights: &[u32], costs_us: &[u64], calls: usize, batches: usize) -> Vec<u64> {
    let mut lanes = Lanes::new(usize::MAX);
    let ids: Vec<_> = (0..weights.len()).map(|n| lanes.open(&n.to_string())).collect();
    for (id, weight) in ids.iter().zip(weights) {
        lanes.set_weight(*id, *weight);
        for _ in 0..2 {
            lanes.push(*id, 0).expect("there is room");
        }
    }
    let mut used = vec![0; weights.len()];
    for _ in 0..batches {
        lanes.begin_batch();
        for _ in 0..calls {
            let Some(taken) = lanes.pick(Scope::Batch) else { break };
            let n = ids.iter().position(|id| *id == taken.lane).expect("a lane of ours");
            lanes.push(taken.lane, 0).expect("there is room");
            used[n] += costs_us[n];
            lanes.charge(taken.lane, Duration::from_micros(costs_us[n]));
        }
    }
    used
}

#[test]
fn lanes_share_running_time_not_calls() {
    let used = shares(&[1, 1, 1], &[5, 50, 500], usize::MAX, 3_000);
    let (least, most) = (used.iter().min().unwrap(), used.iter().max().unwrap());
    assert!(most - least <= 1_000, "{used:?}");
}

#[test]
fn lanes_share_running_time_by_weight() {
    let used = shares(&[1, 3, 10], &[20, 20, 20], usize::MAX, 1_000);
    assert!(used[1].abs_diff(3 * used[0]) <= 1_000, "{used:?}");
    assert!(used[2].abs_diff(10 * used[0]) <= 2_000, "{used:?}");
}

#[test]
fn lanes_keep_their_shares_when_batches_are_cut_short() {
    for calls in 1..=20 {
        let used = shares(&[1, 1, 1, 1], &[10, 10, 10, 10], calls, 4_000);
        let (least, most) = (used.iter().min().unwrap(), used.iter().max().unwrap());
        assert!(most - least <= 400, "{calls} calls per batch: {used:?}");
    }
}

#[test]
fn a_heavy_lane_that_fills_every_batch_delays_another_by_one_batch() {
    for calls in [1, 8, 100] {
        let mut lanes = Lanes::new(usize::MAX);
        let heavy = lanes.open("heavy");
        let light = lanes.open("light");
        lanes.set_weight(heavy, 1_000);
        for _ in 0..10_000 {
            lanes.push(heavy, "heavy").expect("there is room");
        }
        let batch = |lanes: &mut Lanes<&'static str>| {
            lanes.begin_batch();
            let mut ran = Vec::new();
            for _ in 0..calls {
                let Some(taken) = lanes.pick(Scope::Batch) else { break };
                lanes.charge(taken.lane, Duration::from_micros(10));
                ran.push(taken.call);
            }
            ran
        };
        for _ in 0..5 {
            assert!(!batch(&mut lanes).contains(&"light"));
            lanes.push(light, "light").expect("there is room");
            let (this, next) = (batch(&mut lanes), batch(&mut lanes));
            assert!(this.contains(&"light") || next.contains(&"light"), "{calls} per batch");
        }
    }
}

#[test]
fn a_low_lane_in_debt_is_served_within_its_age() {
    let mut lanes = Lanes::new(usize::MAX);
    let low = lanes.open("low");
    lanes.set_priority(low, Priority::Low);
    for _ in 0..10 {
        lanes.push(low, "low").expect("there is room");
        lanes.push(MAIN, "high").expect("there is room");
    }
    for _ in 0..10 {
        let mut batches = 0;
        loop {
            batches += 1;
            lanes.begin_batch();
            let taken = lanes.pick(Scope::Batch).expect("calls wait");
            lanes.push(taken.lane, taken.call).expect("there is room");
            // Each low call is a long one.
            let run = if taken.call == "low" { 1_000_000 } else { 10 };
            lanes.charge(taken.lane, Duration::from_micros(run));
            if taken.call == "low" {
                break;
            }
        }
        assert!(batches <= AGEING + 1, "served in batch {batches}");
    }
}

#[test]
fn a_lane_stays_while_one_of_its_handles_does() {
    let mut lanes = Lanes::new(4);
    let one = lanes.open("web");
    let two = lanes.open("web");
    assert_eq!(one, two);
    lanes.retire(one);
    lanes.push(two, 7).expect("the second handle's lane is still there");
    lanes.retire(two);
    // What it left is served.
    lanes.begin_batch();
    assert_eq!(lanes.pick(Scope::Batch).map(|taken| taken.call), Some(7));
    // Then the lane is over, and its place free.
    assert_eq!(lanes.open("other"), one);
}

#[test]
fn a_lane_without_handles_is_forgotten_when_it_is_cleared() {
    let mut lanes = Lanes::new(1);
    let old = lanes.open("web");
    for call in 0..2 {
        lanes.push(old, call).expect("it waits for room");
    }
    lanes.retire(old);
    assert_eq!(lanes.clear(false), [0, 1]);
    assert_eq!(lanes.open("other"), old, "its place is free");
}

/// A call that says how it was answered.
struct Answering(mpsc::Sender<Result<(), CallError>>, u32);

impl Item for Answering {
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        None
    }

    fn refuse(self, why: CallError) {
        self.0.send(Err(why)).expect("somebody listens");
    }

    fn is_same_errand(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}

/// Answers calls until it meets number 13.
struct Fragile;

impl Service for Fragile {
    type Call = Answering;

    fn serve(&mut self, first: Taken<Answering>, batch: &mut Batch<'_, Answering>) {
        let mut next = Some(first);
        while let Some(Taken { lane, call, .. }) = next {
            assert_ne!(call.1, 13, "the worker dies");
            call.0.send(Ok(())).expect("somebody listens");
            next = batch.charge_and_take(lane, Duration::ZERO);
        }
    }

    fn finish(self) {}
}

#[test]
fn a23_when_the_worker_dies_every_waiting_call_is_answered_and_later_ones_refused() {
    let queue = Arc::new(Queue::new(2, Domain::new(), None));
    let config =
        PoolConfig { name: String::from("fragile"), min: 1, max: 1, look: None, on_start: None };
    let clock = Arc::new(Clock::new());
    let pool = Pool::new(Arc::clone(&queue), config, clock, || Ok::<_, ()>(Fragile));
    // Accepted and waiting for room, before the worker begins.
    let (answer, answers) = mpsc::channel();
    for number in [1, 13, 2, 3, 4] {
        let call = Answering(answer.clone(), number);
        assert!(queue.push(MAIN, call).is_ok());
    }
    let gone = queue.gone();
    pool.start().expect("a thread");
    assert!(block_on(gone).is_ok());
    let refused = queue.push(MAIN, Answering(answer.clone(), 5)).expect_err("refused");
    assert_eq!(refused.reason, RefusedReason::Closed);
    pool.join();
    drop((refused, answer));
    let answers: Vec<_> = answers.iter().collect();
    // Number 13 was dropped unanswered by the panic: its reply says `Lost` to its caller.
    assert_eq!(
        answers,
        [Ok(()), Err(CallError::Faulted), Err(CallError::Faulted), Err(CallError::Faulted)]
    );
}

#[test]
fn a_reply_that_is_dropped_tells_its_caller() {
    let (reply, receiver) = reply::<u32>();
    drop(reply);
    assert_eq!(block_on(receiver), Err(call::Lost));
}

#[test]
fn an_alarm_rings_once_not_before_its_time_and_not_when_taken_back() {
    let clock = Clock::new();
    let (ring, rung) = mpsc::channel();
    let began = now();
    let at = |ms| began + Duration::from_millis(ms);
    let ring_at = |ms: u64| {
        let ring = ring.clone();
        clock.set(at(ms), move || ring.send((ms, now())).expect("somebody listens"))
    };
    let _kept: Vec<_> = [30, 10, 20].map(ring_at).into();
    drop(ring_at(15));
    let order: Vec<_> = rung.iter().take(3).collect();
    assert_eq!(order.iter().map(|(ms, _)| *ms).collect::<Vec<_>>(), [10, 20, 30]);
    assert!(order.iter().all(|(ms, when)| *when >= at(*ms)));
    let _late = ring_at(1 << 40);
    clock.close();
    drop(ring);
    assert_eq!(rung.try_recv().ok(), None);
}

#[test]
fn q9_an_errand_goes_ahead_of_calls_once_and_never_twice_in_a_row_while_they_wait() {
    let queue = Arc::new(Queue::new(1, Domain::new(), None));
    let worker = queue.seat();
    let (answer, answers) = mpsc::channel();
    let item = |number| Answering(answer.clone(), number);
    // The lane is full; others wait for room.
    for number in 1..=3 {
        assert!(queue.push(MAIN, item(number)).is_ok());
    }
    assert!(queue.push_errand(item(100)).is_ok());
    assert!(queue.push_errand(item(100)).is_err(), "it waits already");
    assert!(queue.push_errand(item(200)).is_ok());
    let take = || queue.try_take_first(worker).map(|first| first.taken.call.1);
    let order: Vec<_> = std::iter::from_fn(take).collect();
    assert_eq!(order, [100, 1, 200, 2, 3]);
    for number in [100, 200] {
        assert!(queue.push_errand(item(number)).is_ok(), "no such errand waits");
    }
    assert_eq!([take(), take(), take()], [Some(100), Some(200), None], "no calls wait");
    // What is left is the business of who closes.
    assert!(queue.push_errand(item(100)).is_ok());
    queue.close();
    assert!(queue.push_errand(item(200)).is_err());
    assert_eq!(take(), None);
    queue.leave(worker);
    assert_eq!(answers.try_recv().ok(), None, "nobody waits for the answer to an errand");
}

#[test]
fn q9_an_errand_wakes_a_worker_that_sleeps() {
    let queue = Arc::new(Queue::new(2, Domain::new(), None));
    let config =
        PoolConfig { name: String::from("errands"), min: 1, max: 1, look: None, on_start: None };
    let pool =
        Pool::new(Arc::clone(&queue), config, Arc::new(Clock::new()), || Ok::<_, ()>(Fragile));
    pool.start().expect("a thread");
    let (answer, answers) = mpsc::channel();
    for number in 0..50 {
        assert!(queue.push_errand(Answering(answer.clone(), number % 10)).is_ok());
        assert_eq!(answers.recv(), Ok(Ok(())));
    }
    queue.close();
    assert!(block_on(queue.gone()).is_ok());
    pool.join();
}
