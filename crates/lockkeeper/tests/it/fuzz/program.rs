//! The parts of a program, how a program is drawn from a number, and its form as text.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde::{Deserialize, Serialize};

use crate::differential::draw::{end, form, op_over, plain_op, rich_op, step};
use crate::differential::program::{Call, End, Form};
use crate::support::rich::{self, Gives, STATEMENTS};

/// A database that is opened and closed several times, with clients at work each time.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) settings: Settings,
    pub(crate) items: Vec<Item>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Each session of a memory database starts empty.
    pub(crate) memory: bool,
    pub(crate) calls_max: usize,
    pub(crate) queue: usize,
    pub(crate) twice: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Item {
    /// A client runs its commands one after another, in parallel with the other clients.
    Do { client: u8, command: Command },
    /// Closes and opens the database. `None`: after all clients have ended. `Some`: aborts it when the clients have run
    /// this many commands.
    Reopen { abort_after: Option<usize> },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    Write {
        how: How,
        call: Call,
    },
    Read {
        how: How,
        short: bool,
        queries: Vec<Query>,
    },
    /// Takes a snapshot. It replaces the one that the client holds.
    Snapshot,
    ReadSnapshot {
        queries: Vec<Query>,
    },
    DropSnapshot,
    Lease {
        calls: Vec<Call>,
        end: LeaseEnd,
    },
    /// An exclusive call that changes no rows and must leave nothing for the next call.
    Exclusive {
        sql: String,
        panics: bool,
    },
}

/// How a client waits for its answer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum How {
    Await,
    Block,
    /// Polls the future once and drops it after this many turns of an empty loop.
    Drop(u32),
    /// With a deadline, in microseconds.
    Deadline(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LeaseEnd {
    Commit,
    Rollback,
    Drop,
    /// Forgets the lease, or holds it until it expires.
    Expire,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Query {
    pub(crate) sql: String,
    pub(crate) numbers: [i64; 2],
}

impl Program {
    /// The program with this number. It stays the same only as long as the code here does not change.
    pub(crate) fn of_seed(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
        program().new_tree(&mut runner).expect("a program is drawn").current()
    }

    /// The program as text: a line with the settings, then a line for each item.
    pub(crate) fn text(&self) -> String {
        let settings = ron::to_string(&self.settings);
        let items = self.items.iter().map(ron::to_string);
        std::iter::once(settings)
            .chain(items)
            .map(|line| line.expect("a program has a text") + "\n")
            .collect()
    }

    pub(crate) fn of_text(text: &str) -> Self {
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let settings = lines.next().expect("the settings come first");
        Self {
            settings: ron::from_str(settings).expect("the settings of a program"),
            items: lines
                .map(|line| ron::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
                .collect(),
        }
    }
}

const EXCLUSIVE: &[&str] = &[
    "VACUUM",
    "REINDEX",
    "PRAGMA wal_checkpoint (PASSIVE)",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA defer_foreign_keys = ON; BEGIN; DELETE FROM doc",
    "SAVEPOINT mine; DELETE FROM owner",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA ignore_check_constraints = ON",
    "PRAGMA query_only = ON",
    "PRAGMA case_sensitive_like = ON",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA reverse_unordered_selects = ON",
    "ATTACH ':memory:' AS other; CREATE TABLE other.t (a)",
    "CREATE TEMP TABLE doc (id, title, body, size, label)",
    "CREATE TEMP TRIGGER silent BEFORE INSERT ON main.owner BEGIN SELECT RAISE (IGNORE); END",
];

fn query() -> impl Strategy<Value = Query> {
    let reads: Vec<&'static str> = STATEMENTS
        .iter()
        .copied()
        .filter(|sql| sql.starts_with("SELECT") && rich::gives(sql) == Gives::Rows)
        .chain([rich::DUMP])
        .collect();
    (prop::sample::select(reads), [0..9_i64, 0..5_i64])
        .prop_map(|(sql, numbers)| Query { sql: sql.to_owned(), numbers })
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        5 => Just(How::Await),
        3 => Just(How::Block),
        2 => (0..20_000_u32).prop_map(How::Drop),
        1 => (0..3_000_u64).prop_map(How::Deadline),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let one = || prop_oneof![4 => rich_op(), 1 => plain_op()].boxed();
    let short = prop::collection::vec(step(one()), 0..2);
    let steps = prop_oneof![1 => short, 2 => prop::collection::vec(step(op_over(one)), 0..5)];
    (form(), steps, end()).prop_map(|(form, steps, end)| Call { form, steps, end, kind: 0 })
}

/// A call in a lease. If it fails, only this call is undone.
fn lease_call() -> impl Strategy<Value = Call> {
    let end = prop_oneof![6 => Just(End::Good), 1 => Just(End::Fail), 1 => Just(End::Panic)];
    (prop::collection::vec(step(rich_op()), 0..4), end).prop_map(|(steps, end)| Call {
        form: Form::Many,
        steps,
        end,
        kind: 0,
    })
}

fn command() -> impl Strategy<Value = Command> {
    let queries = || prop::collection::vec(query(), 1..3);
    let lease_end = prop_oneof![
        4 => Just(LeaseEnd::Commit),
        1 => Just(LeaseEnd::Rollback),
        1 => Just(LeaseEnd::Drop),
        1 => Just(LeaseEnd::Expire),
    ];
    prop_oneof![
        12 => (how(), call()).prop_map(|(how, call)| Command::Write { how, call }),
        4 => (how(), any::<bool>(), queries())
            .prop_map(|(how, short, queries)| Command::Read { how, short, queries }),
        1 => Just(Command::Snapshot),
        2 => queries().prop_map(|queries| Command::ReadSnapshot { queries }),
        1 => Just(Command::DropSnapshot),
        1 => (prop::collection::vec(lease_call(), 0..4), lease_end)
            .prop_map(|(calls, end)| Command::Lease { calls, end }),
        1 => (prop::sample::select(EXCLUSIVE), prop::bool::weighted(0.1))
            .prop_map(|(sql, panics)| Command::Exclusive { sql: sql.to_owned(), panics }),
    ]
}

fn program() -> impl Strategy<Value = Program> {
    let done = (0..4_u8, command()).prop_map(|(client, command)| Item::Do { client, command });
    let abort_after = prop_oneof![2 => Just(None), 1 => (0..30_usize).prop_map(Some)];
    let item = prop_oneof![
        30 => done,
        1 => abort_after.prop_map(|abort_after| Item::Reopen { abort_after }),
    ];
    let calls_max = prop_oneof![3 => Just(1024_usize), 1 => 1..6_usize];
    let queue = prop_oneof![3 => Just(256_usize), 1 => 1..4_usize];
    let settings = (prop::bool::weighted(0.2), calls_max, queue, prop::bool::weighted(0.2));
    (settings, prop::collection::vec(item, 1..80)).prop_map(
        |((memory, calls_max, queue, twice), items)| Program {
            settings: Settings { memory, calls_max, queue, twice },
            items,
        },
    )
}
