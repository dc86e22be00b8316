//! Temporary objects: those that a call makes are dropped when the call ends; those that `setup` made stay.
//!
//! A temporary table, view or trigger belongs to the connection. A temporary table or view hides a table or view of the
//! file with the same name. If it stayed, the writes of later calls would go into it: they would be answered, but never
//! stored in the file.
//!
//! - TEMP1: the authorizer notes when a statement is prepared that may change the temporary schema
//!   ([`TempSchema::note`]). A call without such a statement only costs a read of a flag. When a call with such a
//!   statement ends, the statement cache is emptied (`Link::end_call`), because the next call could run the cached
//!   statement without asking the authorizer.
//! - TEMP2: objects that `setup` did not make are dropped in the transaction of the call, before the next call runs.
//!   The objects of a failed call or of a lost transaction are undone with it.
//! - TEMP3: if the drop fails, or if an object of `setup` is missing or altered, the connection is replaced after the
//!   commit and before the next call (`Link::is_stale`). The same holds if SQLite keeps a table of its own that cannot
//!   be dropped, such as `temp.sqlite_sequence`.
//! - TEMP4: if a virtual table was made in a savepoint that was then undone, SQLite still asks the table to commit.
//!   Then the COMMIT may fail (that of an FTS5 table does, if the table was written to), and so may a later `CREATE` of
//!   the same name. So a call that made a virtual table is undone by undoing the whole transaction, or the whole lease.
//!   If such a call only undoes a savepoint of its own, the batch ends with the call.
//!
//! The rows of temporary tables that `setup` made are ordinary content and stay as long as the connection.

use rusqlite::hooks::{AuthAction, AuthContext};
use rusqlite::{Connection, Result};

use super::flag::Flag;
use super::pragma::quoted;
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

/// Which schemas the running call may have changed; noted by the authorizer, on the connection's thread.
#[derive(Debug, Default)]
pub(crate) struct TempSchema {
    /// The call may have changed the temporary schema. Reset when a lease begins, and when a call outside a lease
    /// begins.
    pub(super) touched: Flag,
    /// The call may have changed a schema, whichever it is. Reset when a call ends.
    pub(super) any_touched: Flag,
    /// The call has made a virtual table, which a savepoint does not undo as a whole (TEMP4). Reset when a call begins.
    pub(super) virtual_made: Flag,
}

impl TempSchema {
    /// Notes which schema the statement that is being prepared may change (TEMP1).
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
            // SQLite reports `CREATE TABLE temp.t` as one of these actions, not as one of those above.
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
        self.any_touched.set(true);
        if matches!(context.action, AuthAction::CreateVtable { .. }) {
            self.virtual_made.set(true);
        }
        if temporary {
            self.touched.set(true);
        }
    }
}

pub(crate) fn is_temp(database: Option<&str>) -> bool {
    database.is_some_and(|name| name.eq_ignore_ascii_case("temp"))
}

impl OfSetup {
    /// The present temporary schema. To be called when `setup` has run.
    pub(crate) fn new(conn: &Connection) -> Result<Self> {
        // A query of the temporary schema opens the temporary database, which would then take part in every
        // transaction. If nothing was made in it, it is not open yet, and is not listed here.
        let open = "SELECT EXISTS (SELECT 1 FROM pragma_database_list WHERE name = 'temp')";
        match conn.prepare(open)?.query_row([], |row| row.get(0))? {
            true => objects(conn).map(Self),
            false => Ok(Self::default()),
        }
    }

    /// Drops the temporary objects that `setup` did not make. False: the schema still differs from `setup`'s.
    pub(super) fn restore(&self, session: &Session) -> bool {
        // In a savepoint, because dropping tables may violate foreign keys between them, and then the COMMIT would
        // fail.
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
        // Triggers and views go first, because they name tables; then virtual tables, because they own tables; and
        // later tables before earlier ones, because they may refer to them.
        left.reverse();
        left.sort_by_key(Object::rank);
        for Object { kind, name, .. } in &left {
            conn.execute_batch(&format!("DROP {kind} IF EXISTS temp.{}", quoted(name, '"')))?;
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
            // SQLite itself writes the first words of the text that it keeps, so their spelling is fixed.
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
