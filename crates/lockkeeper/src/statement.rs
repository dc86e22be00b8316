//! Prepared statements as calls see them.

use rusqlite::{MappedRows, Params, Result, Row, Rows, StatementStatus};

use std::sync::Arc;

use crate::ffi::Lent;
use crate::record::{Mark, Outcome, Plan};
use crate::stats::Work;
use crate::transaction::{Snapshot, vacuum_in_call};
use crate::words::{Special, may_be_special, special};

/// A prepared statement of a [`Snapshot`] or [`Transaction`](crate::Transaction).
///
/// It offers what `rusqlite::Statement` offers. Before each execution it checks that the call was
/// not asked to stop, that its transaction still exists (`OR ROLLBACK` may have ended it, and the
/// next statement would then commit by itself), and that a read only reads.
pub struct Statement<'c> {
    inner: Lent<'c>,
    snapshot: &'c Snapshot,
    readonly: bool,
    /// Somebody wants to know what it changes: what it may write beyond what the hook names.
    plan: Option<Arc<Plan>>,
    /// It was run by a method that leaves fetching the rows to the caller, and is not settled yet.
    unseen: Option<Mark>,
}

impl<'c> Statement<'c> {
    /// `sql` is its text, or a text that contains it; `cached`: it may have been prepared by an earlier call.
    pub(crate) fn new(
        snapshot: &'c Snapshot,
        sql: &str,
        inner: Lent<'c>,
        cached: bool,
    ) -> Result<Self> {
        let mut readonly = inner.get().readonly();
        if !readonly && may_be_special(sql) {
            // `sql` may hold other statements too.
            match inner.get().expanded_sql().as_deref().and_then(special) {
                Some(Special::Vacuum) => return Err(vacuum_in_call()),
                Some(Special::Report) => readonly = true,
                None => {}
            }
        }
        let mut statement = Self { inner, snapshot, readonly, plan: None, unseen: None };
        if snapshot.link.work.is_some() {
            // A cached statement remembers what it did for others.
            statement.take_work();
        }
        if !readonly {
            snapshot.check_may_write()?;
            let link = &snapshot.link;
            if link.guard.recorder.is_on() {
                let (recorder, conn) = (&link.guard.recorder, link.session.conn());
                statement.plan = Some(match cached {
                    false => recorder.plan(conn, sql),
                    true => recorder.plan_cached(conn, sql),
                });
            }
        }
        Ok(statement)
    }

    /// What this statement did for want of an index since it was last asked.
    fn take_work(&mut self) -> Work {
        let take = |what| u64::try_from(self.inner.get().reset_status(what)).unwrap_or(0);
        Work {
            full_scan_steps: take(StatementStatus::FullscanStep),
            sorts: take(StatementStatus::Sort),
            automatic_indexes: take(StatementStatus::AutoIndex),
        }
    }

    /// For methods that leave fetching the rows to the caller.
    fn ready(&mut self) -> Result<&mut rusqlite::Statement<'c>> {
        self.settle_unseen();
        self.snapshot.before_statement(self.readonly)?;
        if let Some(plan) = &self.plan {
            let link = &self.snapshot.link;
            self.unseen = Some(link.guard.recorder.begin_run(link.session.conn(), plan, true));
        }
        Ok(self.inner.get_mut())
    }

    /// Runs the statement to the end of `f`, noting what it changes.
    fn complete<T>(
        &mut self,
        f: impl FnOnce(&mut rusqlite::Statement<'c>) -> Result<T>,
    ) -> Result<T> {
        let Some(plan) = self.plan.clone() else {
            self.snapshot.before_statement(self.readonly)?;
            return f(self.inner.get_mut());
        };
        self.settle_unseen();
        self.snapshot.before_statement(self.readonly)?;
        let link = &self.snapshot.link;
        let (recorder, conn) = (&link.guard.recorder, link.session.conn());
        let mark = recorder.begin_run(conn, &plan, false);
        let result = f(self.inner.get_mut());
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            // A row that could not be read, or was not there: the statement itself has run.
            Err(error) if error.sqlite_error().is_none() => Outcome::Unseen,
            Err(_) => Outcome::Failed,
        };
        recorder.end_run(conn, &plan, mark, outcome);
        result
    }

    /// The rows of the last run, if there were any, are gone by now.
    fn settle_unseen(&mut self) {
        if let (Some(mark), Some(plan)) = (self.unseen.take(), &self.plan) {
            let link = &self.snapshot.link;
            let conn = link.session.conn();
            link.guard.recorder.end_run(conn, plan, mark, Outcome::Unseen);
        }
    }

    fn write<T>(&mut self, f: impl FnOnce(&mut rusqlite::Statement<'c>) -> Result<T>) -> Result<T> {
        if self.readonly {
            return self.complete(f);
        }
        let changes_before = self.snapshot.link.session.conn().total_changes();
        let result = self.complete(f);
        self.snapshot.after_write(changes_before, result)
    }

    /// Executes the statement and returns the number of rows that it changed.
    ///
    /// # Errors
    /// SQLite's; an error also when the statement returns rows.
    pub fn execute<P: Params>(&mut self, params: P) -> Result<usize> {
        self.write(|statement| statement.execute(params))
    }

    /// Executes an INSERT of exactly one row and returns its row id.
    ///
    /// # Errors
    /// SQLite's; `StatementChangedRows` when it inserted no row or several.
    pub fn insert<P: Params>(&mut self, params: P) -> Result<i64> {
        self.write(|statement| statement.insert(params))
    }

    /// Executes the statement and returns its rows.
    ///
    /// # Errors
    /// SQLite's.
    pub fn query<P: Params>(&mut self, params: P) -> Result<Rows<'_>> {
        self.ready()?.query(params)
    }

    /// Executes the statement and maps its rows through `f`.
    ///
    /// # Errors
    /// SQLite's.
    pub fn query_map<T, P, F>(&mut self, params: P, f: F) -> Result<MappedRows<'_, F>>
    where
        P: Params,
        F: FnMut(&Row<'_>) -> Result<T>,
    {
        self.ready()?.query_map(params, f)
    }

    /// Executes the statement and maps its rows through `f`, whose errors may be of another type.
    ///
    /// # Errors
    /// SQLite's.
    pub fn query_and_then<T, E, P, F>(
        &mut self,
        params: P,
        f: F,
    ) -> Result<rusqlite::AndThenRows<'_, F>>
    where
        P: Params,
        E: From<rusqlite::Error>,
        F: FnMut(&Row<'_>) -> std::result::Result<T, E>,
    {
        self.ready()?.query_and_then(params, f)
    }

    /// Executes the statement and maps its first row.
    ///
    /// # Errors
    /// SQLite's; `QueryReturnedNoRows` when there is none.
    pub fn query_row<T, P, F>(&mut self, params: P, f: F) -> Result<T>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> Result<T>,
    {
        self.complete(|statement| statement.query_row(params, f))
    }

    /// Executes the statement and maps its only row.
    ///
    /// # Errors
    /// SQLite's; also when there is no row or more than one.
    pub fn query_one<T, P, F>(&mut self, params: P, f: F) -> Result<T>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> Result<T>,
    {
        self.complete(|statement| statement.query_one(params, f))
    }

    /// Whether the statement returns a row.
    ///
    /// # Errors
    /// SQLite's.
    pub fn exists<P: Params>(&mut self, params: P) -> Result<bool> {
        self.complete(|statement| statement.exists(params))
    }

    /// Steps a statement without parameters to its end; rows are ignored.
    pub(crate) fn run(&mut self) -> Result<()> {
        self.complete(|statement| {
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            Ok(())
        })
    }

    /// Whether the statement cannot change the database.
    pub fn readonly(&self) -> bool {
        self.readonly
    }

    /// The names of the columns of the result, as the schema was when the statement was prepared; it is
    /// today's then. Kept over an `ALTER` of its own call, it says the new ones from the next first row on.
    pub fn column_names(&self) -> Vec<&str> {
        // In rusqlite 0.40 `column_names` is another type.
        let statement = self.inner.get();
        let name = |column| statement.column_name(column).unwrap_or_default();
        (0..statement.column_count()).map(name).collect()
    }

    /// The number of columns of the result; as [`Statement::column_names`].
    pub fn column_count(&self) -> usize {
        self.inner.get().column_count()
    }

    /// The number of parameters.
    pub fn parameter_count(&self) -> usize {
        self.inner.get().parameter_count()
    }

    /// The index of the parameter called `name`, if there is one.
    ///
    /// # Errors
    /// When `name` holds a NUL.
    pub fn parameter_index(&self, name: &str) -> Result<Option<usize>> {
        self.inner.get().parameter_index(name)
    }

    /// The text with the bound values in place, as far as SQLite can say.
    pub fn expanded_sql(&self) -> Option<String> {
        self.inner.get().expanded_sql()
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        self.settle_unseen();
        let snapshot = self.snapshot;
        if let Some(work) = &snapshot.link.work {
            work.set(work.get() + self.take_work());
        }
    }
}

impl std::fmt::Debug for Statement<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Statement").field("readonly", &self.readonly).finish_non_exhaustive()
    }
}
