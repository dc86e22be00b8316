//! The whole database against a map: one client, step by step, with shrinking; and many clients at
//! once, whose history must be linearizable.
//!
//! Every write numbers itself: it raises `version` and notes its own identity in `history`, in its
//! own transaction. So the file says in which order the writes took effect, which canceled ones
//! did, and every answer can name the version that it saw. A history is linearizable if the answers
//! are those of the map at their versions, and if the versions agree with real time: what was
//! answered before a call was made is seen by it. That order is a witness, so no search is needed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use lockkeeper::{Client, Database, ErrorKind, HeldSnapshot, Snapshot, Synchronous, Transaction};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::support::{Dir, HANG, Place, block_on, count, long, poll_once, within};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS map (k INTEGER PRIMARY KEY, v INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS history (
        version INTEGER PRIMARY KEY, op INTEGER NOT NULL UNIQUE
    ) STRICT;";

type Map = BTreeMap<i64, i64>;

/// The map at a version.
type State = (u64, Map);

#[derive(Clone, Copy, Debug)]
enum Write {
    Put(i64, i64),
    Delete(i64),
    /// Refuses when there is no such key.
    Add(i64, i64),
    Swap {
        k: i64,
        old: i64,
        new: i64,
    },
    /// Takes from one key and gives to another; refuses, having taken, when the other is missing.
    Move {
        from: i64,
        to: i64,
        n: i64,
    },
    Clear,
}

/// What a write returns: one number that depends on the state before.
type Result1 = Result<i64, ()>;

impl Write {
    fn on_map(self, map: &mut Map) -> Result1 {
        match self {
            Self::Put(k, v) => Ok(map.insert(k, v).unwrap_or(-1)),
            Self::Delete(k) => Ok(map.remove(&k).unwrap_or(-1)),
            Self::Add(k, n) => {
                let v = map.get_mut(&k).ok_or(())?;
                *v += n;
                Ok(*v)
            }
            Self::Swap { k, old, new } => match map.get_mut(&k) {
                Some(v) if *v == old => {
                    *v = new;
                    Ok(1)
                }
                _ => Ok(0),
            },
            Self::Move { from, to, n } => {
                if !map.contains_key(&to) {
                    return Err(());
                }
                let left = map.get_mut(&from).ok_or(())?;
                *left -= n;
                let left = *left;
                *map.get_mut(&to).ok_or(())? += n;
                Ok(left)
            }
            Self::Clear => {
                let before = map.len();
                map.clear();
                Ok(before as i64)
            }
        }
    }

    fn on_tables(self, tx: &Transaction) -> rusqlite::Result<Option<i64>> {
        let get = |k: i64| {
            tx.prepare_cached("SELECT v FROM map WHERE k = ?1")?
                .query_map([k], |row| row.get::<_, i64>(0))?
                .next()
                .transpose()
        };
        let put = "INSERT INTO map (k, v) VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = ?2";
        let add = "UPDATE map SET v = v + ?2 WHERE k = ?1 RETURNING v";
        Ok(match self {
            Self::Put(k, v) => {
                let before = get(k)?;
                tx.execute(put, [k, v])?;
                Some(before.unwrap_or(-1))
            }
            Self::Delete(k) => {
                let before = get(k)?;
                tx.execute("DELETE FROM map WHERE k = ?1", [k])?;
                Some(before.unwrap_or(-1))
            }
            Self::Add(k, n) => match tx.query_row(add, [k, n], |row| row.get(0)) {
                Err(rusqlite::Error::QueryReturnedNoRows) => None,
                other => Some(other?),
            },
            Self::Swap { k, old, new } => {
                let sql = "UPDATE map SET v = ?3 WHERE k = ?1 AND v = ?2";
                Some(tx.execute(sql, [k, old, new])? as i64)
            }
            Self::Move { from, to, n } => {
                let left = match tx.query_row(add, [from, -n], |row| row.get(0)) {
                    Err(rusqlite::Error::QueryReturnedNoRows) => return Ok(None),
                    other => other?,
                };
                match tx.query_row(add, [to, n], |row| row.get::<_, i64>(0)) {
                    Err(rusqlite::Error::QueryReturnedNoRows) => None,
                    other => other.map(|_| Some(left))?,
                }
            }
            Self::Clear => Some(tx.execute("DELETE FROM map", [])? as i64),
        })
    }
}

/// What closures of this test fail with.
#[derive(Debug)]
enum Failure {
    /// The map did not allow it, at this version.
    Refused(u64),
    Sql {
        _error: rusqlite::Error,
    },
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql { _error: error }
    }
}

fn version(s: &Snapshot) -> rusqlite::Result<u64> {
    s.query_row("SELECT coalesce(max(version), 0) FROM history", [], |row| {
        row.get::<_, i64>(0).map(|version| version as u64)
    })
}

/// Runs a write and numbers it: its version and its result.
fn run_write(tx: &Transaction, op: u64, write: Write) -> Result<(u64, i64), Failure> {
    let version = version(tx)?;
    match write.on_tables(tx)? {
        None => Err(Failure::Refused(version)),
        Some(result) => {
            let sql = "INSERT INTO history (version, op) VALUES (?1, ?2)";
            tx.execute(sql, [version as i64 + 1, op as i64])?;
            Ok((version + 1, result))
        }
    }
}

fn all(s: &Snapshot) -> Result<(u64, Map), Failure> {
    let version = version(s)?;
    let mut statement = s.prepare_cached("SELECT k, v FROM map")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((version, rows.collect::<rusqlite::Result<_>>()?))
}

fn get(s: &Snapshot, k: i64) -> Result<(u64, Option<i64>), Failure> {
    let version = version(s)?;
    let mut statement = s.prepare_cached("SELECT v FROM map WHERE k = ?1")?;
    let value = statement.query_map([k], |row| row.get(0))?.next().transpose()?;
    Ok((version, value))
}

fn open(dir: &Dir, place: Place) -> Database<Failure> {
    let db = dir
        .builder(place)
        .readers(2)
        .readers_max(4)
        .queue_capacity(8)
        .synchronous(Synchronous::Off)
        .checkpoint_wal_bytes(64 << 10)
        .blocking_open()
        .expect("the database opens");
    db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("the tables are made");
    db.with_error()
}

fn history(db: &Client<Failure>) -> Vec<(u64, u64)> {
    db.blocking_read(|s| {
        let mut statement = s.prepare("SELECT version, op FROM history ORDER BY version")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    })
    .expect("the history can be read")
}

// ---------------------------------------------------------------------------------------------
// One client
// ---------------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Command {
    Write(Write),
    /// Submits it, and drops the future at once.
    Cancel(Write),
    Get {
        k: i64,
        short: bool,
    },
    All,
    Snapshot,
    ReadSnapshot(usize),
    DropSnapshot(usize),
    Vacuum,
    Close {
        abort: bool,
    },
    Reopen,
}

fn write() -> impl Strategy<Value = Write> {
    let k = || 0..5_i64;
    let n = || 0..4_i64;
    prop_oneof![
        4 => (k(), n()).prop_map(|(k, v)| Write::Put(k, v)),
        2 => k().prop_map(Write::Delete),
        3 => (k(), n()).prop_map(|(k, v)| Write::Add(k, v)),
        2 => (k(), n(), n()).prop_map(|(k, old, new)| Write::Swap { k, old, new }),
        3 => (k(), k(), n()).prop_map(|(from, to, n)| Write::Move { from, to, n }),
        1 => Just(Write::Clear),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        12 => write().prop_map(Command::Write),
        3 => write().prop_map(Command::Cancel),
        5 => (0..5_i64, any::<bool>()).prop_map(|(k, short)| Command::Get { k, short }),
        3 => Just(Command::All),
        3 => Just(Command::Snapshot),
        4 => any::<usize>().prop_map(Command::ReadSnapshot),
        1 => any::<usize>().prop_map(Command::DropSnapshot),
        1 => Just(Command::Vacuum),
        1 => any::<bool>().prop_map(|abort| Command::Close { abort }),
        2 => Just(Command::Reopen),
    ]
}

/// What the model knows: the map, and what each held snapshot shows.
struct Machine {
    dir: Dir,
    place: Place,
    db: Database<Failure>,
    open: bool,
    map: Map,
    version: u64,
    next_op: u64,
    /// `None`: the snapshot's database was closed.
    snapshots: Vec<(HeldSnapshot<Failure>, Option<State>)>,
}

impl Machine {
    fn close(&mut self, abort: bool) {
        let closed = match abort {
            true => block_on(self.db.abort()),
            false => block_on(self.db.close()),
        };
        closed.expect("the database closes");
        self.open = false;
        self.snapshots.iter_mut().for_each(|(_, shows)| *shows = None);
        if self.place == Place::Memory {
            self.map.clear();
            self.version = 0;
        }
    }

    fn step(&mut self, command: &Command) -> Result<(), TestCaseError> {
        let closed = |kind: Option<ErrorKind>| kind == Some(ErrorKind::Closed);
        let op = self.next_op;
        self.next_op += 1;
        match *command {
            Command::Write(write) => {
                let answer = block_on(self.db.write(move |tx| run_write(tx, op, write)));
                if !self.open {
                    prop_assert!(closed(answer.err().map(|error| error.kind())));
                    return Ok(());
                }
                match (answer, write.on_map(&mut self.map)) {
                    (Ok((version, result)), Ok(expected)) => {
                        self.version += 1;
                        prop_assert_eq!((version, result), (self.version, expected));
                    }
                    (Err(error), Err(())) => {
                        let refused = matches!(
                            error.call(),
                            Some(Failure::Refused(version)) if *version == self.version
                        );
                        prop_assert!(refused, "{error:?}");
                    }
                    (answer, expected) => prop_assert!(false, "{answer:?}, not {expected:?}"),
                }
            }
            Command::Cancel(write) => {
                let mut future = self.db.write(move |tx| run_write(tx, op, write));
                let answered = poll_once(&mut future).is_ready();
                drop(future);
                if !self.open {
                    prop_assert!(answered, "a closed database answers at once");
                    return Ok(());
                }
                // What follows it in the queue waits until it is over, one way or the other.
                let happened = self.db.blocking_write(move |tx| {
                    let sql = "SELECT count(*) FROM history WHERE op = ?1";
                    Ok(tx.query_row(sql, [op as i64], |row| row.get::<_, i64>(0))?)
                });
                if happened.expect("the writer lives") == 1 {
                    self.version += 1;
                    let expected = write.on_map(&mut self.map);
                    prop_assert!(expected.is_ok(), "stored, but the map refuses it");
                }
            }
            Command::Get { k, short } => {
                let read = self.db.read(move |s| get(s, k));
                let answer = block_on(if short { read.short() } else { read });
                match self.open {
                    true => {
                        let expected = (self.version, self.map.get(&k).copied());
                        prop_assert_eq!(answer.expect("a read"), expected);
                    }
                    false => prop_assert!(closed(answer.err().map(|error| error.kind()))),
                }
            }
            Command::All => {
                let answer = self.db.blocking_read(all);
                match self.open {
                    true => {
                        let expected = (self.version, self.map.clone());
                        prop_assert_eq!(answer.expect("a read"), expected);
                    }
                    false => prop_assert!(closed(answer.err().map(|error| error.kind()))),
                }
            }
            Command::Snapshot => match block_on(self.db.snapshot()) {
                Ok(snapshot) => {
                    prop_assert!(self.open);
                    self.snapshots.push((snapshot, Some((self.version, self.map.clone()))));
                }
                Err(error) => prop_assert!(!self.open && error.is_closed(), "{error:?}"),
            },
            Command::ReadSnapshot(which) => {
                if self.snapshots.is_empty() {
                    return Ok(());
                }
                let (snapshot, shows) = &self.snapshots[which % self.snapshots.len()];
                match (snapshot.blocking_read(all), shows) {
                    (Ok(seen), Some(shows)) => prop_assert_eq!(&seen, shows),
                    (Err(error), None) => prop_assert!(error.is_closed(), "{error:?}"),
                    (answer, shows) => prop_assert!(false, "{answer:?}, not {shows:?}"),
                }
            }
            Command::DropSnapshot(which) => {
                if !self.snapshots.is_empty() {
                    let which = which % self.snapshots.len();
                    drop(self.snapshots.swap_remove(which));
                }
            }
            Command::Vacuum => {
                let answer = self.db.blocking_exclusive(|conn| Ok(conn.execute_batch("VACUUM")?));
                prop_assert_eq!(answer.is_ok(), self.open, "{:?}", answer);
            }
            Command::Close { abort } => self.close(abort),
            Command::Reopen => {
                if self.open {
                    self.close(false);
                }
                self.db = open(&self.dir, self.place);
                self.open = true;
            }
        }
        Ok(())
    }
}

fn one_client(place: Place, commands: &[Command]) -> Result<(), TestCaseError> {
    let dir = Dir::new();
    let db = open(&dir, place);
    let mut machine = Machine {
        dir,
        place,
        db,
        open: true,
        map: Map::new(),
        version: 0,
        next_op: 1,
        snapshots: Vec::new(),
    };
    for (index, command) in commands.iter().enumerate() {
        machine
            .step(command)
            .map_err(|error| TestCaseError::fail(format!("step {index}, {command:?}: {error}")))?;
    }
    if machine.open {
        machine.close(false);
    }
    Ok(())
}

#[test]
fn a10_one_client_sees_a_map_whatever_it_does() {
    let programs = count(100, 1_000);
    let config = ProptestConfig {
        cases: programs as u32,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = match long() {
        true => TestRunner::new(config),
        false => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let place = prop_oneof![3 => Just(Place::File), 1 => Just(Place::Memory)];
    let programs_of = (place, prop::collection::vec(command(), 1..60));
    runner
        .run(&programs_of, |(place, commands)| one_client(place, &commands))
        .unwrap_or_else(|error| panic!("{error}"));
    println!("{programs} programs of up to 60 commands");
}

// ---------------------------------------------------------------------------------------------
// Many clients
// ---------------------------------------------------------------------------------------------

/// One operation of a history.
#[derive(Debug)]
struct Event {
    op: u64,
    called: u64,
    /// `None`: canceled, so it was never answered.
    answered: Option<u64>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// What it returned: version and result; `Err`: refused by the map at this version.
    Wrote(Write, Result<(u64, i64), u64>),
    Canceled(Write),
    /// The library said that nothing of it was stored.
    NotStored,
    Got(i64, u64, Option<i64>),
    Saw(u64, Map),
}

/// A snapshot that a client holds.
struct Held {
    snapshot: HeldSnapshot<Failure>,
    called: u64,
    answered: u64,
    /// What an earlier read of it saw.
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
                    // It shows one state between these two moments, however late it is read.
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

/// Checks that `events` can be put into one order, which `history` gives, and that it agrees with
/// real time.
fn linearizable(events: &mut [Event], history: &[(u64, u64)]) -> Result<(), String> {
    let mut version_of = BTreeMap::new();
    for (index, &(version, op)) in history.iter().enumerate() {
        if version != index as u64 + 1 {
            return Err(format!("version {version} is at place {index}"));
        }
        version_of.insert(op, version);
    }
    let writes: BTreeMap<u64, &Event> = events.iter().map(|event| (event.op, event)).collect();
    let mut maps = vec![Map::new()];
    for &(version, op) in history {
        let mut map = maps[version as usize - 1].clone();
        let event = writes.get(&op).ok_or(format!("nobody called {op}"))?;
        let (write, told) = match event.what {
            What::Wrote(write, Ok(told)) => (write, Some(told)),
            What::Canceled(write) => (write, None),
            _ => return Err(format!("stored, against the answer: {event:?}")),
        };
        let result = write.on_map(&mut map).map_err(|()| format!("refused: {event:?}"))?;
        if told.is_some_and(|told| told != (version, result)) {
            return Err(format!("version {version} gives {result}: {event:?}"));
        }
        maps.push(map);
    }
    // The version of each event, and whether it must be later than all it knows of.
    let mut placed = Vec::new();
    for event in &*events {
        let at = |version: u64| maps.get(version as usize).ok_or(format!("no such: {event:?}"));
        let (version, right) = match &event.what {
            What::Wrote(_, Ok((version, _))) => {
                (*version, version_of.get(&event.op) == Some(version))
            }
            What::Wrote(write, Err(version)) => {
                (*version, write.on_map(&mut at(*version)?.clone()).is_err())
            }
            What::Canceled(_) => match version_of.get(&event.op) {
                Some(version) => (*version, true),
                None => continue,
            },
            What::NotStored => continue,
            What::Got(k, version, value) => (*version, at(*version)?.get(k) == value.as_ref()),
            What::Saw(version, map) => (*version, at(*version)? == map),
        };
        if !right {
            return Err(format!("not so at its version: {event:?}"));
        }
        let writes = version_of.contains_key(&event.op);
        placed.push((event, version, writes));
    }
    // Real time: in the order of the calls, against the newest version answered before each.
    let mut answers: Vec<(u64, u64)> =
        placed.iter().filter_map(|(event, version, _)| Some((event.answered?, *version))).collect();
    answers.sort_unstable();
    placed.sort_unstable_by_key(|(event, ..)| event.called);
    let (mut next, mut newest) = (0, 0);
    for (event, version, writes) in placed {
        while next < answers.len() && answers[next].0 < event.called {
            newest = newest.max(answers[next].1);
            next += 1;
        }
        if version < newest + u64::from(writes) {
            return Err(format!("version {newest} was known before: {event:?}"));
        }
    }
    Ok(())
}

static EVENTS: AtomicUsize = AtomicUsize::new(0);

/// Several sessions on one file, each with clients at work; some are closed under them.
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
                    // Some share a lane.
                    let lane = db.client(&format!("client {}", client / 2));
                    let session = &session;
                    let seed = seed.wrapping_mul(1 + client as u64) ^ (number << 32) | 1;
                    scope.spawn(move || session.client(&lane, ops, seed))
                })
                .collect();
            if number == 1 {
                // Under load: in the middle of what the clients do.
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
        // Canceled calls may still be at work.
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
        let rounds = count(2, 20) as u64;
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

/// The checker itself must be able to say no.
#[test]
fn a10_the_checker_refuses_stale_lost_and_doubled_rows() {
    let wrote = |op, called, version, k, before| Event {
        op,
        called,
        answered: Some(called + 1),
        what: What::Wrote(Write::Put(k, op as i64), Ok((version, before))),
    };
    let got = |op, called, version, value| Event {
        op,
        called,
        answered: Some(called + 1),
        what: What::Got(0, version, value),
    };
    let history = [(1, 1), (2, 2)];
    let good = || vec![wrote(1, 1, 1, 0, -1), wrote(2, 3, 2, 0, 1), got(3, 5, 2, Some(2))];
    assert_eq!(linearizable(&mut good(), &history), Ok(()));
    let refused = |events: Vec<Event>, history: &[(u64, u64)], why: &str| {
        let mut events = events;
        let error = linearizable(&mut events, history).expect_err(why);
        assert!(error.contains(why), "{error}");
    };
    let mut stale = good();
    stale[2] = got(3, 5, 1, Some(1));
    refused(stale, &history, "was known before");
    let mut wrong = good();
    wrong[2] = got(3, 5, 2, Some(1));
    refused(wrong, &history, "not so at its version");
    refused(good(), &history[..1], "not so at its version");
    refused(good(), &[(1, 1), (2, 2), (3, 3)], "stored, against the answer");
    refused(good(), &[(1, 2), (2, 1)], "gives");
    let mut early = good();
    early[1] = wrote(2, 0, 2, 0, 1);
    early[0] = wrote(1, 3, 1, 0, -1);
    refused(early, &history, "was known before");
}
