//! What a program is made of, and what its calls can be told.

use std::borrow::Cow;
use std::collections::HashSet;

use lockkeeper::ErrorKind;
use rusqlite::ffi;
use serde::{Deserialize, Serialize};

/// What SQLite says when the transaction of a statement is gone.
pub(crate) const LOST: i32 = ffi::SQLITE_ABORT_ROLLBACK;

/// Part of a statement: drawn from a list, or read from a file.
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
    /// A statement, one that must not run, and another statement, in one text.
    Smuggle(Text),
    /// A row is asked for, then `between` runs, and only then is the row inserted.
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
    /// Somebody's future is dropped now.
    Cancel(usize),
    /// The call's own future is dropped in the middle of a statement.
    CancelSelf {
        writing: bool,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) op: Op,
    /// The call goes on when the statement fails.
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
    /// Returns well, but forgets a statement that is half way through its rows.
    LeakRead,
    LeakWrite,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) form: Form,
    /// The library gets to know closures by their type, and trusts some: calls come in several.
    pub(crate) kind: u8,
    pub(crate) steps: Vec<Step>,
    pub(crate) end: End,
}

#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) batches: Vec<Vec<Call>>,
    /// The rich schema is there too.
    pub(crate) rich: bool,
    pub(crate) memory: bool,
    pub(crate) calls_max: usize,
    pub(crate) pages_max: i64,
    /// The closures have earned the library's trust before.
    pub(crate) trusted: bool,
}

impl std::fmt::Debug for Program {
    /// A call per line.
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
    /// A nested savepoint that was undone.
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
    /// COMMIT failed with this code of SQLite's, and nothing is stored: a full-text table that was made and written
    /// in a savepoint that was undone does that to a plain connection, too.
    CommitFailed(i32),
    NotApplied,
    Other(ErrorKind),
}

pub(crate) fn code(error: &rusqlite::Error) -> i32 {
    let error = match error {
        // The same failure, with the place in the text.
        rusqlite::Error::SqlInputError { error, .. } => Some(error),
        other => other.sqlite_error(),
    };
    match error.map(|error| error.extended_code) {
        // The commit that the library refuses is one of a statement without its transaction.
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

/// Cancels name calls by any number; here by one that exists.
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
    /// Whether the library may run it again.
    pub(crate) fn may_repeat(&self) -> bool {
        self.form != Form::Once
    }

    /// The call as the model can run it: what the library denies at prepare time is denied to the
    /// model by a text that its authorizer denies.
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
