//! Which client is served next, and what happens when a queue is full.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lockkeeper::queue::{CallError, Worker};
use lockkeeper::{Client, ErrorKind, Phase, Priority, RefusedReason};

use crate::support::{
    Committed, HANG, HeldWriter, block_on, count, db_at, file_db, ids, ids_of, insert, kind,
    on_each_place, poll_once, within, within_each,
};

/// Keeps the processor busy for `time`, as a call that computes does.
fn work(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {}
}

/// Queues `n` calls of `client` that take `time` each and note `name`.
fn queue_up(
    client: &Client,
    n: usize,
    time: Duration,
    order: &Arc<Mutex<Vec<&'static str>>>,
    name: &'static str,
) -> Vec<impl Future<Output = Result<(), lockkeeper::Error>> + use<>> {
    let mut writes: Vec<_> = (0..n)
        .map(|_| {
            let order = Arc::clone(order);
            client.write(move |_| {
                work(time);
                order.lock().expect("no panic").push(name);
                Ok(())
            })
        })
        .collect();
    for write in &mut writes {
        assert!(poll_once(write).is_pending());
    }
    writes
}

#[test]
fn a12_a_greedy_client_delays_anothers_call_by_one_batch() {
    let n = count(10_000, 100_000) as i64;
    within(HANG, move || {
        for weight in [1, 1_000] {
            let (dir, db) = file_db(|builder| builder.queue_capacity(200_000));
            let committed = Committed::new(&dir);
            let greedy = db.client("greedy");
            greedy.set_weight(weight);
            let polite = db.client("polite");
            let held = HeldWriter::hold(&db);
            let mut writes: Vec<_> =
                (0..n).map(|id| greedy.write(move |tx| insert(tx, id))).collect();
            writes.iter_mut().for_each(|write| assert!(poll_once(write).is_pending()));
            // The single call is made from inside a call, so that it comes while the writer works on the greedy
            // backlog.
            let asked = Arc::new(Mutex::new(None));
            let mut asking = {
                let (asked, committed) = (Arc::clone(&asked), committed.clone());
                let polite = polite.clone();
                db.client("asking").write(move |_| {
                    let mut single = {
                        let committed = committed.clone();
                        Box::pin(polite.write(move |_| Ok(committed.now())))
                    };
                    // The call is polled on another thread, because a call must not wait for another call of its
                    // database.
                    std::thread::scope(|scope| {
                        scope.spawn(|| assert!(poll_once(&mut single).is_pending()));
                    });
                    *asked.lock().expect("no panic") = Some((committed.now(), single));
                    Ok(())
                })
            };
            assert!(poll_once(&mut asking).is_pending());
            held.release();
            block_on(asking).expect("a write");
            let (before, single) = asked.lock().expect("no panic").take().expect("it has run");
            let served = block_on(single).expect("the polite call");
            writes.into_iter().for_each(|write| block_on(write).expect("a greedy write"));
            println!("weight {weight}: asked at commit {before}, served at {served} of {n}");
            // The single call waits for the batch that ran when it was made, and for one more at most. Each has at most
            // 1,024 calls.
            assert!(served - before <= 2 * 1_024, "{before} {served}");
            assert!(served < n / 2, "served among the last");
            db.blocking_close().expect("closes");
        }
    });
}

#[test]
fn a12_a_client_is_served_first_in_first_out() {
    on_each_place(|db, place| {
        let held = HeldWriter::hold(db);
        let order = Arc::new(Mutex::new(Vec::new()));
        let clients = ["a", "b", "c"].map(|name| db.client(name));
        let mut writes: Vec<_> = (0..300)
            .map(|n: usize| {
                let order = Arc::clone(&order);
                clients[n % 3].write(move |_| {
                    order.lock().expect("no panic").push(n);
                    Ok(())
                })
            })
            .collect();
        writes.iter_mut().for_each(|write| assert!(poll_once(write).is_pending()));
        held.release();
        writes.into_iter().for_each(|write| block_on(write).expect("a write"));
        let order = order.lock().expect("no panic");
        for client in 0..3 {
            let own: Vec<_> = order.iter().filter(|n| **n % 3 == client).collect();
            assert!(own.is_sorted() && own.len() == 100, "client {client} on {place:?}");
        }
    });
}

#[test]
fn a12_low_priority_is_served_within_nine_batches() {
    within(HANG, || {
        let (dir, db) =
            file_db(|builder| builder.queue_capacity(20_000).batch_max(8, HANG, u64::MAX));
        let committed = Committed::new(&dir);
        let low = db.client("low");
        low.set_priority(Priority::Low);
        let held = HeldWriter::hold(&db.client("holding"));
        let mut high: Vec<_> = (0..2_000).map(|id| db.write(move |tx| insert(tx, id))).collect();
        high.iter_mut().for_each(|write| assert!(poll_once(write).is_pending()));
        let served = |_| {
            let committed = committed.clone();
            low.write(move |_| Ok(committed.now()))
        };
        let mut low_writes: Vec<_> = (0..5).map(served).collect();
        low_writes.iter_mut().for_each(|write| assert!(poll_once(write).is_pending()));
        held.release();
        let served: Vec<_> =
            low_writes.into_iter().map(|write| block_on(write).expect("a low write")).collect();
        high.into_iter().for_each(|write| block_on(write).expect("a high write"));
        println!("low calls ran when {served:?} of 2,000 high calls were committed");
        // Between two low-priority calls there are at most nine batches of eight calls each.
        let mut before = -1;
        for at in served {
            assert!(at - before <= 9 * 8, "{before} {at}");
            before = at;
        }
        db.blocking_close().expect("closes");
    });
}

/// The running time that each of `names` has been charged for its writes.
fn charged<const N: usize>(db: &lockkeeper::Database, names: [&str; N]) -> [Duration; N] {
    let clients = db.stats().clients;
    names.map(|name| {
        let client = clients.iter().find(|client| client.name.as_deref() == Some(name));
        client.map_or(Duration::ZERO, |client| client.writes.run)
    })
}

/// The clients' shares are compared by the running time that was charged, which includes interruptions by other
/// programs. A lane can be ahead of another by one call and its turns. The figures come from the clock that the queue
/// itself uses.
#[test]
fn a12_eight_clients_that_ask_alike_are_served_alike() {
    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    /// The time of two turns of a lane, and the time that a call takes around its closure.
    const SLACK: Duration = Duration::from_micros(500);
    within_each(HANG, move |place| {
        let (_dir, db) = db_at(place, |builder| builder.queue_capacity(10_000));
        let held = HeldWriter::hold(&db);
        // For each call, what each client had been charged when the call ran.
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut writes = Vec::new();
        for name in NAMES {
            let client = db.client(name);
            for _ in 0..500 {
                let (asking, seen) = (db.clone(), Arc::clone(&seen));
                let mut write = client.write(move |_| {
                    work(Duration::from_micros(20));
                    seen.lock().expect("no panic").push(charged(&asking, NAMES));
                    Ok(())
                });
                assert!(poll_once(&mut write).is_pending());
                writes.push(write);
            }
        }
        held.release();
        writes.into_iter().for_each(|write| block_on(write).expect("a write"));
        let seen = seen.lock().expect("no panic");
        // Each client has 500 calls, so during the first 500 calls no client can have run out of calls.
        let seen = &seen[..500];
        let longest = seen
            .windows(2)
            .flat_map(|pair| pair[1].into_iter().zip(pair[0]).map(|(after, before)| after - before))
            .max()
            .expect("calls");
        let last = seen[seen.len() - 1];
        let (least, most) = (last.iter().min().expect("eight"), last.iter().max().expect("eight"));
        println!("{place:?}: charged {least:?} to {most:?}, the longest call {longest:?}");
        assert!(*most - *least <= longest + SLACK, "{last:?}, the longest call {longest:?}");
        assert!(!least.is_zero(), "{last:?}");
        db.blocking_close().expect("closes");
    });
}

/// The weight is so large that a lost time slice, which is charged to the lane that runs, does not hide the effect:
/// only a few hundredths of the calls are those of the light client; without weights it would be half. The unit tests
/// of the lanes show without a clock that the shares are exact.
#[test]
fn a12_weights_share_the_running_time() {
    within_each(HANG, move |place| {
        let (_dir, db) = db_at(place, |builder| builder.queue_capacity(10_000));
        let held = HeldWriter::hold(&db);
        let order = Arc::new(Mutex::new(Vec::new()));
        let time = Duration::from_micros(20);
        let mut writes = queue_up(&db.client("light"), 1_000, time, &order, "light");
        let heavy = db.client("heavy");
        heavy.set_weight(1_000);
        writes.extend(queue_up(&heavy, 1_000, time, &order, "heavy"));
        held.release();
        writes.into_iter().for_each(|write| block_on(write).expect("a write"));
        let order = order.lock().expect("no panic");
        let light = order[..1_000].iter().filter(|name| **name == "light").count();
        println!("{light} of 1,000 calls for weight 1 against 1,000");
        assert!((1..250).contains(&light), "{light}");
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a12_clients_of_one_name_share_a_lane_that_outlives_each_of_them() {
    on_each_place(|db, place| {
        let one = db.client("web");
        let two = db.client("web");
        drop(one);
        two.blocking_write(|tx| insert(tx, 1)).unwrap_or_else(|e| panic!("{place:?}: {e:?}"));
        assert!(two.blocking_read(|s| s.table_exists(None, "t")).expect("a read"));
        let write = two.write(|tx| insert(tx, 2));
        drop(two);
        block_on(write).expect("the call keeps its client");
        assert_eq!(ids(db), [1, 2]);
    });
}

#[test]
fn a13_ten_thousand_producers_pass_through_a_queue_of_256() {
    let rounds = count(1, 10);
    within(HANG, move || {
        let worker = Worker::builder("counter").capacity(256);
        let worker = worker.blocking_spawn(|| Ok::<_, ()>(Vec::new())).expect("a worker");
        let executor = smol::Executor::new();
        block_on(executor.run(async {
            let tasks: Vec<_> = (0..10_000_usize)
                .map(|n| {
                    let worker = worker.clone();
                    executor.spawn(async move {
                        for round in 0..rounds {
                            let call = worker.call(move |seen: &mut Vec<_>| seen.push((round, n)));
                            call.await.expect("a call");
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
        }));
        let seen = worker.blocking_call(std::mem::take).expect("a call");
        assert_eq!(seen.len(), 10_000 * rounds, "lost or doubled");
        // Calls that waited for room were served in the order in which they came.
        let first: Vec<_> = seen.iter().filter(|(round, _)| *round == 0).collect();
        assert!(first.is_sorted());
        worker.blocking_close().expect("closes");
    });
}

#[test]
fn a13_plain_threads_wait_for_room() {
    let calls = count(20, 1_000);
    within(HANG, move || {
        let worker = Worker::builder("counter").capacity(1);
        let worker = worker.blocking_spawn(|| Ok::<_, ()>(0)).expect("a worker");
        std::thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    for _ in 0..calls {
                        worker.blocking_call(|n| *n += 1).expect("a call");
                    }
                });
            }
        });
        assert_eq!(worker.blocking_call(|n| *n).expect("a call"), 64 * calls);
        worker.blocking_close().expect("closes");
    });
}

#[test]
fn a13_try_hands_the_call_back_when_there_is_no_room() {
    within_each(HANG, move |place| {
        let (_dir, db) = db_at(place, |builder| builder.queue_capacity(2));
        let held = HeldWriter::hold(&db);
        let write = |id| move |tx: &lockkeeper::Transaction| insert(tx, id);
        let Ok(one) = db.try_write(write(1)) else { panic!("there is room") };
        let Ok(two) = db.try_write(write(2)) else { panic!("there is room") };
        let refused = db.try_write(write(3)).expect_err("there is no room");
        assert_eq!(refused.reason, RefusedReason::Full);
        // Each client has a share of its own.
        let Ok(other) = db.client("other").try_write(write(4)) else { panic!("there is room") };
        held.release();
        block_on(one).expect("a write");
        block_on(two).expect("a write");
        block_on(other).expect("a write");
        // The refused closure was returned unchanged and can be submitted again.
        db.blocking_write(refused.call).expect("a write");
        assert_eq!(ids(&db), [1, 2, 3, 4]);
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a13_a_deadline_ends_the_wait_for_room() {
    within_each(HANG, move |place| {
        let (_dir, db) = db_at(place, |builder| builder.queue_capacity(1));
        let held = HeldWriter::hold(&db);
        let mut accepted = db.write(|tx| insert(tx, 1));
        assert!(poll_once(&mut accepted).is_pending());
        let waits = db.write(|tx| insert(tx, 2)).deadline(Duration::from_millis(20));
        assert_eq!(kind(block_on(waits)), ErrorKind::Timeout(Phase::Room));
        held.release();
        block_on(accepted).expect("a write");
        assert_eq!(ids(&db), [1]);
        db.blocking_close().expect("closes");
    });
    let worker = Worker::builder("slow").capacity(1).blocking_spawn(|| Ok::<_, ()>(()));
    let worker = worker.expect("a worker");
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let mut holds = worker.call(move |()| {
        begun.send(()).expect("somebody waits");
        let _ = released.recv();
    });
    assert!(poll_once(&mut holds).is_pending());
    has_begun.recv().expect("it runs");
    let mut accepted = worker.call(|()| ());
    assert!(poll_once(&mut accepted).is_pending());
    assert!(worker.try_call(|()| ()).is_err_and(|refused| refused.reason == RefusedReason::Full));
    let waits = worker.call(|()| ()).deadline(Duration::from_millis(20));
    assert_eq!(block_on(waits), Err(CallError::Timeout(Phase::Room)));
    drop(release);
    block_on(holds).expect("it ends");
    block_on(accepted).expect("it was accepted");
    worker.blocking_close().expect("closes");
}

/// Canceling calls that wait for room, or calls whose places others wait for, does not make any other call lose its
/// turn.
#[test]
fn a13_cancels_among_waiting_calls_lose_no_turn() {
    on_each_place(|db, place| {
        let ran = Arc::new(AtomicUsize::new(0));
        let held = HeldWriter::hold(db);
        let mut writes: Vec<_> = (0..3_000)
            .map(|_| {
                let ran = Arc::clone(&ran);
                Some(db.write(move |_| {
                    ran.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                }))
            })
            .collect();
        for write in writes.iter_mut().flatten() {
            assert!(poll_once(write).is_pending());
        }
        // Cancels two of three calls, from the last to the first, so that calls in both parts of the lane are canceled.
        for n in (0..3_000).rev().filter(|n| n % 3 != 0) {
            writes[n] = None;
        }
        held.release();
        for write in writes.into_iter().flatten() {
            block_on(write).expect("a write");
        }
        assert_eq!(ran.load(Ordering::Relaxed), 1_000, "{place:?}");
    });
}

/// The answer of a call that is made again as long as the queue is overloaded.
fn accepted<T>(call: impl Fn() -> Result<T, lockkeeper::Error>) -> T {
    loop {
        match call() {
            Ok(answer) => return answer,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Overloaded, "{error:?}"),
        }
    }
}

/// A call that is shed never runs and gets the reason, and the queue recovers. The queue's unit tests test the rule
/// itself in virtual time.
#[test]
fn b05_an_overloaded_queue_refuses_what_waited_too_long_and_recovers() {
    const TARGET: Duration = Duration::from_millis(2);
    within_each(HANG, move |place| {
        let (_dir, db) = db_at(place, |builder| builder.shed_after(TARGET));
        let held = HeldWriter::hold(&db);
        let ran = Arc::new(AtomicUsize::new(0));
        // Each call takes half the target. Long before the last one, all calls have waited longer than the target for
        // ten targets.
        let mut writes: Vec<_> = (0..100)
            .map(|id| {
                let ran = Arc::clone(&ran);
                db.write(move |tx| {
                    ran.fetch_add(1, Ordering::Relaxed);
                    work(TARGET / 2);
                    insert(tx, id)
                })
            })
            .collect();
        writes.iter_mut().for_each(|write| assert!(poll_once(write).is_pending()));
        held.release();
        let (mut stored, mut shed) = (Vec::new(), 0);
        for (id, write) in (0..).zip(writes) {
            match block_on(write) {
                Ok(()) => stored.push(id),
                Err(error) => {
                    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Overloaded, true));
                    shed += 1;
                }
            }
        }
        assert!(shed > 0, "100 calls waited for up to 50 targets");
        assert_eq!(ran.load(Ordering::Relaxed), stored.len(), "a call that was shed ran");
        // Nothing waits any more, so calls are accepted again within an interval. If the machine is slow to wake a
        // worker, a call may be refused before that, so `accepted` tries again.
        let id = 1_000;
        accepted(|| db.blocking_write(move |tx| insert(tx, id)));
        stored.push(id);
        assert_eq!(accepted(|| db.blocking_read(ids_of)), stored, "{place:?}");
        db.blocking_close().expect("closes");
    });
}
