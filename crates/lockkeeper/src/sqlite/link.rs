//! A connection as calls see it: the state that it must be in between two calls, and what is checked before and after
//! each statement of a call.

use std::cell::Cell;
use std::sync::Arc;

use rusqlite::{Result, ffi};

use super::callbacks::{Access, Callbacks};
use super::counters::Outer;
use super::failure::sqlite;
use super::temporary::OfSetup;
use crate::ffi::{Session, Sql};
use crate::queue;
use crate::stats::Work;

/// The connection as calls see it. Owned by one thread at a time.
#[derive(Debug)]
pub struct Link {
    pub(crate) session: Session,
    pub(crate) callbacks: Arc<Callbacks>,
    /// Calls on this connection may only read.
    pub(crate) read_only: Cell<bool>,
    /// Statements of the running call that may have left something behind.
    pub(crate) writes: Cell<u32>,
    /// The temporary objects that `setup` made.
    pub(crate) of_setup: OfSetup,
    /// To be replaced before the next call: what a call left could not be taken away.
    pub(crate) stale: Cell<bool>,
    /// An earlier call of this transaction wrote: the running call needs a savepoint to fail alone.
    pub(crate) protect: Cell<bool>,
    /// The running call's savepoint is open.
    pub(crate) saved: Cell<bool>,
    /// Statistics are on: statements are noted as they are prepared.
    pub(crate) noted: bool,
    /// What the running call's statements did for want of an index; `None`: nobody asks.
    pub(crate) work: Option<Cell<Work>>,
}

impl Link {
    /// Begins a call: tells the authorizer and forgets the last call's marks.
    pub(crate) fn begin_call(&self, read_only: bool, protect: bool) {
        self.callbacks.access.set(Access::Call);
        self.read_only.set(read_only);
        self.writes.set(0);
        self.saved.set(false);
        self.protect.set(protect);
        self.callbacks.temp_schema.begin_call();
        self.forget_work();
    }

    /// Forgets what the last call's statements did for want of an index.
    pub(crate) fn forget_work(&self) {
        if let Some(work) = &self.work {
            work.set(Work::default());
        }
    }

    /// Undoes the call that has just run in its savepoint, alone; whether that can be trusted.
    pub(crate) fn undo_call(&self) -> bool {
        let undo =
            || self.session.run(Sql::RollbackTo).and_then(|()| self.session.run(Sql::Release));
        // TEMP4
        !self.callbacks.temp_schema.virtual_made() && undo().is_ok() && !self.is_lost()
    }

    /// Runs one of the library's own statements while a call runs.
    ///
    /// The authorizer lets it through: whatever expires the connection's statements (a schema change, a
    /// PRAGMA) has this one prepared again, which the authorizer would deny to a call.
    ///
    /// It runs to its end, even if the call is canceled meanwhile: modules store what the calls before this one wrote
    /// when a savepoint begins, and stopped there, a full-text index refuses the COMMIT of all of them.
    pub(crate) fn run_in_call(&self, sql: Sql) -> Result<()> {
        let access = self.callbacks.access.get();
        self.callbacks.access.set(Access::Open);
        let result = queue::unstoppable(|| self.session.run(sql));
        self.callbacks.access.set(access);
        result
    }

    /// A call, or a lease, begins: it has changed no rows and made no temporary objects.
    pub(crate) fn begin_own(&self) {
        self.callbacks.temp_schema.begin();
        self.count_anew();
    }

    /// Counts rows from 0; returns what the call around this one, if there is one, has counted.
    pub(crate) fn count_anew(&self) -> Outer {
        self.session.set_last_insert_rowid(0);
        self.callbacks.counters.begin(self.session.conn().total_changes())
    }

    /// Begins an exclusive call.
    pub(crate) fn begin_exclusive(&self) {
        self.callbacks.access.set(Access::Exclusive);
        self.begin_own();
    }

    /// A call is about to prepare `sql`: it must be compiled for today's schema, so that it says which
    /// columns it has before it runs.
    ///
    /// SQLite looks whether the schema is still the one that a statement was compiled for when the
    /// statement is run. Others change it between two transactions: asked once in each. A call changes it
    /// itself: the statement that does so may be run at any time after it was prepared.
    pub(crate) fn before_prepare(&self, sql: &str) {
        if self.noted {
            self.callbacks.slot.prepared(sql);
        }
        self.refresh_schema();
    }

    /// Forgets prepared statements whose columns may be others now.
    pub(crate) fn refresh_schema(&self) {
        if self.session.has_new_schema() || self.callbacks.temp_schema.any_touched() {
            self.session.conn().flush_prepared_statement_cache();
        }
    }

    /// Whether a call is running.
    pub(crate) fn in_call(&self) -> bool {
        self.callbacks.access.get() == Access::Call
    }

    /// Ends a call: tells the authorizer, drops the statements that it has forgotten.
    pub(crate) fn end_call(&self) {
        self.callbacks.access.set(Access::Open);
        self.session.take_back();
        if self.callbacks.temp_schema.take_any_touched() {
            // TEMP1
            self.session.conn().flush_prepared_statement_cache();
        }
    }

    /// Undoes `PRAGMA defer_foreign_keys`, which would hold for the next calls of the batch.
    ///
    /// To be called after the check for violations: switching it off does not check them.
    pub(crate) fn restore_keys(&self) -> Result<()> {
        match self.callbacks.take_deferred_keys() {
            true => self.session.conn().execute_batch("PRAGMA defer_foreign_keys = OFF"),
            false => Ok(()),
        }
    }

    /// Whether the transaction that the library began is gone.
    pub(crate) fn is_lost(&self) -> bool {
        self.session.conn().is_autocommit()
    }

    /// Leaves no transaction and no statement behind; false: the connection must be replaced.
    pub(crate) fn clean(&self) -> bool {
        self.session.take_back();
        if self.rolled_back() {
            return true;
        }
        // A statement that `setup` or an exclusive call leaked keeps its snapshot.
        self.session.halt_statements();
        self.rolled_back()
    }

    fn rolled_back(&self) -> bool {
        let conn = self.session.conn();
        if !conn.is_autocommit() && self.session.run(Sql::Rollback).is_err() {
            return false;
        }
        // A COMMIT that a full-text index refused leaves the transaction open for reading, because the index was
        // reading in it: the end of another one ends it too.
        !self.session.in_transaction()
            || (self.session.run(Sql::Begin).and_then(|()| self.session.run(Sql::Rollback)).is_ok()
                && !self.session.in_transaction())
    }

    /// Checks, before each statement, that it still belongs to this call and its transaction.
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
    /// A constraint ends the statement and undoes it alone (<https://www.sqlite.org/lang_conflict.html>), unless it is
    /// `FAIL`, which keeps and counts the rows before the one that failed. Where the row had both a deferred key and an
    /// immediate one violated, SQLite goes on counting the deferred one: the call must then be undone.
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

    /// Removes the temporary objects that a call made whose writes are kept (TEMP2).
    ///
    /// The call has ended. Where it cannot be done the connection is stale (TEMP3).
    pub(crate) fn end_temporary(&self) {
        if !self.callbacks.temp_schema.take_touched() {
            return;
        }
        if !self.of_setup.restore(&self.session) {
            self.stale.set(true);
        }
        // What was learnt of statements while a temporary table hid another is wrong now.
        self.session.conn().flush_prepared_statement_cache();
    }

    /// Whether this connection must be replaced before the next call (TEMP3).
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.get()
    }
}
