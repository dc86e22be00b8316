//! Generates random programs.

use proptest::prelude::*;

use super::batch::KINDS;
use super::program::{Call, End, Form, Op, Program, Step};
use super::schema::DUMP;
use crate::support::rich::{self, STATEMENTS, TEMPORARY};

pub(crate) const BATCHES_PER_PROGRAM: usize = 8;
pub(crate) fn conflict() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        6 => Just(""),
        2 => Just("OR ROLLBACK"),
        1 => Just("OR ABORT"),
        1 => Just("OR FAIL"),
        1 => Just("OR IGNORE"),
        1 => Just("OR REPLACE"),
    ]
}

pub(crate) fn stray() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "COMMIT",
        "END TRANSACTION",
        "ROLLBACK",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "SAVEPOINT mine",
        "RELEASE lockkeeper_call",
        "ROLLBACK TO lockkeeper_call",
        "ATTACH ':memory:' AS other",
        "PRAGMA foreign_keys = OFF",
        "PRAGMA synchronous = OFF",
        "PRAGMA max_page_count = 100000",
    ])
}

/// A statement of the plain schema.
pub(crate) fn plain_op() -> BoxedStrategy<Op> {
    let id = || 0..16_i64;
    let name = || 0..8_i64;
    let some_id = || prop::option::of(0..13_i64);
    prop_oneof![
        8 => (conflict(), id(), name())
            .prop_map(|(conflict, id, name)| Op::Parent { conflict: conflict.into(), id, name }),
        4 => (conflict(), [id(), id()], [name(), name()])
            .prop_map(|(conflict, ids, names)| Op::Parents { conflict: conflict.into(), ids, names }),
        2 => (id(), name()).prop_map(|(id, name)| Op::Rename { id, name }),
        3 => id().prop_map(|id| Op::Orphan { id }),
        5 => (some_id(), some_id()).prop_map(|(late, now)| Op::Child { late, now }),
        1 => Just(Op::Childless),
        2 => Just(Op::DeferKeys),
        3 => (1..16_usize).prop_map(|pages| Op::Fill { pages }),
        1 => Just(Op::Empty),
        3 => (0..6_i64, 0..9_i64).prop_map(|(k, v)| Op::Tree { k, v }),
        1 => any::<bool>().prop_map(|drop| Op::Table { drop }),
        1 => (0..9_i64).prop_map(Op::Version),
        4 => prop::sample::select(vec![
            "SELECT count(*), total(id) FROM parent",
            "SELECT id, late, now FROM child ORDER BY id",
            "SELECT count(*) FROM filler",
            "SELECT * FROM extra",
            "SELECT k, v FROM tree ORDER BY k LIMIT 8",
            DUMP,
        ]).prop_map(|sql| Op::Read(sql.into())),
        1 => Just(Op::LastRow),
        2 => stray().prop_map(|sql| Op::Stray(sql.into())),
        1 => stray().prop_map(|sql| Op::Smuggle(sql.into())),
    ]
    .boxed()
}

pub(crate) fn simple_op() -> BoxedStrategy<Op> {
    prop_oneof![14 => plain_op(), 1 => any::<usize>().prop_map(Op::Cancel)].boxed()
}

pub(crate) fn rich_op() -> BoxedStrategy<Op> {
    let whole = (Just(rich::DUMP), Just([0, 0]));
    prop_oneof![
        60 => (prop::sample::select(STATEMENTS), [0..9_i64, 0..5_i64]),
        8 => (prop::sample::select(TEMPORARY), [0..9_i64, 0..5_i64]),
        2 => whole,
    ]
    .prop_map(|(sql, numbers)| Op::Rich { sql: sql.into(), numbers })
    .boxed()
}

/// If the rich schema is there, most of the statements are about it.
pub(crate) fn one_op(rich: bool) -> BoxedStrategy<Op> {
    match rich {
        true => prop_oneof![3 => rich_op(), 1 => simple_op()].boxed(),
        false => simple_op(),
    }
}

pub(crate) fn op(rich: bool) -> BoxedStrategy<Op> {
    prop_oneof![
        24 => op_over(|| one_op(rich)),
        1 => any::<bool>().prop_map(|writing| Op::CancelSelf { writing }),
    ]
    .boxed()
}

/// A statement from `one`, or an operation that contains statements from `one`.
pub(crate) fn op_over(one: impl Fn() -> BoxedStrategy<Op>) -> BoxedStrategy<Op> {
    let nested = prop::collection::vec(step(one()), 1..4);
    prop_oneof![
        10 => one(),
        1 => (0..4_i64, one())
            .prop_map(|(id, between)| Op::Lazy { id, between: Box::new(between) }),
        1 => (nested, any::<bool>()).prop_map(|(steps, keep)| Op::Savepoint { steps, keep }),
    ]
    .boxed()
}

pub(crate) fn step(op: BoxedStrategy<Op>) -> impl Strategy<Value = Step> {
    (op, any::<bool>()).prop_map(|(op, forgive)| Step { op, forgive })
}

pub(crate) fn form() -> impl Strategy<Value = Form> {
    prop_oneof![4 => Just(Form::Many), 2 => Just(Form::Once), 1 => Just(Form::Try)]
}

pub(crate) fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        12 => Just(End::Good),
        2 => Just(End::Fail),
        1 => Just(End::Panic),
        1 => Just(End::LeakRead),
        1 => Just(End::LeakWrite),
    ]
}

pub(crate) fn call(rich: bool) -> impl Strategy<Value = Call> {
    // At most one statement, as in most calls of most programs.
    let short = prop::collection::vec(step(one_op(rich)), 0..2);
    let steps = prop_oneof![1 => short, 2 => prop::collection::vec(step(op(rich)), 0..5)];
    (form(), 0..KINDS, steps, end()).prop_map(|(form, kind, steps, end)| Call {
        form,
        kind,
        steps,
        end,
    })
}

pub(crate) fn program() -> impl Strategy<Value = Program> {
    prop_oneof![program_of(false), program_of(true)]
}

fn program_of(rich: bool) -> impl Strategy<Value = Program> {
    let batch = prop::collection::vec(call(rich), 1..12);
    let calls_max = prop_oneof![4 => Just(1024_usize), 1 => 1..6_usize];
    // With a full-text index the number of pages depends on where transactions end, and in the model they end
    // elsewhere. So the limit is out of reach then.
    let pages_max = match rich {
        true => Just(1_000_000_i64).boxed(),
        false => prop_oneof![1 => Just(1_000_000_i64), 1 => 24..80_i64].boxed(),
    };
    let memory = prop_oneof![4 => Just(false), 1 => Just(true)];
    let batches = prop::collection::vec(batch, BATCHES_PER_PROGRAM);
    (batches, memory, calls_max, pages_max, any::<bool>()).prop_map(
        move |(batches, memory, calls_max, pages_max, trusted)| Program {
            batches,
            rich,
            memory,
            calls_max,
            pages_max,
            trusted,
        },
    )
}
