//! A connection as calls use it: the state that it must be in between two calls, and the checks before and after each
//! statement of a call.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use rusqlite::{Result, ffi};

use super::callbacks::{Access, Callbacks};
use super::counters::Outer;
use super::failure::sqlite;
use super::temporary::OfSetup;
use crate::ffi::{Session, Sql, halt};
use crate::queue;
use crate::stats::Work;

/// The length in bytes of the longest statement whose query plan is reported to the slow log.
const PLANNED_MAX: usize = 64 << 10;

/// A connection and the state of the call that runs on it. One thread at a time owns it.
#[derive(Debug)]
pub struct Link {
    pub(crate) session: Session,
    pub(crate) callbacks: Arc<Callbacks>,
    /// The running call may only read.
    pub(crate) read_only: Cell<bool>,
    /// How many statements of the running call may have written; 0: nothing has to be undone.
    pub(crate) writes: Cell<u32>,
    /// The temporary objects that `setup` made.
    pub(crate) of_setup: OfSetup,
    /// The connection must be replaced before the next call, because something that a call left could not be removed.
    pub(crate) stale: Cell<bool>,
    /// An earlier call of this transaction has written, so the running call needs a savepoint to be undone alone.
    pub(crate) protect: Cell<bool>,
    /// The running call's savepoint is open.
    pub(crate) saved: Cell<bool>,
    /// Statistics or the slow log are on, so the text of each prepared statement is noted.
    pub(crate) noted: bool,
    /// The work that the statements of the running call did because an index was missing; `None`: there is no slow log.
    pub(crate) work: Option<Cell<Work>>,
    /// The whole text of the statement that was prepared last, for its query plan. Empty if there is no slow log, or if
    /// the text is longer than [`PLANNED_MAX`].
    pub(crate) last_sql: RefCell<String>,
}

impl Link {
    /// Begins a call: lets the authorizer deny what calls may not do, and resets the state that the last call left
    /// here.
    pub(crate) fn begin_call(&self, read_only: bool, protect: bool) {
        self.callbacks.access.set(Access::Call);
        self.read_only.set(read_only);
        self.writes.set(0);
        self.saved.set(false);
        self.protect.set(protect);
        self.callbacks.temp_schema.virtual_made.set(false);
        self.forget_work();
    }

    /// Resets the work of the last call's statements.
    pub(crate) fn forget_work(&self) {
        if let Some(work) = &self.work {
            work.set(Work::default());
        }
    }

    /// Rolls back to the savepoint of the call that has just run. False: the whole transaction must be undone.
    pub(crate) fn undo_call(&self) -> bool {
        let undo =
            || self.session.run(Sql::RollbackTo).and_then(|()| self.session.run(Sql::Release));
        // ROLLBACK TO does not undo a new virtual table as a whole (TEMP4 in `temporary.rs`).
        !self.callbacks.temp_schema.virtual_made.get() && undo().is_ok() && !self.is_lost()
    }

    /// Runs one of the library's own statements while a call runs.
    ///
    /// A schema change or a PRAGMA may have expired the statement; SQLite then prepares it again, which the authorizer
    /// would deny to a call. So the authorizer allows everything meanwhile.
    ///
    /// The statement runs to its end, even if the call is canceled: when a savepoint begins, virtual tables store what
    /// earlier calls of the transaction wrote, and a full-text index that is interrupted there refuses the COMMIT of
    /// all of them.
    pub(crate) fn run_in_call(&self, sql: Sql) -> Result<()> {
        let access = self.callbacks.access.get();
        self.callbacks.access.set(Access::Open);
        let result = queue::unstoppable(|| self.session.run(sql));
        self.callbacks.access.set(access);
        result
    }

    /// Begins a call or a lease: it has changed no rows and made no temporary objects yet.
    pub(crate) fn begin_own(&self) {
        self.callbacks.temp_schema.touched.set(false);
        self.count_anew();
    }

    /// Counts rows from 0, and returns the counts of the outer call, if there is one.
    pub(crate) fn count_anew(&self) -> Outer {
        self.session.set_last_insert_rowid(0);
        self.callbacks.counters.begin(self.session.conn().total_changes())
    }

    /// Begins an exclusive call.
    pub(crate) fn begin_exclusive(&self) {
        self.callbacks.access.set(Access::Exclusive);
        self.begin_own();
    }

    /// To be called before a call prepares `sql`. The statement must be compiled for the current schema, because the
    /// caller may ask for its columns before it runs.
    ///
    /// SQLite compares a statement's schema with the current one only when the statement runs. Another connection can
    /// change the schema between two transactions, so the first statement of each transaction checks for a new schema.
    /// The call itself can change the schema at any time after it has prepared a statement that does so.
    pub(crate) fn before_prepare(&self, sql: &str) {
        if self.noted {
            self.callbacks.slot.prepared(sql);
        }
        self.note_for_plan(sql);
        self.refresh_schema();
    }

    /// Keeps the text of the statement that is prepared now, if there is a slow log.
    pub(crate) fn note_for_plan(&self, sql: &str) {
        if self.work.is_some() {
            let mut last = self.last_sql.borrow_mut();
            last.clear();
            if sql.len() <= PLANNED_MAX {
                last.push_str(sql);
            }
        }
    }

    /// Empties the statement cache if the schema may have changed.
    pub(crate) fn refresh_schema(&self) {
        if self.session.has_new_schema() || self.callbacks.temp_schema.any_touched.get() {
            self.session.conn().flush_prepared_statement_cache();
        }
    }

    /// Whether a call is running.
    pub(crate) fn in_call(&self) -> bool {
        self.callbacks.access.get() == Access::Call
    }

    /// Ends a call: lets the authorizer allow everything again, and drops the statements that the call has leaked.
    pub(crate) fn end_call(&self) {
        self.callbacks.access.set(Access::Open);
        self.session.take_back();
        if self.callbacks.temp_schema.any_touched.take() {
            // TEMP1
            self.session.conn().flush_prepared_statement_cache();
        }
    }

    /// Switches `defer_foreign_keys` off if the call switched it on, because it would hold for the next calls of the
    /// batch.
    ///
    /// To be called after the check for violations, because switching `defer_foreign_keys` off checks nothing.
    pub(crate) fn restore_keys(&self) -> Result<()> {
        match self.callbacks.deferred_keys.take() {
            true => self.session.conn().execute_batch("PRAGMA defer_foreign_keys = OFF"),
            false => Ok(()),
        }
    }

    /// Whether the transaction that the library began is gone.
    pub(crate) fn is_lost(&self) -> bool {
        self.session.conn().is_autocommit()
    }

    /// Ends the call's statements and any open transaction. False: the connection must be replaced.
    pub(crate) fn clean(&self) -> bool {
        self.session.take_back();
        if self.rolled_back() {
            return true;
        }
        // A statement that `setup` or an exclusive call leaked may keep a snapshot open.
        halt(self.session.conn());
        self.rolled_back()
    }

    fn rolled_back(&self) -> bool {
        let conn = self.session.conn();
        if !conn.is_autocommit() && self.session.run(Sql::Rollback).is_err() {
            return false;
        }
        // After a COMMIT that a full-text index refused, a read transaction stays open, because the index was reading.
        // Beginning and ending another transaction closes it.
        !self.session.in_transaction()
            || (self.session.run(Sql::Begin).and_then(|()| self.session.run(Sql::Rollback)).is_ok()
                && !self.session.in_transaction())
    }

    /// Checks before each statement that the call may go on and that its transaction still exists.
    pub(crate) fn before_statement(&self, readonly: bool) -> Result<()> {
        if queue::interrupt().is_some() {
            return Err(sqlite(ffi::SQLITE_INTERRUPT, "the call was asked to stop"));
        }
        if self.is_lost() {
            return Err(sqlite(
                ffi::SQLITE_ABORT_ROLLBACK,
                "an earlier statement of this call rolled its transaction back",
            ));
        }
        if readonly {
            return Ok(());
        }
        self.check_may_write()?;
        if self.protect.get() && !self.saved.get() {
            self.run_in_call(Sql::Savepoint)?;
            self.saved.set(true);
        }
        self.writes.set(self.writes.get().saturating_add(1));
        Ok(())
    }

    pub(crate) fn check_may_write(&self) -> Result<()> {
        match self.read_only.get() {
            true => Err(sqlite(ffi::SQLITE_READONLY, "a write in a read; use `write`")),
            false => Ok(()),
        }
    }

    /// Uncounts a write that SQLite has already undone.
    ///
    /// A violated constraint ends the statement and undoes that statement alone
    /// (<https://www.sqlite.org/lang_conflict.html>). The exception is `OR FAIL`, which keeps and counts the rows
    /// before the one that failed. If the row violated both a deferred and an immediate foreign key, SQLite goes on
    /// counting the deferred violation, and the call must be undone.
    pub(crate) fn after_write<T>(&self, changes_before: u64, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
            && self.session.conn().total_changes() == changes_before
            && !self.session.has_deferred_violation()
        {
            self.writes.set(self.writes.get().saturating_sub(1));
        }
        result
    }

    /// Removes the temporary objects of a call that has ended and whose writes are kept (TEMP2). If that fails, the
    /// connection is stale (TEMP3).
    pub(crate) fn end_temporary(&self) {
        if !self.callbacks.temp_schema.touched.take() {
            return;
        }
        if !self.of_setup.restore(&self.session) {
            self.stale.set(true);
        }
        // Cached statements may refer to a temporary table that was dropped.
        self.session.conn().flush_prepared_statement_cache();
    }

    /// Whether this connection must be replaced before the next call (TEMP3).
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.get()
    }
}
