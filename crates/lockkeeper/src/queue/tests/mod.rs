//! The lanes against a one-lock reference, and the calls of a worker that dies.

#![expect(clippy::disallowed_methods, reason = "tests wait for plain channels")]

mod reference;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

use reference::{Reference, steps};

use super::lanes::{AGEING, Lanes};
use super::*;
use crate::sync::now;

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

/// The number of random programs; more with `LOCKKEEPER_LONG=1`.
fn cases() -> u32 {
    match std::env::var_os("LOCKKEEPER_LONG").is_some_and(|value| value == "1") {
        true => 8_000,
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
            // Each low-priority call is long: one second.
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
    // The call that was left in the lane is served.
    lanes.begin_batch();
    assert_eq!(lanes.pick(Scope::Batch).map(|taken| taken.call), Some(7));
    // Then the lane is removed, and its number is free.
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

/// A call that sends its answer to the test.
struct Answering(mpsc::Sender<Result<(), CallError>>, u32);

impl Item for Answering {
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        None
    }

    fn refuse(self, why: CallError) {
        self.0.send(Err(why)).expect("the test listens");
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
            call.0.send(Ok(())).expect("the test listens");
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
    // Before the worker begins, two calls are accepted and three wait for room.
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
    // The panic dropped number 13 without an answer, so its caller would get `Lost`.
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
        clock.set(at(ms), move || ring.send((ms, now())).expect("the test listens"))
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
fn queue9_an_errand_goes_ahead_of_calls_once_and_never_twice_in_a_row_while_they_wait() {
    let queue = Arc::new(Queue::new(1, Domain::new(), None));
    let worker = queue.add_worker();
    let (answer, answers) = mpsc::channel();
    let item = |number| Answering(answer.clone(), number);
    // The first call fills the lane; the others wait for room.
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
    // A close drops the errands that are left.
    assert!(queue.push_errand(item(100)).is_ok());
    queue.close();
    assert!(queue.push_errand(item(200)).is_err());
    assert_eq!(take(), None);
    queue.leave(worker);
    assert_eq!(answers.try_recv().ok(), None, "no caller waits for the answer to an errand");
}

#[test]
fn queue9_an_errand_wakes_a_worker_that_sleeps() {
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
