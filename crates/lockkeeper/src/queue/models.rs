//! Every interleaving of the races that the queue must survive, explored by loom.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p lockkeeper --no-default-features --lib --release`. A lost wake-up
//! shows as a deadlock. A forgotten call shows as `Lost` or as a wrong count.

use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::state::First;
use super::*;
use crate::sync::Ordering;

/// A call that is answered with its own number.
struct Call {
    number: usize,
    reply: Reply<Result<usize, CallError>>,
}

type Answer = Receiver<Result<usize, CallError>>;

fn call(number: usize) -> (Call, Answer) {
    let (reply, receiver) = reply();
    (Call { number, reply }, receiver)
}

impl Item for Call {
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        self.reply.interruptible()
    }

    fn refuse(self, why: CallError) {
        self.reply.answer(Err(why));
    }
}

fn queue(capacity: usize) -> Arc<Queue<Call>> {
    Arc::new(Queue::new(capacity, Domain::new(), None))
}

/// Serves the queue as a worker's thread does, but without a resource. Returns the number of served calls.
fn work(queue: &Queue<Call>, worker: usize) -> usize {
    let mut served = 0;
    while let Some(first) = queue.take_first(worker, None, None) {
        let mut next = Some(first.taken);
        while let Some(Taken { lane, call, .. }) = next {
            let number = call.number;
            call.reply.answer(Ok(number));
            served += 1;
            next = queue.charge_and_take(worker, lane, Duration::ZERO, Some(Scope::Batch));
        }
    }
    queue.leave(worker);
    served
}

fn start(queue: &Arc<Queue<Call>>) -> thread::JoinHandle<usize> {
    let worker = queue.add_worker();
    let queue = Arc::clone(queue);
    thread::spawn(move || work(&queue, worker))
}

fn wait_for(answer: Answer) -> Result<Result<usize, CallError>, call::Lost> {
    loom::future::block_on(answer)
}

/// Submits a call from another thread. The thread returns the answer; `None`: the call was refused.
fn submit(queue: &Arc<Queue<Call>>, number: usize) -> thread::JoinHandle<Option<usize>> {
    let queue = Arc::clone(queue);
    thread::spawn(move || {
        let (call, answer) = call(number);
        match queue.push(MAIN, call) {
            Ok(_) => wait_for(answer).expect("CALL1: an accepted call is answered").ok(),
            Err(refused) => {
                assert_eq!(refused.reason, RefusedReason::Closed);
                None
            }
        }
    })
}

#[test]
fn an_answer_wakes_its_caller() {
    loom::model(|| {
        let (reply, receiver) = reply::<usize>();
        let worker = thread::spawn(move || reply.answer(7));
        assert_eq!(loom::future::block_on(receiver), Ok(7));
        worker.join().unwrap();
    });
}

#[test]
fn a_lost_reply_wakes_its_caller() {
    loom::model(|| {
        let (reply, receiver) = reply::<usize>();
        let worker = thread::spawn(move || drop(reply));
        assert_eq!(loom::future::block_on(receiver), Err(call::Lost));
        worker.join().unwrap();
    });
}

/// A value whose drops are counted.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_answer_is_dropped_once_whoever_leaves_first() {
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (reply, receiver) = reply::<Counted>();
        let value = Counted(Arc::clone(&drops));
        let worker = thread::spawn(move || reply.answer(value));
        drop(receiver);
        worker.join().unwrap();
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn every_accepted_call_is_served_before_a_close_ends() {
    loom::model(|| {
        let queue = queue(4);
        let worker = start(&queue);
        let caller = submit(&queue, 1);
        queue.close();
        let answer = caller.join().unwrap();
        assert_eq!(worker.join().unwrap(), usize::from(answer.is_some()));
        loom::future::block_on(queue.gone()).unwrap();
    });
}

#[test]
fn two_callers_and_one_worker_lose_no_wake_up() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let queue = queue(4);
        let worker = start(&queue);
        let caller = submit(&queue, 1);
        let (second, answer) = call(2);
        assert!(queue.push(MAIN, second).is_ok());
        assert_eq!(wait_for(answer), Ok(Ok(2)));
        assert_eq!(caller.join().unwrap(), Some(1));
        queue.close();
        assert_eq!(worker.join().unwrap(), 2);
    });
}

#[test]
fn two_workers_share_two_calls() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let queue = queue(4);
        let workers = [start(&queue), start(&queue)];
        let (one, first) = call(1);
        let (two, second) = call(2);
        assert!(queue.push(MAIN, one).is_ok());
        assert!(queue.push(MAIN, two).is_ok());
        assert_eq!(wait_for(first), Ok(Ok(1)));
        assert_eq!(wait_for(second), Ok(Ok(2)));
        queue.close();
        let served: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        assert_eq!(served, 2);
        loom::future::block_on(queue.gone()).unwrap();
    });
}

#[test]
fn a_canceled_call_is_taken_back_or_served_never_both() {
    loom::model(|| {
        let queue = queue(4);
        let worker = start(&queue);
        let (call, answer) = call(1);
        let position = queue.push(MAIN, call).map(|pushed| pushed.position);
        let Ok(position) = position else { panic!("it is open") };
        // QUEUE1
        let removed = queue.remove(position);
        match &removed {
            Some(call) => assert_eq!(call.number, 1),
            None => assert_eq!(wait_for(answer), Ok(Ok(1))),
        }
        queue.close();
        assert_eq!(worker.join().unwrap(), usize::from(removed.is_none()));
    });
}

#[test]
fn a_deadline_refuses_a_waiting_call_or_leaves_it_to_its_worker() {
    loom::model(|| {
        let queue = queue(4);
        let worker = start(&queue);
        let (call, answer) = call(1);
        let Ok(pushed) = queue.push(MAIN, call) else { panic!("it is open") };
        let clock = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.expire(pushed.position))
        };
        let answer = wait_for(answer).expect("answered either way");
        let expired = clock.join().unwrap();
        let refused = Err(CallError::Timeout(Phase::Queued));
        assert_eq!(answer, if expired { refused } else { Ok(1) });
        queue.close();
        worker.join().unwrap();
    });
}

#[test]
fn a_call_that_waits_for_room_moves_up_when_a_place_becomes_free() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let queue = queue(1);
        let (one, first) = call(1);
        let (two, second) = call(2);
        let (three, third) = call(3);
        let Ok(pushed) = queue.push(MAIN, one) else { panic!("it is open") };
        assert!(queue.push(MAIN, two).is_ok());
        assert!(queue.try_push(MAIN, three).is_err_and(|r| r.reason == RefusedReason::Full));
        drop(third);
        let worker = start(&queue);
        // The place becomes free by a cancel or by the worker.
        let removed = queue.remove(pushed.position).is_some();
        if !removed {
            assert_eq!(wait_for(first), Ok(Ok(1)));
        }
        assert_eq!(wait_for(second), Ok(Ok(2)));
        queue.close();
        assert_eq!(worker.join().unwrap(), 2 - usize::from(removed));
    });
}

#[test]
fn close_refuses_calls_that_wait_for_room_and_serves_accepted_ones() {
    loom::model(|| {
        let queue = queue(1);
        let (one, first) = call(1);
        let (two, second) = call(2);
        assert!(queue.push(MAIN, one).is_ok());
        assert!(queue.push(MAIN, two).is_ok());
        let worker = start(&queue);
        queue.close();
        assert_eq!(wait_for(first), Ok(Ok(1)));
        // The second call was either accepted before the close or refused by it.
        let second = wait_for(second).expect("answered either way");
        assert!(matches!(second, Ok(2) | Err(CallError::Closed)), "{second:?}");
        assert_eq!(worker.join().unwrap(), 1 + usize::from(second.is_ok()));
    });
}

#[test]
fn abort_answers_every_call_and_ends_the_worker() {
    loom::model(|| {
        let queue = queue(4);
        let worker = start(&queue);
        let caller = submit(&queue, 1);
        queue.abort();
        // The call was refused at its submission, refused while it waited, or served.
        let answered = caller.join().unwrap();
        let served = worker.join().unwrap();
        assert_eq!(served, usize::from(answered.is_some()));
        loom::future::block_on(queue.gone()).unwrap();
    });
}

/// If the call runs, `abort` asks it to stop; if no worker has taken it yet, `abort` refuses it.
#[test]
fn abort_reaches_the_running_call() {
    loom::model(|| {
        let queue = queue(4);
        let worker = queue.add_worker();
        let (call, answer) = call(1);
        assert!(queue.push(MAIN, call).is_ok());
        let thread = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                if let Some(First { taken, .. }) = queue.take_first(worker, None, None) {
                    // A long call: it ends only when it is asked to.
                    while taken.call.reply.token().is_none() {
                        thread::yield_now();
                    }
                    taken.call.refuse(CallError::Aborted);
                }
                queue.leave(worker);
            })
        };
        queue.abort();
        let answer = wait_for(answer).expect("answered either way");
        assert!(matches!(answer, Err(CallError::Aborted | CallError::Closed)), "{answer:?}");
        thread.join().unwrap();
    });
}

#[test]
fn a_closure_on_its_callers_stack_is_touched_by_one_thread_at_a_time() {
    loom::model(|| {
        let touched = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(crate::gate::Gate::new());
        let worker = {
            let (touched, gate) = (Arc::clone(&touched), Arc::clone(&gate));
            thread::spawn(move || {
                // Enters twice, because a write may run again.
                for _ in 0..2 {
                    if let Some(_inside) = gate.enter() {
                        touched.fetch_add(1, Ordering::Relaxed);
                        touched.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            })
        };
        // GATE2. The caller may give up before, while or after the worker runs the closure.
        gate.close();
        assert_eq!(touched.fetch_add(1, Ordering::Relaxed), 0, "the worker is inside");
        worker.join().unwrap();
        assert_eq!(touched.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn when_the_last_worker_leaves_nobody_waits_for_ever() {
    loom::model(|| {
        let queue = queue(1);
        let worker = queue.add_worker();
        let caller = submit(&queue, 1);
        let dying = {
            let queue = Arc::clone(&queue);
            // The worker leaves without serving a call, as after a panic.
            thread::spawn(move || queue.leave(worker))
        };
        // QUEUE6
        assert_eq!(caller.join().unwrap(), None);
        dying.join().unwrap();
        loom::future::block_on(queue.gone()).unwrap();
    });
}
