//! What the calls of a batch change, noted while they run; only while somebody subscribes.
//!
//! SQLite's update hook names the rows of ordinary tables as they change. It is silent about tables
//! without row ids, virtual tables, rows that `REPLACE` removes, `DELETE FROM t` without a condition,
//! and the row id that an `UPDATE` of the key leaves behind
//! (<https://www.sqlite.org/c3ref/update_hook.html>), and nothing takes an event back when a
//! statement or a savepoint is undone. So there is a second source: the authorizer names every table
//! that a statement may write, triggers and foreign keys included, when it is prepared.
//!
//! | what | trusted to be complete | reported |
//! |---|---|---|
//! | a row that the hook named | yes | table, kind, row id |
//! | a statement that may do what the hook does not name | no | its tables alone |
//! | a blob that was written into | no | its table alone |
//! | a table created or dropped | no | the table alone |
//! | a table altered, perhaps renamed | no | the table alone, then [`Change::Unknown`] |
//! | more than [`CALL_ROWS_MAX`] rows in a call | no | the table alone |
//!
//! Invariants:
//!
//! - REC1: what is undone is not reported. A failed statement takes its events with it, a savepoint that
//!   is rolled back too, a failed call has its notes thrown away, and a lost transaction those of all
//!   its calls. Where it cannot be told whether a statement was undone, its tables are reported alone:
//!   too much may be said, never too little.
//! - REC2: events are added while a statement runs and are taken out by the owner between statements;
//!   no lock is held while SQLite runs, and the callbacks only push (no SQLite call in a hook).
//! - REC3: every list has a bound: rows by [`CALL_ROWS_MAX`] (those of a batch in `writer/publisher.rs`), statements and
//!   tables that are remembered by [`KNOWN_MAX`].

use std::collections::HashMap;
use std::ffi::{CStr, c_int};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::hooks::{AuthAction, AuthContext};
use rusqlite::{Connection, ffi};

#[cfg(doc)]
use super::change::Change;
use super::change::{CallChanges, RowChange, RowKind, TableChange};
use super::table::{Nature, is_own, look_up, mentions_replace};
use crate::ffi::{RowSink, Session};
use crate::sync::{Mutex, lock};

/// Rows of one call that are named one by one.
pub(crate) const CALL_ROWS_MAX: usize = 10_000;

/// Statements, and tables, that are remembered; more are looked at anew.
const KNOWN_MAX: usize = 1024;

/// A table's index among the interned names.
type Table = usize;

/// A table of a call with its rows; `None`: it is reported alone.
type Told = (Table, Option<Vec<RowChange>>);

/// The notes of one connection. The hooks and the owner run on the same thread; the lock satisfies
/// the callbacks' bounds and is never contended.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    on: AtomicBool,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    /// Of this call: what the hook named, in order.
    rows: Vec<(Table, RowChange)>,
    /// Of this call: tables to be reported alone.
    alone: Vec<Table>,
    /// There were more rows than may be named.
    full: bool,
    /// Of this call: it altered a table, whose new name nobody says.
    altered: bool,
    /// What the authorizer said since it was last asked.
    said: Vec<Said>,
    /// Statements that ran in this call; tells whether one ran inside another.
    runs: u64,
    names: Vec<Arc<str>>,
    index: HashMap<(String, String), Table>,
    plans: HashMap<String, Arc<Plan>>,
    tables: HashMap<Table, Arc<Nature>>,
    /// This transaction has changed the schema: what is learnt now may be undone with it.
    schema_changed: bool,
}

/// One thing that a statement may do.
type Said = (Table, What);

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Insert,
    Delete,
    Update(String),
    Schema,
}

/// What a statement may write that the hook does not name.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Reported alone when the statement changed anything.
    vague: Vec<Table>,
    /// Reported alone when rows changed that the hook did not name.
    emptied: Vec<Table>,
    /// Reported alone in any case.
    schema: Vec<Table>,
    /// It writes several tables: triggers, or foreign keys.
    several: bool,
}

/// Where the notes stood when a statement or a savepoint began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    rows: usize,
    alone: usize,
    runs: u64,
    changes: u64,
}

/// Whether the outcome of a run is known when it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Failed,
    /// Its rows were fetched by the caller, who alone saw an error.
    Unseen,
}

impl Recorder {
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The authorizer: what the statement that is being prepared may do (REC2).
    pub(crate) fn authorized(&self, context: &AuthContext<'_>) {
        let (table, what) = match context.action {
            AuthAction::Insert { table_name } => (table_name, What::Insert),
            AuthAction::Delete { table_name } => (table_name, What::Delete),
            AuthAction::Update { table_name, column_name } => {
                (table_name, What::Update(column_name.to_owned()))
            }
            AuthAction::CreateTable { table_name }
            | AuthAction::DropTable { table_name }
            | AuthAction::AlterTable { table_name, .. }
            | AuthAction::CreateVtable { table_name, .. }
            | AuthAction::DropVtable { table_name, .. }
            | AuthAction::CreateTrigger { table_name, .. }
            | AuthAction::DropTrigger { table_name, .. } => (table_name, What::Schema),
            AuthAction::DropView { view_name } | AuthAction::CreateView { view_name } => {
                (view_name, What::Schema)
            }
            AuthAction::CreateTempTable { .. }
            | AuthAction::CreateTempTrigger { .. }
            | AuthAction::CreateTempView { .. }
            | AuthAction::DropTempTable { .. }
            | AuthAction::DropTempTrigger { .. }
            | AuthAction::DropTempView { .. } => {
                // A name means another table now, and this ends with the call.
                lock(&self.notes).forget_schema();
                return;
            }
            _ => return,
        };
        let schema = match context.action {
            AuthAction::AlterTable { database_name, .. } => database_name,
            _ => context.database_name.unwrap_or("main"),
        };
        let mut notes = lock(&self.notes);
        if what == What::Schema {
            notes.forget_schema();
        }
        let Some(table) = notes.intern(schema, table) else { return };
        notes.altered |= matches!(context.action, AuthAction::AlterTable { .. });
        let said = (table, what);
        // A statement says the same of a table many times, once for each trigger.
        if notes.said.len() < KNOWN_MAX && !notes.said.contains(&said) {
            notes.said.push(said);
        }
    }

    /// A transaction begins.
    pub(crate) fn begin_transaction(&self) {
        lock(&self.notes).schema_changed = false;
    }

    /// A call begins; `on`: its changes are wanted.
    pub(crate) fn begin_call(self: &Arc<Self>, session: &Session, on: bool) {
        if on != self.is_on() {
            self.on.store(on, Ordering::Relaxed);
            match on {
                true => session.hook_rows(self),
                false => session.unhook_rows(),
            }
            self.forget();
        }
        if on {
            lock(&self.notes).begin_call();
        }
    }

    /// Forgets what was learnt of statements and tables: somebody else may have changed the schema.
    pub(crate) fn forget(&self) {
        *lock(&self.notes) = Notes::default();
    }

    /// Takes away the hook, before somebody gets the bare connection.
    pub(crate) fn unhook(&self, session: &Session) {
        self.on.store(false, Ordering::Relaxed);
        session.unhook_rows();
        self.forget();
    }

    /// What the statement `sql`, just prepared, may write.
    pub(crate) fn plan(&self, conn: &Connection, sql: &str) -> Arc<Plan> {
        let said = std::mem::take(&mut lock(&self.notes).said);
        self.make_plan(conn, sql, &said)
    }

    /// The same for a statement that comes from the cache, where the authorizer said nothing.
    pub(crate) fn plan_cached(&self, conn: &Connection, sql: &str) -> Arc<Plan> {
        let known = {
            let mut notes = lock(&self.notes);
            notes.said.clear();
            notes.plans.get(sql).cloned()
        };
        if let Some(plan) = known {
            return plan;
        }
        // Prepared once more, for the authorizer's sake. It has been prepared before, so this
        // works; if it does not, running the statement will tell the caller.
        drop(conn.prepare(sql));
        let plan = self.plan(conn, sql);
        let mut notes = lock(&self.notes);
        if !notes.schema_changed {
            if notes.plans.len() >= KNOWN_MAX {
                notes.plans.clear();
            }
            notes.plans.insert(sql.to_owned(), Arc::clone(&plan));
        }
        plan
    }

    fn make_plan(&self, conn: &Connection, sql: &str, said: &[Said]) -> Arc<Plan> {
        let mut plan = Plan::default();
        let mut replaces = mentions_replace(sql);
        let mut written: Vec<Table> = Vec::new();
        for (table, what) in said {
            if *what == What::Schema {
                push_new(&mut plan.schema, *table);
                continue;
            }
            let nature = self.nature(conn, *table);
            replaces |= nature.replaces;
            if nature.view {
                continue;
            }
            push_new(&mut written, *table);
            let moves = match what {
                What::Update(column) => {
                    column.eq_ignore_ascii_case("rowid")
                        || nature.keys.iter().any(|key| key.eq_ignore_ascii_case(column))
                }
                _ => false,
            };
            if !nature.named || moves {
                push_new(&mut plan.vague, *table);
            }
            if *what == What::Delete {
                push_new(&mut plan.emptied, *table);
            }
        }
        plan.several = written.len() > 1;
        if replaces {
            plan.vague = written;
        }
        Arc::new(plan)
    }

    fn nature(&self, conn: &Connection, table: Table) -> Arc<Nature> {
        let name = {
            let notes = lock(&self.notes);
            if let Some(nature) = notes.tables.get(&table) {
                return Arc::clone(nature);
            }
            notes.index.iter().find(|(_, index)| **index == table).map(|(name, _)| name.clone())
        };
        let nature = name.and_then(|(schema, name)| look_up(conn, &schema, &name).ok());
        // What cannot be looked up is not trusted.
        let unknown = Nature { view: false, named: false, replaces: true, keys: Vec::new() };
        let nature = Arc::new(nature.unwrap_or(unknown));
        let mut notes = lock(&self.notes);
        // Looking the table up was reading: what it said of itself is of no interest.
        notes.said.clear();
        if !notes.schema_changed {
            notes.tables.insert(table, Arc::clone(&nature));
        }
        nature
    }

    pub(crate) fn mark(&self, conn: &Connection) -> Mark {
        let changes = conn.total_changes();
        let notes = lock(&self.notes);
        Mark { rows: notes.rows.len(), alone: notes.alone.len(), runs: notes.runs, changes }
    }

    /// Takes back what was noted since `mark`: a savepoint was rolled back (REC1).
    pub(crate) fn undo(&self, mark: Mark) {
        let mut notes = lock(&self.notes);
        notes.rows.truncate(mark.rows);
        notes.alone.truncate(mark.alone);
    }

    /// A statement is about to run.
    pub(crate) fn begin_run(&self, conn: &Connection, plan: &Plan, unseen: bool) -> Mark {
        {
            let mut notes = lock(&self.notes);
            notes.runs += 1;
            notes.said.clear();
            if unseen {
                // Its end may never be seen.
                notes.report_alone(plan.vague.iter().chain(&plan.emptied).chain(&plan.schema));
            }
        }
        self.mark(conn)
    }

    /// The call writes into a blob of this table, of which the hook says nothing.
    pub(crate) fn blob_written(&self, schema: &str, table: &str) {
        let mut notes = lock(&self.notes);
        let table = notes.intern(schema, table);
        notes.report_alone(&table);
    }

    /// A statement has run: its events are kept, taken back or made vague (REC1).
    pub(crate) fn end_run(&self, conn: &Connection, plan: &Plan, mark: Mark, outcome: Outcome) {
        let changes = conn.total_changes() - mark.changes;
        let said = std::mem::take(&mut lock(&self.notes).said);
        // It was prepared again on the way, because the schema has changed since.
        let anew = (!said.is_empty()).then(|| self.make_plan(conn, "", &said));
        let mut notes = lock(&self.notes);
        let events = (notes.rows.len().saturating_sub(mark.rows)) as u64;
        let nested = notes.runs != mark.runs;
        if outcome == Outcome::Failed && changes == 0 && !nested {
            notes.rows.truncate(mark.rows);
            notes.alone.truncate(mark.alone);
            return;
        }
        let doubtful = match outcome {
            Outcome::Done => nested,
            // `OR FAIL` keeps the rows before the one that failed; triggers count theirs at once.
            Outcome::Failed => true,
            Outcome::Unseen => nested || events > changes || plan.several,
        };
        if doubtful {
            let rows = notes.rows.get(mark.rows..).unwrap_or_default();
            let tables: Vec<Table> = rows.iter().map(|(table, _)| *table).collect();
            notes.report_alone(&tables);
        }
        for plan in anew.as_deref().into_iter().chain([plan]) {
            let emptied: &[Table] = if changes > events || doubtful { &plan.emptied } else { &[] };
            let vague: &[Table] = if changes > 0 || doubtful { &plan.vague } else { &[] };
            notes.report_alone(emptied.iter().chain(vague).chain(&plan.schema));
        }
    }

    /// What the call changed, and whether it altered a table; `rows_max`: how many rows may be named.
    pub(crate) fn take_call(&self, rows_max: usize) -> (CallChanges, bool) {
        let mut notes = lock(&self.notes);
        let rows = std::mem::take(&mut notes.rows);
        let alone = std::mem::take(&mut notes.alone);
        let mut tables: Vec<Told> = Vec::new();
        let too_many = rows.len() > rows_max;
        let mut last = usize::MAX;
        for (table, row) in rows {
            if tables.get(last).is_none_or(|(of, _)| *of != table) {
                last = tables.iter().position(|(of, _)| *of == table).unwrap_or_else(|| {
                    let named = !too_many && !alone.contains(&table);
                    tables.push((table, named.then(Vec::new)));
                    tables.len() - 1
                });
            }
            if let Some((_, Some(rows))) = tables.get_mut(last) {
                rows.push(row);
            }
        }
        for table in alone {
            if !tables.iter().any(|(of, _)| *of == table) {
                tables.push((table, None));
            }
        }
        let named =
            |(table, rows): Told| TableChange { table: Arc::clone(&notes.names[table]), rows };
        let tables = tables.into_iter().map(named).collect();
        (CallChanges { tables, schema: notes.schema_changed }, notes.altered)
    }
}

impl RowSink for Recorder {
    /// The update hook (REC2).
    fn row(&self, action: c_int, schema: &CStr, table: &CStr, rowid: i64) {
        if !self.is_on() {
            return;
        }
        let kind = match action {
            ffi::SQLITE_INSERT => RowKind::Insert,
            ffi::SQLITE_DELETE => RowKind::Delete,
            _ => RowKind::Update,
        };
        let (Ok(schema), Ok(table)) = (schema.to_str(), table.to_str()) else { return };
        let mut notes = lock(&self.notes);
        let Some(table) = notes.intern(schema, table) else { return };
        notes.full |= notes.rows.len() >= CALL_ROWS_MAX;
        match notes.full {
            true => notes.report_alone([&table]),
            false => notes.rows.push((table, RowChange { kind, rowid })),
        }
    }
}

impl Notes {
    fn begin_call(&mut self) {
        if self.names.len() > KNOWN_MAX {
            *self = Self { schema_changed: self.schema_changed, ..Self::default() };
        }
        self.rows.clear();
        self.alone.clear();
        self.full = false;
        self.altered = false;
        self.said.clear();
    }

    /// The index of a table; `None`: nobody outside this connection sees it, or SQLite's own.
    fn intern(&mut self, schema: &str, table: &str) -> Option<Table> {
        if schema.eq_ignore_ascii_case("temp") || is_own(table) {
            return None;
        }
        // The last table is most probably the next one.
        if let Some((last, _)) = self.rows.last()
            && schema == "main"
            && &*self.names[*last] == table
        {
            return Some(*last);
        }
        let key = (schema.to_owned(), table.to_owned());
        if let Some(&known) = self.index.get(&key) {
            return Some(known);
        }
        self.names.push(match schema {
            "main" => table.into(),
            _ => format!("{schema}.{table}").into(),
        });
        self.index.insert(key, self.names.len() - 1);
        Some(self.names.len() - 1)
    }

    /// The schema changes: what is known of statements and tables is wrong, and what is learnt now may be
    /// undone.
    fn forget_schema(&mut self) {
        self.schema_changed = true;
        self.plans.clear();
        self.tables.clear();
    }

    fn report_alone<'t>(&mut self, tables: impl IntoIterator<Item = &'t Table>) {
        tables.into_iter().for_each(|table| push_new(&mut self.alone, *table));
    }
}

fn push_new(list: &mut Vec<Table>, table: Table) {
    if !list.contains(&table) {
        list.push(table);
    }
}
