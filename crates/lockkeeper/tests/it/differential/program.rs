//! The parts of a program, and the outcomes that its calls can have.

use std::borrow::Cow;
use std::collections::HashSet;

use lockkeeper::ErrorKind;
use rusqlite::ffi;
use serde::{Deserialize, Serialize};

/// The code with which SQLite refuses a statement whose transaction was rolled back.
pub(crate) const LOST: i32 = ffi::SQLITE_ABORT_ROLLBACK;

/// A part of a statement. It is borrowed if it was drawn from a list, owned if it was read from a file.
pub(crate) type Text = Cow<'static, str>;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Op {
    Parent {
        conflict: Text,
        id: i64,
        name: i64,
    },
    /// Two rows in one statement: the second may fail after the first was written.
    Parents {
        conflict: Text,
        ids: [i64; 2],
        names: [i64; 2],
    },
    Rename {
        id: i64,
        name: i64,
    },
    Orphan {
        id: i64,
    },
    Child {
        late: Option<i64>,
        now: Option<i64>,
    },
    Childless,
    DeferKeys,
    Fill {
        pages: usize,
    },
    Empty,
    Tree {
        k: i64,
        v: i64,
    },
    Table {
        drop: bool,
    },
    Version(i64),
    Read(Text),
    LastRow,
    Stray(Text),
    /// A text of three statements, of which the middle one must not run.
    Smuggle(Text),
    /// Prepares an insert that returns its row, runs `between`, and only then fetches the row.
    Lazy {
        id: i64,
        between: Box<Op>,
    },
    Savepoint {
        steps: Vec<Step>,
        keep: bool,
    },
    /// A statement of the rich schema.
    Rich {
        sql: Text,
        numbers: [i64; 2],
    },
    /// The future of this call is dropped now.
    Cancel(usize),
    /// The call's own future is dropped in the middle of a statement.
    CancelSelf {
        writing: bool,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) op: Op,
    /// Whether the call goes on if the operation fails.
    pub(crate) forgive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Form {
    Many,
    Once,
    Try,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Good,
    Fail,
    Panic,
    /// Returns `Ok`, but forgets a statement that stands in the middle of its rows.
    LeakRead,
    LeakWrite,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) form: Form,
    /// Selects the closure's type. The library decides by the closure's type whether to trust a call.
    pub(crate) kind: u8,
    pub(crate) steps: Vec<Step>,
    pub(crate) end: End,
}

#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) batches: Vec<Vec<Call>>,
    /// Whether the rich schema is there, too.
    pub(crate) rich: bool,
    pub(crate) memory: bool,
    pub(crate) calls_max: usize,
    pub(crate) pages_max: i64,
    /// Whether the closures' types are trusted from the beginning.
    pub(crate) trusted: bool,
}

impl std::fmt::Debug for Program {
    /// Prints one call per line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { batches, rich, memory, calls_max, pages_max, trusted } = self;
        writeln!(
            f,
            "rich: {rich}, memory: {memory}, calls_max: {calls_max}, pages_max: {pages_max}"
        )?;
        writeln!(f, "trusted: {trusted}")?;
        for (number, batch) in batches.iter().enumerate() {
            for (index, Call { form, kind, steps, end }) in batch.iter().enumerate() {
                writeln!(f, "batch {number} call {index}: {form:?} {kind} {steps:?} {end:?}")?;
            }
        }
        Ok(())
    }
}

/// What a call saw, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Changed(usize),
    Rows(Vec<String>),
    Failed(i32),
    /// A nested savepoint was undone.
    Undone,
}

/// What a closure returns when it fails.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) seen: Vec<Seen>,
    pub(crate) code: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Good(Vec<Seen>),
    Failed(Vec<Seen>, Option<i32>),
    Panicked(String),
    ForeignKey,
    RolledBack,
    /// COMMIT failed with this code, and nothing is stored. A plain connection behaves in the same way after a
    /// full-text table was made and written to in a savepoint that was undone.
    CommitFailed(i32),
    NotApplied,
    Other(ErrorKind),
}

pub(crate) fn code(error: &rusqlite::Error) -> i32 {
    let error = match error {
        // The same failure, with its position in the SQL text.
        rusqlite::Error::SqlInputError { error, .. } => Some(error),
        other => other.sqlite_error(),
    };
    match error.map(|error| error.extended_code) {
        // The library's commit hook refuses the COMMIT of a statement whose transaction was lost.
        Some(ffi::SQLITE_CONSTRAINT_COMMITHOOK) => LOST,
        Some(code) => code,
        None => -1,
    }
}

/// The calls of a batch whose future may be dropped.
pub(crate) fn victims(batch: &[Call]) -> HashSet<usize> {
    fn visit(steps: &[Step], own: usize, calls: usize, victims: &mut HashSet<usize>) {
        for step in steps {
            visit_op(&step.op, own, calls, victims);
        }
    }
    fn visit_op(op: &Op, own: usize, calls: usize, victims: &mut HashSet<usize>) {
        match op {
            Op::Cancel(call) => drop(victims.insert(call % calls)),
            Op::CancelSelf { .. } => drop(victims.insert(own)),
            Op::Savepoint { steps, .. } => visit(steps, own, calls, victims),
            Op::Lazy { between, .. } => visit_op(between, own, calls, victims),
            _ => {}
        }
    }
    let mut victims = HashSet::new();
    for (own, call) in batch.iter().enumerate() {
        visit(&call.steps, own, batch.len(), &mut victims);
    }
    victims
}

/// Drawn programs cancel calls by any number. This takes the number modulo the number of calls, so that the call
/// exists.
pub(crate) fn modulo(call: &Call, calls: usize) -> Call {
    fn steps_modulo(steps: &mut [Step], calls: usize) {
        steps.iter_mut().for_each(|step| op_modulo(&mut step.op, calls));
    }
    fn op_modulo(op: &mut Op, calls: usize) {
        match op {
            Op::Cancel(call) => *call %= calls,
            Op::Savepoint { steps, .. } => steps_modulo(steps, calls),
            Op::Lazy { between, .. } => op_modulo(between, calls),
            _ => {}
        }
    }
    let mut call = call.clone();
    steps_modulo(&mut call.steps, calls);
    call
}

impl Call {
    /// Whether the library may run the call again.
    pub(crate) fn may_repeat(&self) -> bool {
        self.form != Form::Once
    }

    /// The call for the model. The library refuses some statements when they are prepared. Each of them is replaced by
    /// a statement that the model's authorizer denies.
    pub(crate) fn unstrayed(&self) -> Self {
        fn replace(steps: &mut [Step]) {
            steps.iter_mut().for_each(|step| replace_op(&mut step.op));
        }
        fn replace_op(op: &mut Op) {
            match op {
                Op::Stray(sql) | Op::Smuggle(sql) => *sql = Text::from("SAVEPOINT stray"),
                Op::Savepoint { steps, .. } => replace(steps),
                Op::Lazy { between, .. } => replace_op(between),
                _ => {}
            }
        }
        let mut call = self.clone();
        replace(&mut call.steps);
        call
    }
}
