//! Notes what calls change, while they run and while the change feed has subscribers.
//!
//! SQLite's update hook names the rows of ordinary tables as they change. It does not report tables without row ids,
//! virtual tables, rows that `REPLACE` removes, `DELETE FROM t` without a condition, and the old row id when an
//! `UPDATE` changes the key (<https://www.sqlite.org/c3ref/update_hook.html>), nor that a statement or a savepoint was
//! undone. So there is a second source: when a statement is prepared, the authorizer names every table that the
//! statement may write, also through triggers and foreign keys.
//!
//! | what was noted | complete | reported |
//! |---|---|---|
//! | a row that the hook named | yes | table, kind, row id |
//! | a statement that may do what the hook does not report | no | its tables alone |
//! | a blob that was written into | no | its table alone |
//! | a table created or dropped | no | the table alone |
//! | a table altered, perhaps renamed | no | the table alone, then [`Change::Unknown`] |
//! | more than [`CALL_ROWS_MAX`] rows in a call | no | the table alone |
//!
//! Invariants:
//!
//! - REC1: what is undone is not reported. The notes of a failed statement, of a savepoint that is rolled back, of a failed
//!   call and of all calls of a lost transaction are discarded. Where it is not certain that a statement was undone, its
//!   tables are reported without rows: too much may be reported, never too little.
//! - REC2: the callbacks add notes while a statement runs, and the connection's owner reads the notes between
//!   statements. No lock is held while SQLite runs, and a callback does not call SQLite.
//! - REC3: every list is bounded: rows by [`CALL_ROWS_MAX`] (those of a batch in `writer/publisher.rs`), remembered
//!   statements and tables by [`KNOWN_MAX`].

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

/// The most rows of one call that are reported one by one.
pub(crate) const CALL_ROWS_MAX: usize = 10_000;

/// The most statements, and the most tables, that are remembered.
const KNOWN_MAX: usize = 1024;

/// A table's index among the interned names.
type Table = usize;

/// A table that a call changed, and the rows that it changed there. `None`: the table is reported without rows.
type Told = (Table, Option<Vec<RowChange>>);

/// The notes of one connection. The hooks and the owner run on the same thread; the lock is there because callbacks must be
/// `Send`, and is never contended.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    on: AtomicBool,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    /// The rows of the running call that the hook named, in order.
    rows: Vec<(Table, RowChange)>,
    /// The tables of the running call that will be reported without rows.
    alone: Vec<Table>,
    /// The running call has changed more than [`CALL_ROWS_MAX`] rows.
    full: bool,
    /// The running call altered a table. SQLite does not report a table's new name.
    altered: bool,
    /// What the authorizer has reported since `said` was last taken or cleared.
    said: Vec<Said>,
    /// How many runs of statements have begun. If the number rises during a run, another statement ran inside that run.
    runs: u64,
    /// The interned names, as they are reported.
    names: Vec<Arc<str>>,
    index: HashMap<(String, String), Table>,
    plans: HashMap<String, Arc<Plan>>,
    tables: HashMap<Table, Arc<Nature>>,
    /// This transaction has changed the schema. What is looked up now may be undone with the transaction, so it is not
    /// remembered.
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

/// The tables in which a statement may change what the hook does not report.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Tables that are reported without rows if the statement changed anything.
    vague: Vec<Table>,
    /// Tables that are reported without rows if more rows changed than the hook named.
    emptied: Vec<Table>,
    /// Tables that are always reported without rows.
    schema: Vec<Table>,
    /// The statement writes several tables, through triggers or foreign keys.
    several: bool,
}

/// The lengths and counts of the notes when a statement or a savepoint began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    rows: usize,
    alone: usize,
    runs: u64,
    changes: u64,
}

/// How the run of a statement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Failed,
    /// Not known, because the caller fetched the rows: if there was an error, only the caller has seen it.
    Unseen,
}

impl Recorder {
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Called by the authorizer: notes what the statement that is being prepared may do (REC2).
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
                // Until the call ends, a name may mean another table than before.
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
        // SQLite may report the same action on a table many times, once for each trigger.
        if notes.said.len() < KNOWN_MAX && !notes.said.contains(&said) {
            notes.said.push(said);
        }
    }

    /// To be called when a transaction begins.
    pub(crate) fn begin_transaction(&self) {
        lock(&self.notes).schema_changed = false;
    }

    /// To be called when a call begins. `on`: the call's changes must be noted.
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

    /// Forgets all statements and tables, because another connection may have changed the schema.
    pub(crate) fn forget(&self) {
        *lock(&self.notes) = Notes::default();
    }

    /// Removes the update hook. To be called before the bare connection is lent.
    pub(crate) fn unhook(&self, session: &Session) {
        self.on.store(false, Ordering::Relaxed);
        session.unhook_rows();
        self.forget();
    }

    /// The plan of the statement `sql`, which has just been prepared.
    pub(crate) fn plan(&self, conn: &Connection, sql: &str) -> Arc<Plan> {
        let said = std::mem::take(&mut lock(&self.notes).said);
        self.make_plan(conn, sql, &said)
    }

    /// The plan of a statement from the cache. It has not been prepared now, so the authorizer has reported nothing
    /// about it.
    pub(crate) fn plan_cached(&self, conn: &Connection, sql: &str) -> Arc<Plan> {
        let known = {
            let mut notes = lock(&self.notes);
            notes.said.clear();
            notes.plans.get(sql).cloned()
        };
        if let Some(plan) = known {
            return plan;
        }
        // Prepares the statement once more, to get the authorizer's report. If that fails, so does the run of the
        // statement.
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
        // A table that cannot be looked up gets the properties for which most is reported, so that no change is missed.
        let unknown = Nature { view: false, named: false, replaces: true, keys: Vec::new() };
        let nature = Arc::new(nature.unwrap_or(unknown));
        let mut notes = lock(&self.notes);
        // Discards what the authorizer reported about the queries of `look_up`.
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

    /// Discards what was noted since `mark`, because a savepoint was rolled back (REC1).
    pub(crate) fn undo(&self, mark: Mark) {
        let mut notes = lock(&self.notes);
        notes.rows.truncate(mark.rows);
        notes.alone.truncate(mark.alone);
    }

    /// To be called before a statement runs. `unseen`: the caller fetches the rows, so the end of the run may never be
    /// noted.
    pub(crate) fn begin_run(&self, conn: &Connection, plan: &Plan, unseen: bool) -> Mark {
        {
            let mut notes = lock(&self.notes);
            notes.runs += 1;
            notes.said.clear();
            if unseen {
                notes.report_alone(plan.vague.iter().chain(&plan.emptied).chain(&plan.schema));
            }
        }
        self.mark(conn)
    }

    /// To be called when the call writes into a blob of this table, which the hook does not report.
    pub(crate) fn blob_written(&self, schema: &str, table: &str) {
        let mut notes = lock(&self.notes);
        let table = notes.intern(schema, table);
        notes.report_alone(&table);
    }

    /// To be called after a run. Keeps the rows of the run, discards them, or replaces them by their tables (REC1).
    pub(crate) fn end_run(&self, conn: &Connection, plan: &Plan, mark: Mark, outcome: Outcome) {
        let changes = conn.total_changes() - mark.changes;
        let said = std::mem::take(&mut lock(&self.notes).said);
        // The authorizer reported writes during the run: SQLite has prepared the statement again, because the schema
        // has changed. The statement may now write to other tables, so it needs a second plan.
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
            // `OR FAIL` keeps the rows before the one that failed. And SQLite counts the changes of triggers
            // immediately, not when the statement ends.
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

    /// What the call changed, and whether it altered a table. If the call changed more than `rows_max` rows, its tables
    /// are returned without rows.
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

    /// The index of a table; `None`: it is temporary, or SQLite's own.
    fn intern(&mut self, schema: &str, table: &str) -> Option<Table> {
        if schema.eq_ignore_ascii_case("temp") || is_own(table) {
            return None;
        }
        // Most often this is the table of the last row.
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

    /// To be called when the schema changes. Forgets the plans of statements and the properties of tables.
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
