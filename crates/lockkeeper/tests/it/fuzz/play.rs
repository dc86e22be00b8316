//! Runs a session of a program on the library, with each client on a thread, and notes the answers.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::Duration;

use lockkeeper::{Client, Database, Error, ErrorKind, HeldSnapshot, Snapshot, Transaction};
use rusqlite::ffi;

use super::program::{Command, How, LeaseEnd, Query};
use crate::differential::batch::{outcome_of, said};
use crate::differential::interpret::interpret;
use crate::differential::program::{Call, Failure, Form, Outcome, Seen, code};
use crate::differential::view::{Real, Sql, fetch};
use crate::support::{HANG, block_on, poll_once, rich};

/// Each write first puts its number here. So the table shows the order of the commits, and which writes were stored.
pub(crate) const LOG: &str =
    "CREATE TABLE log (at INTEGER PRIMARY KEY, number INTEGER NOT NULL) STRICT;";

/// How many writes were stored before.
const POSITION: &str = "SELECT coalesce(max(at), 0) FROM log";

pub(crate) type Rows = Result<Vec<String>, i32>;

/// The answer that a client got, and after how many writes the call ran.
#[derive(Debug)]
pub(crate) enum Told {
    Write {
        number: i64,
        call: Call,
        /// How many writes were stored when the closure last ran; `None`: it did not run.
        at: Option<i64>,
        /// `None`: the future was dropped.
        outcome: Option<Outcome>,
    },
    Read {
        at: i64,
        queries: Vec<Query>,
        rows: Vec<Rows>,
    },
    Lease {
        number: i64,
        calls: Vec<Call>,
        at: i64,
        /// The outcomes of the calls that were answered before the lease ended.
        outcomes: Vec<Outcome>,
        /// How the lease ended. `RolledBack` also if it was dropped or left to expire.
        end: Outcome,
    },
}

/// A session: the commands of each client. The numbers are unique in the whole program.
pub(crate) type Plan = BTreeMap<u8, Vec<(i64, Command)>>;

pub(crate) fn play(db: &Database<Failure>, plan: Plan, abort_after: Option<usize>) -> Vec<Told> {
    let (answered, answers) = mpsc::channel();
    std::thread::scope(|scope| {
        let clients: Vec<_> = plan
            .into_iter()
            .map(|(name, commands)| {
                let client = db.client(&format!("client {name}"));
                let answered = answered.clone();
                scope.spawn(move || {
                    let mut player = Player {
                        client,
                        aborts: abort_after.is_some(),
                        floor: 0,
                        snapshot: None,
                        told: Vec::new(),
                    };
                    for (number, command) in commands {
                        player.obey(number, command);
                        let _ = answered.send(());
                    }
                    player.told
                })
            })
            .collect();
        drop(answered);
        if let Some(count) = abort_after {
            answers.iter().take(count).for_each(drop);
            block_on(db.abort()).expect("the database closes");
        }
        let told = clients.into_iter().map(|client| match client.join() {
            Ok(told) => told,
            Err(payload) => std::panic::resume_unwind(payload),
        });
        told.collect::<Vec<_>>().into_iter().flatten().collect()
    })
}

pub(crate) fn ask(query: &Query, prepare: impl FnOnce(&str, &[i64]) -> Sql<Vec<String>>) -> Rows {
    prepare(&query.sql, rich::taken(&query.sql, &query.numbers)).map_err(|error| code(&error))
}

struct Player {
    client: Client<Failure>,
    /// Whether the session is aborted while clients are at work.
    aborts: bool,
    /// How many writes this client has seen. Its later reads must see at least as many.
    floor: i64,
    /// The held snapshot, and how many writes its first read saw; `None`: it was not read yet.
    snapshot: Option<(HeldSnapshot<Failure>, Option<i64>)>,
    told: Vec<Told>,
}

impl Player {
    fn obey(&mut self, number: i64, command: Command) {
        match command {
            Command::Write { how, call } => self.write(number, how, call),
            Command::Read { how, short, queries } => self.read(how, short, queries),
            Command::Snapshot => {
                let snapshot = block_on(self.client.snapshot());
                self.snapshot = self.allowed(snapshot, How::Await).map(|held| (held, None));
            }
            Command::ReadSnapshot { queries } => self.read_snapshot(queries),
            Command::DropSnapshot => self.snapshot = None,
            Command::Lease { calls, end } => self.lease(number, calls, end),
            Command::Exclusive { sql, panics } => self.exclusive(sql, panics),
        }
    }

    /// Whether a call may get this error instead of its result.
    fn excuses(&self, kind: ErrorKind, how: How) -> bool {
        match kind {
            ErrorKind::Timeout(_) => matches!(how, How::Deadline(_)),
            ErrorKind::Closed | ErrorKind::Canceled => self.aborts,
            _ => false,
        }
    }

    fn allowed<T>(&self, answer: Result<T, Error<Failure>>, how: How) -> Option<T> {
        match answer {
            Ok(value) => Some(value),
            Err(error) if self.excuses(error.kind(), how) => None,
            Err(error) => panic!("a call that cannot fail was answered {error:?}"),
        }
    }

    fn write(&mut self, number: i64, how: How, call: Call) {
        let position = Arc::new(AtomicI64::new(-1));
        let (messages, _inbox) = mpsc::channel();
        let body = {
            let (position, call) = (Arc::clone(&position), call.clone());
            move |tx: &Transaction| {
                position.store(log(tx, number)?, Ordering::SeqCst);
                interpret(&Real { tx, messages: &messages }, &call, number, false)
            }
        };
        let deadline = match how {
            How::Deadline(micros) => Duration::from_micros(micros),
            _ => HANG,
        };
        let answer = catch_unwind(AssertUnwindSafe(|| match (call.form, how) {
            (Form::Many, How::Block) => Some(self.client.blocking_write(body)),
            (Form::Many, _) => wait(self.client.write(body).deadline(deadline), how),
            (Form::Once, _) => wait(self.client.write_once(body).deadline(deadline), how),
            (Form::Try, _) => self.client.try_write(body).map_or(None, |write| wait(write, how)),
        }));
        let outcome = match answer {
            Ok(None) => None,
            Ok(Some(answer)) => Some(outcome_of(answer)),
            Err(payload) => Some(Outcome::Panicked(said(payload))),
        };
        let at = Some(position.load(Ordering::SeqCst)).filter(|at| *at >= 0);
        match &outcome {
            Some(Outcome::Other(kind)) => {
                assert!(self.excuses(*kind, how), "write {number} was answered {kind:?}");
            }
            Some(Outcome::Good(_)) => self.floor = at.expect("it was run") + 1,
            _ => {}
        }
        self.told.push(Told::Write { number, call, at, outcome });
    }

    fn read(&mut self, how: How, short: bool, queries: Vec<Query>) {
        let body = reading(&queries);
        let read = self.client.read(body);
        let read = match how {
            How::Deadline(micros) => read.deadline(Duration::from_micros(micros)),
            _ => read,
        };
        let answer = match short {
            true => wait(read.short(), how),
            false => wait(read, how),
        };
        let Some((at, rows)) = answer.and_then(|answer| self.allowed(answer, how)) else { return };
        assert!(at >= self.floor, "a read shows {at} writes, {} were seen before", self.floor);
        self.floor = at;
        self.told.push(Told::Read { at, queries, rows });
    }

    fn read_snapshot(&mut self, queries: Vec<Query>) {
        let Some((held, first)) = &self.snapshot else { return };
        let answer = held.blocking_read(reading(&queries));
        let first = *first;
        let Some((at, rows)) = self.allowed(answer, How::Await) else { return };
        match first {
            Some(first) => assert_eq!(at, first, "a held snapshot has moved"),
            None => self.snapshot.as_mut().expect("it is held").1 = Some(at),
        }
        self.told.push(Told::Read { at, queries, rows });
    }

    fn lease(&mut self, number: i64, calls: Vec<Call>, end: LeaseEnd) {
        let hold = if end == LeaseEnd::Expire { Duration::from_millis(3) } else { HANG };
        let lease = block_on(self.client.lease().hold_max(hold).idle_max(hold));
        let Some(mut lease) = self.allowed(lease, How::Await) else { return };
        let over = |kind| matches!(kind, ErrorKind::LeaseExpired) && end == LeaseEnd::Expire;
        let at = match lease.blocking_run(move |tx| log(tx, number)) {
            Ok(at) => at,
            Err(error) if over(error.kind()) || self.excuses(error.kind(), How::Await) => return,
            Err(error) => panic!("lease {number} was answered {error:?}"),
        };
        let (mut outcomes, mut ended) = (Vec::new(), None);
        for call in &calls {
            let (messages, _inbox) = mpsc::channel();
            let called = call.clone();
            let body = move |tx: &Transaction| {
                interpret(&Real { tx, messages: &messages }, &called, number, false)
            };
            let answer = catch_unwind(AssertUnwindSafe(|| lease.blocking_run(body)));
            match answer.map(outcome_of) {
                Ok(Outcome::Other(kind)) => {
                    ended = Some(kind);
                    break;
                }
                Ok(outcome) => outcomes.push(outcome),
                Err(payload) => outcomes.push(Outcome::Panicked(said(payload))),
            }
        }
        let end = match (ended, end) {
            (Some(kind), _) => Outcome::Other(kind),
            (None, LeaseEnd::Commit) => {
                outcome_of(lease.blocking_commit().map(|()| Vec::<Seen>::new()))
            }
            (None, LeaseEnd::Rollback) => {
                lease.rollback();
                Outcome::RolledBack
            }
            (None, LeaseEnd::Drop) => {
                drop(lease);
                Outcome::RolledBack
            }
            (None, LeaseEnd::Expire) => {
                std::mem::forget(lease);
                Outcome::RolledBack
            }
        };
        if let Outcome::Other(kind) = end {
            let allowed = kind == ErrorKind::LeaseEnded || over(kind);
            assert!(allowed || self.excuses(kind, How::Await), "lease {number}: {kind:?}");
        }
        if let Outcome::Good(_) = end {
            self.floor = at + 1;
        }
        self.told.push(Told::Lease { number, calls, at, outcomes, end });
    }

    fn exclusive(&mut self, sql: String, panics: bool) {
        let body = move |conn: &mut rusqlite::Connection| {
            conn.execute_batch(&sql)?;
            match panics {
                true => panic_any(String::from("on purpose")),
                false => Ok(()),
            }
        };
        let answer = catch_unwind(AssertUnwindSafe(|| self.client.blocking_exclusive(body)));
        match answer {
            Ok(answer) => drop(self.allowed(answer, How::Await)),
            Err(payload) => assert_eq!(said(payload), "on purpose"),
        }
    }
}

/// Puts the number of a write into the log. Returns how many numbers were there before.
fn log(tx: &Transaction, number: i64) -> Result<i64, Failure> {
    let sql = "INSERT INTO log (number) VALUES (?1) RETURNING at - 1";
    Ok(tx.query_row(sql, [number], |row| row.get(0))?)
}

fn reading(
    queries: &[Query],
) -> impl FnMut(&Snapshot) -> Result<(i64, Vec<Rows>), Failure> + Send + 'static {
    let queries = queries.to_vec();
    move |s| {
        let at = s.query_row(POSITION, [], |row| row.get(0))?;
        let rows: Vec<Rows> = queries
            .iter()
            .map(|query| {
                ask(query, |sql, taken| {
                    fetch(s.prepare_cached(sql)?.query(rusqlite::params_from_iter(taken))?)
                })
            })
            .collect();
        match rows.contains(&Err(ffi::SQLITE_INTERRUPT)) {
            true => Err(Failure { seen: Vec::new(), code: Some(ffi::SQLITE_INTERRUPT) }),
            false => Ok((at, rows)),
        }
    }
}

/// Waits for the future as `how` says. `None`: the future was dropped.
fn wait<F: Future>(future: F, how: How) -> Option<F::Output> {
    let mut future = pin!(future);
    let How::Drop(turns) = how else { return Some(block_on(future)) };
    match poll_once(&mut future) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => {
            (0..turns).for_each(|_| std::hint::spin_loop());
            None
        }
    }
}
