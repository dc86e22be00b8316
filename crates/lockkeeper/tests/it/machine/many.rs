//! Many clients at the same time.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use lockkeeper::{Client, ErrorKind, HeldSnapshot, Transaction};

use super::history::{Event, What, linearizable};
use super::map::{Failure, State, Write, all, get, history, open, run_write};
use crate::support::{Dir, HANG, Place, block_on, count, poll_once, within};

/// A snapshot that a client holds.
struct Held {
    snapshot: HeldSnapshot<Failure>,
    called: u64,
    answered: u64,
    /// What an earlier read of the snapshot has seen.
    shows: Option<State>,
}

struct Session<'s> {
    clock: &'s AtomicU64,
    next_op: &'s AtomicU64,
}

impl Session<'_> {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each operation")]
    fn client(&self, db: &Client<Failure>, ops: usize, mut seed: u64) -> Vec<Event> {
        let mut events = Vec::new();
        let mut draw = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 11) % below
        };
        let mut held: Option<Held> = None;
        for _ in 0..ops {
            let op = self.next_op.fetch_add(1, Ordering::Relaxed);
            let (k, n) = (draw(5) as i64, draw(4) as i64);
            let write = match draw(7) {
                0 | 1 => Write::Put(k, n),
                2 => Write::Delete(k),
                3 => Write::Add(k, n),
                4 => Write::Swap { k, old: n, new: draw(4) as i64 },
                5 => Write::Move { from: k, to: draw(5) as i64, n },
                _ => {
                    if draw(8) == 0 {
                        Write::Clear
                    } else {
                        Write::Add(k, n)
                    }
                }
            };
            let called = self.tick();
            let mut event = |what, answered| events.push(Event { op, called, answered, what });
            match draw(16) {
                0..=7 => {
                    let body = move |tx: &Transaction| run_write(tx, op, write);
                    let answer = match draw(4) {
                        0 => db.blocking_write(body),
                        1 => block_on(db.write_once(body)),
                        _ => block_on(db.write(body)),
                    };
                    let answered = Some(self.tick());
                    match answer {
                        Ok(wrote) => event(What::Wrote(write, Ok(wrote)), answered),
                        Err(error) => match (error.kind(), error.into_call()) {
                            (ErrorKind::Call, Ok(Failure::Refused(version))) => {
                                event(What::Wrote(write, Err(version)), answered);
                            }
                            (
                                ErrorKind::Closed | ErrorKind::Canceled | ErrorKind::NotApplied,
                                _,
                            ) => {
                                event(What::NotStored, answered);
                            }
                            (kind, call) => panic!("{write:?}: {kind:?} {call:?}"),
                        },
                    }
                }
                8 => {
                    let mut future = db.write(move |tx| run_write(tx, op, write));
                    let _ = poll_once(&mut future);
                    for _ in 0..draw(3_000) {
                        std::hint::spin_loop();
                    }
                    drop(future);
                    event(What::Canceled(write), None);
                }
                9..=11 => {
                    let read = db.read(move |s| get(s, k));
                    let answer = block_on(if draw(2) == 0 { read.short() } else { read });
                    let answered = Some(self.tick());
                    match answer {
                        Ok((version, value)) => event(What::Got(k, version, value), answered),
                        Err(error) => assert!(
                            matches!(error.kind(), ErrorKind::Closed | ErrorKind::Canceled),
                            "{error:?}"
                        ),
                    }
                }
                12 | 13 => {
                    let answer = db.blocking_read(all);
                    let answered = Some(self.tick());
                    match answer {
                        Ok((version, map)) => event(What::Saw(version, map), answered),
                        Err(error) => assert!(
                            matches!(error.kind(), ErrorKind::Closed | ErrorKind::Canceled),
                            "{error:?}"
                        ),
                    }
                }
                14 => match block_on(db.snapshot()) {
                    // The snapshot shows a state between its call and its answer, however late it is read.
                    Ok(snapshot) => {
                        held = Some(Held { snapshot, called, answered: self.tick(), shows: None });
                    }
                    Err(error) => assert!(
                        matches!(
                            error.kind(),
                            ErrorKind::Closed | ErrorKind::Canceled | ErrorKind::TooManySnapshots
                        ),
                        "{error:?}"
                    ),
                },
                _ => {
                    let Some(held) = &mut held else { continue };
                    let Ok(seen) = held.snapshot.blocking_read(all) else { continue };
                    if let Some(before) = &held.shows {
                        assert_eq!(&seen, before, "a held snapshot has changed");
                    }
                    held.shows = Some(seen.clone());
                    let (called, answered) = (held.called, Some(held.answered));
                    events.push(Event { op, called, answered, what: What::Saw(seen.0, seen.1) });
                }
            }
        }
        events
    }
}

static EVENTS: AtomicUsize = AtomicUsize::new(0);

/// Several sessions on one file, each with clients at work. One session is closed or aborted while its clients work.
fn many_clients(place: Place, clients: usize, ops: usize, seed: u64) {
    let dir = Dir::new();
    let (clock, next_op) = (AtomicU64::new(1), AtomicU64::new(1));
    let mut events = Vec::new();
    let sessions = if place == Place::File { 3 } else { 1 };
    let mut last = Vec::new();
    for number in 0..sessions {
        let db = open(&dir, place);
        let session = Session { clock: &clock, next_op: &next_op };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..clients)
                .map(|client| {
                    // Two clients share a lane.
                    let lane = db.client(&format!("client {}", client / 2));
                    let session = &session;
                    let seed = seed.wrapping_mul(1 + client as u64) ^ (number << 32) | 1;
                    scope.spawn(move || session.client(&lane, ops, seed))
                })
                .collect();
            if number == 1 {
                // The close comes at a random moment while the clients work.
                while clock.load(Ordering::Relaxed) % 997 < 900 && !threads[0].is_finished() {
                    std::thread::yield_now();
                }
                let closed = if seed.is_multiple_of(2) { db.abort() } else { db.close() };
                block_on(closed).expect("the database closes");
            }
            for thread in threads {
                events.extend(thread.join().expect("the client ends"));
            }
        });
        let db = match number {
            1 => open(&dir, place),
            _ => db,
        };
        // Canceled calls may still run. This write waits for them.
        db.blocking_write(|_| Ok(())).expect("the writer lives");
        last = history(&db);
        block_on(db.close()).expect("the database closes");
    }
    EVENTS.fetch_add(events.len(), Ordering::Relaxed);
    if let Err(error) = linearizable(&mut events, &last) {
        panic!("{place:?}, {clients} clients, seed {seed}: not linearizable: {error}");
    }
}

#[test]
fn a10_the_history_of_many_clients_is_linearizable() {
    within(HANG * 4, || {
        let rounds = count(2, 6) as u64;
        let mut histories = 0;
        for round in 0..rounds {
            for (clients, ops) in [(2, 300), (4, 200), (8, 120), (16, 80), (32, 50)] {
                for place in [Place::File, Place::Memory] {
                    many_clients(place, clients, ops, 0xA076_1D64_78BD_642F ^ (round * 7 + 1));
                    histories += 1;
                }
            }
        }
        let events = EVENTS.load(Ordering::Relaxed);
        println!("{histories} histories of 2 to 32 clients, {events} operations");
    });
}
