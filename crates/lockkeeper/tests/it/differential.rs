//! Random batches of calls, which fail and are canceled in every way there is, against a model that
//! runs the same calls one by one on a plain connection.
//!
//! What each caller was told, and every row that is left, must be as if the calls had run alone,
//! one after another. Calls that were canceled may have happened or not, but wholly: each of them
//! writes its number into `ledger` first, so the file itself says which happened.
//!
//! To make a batch, the writer is held by a first call until all the others are queued. To cancel
//! at a given point, the closure that runs asks the test's thread to drop a future, and waits until
//! that is done.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use lockkeeper::{Database, ErrorKind, Synchronous, Transaction};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use rusqlite::{Connection, Params, ffi};

use crate::support::{Dir, HANG, Place, count, long};

const SCHEMA: &str = "
    CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT UNIQUE) STRICT;
    CREATE TABLE child (
        id INTEGER PRIMARY KEY,
        late INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED,
        now INTEGER REFERENCES parent (id)
    ) STRICT;
    CREATE TABLE filler (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE TABLE tree (k TEXT PRIMARY KEY, v INTEGER) STRICT, WITHOUT ROWID;
    CREATE TABLE ledger (call INTEGER PRIMARY KEY) STRICT;
    CREATE TRIGGER refuse BEFORE INSERT ON parent WHEN NEW.id > 12 BEGIN
        SELECT CASE NEW.id
            WHEN 13 THEN RAISE (ROLLBACK, 'all')
            WHEN 14 THEN RAISE (ABORT, 'statement')
            WHEN 15 THEN RAISE (FAIL, 'rest')
            ELSE RAISE (IGNORE)
        END;
    END;
";

/// Every row there is, in an order that does not depend on history.
const DUMP: &str = "
    SELECT 'parent', id, name, NULL FROM parent
    UNION ALL SELECT 'child', id, late, now FROM child
    UNION ALL SELECT 'filler', id, length(body), NULL FROM filler
    UNION ALL SELECT 'tree', k, v, NULL FROM tree
    UNION ALL SELECT 'schema', name, NULL, NULL FROM sqlite_schema
    UNION ALL SELECT 'version', user_version, NULL, NULL FROM pragma_user_version
    ORDER BY 1, 2, 3, 4";

/// What SQLite says when the transaction of a statement is gone.
const LOST: i32 = ffi::SQLITE_ABORT_ROLLBACK;

#[derive(Clone, Debug)]
enum Op {
    Parent {
        conflict: &'static str,
        id: i64,
        name: i64,
    },
    /// Two rows in one statement: the second may fail after the first was written.
    Parents {
        conflict: &'static str,
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
    Read(&'static str),
    LastRow,
    Stray(&'static str),
    /// A statement, one that must not run, and another statement, in one text.
    Smuggle(&'static str),
    /// A row is asked for, then `between` runs, and only then is the row inserted.
    Lazy {
        id: i64,
        between: Box<Op>,
    },
    Savepoint {
        steps: Vec<Step>,
        keep: bool,
    },
    /// Somebody's future is dropped now.
    Cancel(usize),
    /// The call's own future is dropped in the middle of a statement.
    CancelSelf {
        writing: bool,
    },
}

#[derive(Clone, Debug)]
struct Step {
    op: Op,
    /// The call goes on when the statement fails.
    forgive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Many,
    Once,
    Try,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Good,
    Fail,
    Panic,
    /// Returns well, but forgets a statement that is half way through its rows.
    LeakRead,
    LeakWrite,
}

#[derive(Clone, Debug)]
struct Call {
    form: Form,
    /// The library gets to know closures by their type, and trusts some: calls come in several.
    kind: u8,
    steps: Vec<Step>,
    end: End,
}

#[derive(Clone)]
struct Program {
    batches: Vec<Vec<Call>>,
    memory: bool,
    calls_max: usize,
    pages_max: i64,
    /// The closures have earned the library's trust before.
    trusted: bool,
}

impl std::fmt::Debug for Program {
    /// A call per line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { batches, memory, calls_max, pages_max, trusted } = self;
        writeln!(f, "memory: {memory}, calls_max: {calls_max}, pages_max: {pages_max}")?;
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
enum Seen {
    Changed(usize),
    Rows(Vec<String>),
    Failed(i32),
    /// A nested savepoint that was undone.
    Undone,
}

/// What a closure returns when it fails.
#[derive(Debug)]
struct Failure {
    seen: Vec<Seen>,
    code: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Good(Vec<Seen>),
    Failed(Vec<Seen>, Option<i32>),
    Panicked(String),
    ForeignKey,
    RolledBack,
    NotApplied,
    Other(ErrorKind),
}

fn code(error: &rusqlite::Error) -> i32 {
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

// ---------------------------------------------------------------------------------------------
// One interpreter, two views
// ---------------------------------------------------------------------------------------------

type Sql<T> = rusqlite::Result<T>;

/// What the interpreter needs of a transaction.
trait View {
    fn execute(&self, sql: &str, params: impl Params) -> Sql<usize>;
    fn script(&self, sql: &str) -> Sql<()>;
    fn rows(&self, sql: &str, params: impl Params) -> Sql<Vec<String>>;
    fn last_row(&self) -> i64;
    /// Prepares an insert of a row, runs `between`, and only then fetches what it returns.
    fn lazily(&self, id: i64, between: &mut dyn FnMut() -> Result<(), Failure>)
    -> Sql<Vec<String>>;
    fn savepoint(&self, f: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure>;
    fn leak(&self, sql: &str);
    fn cancel(&self, call: usize);
}

const LAZY: &str = "INSERT INTO tree (k, v) VALUES ('lazy' || ?1, ?1) RETURNING k";

fn text(row: &rusqlite::Row<'_>) -> Sql<String> {
    let mut text = String::new();
    for column in 0..row.as_ref().column_count() {
        text += &format!("{:?} ", row.get_ref(column)?);
    }
    Ok(text)
}

fn fetch(mut rows: rusqlite::Rows<'_>) -> Sql<Vec<String>> {
    let mut texts = Vec::new();
    while let Some(row) = rows.next()? {
        texts.push(text(row)?);
    }
    Ok(texts)
}

/// The library's transaction.
struct Real<'t> {
    tx: &'t Transaction,
    messages: &'t mpsc::Sender<Message>,
}

impl View for Real<'_> {
    fn execute(&self, sql: &str, params: impl Params) -> Sql<usize> {
        self.tx.execute(sql, params)
    }

    fn script(&self, sql: &str) -> Sql<()> {
        self.tx.execute_batch(sql)
    }

    fn rows(&self, sql: &str, params: impl Params) -> Sql<Vec<String>> {
        fetch(self.tx.prepare_cached(sql)?.query(params)?)
    }

    fn last_row(&self) -> i64 {
        self.tx.last_insert_rowid()
    }

    fn lazily(
        &self,
        id: i64,
        between: &mut dyn FnMut() -> Result<(), Failure>,
    ) -> Sql<Vec<String>> {
        let mut statement = self.tx.prepare(LAZY)?;
        let rows = statement.query([id])?;
        let _ = between();
        let fetched = fetch(rows);
        if fetched.is_err() {
            // Without its transaction it may fail in one way or another; it must not succeed.
            self.rows("SELECT 1", [])?;
        }
        fetched
    }

    fn savepoint(&self, f: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        self.tx.savepoint(|_| f())
    }

    fn leak(&self, sql: &str) {
        if let Ok(mut statement) = self.tx.prepare(sql) {
            if let Ok(mut rows) = statement.query([]) {
                let _ = rows.next().map(drop);
                std::mem::forget(rows);
            }
            std::mem::forget(statement);
        }
    }

    fn cancel(&self, call: usize) {
        ask_to_cancel(self.messages, call);
    }
}

/// A plain connection, with the library's rules spelled out: no statement runs after the
/// transaction was lost.
///
/// It caches no statements: SQLite lets one that was compiled while `defer_foreign_keys` was on,
/// and is used when it is off, fail without undoing its row.
struct Plain<'c>(&'c Connection);

fn lost(conn: &Connection) -> Sql<()> {
    match conn.is_autocommit() {
        true => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(LOST), None)),
        false => Ok(()),
    }
}

impl View for Plain<'_> {
    fn execute(&self, sql: &str, params: impl Params) -> Sql<usize> {
        let mut statement = self.0.prepare(sql)?;
        lost(self.0)?;
        statement.execute(params)
    }

    fn script(&self, sql: &str) -> Sql<()> {
        for sql in sql.split(';').filter(|sql| !sql.trim().is_empty()) {
            let mut statement = self.0.prepare(sql)?;
            lost(self.0)?;
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
        }
        Ok(())
    }

    fn rows(&self, sql: &str, params: impl Params) -> Sql<Vec<String>> {
        let mut statement = self.0.prepare(sql)?;
        lost(self.0)?;
        fetch(statement.query(params)?)
    }

    fn last_row(&self) -> i64 {
        self.0.last_insert_rowid()
    }

    fn lazily(
        &self,
        id: i64,
        between: &mut dyn FnMut() -> Result<(), Failure>,
    ) -> Sql<Vec<String>> {
        let mut statement = self.0.prepare(LAZY)?;
        lost(self.0)?;
        let rows = statement.query([id])?;
        let _ = between();
        lost(self.0)?;
        fetch(rows)
    }

    fn savepoint(&self, f: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        lost(self.0)?;
        self.0.execute_batch("SAVEPOINT model")?;
        let result = f();
        if self.0.is_autocommit() {
            result?;
            return Ok(lost(self.0)?);
        }
        if result.is_err() {
            self.0.execute_batch("ROLLBACK TO model")?;
        }
        self.0.execute_batch("RELEASE model")?;
        result
    }

    fn leak(&self, sql: &str) {
        // The library resets what was leaked; here it is not leaked at all.
        if let Ok(mut statement) = self.0.prepare(sql)
            && lost(self.0).is_ok()
            && let Ok(mut rows) = statement.query([])
        {
            let _ = rows.next().map(drop);
        }
    }

    fn cancel(&self, _: usize) {}
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self { seen: Vec::new(), code: Some(code(&error)) }
    }
}

/// Runs a call's steps on `view`, which is what its closure does.
fn interpret(
    view: &impl View,
    call: &Call,
    number: i64,
    canceled: bool,
) -> Result<Vec<Seen>, Failure> {
    let notes = Notes::default();
    let steps = || -> Result<(), Failure> {
        if canceled {
            view.execute("INSERT INTO ledger (call) VALUES (?1)", [number])?;
        }
        run_steps(view, &call.steps, number, &notes)
    };
    let result = steps();
    let failed = |code| Failure { seen: notes.seen.borrow().clone(), code };
    match result {
        Err(failure) => Err(failed(failure.code)),
        Ok(()) => match call.end {
            End::Good => Ok(notes.seen.borrow().clone()),
            End::Fail => Err(failed(None)),
            End::Panic => std::panic::panic_any(format!("{:?}", notes.seen.borrow())),
            End::LeakRead => {
                view.leak("SELECT id FROM parent UNION ALL SELECT id FROM child");
                Ok(notes.seen.borrow().clone())
            }
            End::LeakWrite => {
                view.leak("INSERT INTO filler (body) VALUES (x'01'), (x'02') RETURNING id");
                Ok(notes.seen.borrow().clone())
            }
        },
    }
}

/// What a call has seen so far.
#[derive(Default)]
struct Notes {
    seen: RefCell<Vec<Seen>>,
    /// The transaction is gone. What a statement says then depends on when it was prepared: all
    /// that counts is that it fails.
    lost: Cell<bool>,
}

fn run_steps(view: &impl View, steps: &[Step], number: i64, notes: &Notes) -> Result<(), Failure> {
    for step in steps {
        match run_op(view, &step.op, number, notes) {
            Ok(now) => notes.seen.borrow_mut().push(now),
            Err(mut failure) => {
                if notes.lost.get() {
                    failure.code = failure.code.map(|_| LOST);
                }
                let probe = view.rows("SELECT 1", []);
                notes.lost.set(probe.is_err_and(|error| code(&error) == LOST));
                notes.seen.borrow_mut().push(failure.code.map_or(Seen::Undone, Seen::Failed));
                if !step.forgive {
                    return Err(failure);
                }
            }
        }
    }
    Ok(())
}

/// The number of changed rows after a statement that changes none is that of an earlier statement.
fn not_rows(result: Sql<usize>) -> Sql<usize> {
    result.map(|_| 0)
}

fn run_op(view: &impl View, op: &Op, number: i64, notes: &Notes) -> Result<Seen, Failure> {
    let name = |name: &i64| format!("name {name}");
    let changed = match op {
        Op::Parent { conflict, id, name: n } => view.execute(
            &format!("INSERT {conflict} INTO parent (id, name) VALUES (?1, ?2)"),
            (id, name(n)),
        )?,
        Op::Parents { conflict, ids, names } => view.execute(
            &format!("INSERT {conflict} INTO parent (id, name) VALUES (?1, ?2), (?3, ?4)"),
            (ids[0], name(&names[0]), ids[1], name(&names[1])),
        )?,
        Op::Rename { id, name: n } => {
            view.execute("UPDATE parent SET name = ?2 WHERE id >= ?1", (id, name(n)))?
        }
        Op::Orphan { id } => view.execute("DELETE FROM parent WHERE id = ?1", [id])?,
        Op::Child { late, now } => {
            view.execute("INSERT INTO child (late, now) VALUES (?1, ?2)", (late, now))?
        }
        Op::Childless => view.execute("DELETE FROM child", [])?,
        Op::DeferKeys => not_rows(view.execute("PRAGMA defer_foreign_keys = ON", []))?,
        Op::Fill { pages } => {
            view.execute("INSERT INTO filler (body) VALUES (zeroblob(?1))", [*pages as i64 * 4000])?
        }
        Op::Empty => view.execute("DELETE FROM filler", [])?,
        Op::Tree { k, v } => view.execute(
            "INSERT INTO tree (k, v) VALUES (?1, ?2)
             ON CONFLICT (k) DO UPDATE SET v = v + excluded.v",
            (format!("key {k}"), v),
        )?,
        Op::Table { drop: false } => not_rows(
            view.execute("CREATE TABLE extra (id INTEGER PRIMARY KEY, body TEXT) STRICT", []),
        )?,
        Op::Table { drop: true } => not_rows(view.execute("DROP TABLE extra", []))?,
        Op::Version(n) => {
            view.script(&format!("PRAGMA user_version = {n}"))?;
            0
        }
        Op::Read(sql) => return Ok(Seen::Rows(view.rows(sql, [])?)),
        Op::LastRow => {
            // Only after an insert of this very call is the value the call's own.
            view.execute("INSERT INTO filler (body) VALUES (x'')", [])?;
            return Ok(Seen::Rows(vec![view.last_row().to_string()]));
        }
        Op::Stray(sql) => {
            view.script(sql)?;
            0
        }
        Op::Smuggle(sql) => {
            view.script(&format!(
                "INSERT INTO filler (body) VALUES (x'0a'); {sql};
                 INSERT INTO filler (body) VALUES (x'0b')"
            ))?;
            0
        }
        Op::Lazy { id, between } => {
            let rows = view.lazily(*id, &mut || {
                let now = run_op(view, between, number, notes)?;
                notes.seen.borrow_mut().push(now);
                Ok(())
            })?;
            return Ok(Seen::Rows(rows));
        }
        Op::Savepoint { steps, keep } => {
            view.savepoint(&mut || {
                run_steps(view, steps, number, notes)?;
                match keep {
                    true => Ok(()),
                    false => Err(Failure { seen: Vec::new(), code: None }),
                }
            })?;
            0
        }
        Op::Cancel(call) => {
            view.cancel(*call);
            0
        }
        Op::CancelSelf { writing: true } => view.execute(
            "INSERT OR REPLACE INTO tree (k, v)
             WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000)
             SELECT 'long ' || n, CASE n WHEN 1 THEN rung(?1) ELSE n END FROM c",
            [number],
        )?,
        Op::CancelSelf { writing: false } => {
            let rows = view.rows(
                "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 5000)
                 SELECT sum(CASE n WHEN 1 THEN rung(?1) ELSE n END) FROM c",
                [number],
            )?;
            return Ok(Seen::Rows(rows));
        }
    };
    Ok(Seen::Changed(changed))
}

// ---------------------------------------------------------------------------------------------
// The library's side
// ---------------------------------------------------------------------------------------------

enum Message {
    /// Some future may be ready.
    Woken,
    /// Drop the future of this call, and say when it is done.
    Cancel(usize, mpsc::Sender<()>),
}

fn ask_to_cancel(messages: &mpsc::Sender<Message>, call: usize) {
    let (done, is_done) = mpsc::channel();
    messages.send(Message::Cancel(call, done)).expect("the test waits for messages");
    is_done.recv_timeout(HANG).expect("the future is dropped");
}

struct WakeUp(Mutex<mpsc::Sender<Message>>);

impl Wake for WakeUp {
    fn wake(self: Arc<Self>) {
        // Late wake-ups find the test over.
        let _ = self.0.lock().expect("no panic under this lock").send(Message::Woken);
    }
}

/// Where the function `rung` sends its requests during the current batch.
type Wire = Arc<Mutex<Option<mpsc::Sender<Message>>>>;

fn add_rung(conn: &Connection, wire: Option<Wire>) -> Sql<()> {
    let flags = rusqlite::functions::FunctionFlags::SQLITE_UTF8;
    conn.create_scalar_function("rung", 1, flags, move |context| {
        let call: i64 = context.get(0)?;
        let messages = wire.as_ref().and_then(|wire| wire.lock().expect("not poisoned").clone());
        if let Some(messages) = messages {
            ask_to_cancel(&messages, call as usize);
        }
        Ok(1_i64)
    })
}

/// The calls of a batch whose future may be dropped.
fn victims(batch: &[Call]) -> HashSet<usize> {
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

type Submitted = Pin<Box<dyn Future<Output = Answer>>>;

/// Makes the library's call of `call`, as a closure of its kind.
fn submit(
    db: &Database<Failure>,
    call: Call,
    number: i64,
    canceled: bool,
    messages: &mpsc::Sender<Message>,
) -> Submitted {
    fn of_kind<const KIND: u8>(
        db: &Database<Failure>,
        call: Call,
        number: i64,
        canceled: bool,
        messages: &mpsc::Sender<Message>,
    ) -> Submitted {
        let (form, messages) = (call.form, messages.clone());
        let body = move |tx: &Transaction| {
            if number != WARM_UP {
                RUNS.fetch_add(1, Ordering::Relaxed);
            }
            interpret(&Real { tx, messages: &messages }, &call, number, canceled)
        };
        match form {
            Form::Many => Box::pin(db.write(body)),
            Form::Once => Box::pin(db.write_once(body)),
            Form::Try => Box::pin(db.try_write(body).map_err(|_| ()).expect("there is room")),
        }
    }
    let of_kind = match call.kind {
        0 => of_kind::<0>,
        1 => of_kind::<1>,
        2 => of_kind::<2>,
        3 => of_kind::<3>,
        4 => of_kind::<4>,
        _ => of_kind::<5>,
    };
    of_kind(db, call, number, canceled, messages)
}

const KINDS: u8 = 6;

/// The number of calls that only earn trust.
const WARM_UP: i64 = -1;

/// Lets each kind of closure run harmlessly so often that the library trusts it.
fn earn_trust(db: &Database<Failure>) {
    let (messages, _inbox) = mpsc::channel();
    let calls = (0..KINDS).flat_map(|kind| {
        let call = move |form| Call { form, kind, steps: Vec::new(), end: End::Good };
        std::iter::repeat_n([call(Form::Many), call(Form::Once), call(Form::Try)], 10).flatten()
    });
    let mut flying: Vec<_> =
        calls.map(|call| submit(db, call, WARM_UP, false, &messages)).collect();
    let mut context = Context::from_waker(Waker::noop());
    for future in &mut flying {
        let _ = future.as_mut().poll(&mut context);
    }
    // In order: when this one is answered, all are.
    db.blocking_write(|_| Ok(())).expect("the writer lives");
}

type Answer = Result<Vec<Seen>, lockkeeper::Error<Failure>>;

/// Closures that were run, more than once or not, over all programs.
static RUNS: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);
static CANCELED: AtomicUsize = AtomicUsize::new(0);
static NOT_APPLIED: AtomicUsize = AtomicUsize::new(0);

/// Runs `batch` through the library; `None`: the call was canceled.
fn run_batch(db: &Database<Failure>, batch: &[Call], wire: &Wire) -> Vec<Option<Outcome>> {
    let (messages, inbox) = mpsc::channel();
    *wire.lock().expect("not poisoned") = Some(messages.clone());
    let waker = Waker::from(Arc::new(WakeUp(Mutex::new(messages.clone()))));
    let mut context = Context::from_waker(&waker);
    let victims = victims(batch);

    // test                          | writer
    // ------------------------------+--------------------------------
    //                               | gate begins, waits
    // queue all calls               |
    // release                       |
    //                               | one batch: the gate and all calls
    let (begun, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let mut gate = db.write_once(move |_| {
        let _ = begun.send(());
        let _ = released.recv_timeout(HANG);
        Ok(())
    });
    assert!(Pin::new(&mut gate).poll(&mut context).is_pending());
    has_begun.recv_timeout(HANG).expect("the gate begins");

    let mut flying: Vec<Option<Pin<Box<dyn Future<Output = Answer>>>>> = Vec::new();
    for (index, call) in batch.iter().enumerate() {
        let canceled = victims.contains(&index);
        let call = modulo(call, batch.len());
        let mut future = submit(db, call, index as i64, canceled, &messages);
        assert!(future.as_mut().poll(&mut context).is_pending());
        flying.push(Some(future));
    }
    release.send(()).expect("the gate waits");

    let mut outcomes = vec![None; batch.len()];
    while flying.iter().any(Option::is_some) {
        match inbox.recv_timeout(HANG).expect("the calls are answered") {
            Message::Cancel(index, done) => {
                if flying[index].take().is_some() {
                    CANCELED.fetch_add(1, Ordering::Relaxed);
                }
                let _ = done.send(());
            }
            Message::Woken => {
                for index in 0..flying.len() {
                    let Some(future) = &mut flying[index] else { continue };
                    let polled =
                        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
                    let outcome = match polled {
                        Ok(Poll::Pending) => continue,
                        Ok(Poll::Ready(answer)) => outcome_of(answer),
                        Err(payload) => Outcome::Panicked(said(payload)),
                    };
                    outcomes[index] = Some(outcome);
                    flying[index] = None;
                }
            }
        }
    }
    *wire.lock().expect("not poisoned") = None;
    drop(gate);
    outcomes
}

/// Cancels name calls by any number; here by one that exists.
fn modulo(call: &Call, calls: usize) -> Call {
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

fn said(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => match payload.downcast::<&str>() {
            Ok(text) => format!("not the call's own panic: {text}"),
            Err(_) => String::from("not the call's own panic"),
        },
    }
}

fn outcome_of(answer: Answer) -> Outcome {
    let error = match answer {
        Ok(seen) => return Outcome::Good(seen),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::Call => {
            let failure = error.into_call().expect("a call's error holds what it returned");
            Outcome::Failed(failure.seen, failure.code)
        }
        ErrorKind::ForeignKey => Outcome::ForeignKey,
        ErrorKind::RolledBack => Outcome::RolledBack,
        ErrorKind::NotApplied => Outcome::NotApplied,
        other => Outcome::Other(other),
    }
}

// ---------------------------------------------------------------------------------------------
// The model's side, and the comparison
// ---------------------------------------------------------------------------------------------

fn run_alone(model: &Connection, call: &Call, index: usize, canceled: bool) -> Outcome {
    let sql = |text| model.execute_batch(text).expect("the model runs");
    // A PRAGMA works when it is prepared, also in a call whose transaction is gone.
    sql("PRAGMA defer_foreign_keys = OFF; BEGIN IMMEDIATE");
    let ran =
        catch_unwind(AssertUnwindSafe(|| interpret(&Plain(model), call, index as i64, canceled)));
    let outcome = match ran {
        Ok(Ok(_)) if model.is_autocommit() => return Outcome::RolledBack,
        Ok(Ok(seen)) => match model.execute_batch("COMMIT") {
            Ok(()) => return Outcome::Good(seen),
            Err(error) => {
                assert_eq!(code(&error), ffi::SQLITE_CONSTRAINT_FOREIGNKEY);
                Outcome::ForeignKey
            }
        },
        Ok(Err(failure)) => Outcome::Failed(failure.seen, failure.code),
        Err(payload) => Outcome::Panicked(said(payload)),
    };
    if !model.is_autocommit() {
        sql("ROLLBACK");
    }
    outcome
}

fn dump(conn: &Connection) -> Vec<String> {
    fetch(conn.prepare(DUMP).expect("a dump").query([]).expect("a dump")).expect("a dump")
}

fn check(program: &Program) -> Result<(), TestCaseError> {
    let dir = Dir::new();
    let wire: Wire = Arc::default();
    let (rung, pages_max) = (Arc::clone(&wire), program.pages_max);
    let place = if program.memory { Place::Memory } else { Place::File };
    let plain_db = dir
        .builder(place)
        .readers(1)
        .synchronous(Synchronous::Off)
        .batch_max(program.calls_max, Duration::from_secs(60), u64::MAX)
        .setup(move |conn| {
            add_rung(conn, Some(Arc::clone(&rung)))?;
            conn.query_row(&format!("PRAGMA max_page_count = {pages_max}"), [], |_| Ok(()))
        })
        .blocking_open()
        .expect("the database opens");
    plain_db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("the schema is made");
    let db = plain_db.with_error::<Failure>();
    if program.trusted {
        earn_trust(&db);
    }

    let mut model = Connection::open_in_memory().expect("the model opens");
    add_rung(&model, None).expect("the model opens");
    model
        .execute_batch(&format!(
            "PRAGMA foreign_keys = ON; {SCHEMA} PRAGMA max_page_count = {pages_max};"
        ))
        .expect("the model opens");
    // What a call may not do, the model may not do either.
    model
        .authorizer(Some(|context: rusqlite::hooks::AuthContext<'_>| {
            use rusqlite::hooks::{AuthAction, Authorization};
            match context.action {
                AuthAction::Savepoint { savepoint_name: "model", .. } => Authorization::Allow,
                AuthAction::Savepoint { .. } | AuthAction::Attach { .. } => Authorization::Deny,
                _ => Authorization::Allow,
            }
        }))
        .expect("the model opens");

    for batch in &program.batches {
        let outcomes = run_batch(&db, batch, &wire);
        CALLS.fetch_add(batch.len(), Ordering::Relaxed);
        let (happened, after) = db
            .blocking_write(|tx| {
                let happened = tx
                    .prepare("DELETE FROM ledger RETURNING call")
                    .and_then(|mut statement| {
                        statement.query_map([], |row| Ok(row.get::<_, i64>(0)? as usize))?.collect()
                    })
                    .map_err(Failure::from)?;
                let happened: HashSet<usize> = happened;
                let rows = fetch(tx.prepare(DUMP)?.query([])?)?;
                Ok((happened, rows))
            })
            .expect("the rows can be read");

        let victims = victims(batch);
        for (index, (call, outcome)) in batch.iter().zip(outcomes).enumerate() {
            let may_repeat = call.form != Form::Once;
            let canceled = victims.contains(&index);
            match outcome {
                // Canceled, and it never happened.
                None if !happened.contains(&index) => {}
                None => {
                    let alone = run_alone(&model, &call.unstrayed(), index, canceled);
                    prop_assert!(
                        matches!(alone, Outcome::Good(_)),
                        "call {index} was canceled and is stored, alone it would be {alone:?}"
                    );
                }
                Some(Outcome::NotApplied) => {
                    NOT_APPLIED.fetch_add(1, Ordering::Relaxed);
                    prop_assert!(!may_repeat, "call {index} may be run again, but was not");
                    prop_assert!(!happened.contains(&index), "call {index} is stored");
                }
                // It cannot be run again, and a panic is never swallowed: the payload may tell of
                // rows that a neighbour's loss took away.
                Some(Outcome::Panicked(text)) if !may_repeat => {
                    prop_assert!(text.starts_with('['), "call {index} panicked with {text:?}");
                }
                Some(outcome) => {
                    let alone = run_alone(&model, &call.unstrayed(), index, canceled);
                    prop_assert_eq!(&outcome, &alone, "call {} (real, alone)", index);
                }
            }
        }
        model.execute_batch("DELETE FROM ledger").expect("the model runs");
        prop_assert_eq!(after, dump(&model), "rows (real, alone)");
    }
    plain_db.blocking_close().expect("the database closes");
    Ok(())
}

impl Call {
    /// The call as the model can run it: what the library denies at prepare time is denied to the
    /// model by a text that its authorizer denies.
    fn unstrayed(&self) -> Self {
        fn replace(steps: &mut [Step]) {
            steps.iter_mut().for_each(|step| replace_op(&mut step.op));
        }
        fn replace_op(op: &mut Op) {
            match op {
                Op::Stray(sql) | Op::Smuggle(sql) => *sql = "SAVEPOINT stray",
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

// ---------------------------------------------------------------------------------------------
// Drawing programs
// ---------------------------------------------------------------------------------------------

fn conflict() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        6 => Just(""),
        2 => Just("OR ROLLBACK"),
        1 => Just("OR ABORT"),
        1 => Just("OR FAIL"),
        1 => Just("OR IGNORE"),
        1 => Just("OR REPLACE"),
    ]
}

fn stray() -> impl Strategy<Value = &'static str> {
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

fn simple_op() -> BoxedStrategy<Op> {
    let id = || 0..16_i64;
    let name = || 0..8_i64;
    let some_id = || prop::option::of(0..13_i64);
    prop_oneof![
        8 => (conflict(), id(), name())
            .prop_map(|(conflict, id, name)| Op::Parent { conflict, id, name }),
        4 => (conflict(), [id(), id()], [name(), name()])
            .prop_map(|(conflict, ids, names)| Op::Parents { conflict, ids, names }),
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
        ]).prop_map(Op::Read),
        1 => Just(Op::LastRow),
        2 => stray().prop_map(Op::Stray),
        1 => stray().prop_map(Op::Smuggle),
        3 => any::<usize>().prop_map(Op::Cancel),
    ]
    .boxed()
}

fn op() -> BoxedStrategy<Op> {
    let nested = prop::collection::vec(step(simple_op()), 1..4);
    prop_oneof![
        20 => simple_op(),
        1 => any::<bool>().prop_map(|writing| Op::CancelSelf { writing }),
        2 => (0..4_i64, simple_op())
            .prop_map(|(id, between)| Op::Lazy { id, between: Box::new(between) }),
        2 => (nested, any::<bool>()).prop_map(|(steps, keep)| Op::Savepoint { steps, keep }),
    ]
    .boxed()
}

fn step(op: BoxedStrategy<Op>) -> impl Strategy<Value = Step> {
    (op, any::<bool>()).prop_map(|(op, forgive)| Step { op, forgive })
}

fn call() -> impl Strategy<Value = Call> {
    let form = prop_oneof![4 => Just(Form::Many), 2 => Just(Form::Once), 1 => Just(Form::Try)];
    let end = prop_oneof![
        12 => Just(End::Good),
        2 => Just(End::Fail),
        1 => Just(End::Panic),
        1 => Just(End::LeakRead),
        1 => Just(End::LeakWrite),
    ];
    // One statement each, as most calls of most programs.
    let short = prop::collection::vec(step(simple_op()), 0..2);
    let steps = prop_oneof![1 => short, 2 => prop::collection::vec(step(op()), 0..5)];
    (form, 0..KINDS, steps, end).prop_map(|(form, kind, steps, end)| Call {
        form,
        kind,
        steps,
        end,
    })
}

fn program() -> impl Strategy<Value = Program> {
    let batch = prop::collection::vec(call(), 1..12);
    let calls_max = prop_oneof![4 => Just(1024_usize), 1 => 1..6_usize];
    let pages_max = prop_oneof![1 => Just(1_000_000_i64), 1 => 24..80_i64];
    let memory = prop_oneof![4 => Just(false), 1 => Just(true)];
    let batches = prop::collection::vec(batch, BATCHES_PER_PROGRAM);
    (batches, memory, calls_max, pages_max, any::<bool>()).prop_map(
        |(batches, memory, calls_max, pages_max, trusted)| Program {
            batches,
            memory,
            calls_max,
            pages_max,
            trusted,
        },
    )
}

const BATCHES_PER_PROGRAM: usize = 8;

#[test]
fn a06_a_batch_is_told_and_leaves_what_its_calls_would_alone() {
    let batches = count(2_400, 100_000);
    let config = ProptestConfig {
        cases: (batches / BATCHES_PER_PROGRAM) as u32,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    };
    // The default form is the same every time; the long form goes where it never was.
    let mut runner = match long() {
        true => TestRunner::new(config),
        false => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let quiet = Quiet::panics_of_calls();
    let result = runner.run(&program(), |program| check(&program));
    drop(quiet);
    let (calls, runs) = (CALLS.load(Ordering::Relaxed), RUNS.load(Ordering::Relaxed));
    let canceled = CANCELED.load(Ordering::Relaxed);
    let not_applied = NOT_APPLIED.load(Ordering::Relaxed);
    println!(
        "{batches} batches, {calls} calls, {runs} runs of closures, {canceled} canceled, \
         {not_applied} not applied"
    );
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(runs > calls, "no call was ever run again: the test has lost its teeth");
    assert!(canceled > calls / 100 && not_applied > 0);
}

/// Keeps the panics that the calls are made to have out of the test's output.
struct Quiet;

impl Quiet {
    fn panics_of_calls() -> Self {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let own = info.payload().is::<String>() && thread.name() == Some("lockkeeper-writer");
            let model = info.payload().downcast_ref::<String>().is_some_and(|s| s.starts_with('['));
            if !own && !model {
                hook(info);
            }
        }));
        Self
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        drop(std::panic::take_hook());
    }
}
