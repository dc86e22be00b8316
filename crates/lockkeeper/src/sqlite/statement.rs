//! Prepared statements as calls see them.

use std::sync::Arc;

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{
    AndThenRows, Batch, BindIndex, CachedStatement, Column, MappedRows, Params, Result, Row, Rows,
    StatementStatus, ToSql,
};

use super::failure::{explain_denial, vacuum_in_call};
use super::link::Link;
#[cfg(doc)]
use super::snapshot::Snapshot;
use super::words::{Special, may_be_special, special};
use crate::changes::recorder::{Mark, Outcome, Plan};
use crate::ffi::Lent;
use crate::stats::Work;

/// A prepared statement of a [`Snapshot`] or a [`Transaction`](crate::Transaction), or of a bare connection, if
/// [`Queryable`](crate::Queryable) prepared it.
///
/// It offers what `rusqlite::Statement` offers. Before each execution it checks that the call was not asked to stop,
/// that its transaction still exists (`OR ROLLBACK` may have ended it, and the next statement would then commit by
/// itself), and that a read does not write.
pub struct Statement<'c> {
    inner: Inner<'c>,
    /// The connection with the state of the call; `None`: the statement is of a bare connection, and nothing is
    /// checked.
    link: Option<&'c Link>,
    readonly: bool,
    /// The tables in which the statement may make changes that the update hook does not report; `None`: the statement
    /// is read-only, or the change feed has no subscribers.
    plan: Option<Arc<Plan>>,
    /// Where the recorder's notes stood when the last run began, if the caller fetches the rows of that run.
    /// [`Statement::settle_unseen`] takes it.
    unseen: Option<Mark>,
}

pub(super) enum Inner<'c> {
    OfCall(Lent<'c>),
    Bare(rusqlite::Statement<'c>),
    BareCached(CachedStatement<'c>),
}

impl<'c> Inner<'c> {
    fn get(&self) -> &rusqlite::Statement<'c> {
        match self {
            Self::OfCall(statement) => statement.get(),
            Self::Bare(statement) => statement,
            Self::BareCached(statement) => statement,
        }
    }

    fn get_mut(&mut self) -> &mut rusqlite::Statement<'c> {
        match self {
            Self::OfCall(statement) => statement.get_mut(),
            Self::Bare(statement) => statement,
            Self::BareCached(statement) => statement,
        }
    }
}

impl<'c> Statement<'c> {
    /// Prepares a statement of a call.
    pub(super) fn prepare(link: &'c Link, sql: &str) -> Result<Self> {
        link.before_prepare(sql);
        let statement = link.session.conn().prepare(sql).map_err(explain_denial)?;
        Self::new(link, sql, link.session.keep_plain(statement), false)
    }

    /// Prepares a statement of a call, or takes it from the connection's cache.
    pub(super) fn prepare_cached(link: &'c Link, sql: &str) -> Result<Self> {
        if link.callbacks.noting_reads.get() {
            // The authorizer reports what a statement reads only when the statement is prepared, so the cache is not
            // used.
            return Self::prepare(link, sql);
        }
        link.before_prepare(sql);
        let statement = link.session.conn().prepare_cached(sql).map_err(explain_denial)?;
        Self::new(link, sql, link.session.keep_cached(statement), true)
    }

    /// Prepares and runs the statements of `sql` one after another.
    pub(super) fn run_batch(link: &'c Link, sql: &str) -> Result<()> {
        link.before_prepare(sql);
        let mut batch = Batch::new(link.session.conn(), sql);
        while let Some(statement) = batch.next().map_err(explain_denial)? {
            if link.work.is_some() {
                // Nothing is bound, so the expanded text is that of this statement alone.
                link.note_for_plan(&statement.expanded_sql().unwrap_or_default());
            }
            Self::new(link, sql, link.session.keep_plain(statement), false)?.run()?;
        }
        Ok(())
    }

    /// A statement of a call. `sql` is the statement's text, or a text that contains it. `cached`: an earlier call may
    /// have prepared the statement.
    fn new(link: &'c Link, sql: &str, inner: Lent<'c>, cached: bool) -> Result<Self> {
        // For an `EXPLAIN`, SQLite's `readonly` describes the explained statement, which does not run.
        let mut readonly = inner.get().readonly() || inner.get().is_explain() != 0;
        if !readonly && may_be_special(sql) {
            // `sql` may hold several statements; the expanded text is that of this statement alone.
            match inner.get().expanded_sql().as_deref().and_then(special) {
                Some(Special::Vacuum) => return Err(vacuum_in_call()),
                Some(Special::Report) => readonly = true,
                None => {}
            }
        }
        let inner = Inner::OfCall(inner);
        let mut statement = Self { inner, link: Some(link), readonly, plan: None, unseen: None };
        if link.work.is_some() {
            // Resets the counters, because those of a cached statement still count its earlier runs.
            statement.take_work();
        }
        if !readonly {
            link.check_may_write()?;
            if link.callbacks.recorder.is_on() {
                let (recorder, conn) = (&link.callbacks.recorder, link.session.conn());
                statement.plan = Some(match cached {
                    false => recorder.plan(conn, sql),
                    true => recorder.plan_cached(conn, sql),
                });
            }
        }
        Ok(statement)
    }

    /// A statement of a bare connection.
    pub(super) fn bare(inner: Inner<'c>) -> Self {
        let readonly = inner.get().readonly();
        Self { inner, link: None, readonly, plan: None, unseen: None }
    }

    /// Checks that the statement may run now.
    fn check(&self) -> Result<()> {
        self.link.map_or(Ok(()), |link| link.before_statement(self.readonly))
    }

    /// The work that this statement did because an index was missing, since the last call of this method.
    fn take_work(&mut self) -> Work {
        let take = |what| u64::try_from(self.inner.get().reset_status(what)).unwrap_or(0);
        Work {
            full_scan_steps: take(StatementStatus::FullscanStep),
            sorts: take(StatementStatus::Sort),
            automatic_indexes: take(StatementStatus::AutoIndex),
        }
    }

    /// Begins a run whose rows the caller fetches.
    fn ready(&mut self) -> Result<&mut rusqlite::Statement<'c>> {
        self.settle_unseen();
        self.check()?;
        if let (Some(plan), Some(link)) = (&self.plan, self.link) {
            self.unseen = Some(link.callbacks.recorder.begin_run(link.session.conn(), plan, true));
        }
        Ok(self.inner.get_mut())
    }

    /// Runs the statement by `f`, which also fetches its rows, and notes what the statement changes.
    fn complete<T>(
        &mut self,
        f: impl FnOnce(&mut rusqlite::Statement<'c>) -> Result<T>,
    ) -> Result<T> {
        let (Some(plan), Some(link)) = (self.plan.clone(), self.link) else {
            self.check()?;
            return f(self.inner.get_mut());
        };
        self.settle_unseen();
        self.check()?;
        let (recorder, conn) = (&link.callbacks.recorder, link.session.conn());
        let mark = recorder.begin_run(conn, &plan, false);
        let result = f(self.inner.get_mut());
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            // The row was missing or could not be converted; the statement itself has run.
            Err(error) if error.sqlite_error().is_none() => Outcome::Unseen,
            Err(_) => Outcome::Failed,
        };
        recorder.end_run(conn, &plan, mark, outcome);
        result
    }

    /// Notes the end of the last run whose rows the caller fetched. The rows have been dropped by now.
    fn settle_unseen(&mut self) {
        if let (Some(mark), Some(plan), Some(link)) = (self.unseen.take(), &self.plan, self.link) {
            let conn = link.session.conn();
            link.callbacks.recorder.end_run(conn, plan, mark, Outcome::Unseen);
        }
    }

    fn write<T>(&mut self, f: impl FnOnce(&mut rusqlite::Statement<'c>) -> Result<T>) -> Result<T> {
        let Some(link) = self.link.filter(|_| !self.readonly) else {
            return self.complete(f);
        };
        let changes_before = link.session.conn().total_changes();
        let result = self.complete(f);
        link.after_write(changes_before, result)
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
    pub fn query_and_then<T, E, P, F>(&mut self, params: P, f: F) -> Result<AndThenRows<'_, F>>
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
    /// SQLite's; `QueryReturnedNoRows` when there is no row.
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

    /// Executes the statement and maps its first row by a function whose errors may be of another type.
    ///
    /// # Errors
    /// What `f` returned; SQLite's; `QueryReturnedNoRows` when there is no row.
    pub fn query_row_and_then<T, E, P, F>(&mut self, params: P, f: F) -> std::result::Result<T, E>
    where
        E: From<rusqlite::Error>,
        P: Params,
        F: FnOnce(&Row<'_>) -> std::result::Result<T, E>,
    {
        self.complete(|statement| statement.query_row(params, |row| Ok(f(row))))?
    }

    /// Whether the statement returns a row.
    ///
    /// # Errors
    /// SQLite's.
    pub fn exists<P: Params>(&mut self, params: P) -> Result<bool> {
        self.complete(|statement| statement.exists(params))
    }

    /// Binds one parameter, for [`Statement::raw_query`] and [`Statement::raw_execute`]. Parameters are counted from 1;
    /// names work as well.
    ///
    /// # Errors
    /// When there is no such parameter, or the value cannot be bound.
    pub fn raw_bind_parameter<I: BindIndex, T: ToSql>(&mut self, index: I, value: T) -> Result<()> {
        self.inner.get_mut().raw_bind_parameter(index, value)
    }

    /// Executes the statement with the parameters that are bound, and returns its rows.
    ///
    /// # Errors
    /// When the call was asked to stop, or may not write.
    ///
    /// # Examples
    /// ```
    /// # let db = lockkeeper::Database::blocking_open(":memory:")?;
    /// let sum: i64 = db.blocking_read(|s| {
    ///     let mut statement = s.prepare("SELECT ?1 + :more")?;
    ///     statement.raw_bind_parameter(1, 2)?;
    ///     statement.raw_bind_parameter(":more", 3)?;
    ///     let mut rows = statement.raw_query()?;
    ///     rows.next()?.expect("a row").get(0)
    /// })?;
    /// assert_eq!(sum, 5);
    /// # Ok::<_, lockkeeper::Error>(())
    /// ```
    pub fn raw_query(&mut self) -> Result<Rows<'_>> {
        Ok(self.ready()?.raw_query())
    }

    /// Executes the statement with the parameters that are bound; returns the number of rows that it changed.
    ///
    /// # Errors
    /// As [`Statement::execute`].
    pub fn raw_execute(&mut self) -> Result<usize> {
        self.write(rusqlite::Statement::raw_execute)
    }

    /// Sets all parameters to `NULL`.
    pub fn clear_bindings(&mut self) {
        self.inner.get_mut().clear_bindings();
    }

    /// Ends the statement, as dropping it does; a cached statement goes back to the cache. The method is here because
    /// `rusqlite::Statement` has it too.
    ///
    /// # Errors
    /// Never: a run returns its own errors.
    pub fn finalize(self) -> Result<()> {
        Ok(())
    }

    /// Steps a statement without parameters to its end; rows are ignored.
    pub(super) fn run(&mut self) -> Result<()> {
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

    /// The names of the result's columns in the schema that was current when the statement was prepared. If its call
    /// runs an `ALTER` afterwards, the statement has the new names only when its next run has returned a row.
    pub fn column_names(&self) -> Vec<&str> {
        // Collected here, because rusqlite's `column_names` returns another type in version 0.40.
        let statement = self.inner.get();
        let name = |column| statement.column_name(column).unwrap_or_default();
        (0..statement.column_count()).map(name).collect()
    }

    /// The number of columns of the result, in the same schema as [`Statement::column_names`].
    pub fn column_count(&self) -> usize {
        self.inner.get().column_count()
    }

    /// The columns of the result with their declared types, in the same schema as [`Statement::column_names`].
    pub fn columns(&self) -> Vec<Column<'_>> {
        // Collected here, because rusqlite's `columns` returns a `Vec` in version 0.40 and another type in later
        // versions.
        let mut columns = Vec::new();
        columns.extend(self.inner.get().columns());
        columns
    }

    /// The name of one column of the result, in the same schema as [`Statement::column_names`]. Columns are counted
    /// from 0.
    ///
    /// # Errors
    /// `InvalidColumnIndex`.
    pub fn column_name(&self, column: usize) -> Result<&str> {
        self.inner.get().column_name(column)
    }

    /// The index of the column called `name`, in the same schema as [`Statement::column_names`]. Letter case is
    /// ignored.
    ///
    /// # Errors
    /// `InvalidColumnName`.
    pub fn column_index(&self, name: &str) -> Result<usize> {
        self.inner.get().column_index(name)
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

    /// The name of a parameter with its prefix (`:name`). Parameters are counted from 1. `None`: the parameter has no
    /// name.
    pub fn parameter_name(&self, index: usize) -> Option<&str> {
        self.inner.get().parameter_name(index)
    }

    /// 1 for `EXPLAIN`, 2 for `EXPLAIN QUERY PLAN`, 0 for any other statement.
    pub fn is_explain(&self) -> i32 {
        self.inner.get().is_explain()
    }

    /// A counter of SQLite for this statement. The counter of a cached statement goes on where an earlier call left it.
    pub fn get_status(&self, status: StatementStatus) -> i32 {
        self.inner.get().get_status(status)
    }

    /// As [`Statement::get_status`], and sets the counter to 0. What was counted before is then missing in the report
    /// of [`Builder::on_slow`](crate::Builder::on_slow).
    pub fn reset_status(&self, status: StatementStatus) -> i32 {
        self.inner.get().reset_status(status)
    }

    /// The text of the statement with the bound values in place; `None`: SQLite cannot give it.
    pub fn expanded_sql(&self) -> Option<String> {
        self.inner.get().expanded_sql()
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        self.settle_unseen();
        if let Some(work) = self.link.and_then(|link| link.work.as_ref()) {
            work.set(work.get() + self.take_work());
        }
    }
}

impl std::fmt::Debug for Statement<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Statement").field("readonly", &self.readonly).finish_non_exhaustive()
    }
}
