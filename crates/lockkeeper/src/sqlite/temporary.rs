//! Temporary objects: those that a call makes are gone when it ends, those of `setup` stay.
//!
//! A temporary table, view or trigger lives on the connection, and a table or view hides the file's of the
//! same name. Left behind, it would take the next call's writes, which are then answered and never stored.
//!
//! - TEMP1: the authorizer tells when a statement that may change the temporary schema is prepared
//!   ([`TempSchema::note`]); a call without one costs a look at a flag. Such a statement does not outlive
//!   its call in the statement cache (`Link::end_call`), where the next call could run it unnoticed.
//! - TEMP2: what is there beyond what `setup` made is dropped in the transaction of the call, before the next
//!   call runs. What was undone (a failed call, a lost transaction) is gone by itself.
//! - TEMP3: where that does not work, or something that `setup` made is gone or altered, the connection is
//!   replaced after the commit and before the next call (`Link::is_stale`). So is one on which SQLite
//!   keeps a table of its own that cannot be dropped, such as `temp.sqlite_sequence`.
//! - TEMP4: a virtual table that was made in a savepoint, and undone with it, stays among those that SQLite asks to
//!   commit: the COMMIT may fail (FTS5's does, if it was written to), and so may whoever makes a table of that
//!   name before. So such a call is undone with the transaction, and with the lease if it is one of a lease; a
//!   savepoint of its own that was undone ends the batch.
//!
//! The rows of temporary tables that `setup` made are ordinary content, as long as the connection lives.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::hooks::{AuthAction, AuthContext};
use rusqlite::{Connection, Result};

use crate::ffi::{Session, Sql};

/// A row of the temporary schema.
#[derive(Debug, PartialEq, Eq)]
struct Object {
    kind: String,
    name: String,
    table: String,
    sql: Option<String>,
}

/// The temporary schema of a connection as `setup` left it.
#[derive(Debug, Default)]
pub(crate) struct OfSetup(Vec<Object>);

/// Whether the running call may have changed a schema; noted by the authorizer, on the owner's thread.
#[derive(Debug, Default)]
pub(crate) struct TempSchema {
    /// The temporary one.
    touched: AtomicBool,
    /// Any.
    any_touched: AtomicBool,
    /// A virtual table was made, which a savepoint does not undo as a whole (TEMP4).
    virtual_made: AtomicBool,
}

impl TempSchema {
    /// Takes note of what a statement that is being prepared may do (TEMP1).
    pub(crate) fn note(&self, context: &AuthContext<'_>) {
        let temporary = match context.action {
            AuthAction::CreateTempIndex { .. }
            | AuthAction::CreateTempTable { .. }
            | AuthAction::CreateTempTrigger { .. }
            | AuthAction::CreateTempView { .. }
            | AuthAction::DropTempIndex { .. }
            | AuthAction::DropTempTable { .. }
            | AuthAction::DropTempTrigger { .. }
            | AuthAction::DropTempView { .. } => true,
            AuthAction::AlterTable { database_name, .. } => is_temp(Some(database_name)),
            // `CREATE TABLE temp.t` is one of these, not one of those above.
            AuthAction::CreateIndex { .. }
            | AuthAction::CreateTable { .. }
            | AuthAction::CreateTrigger { .. }
            | AuthAction::CreateView { .. }
            | AuthAction::CreateVtable { .. }
            | AuthAction::DropIndex { .. }
            | AuthAction::DropTable { .. }
            | AuthAction::DropTrigger { .. }
            | AuthAction::DropView { .. }
            | AuthAction::DropVtable { .. } => is_temp(context.database_name),
            AuthAction::Analyze { .. } if is_temp(context.database_name) => true,
            _ => return,
        };
        self.any_touched.store(true, Ordering::Relaxed);
        if matches!(context.action, AuthAction::CreateVtable { .. }) {
            self.virtual_made.store(true, Ordering::Relaxed);
        }
        if temporary {
            self.touched.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the running call has prepared a statement that changes a schema.
    pub(crate) fn any_touched(&self) -> bool {
        self.any_touched.load(Ordering::Relaxed)
    }

    /// The call has ended; whether it had.
    pub(crate) fn take_any_touched(&self) -> bool {
        self.any_touched.load(Ordering::Relaxed) && self.any_touched.swap(false, Ordering::Relaxed)
    }

    /// A call, or a lease, begins.
    pub(crate) fn begin(&self) {
        self.touched.store(false, Ordering::Relaxed);
    }

    /// A call begins, which may be one of a lease: it has made no virtual table.
    pub(crate) fn begin_call(&self) {
        self.virtual_made.store(false, Ordering::Relaxed);
    }

    /// Whether the running call may have made a virtual table.
    pub(crate) fn virtual_made(&self) -> bool {
        self.virtual_made.load(Ordering::Relaxed)
    }

    pub(super) fn take_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed) && self.touched.swap(false, Ordering::Relaxed)
    }
}

pub(crate) fn is_temp(database: Option<&str>) -> bool {
    database.is_some_and(|name| name.eq_ignore_ascii_case("temp"))
}

impl OfSetup {
    /// To be called when `setup` has run.
    pub(crate) fn new(conn: &Connection) -> Result<Self> {
        // Asking for the temporary schema opens the temporary file, which would then take part in every
        // transaction; where nothing was made it is not open yet.
        let open = "SELECT EXISTS (SELECT 1 FROM pragma_database_list WHERE name = 'temp')";
        match conn.prepare(open)?.query_row([], |row| row.get(0))? {
            true => objects(conn).map(Self),
            false => Ok(Self::default()),
        }
    }

    /// Drops the temporary objects that `setup` did not make; false: the schema is not as `setup` had left it.
    pub(super) fn restore(&self, session: &Session) -> bool {
        // In a savepoint, because dropping tables may violate keys between them, which would fail the
        // COMMIT.
        let removed = session.run(Sql::Nest).and_then(|()| {
            let removed = self.remove_others(session.conn());
            let kept = removed.as_ref().is_ok_and(|all| *all) && !session.has_deferred_violation();
            if !kept {
                session.run(Sql::RollbackToNest)?;
            }
            session.run(Sql::Unnest).map(|()| kept)
        });
        matches!(removed, Ok(true))
    }

    fn remove_others(&self, conn: &Connection) -> Result<bool> {
        let mut left = objects(conn)?;
        left.retain(|object| !self.0.contains(object) && object.sql.is_some());
        // Triggers and views name tables, a virtual table owns some, and those made last may refer to
        // those made first.
        left.reverse();
        left.sort_by_key(Object::rank);
        for Object { kind, name, .. } in &left {
            let name = name.replace('"', "\"\"");
            conn.execute_batch(&format!("DROP {kind} IF EXISTS temp.\"{name}\""))?;
        }
        Ok(objects(conn)? == self.0)
    }
}

impl Object {
    fn rank(&self) -> u8 {
        let sql = self.sql.as_deref().unwrap_or_default();
        match self.kind.as_str() {
            "trigger" => 0,
            "view" => 1,
            // SQLite writes the first words of what it keeps.
            "table" if sql.starts_with("CREATE VIRTUAL TABLE") => 2,
            "index" => 3,
            _ => 4,
        }
    }
}

fn objects(conn: &Connection) -> Result<Vec<Object>> {
    let sql = "SELECT type, name, tbl_name, sql FROM sqlite_temp_schema ORDER BY rowid";
    let mut list = conn.prepare(sql)?;
    let rows = list.query_map([], |row| {
        Ok(Object { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    })?;
    rows.collect()
}
