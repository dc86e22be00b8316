//! One client, step by step. A failing sequence of steps is shrunk.

use lockkeeper::{Database, ErrorKind, HeldSnapshot};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::map::{Failure, Map, State, Write, all, get, open, run_write};
use crate::support::{Dir, Place, block_on, count, long, poll_once};

#[derive(Clone, Debug)]
enum Command {
    Write(Write),
    /// Submits the write and immediately drops the future.
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

/// The database, and what it must show: the map, and the state of each held snapshot.
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

    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
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
                // The next write waits in the queue until the canceled write has ended or was removed.
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
