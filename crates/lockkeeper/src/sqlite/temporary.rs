//! Temporary objects: those that a call makes are gone when it ends, those of `setup` stay.
//!
//! A temporary table, view or trigger belongs to the connection, and a temporary table or view hides the file's of the
//! same name. If one stayed, it would take the writes of later calls, which would be answered and never stored.
//!
//! - TEMP1: the authorizer notes that a statement was prepared which may change the temporary schema
//!   ([`TempSchema::note`]). A call without one costs a read of a flag. Such a statement leaves the statement cache when
//!   its call ends (`Link::end_call`); from there the next call could run it without the authorizer.
//! - TEMP2: objects that `setup` did not make are dropped in the transaction of the call, before the next call runs. A
//!   failed call or a lost transaction undoes its own.
//! - TEMP3: if that fails, or if an object of `setup` is missing or altered, the connection is replaced after the commit
//!   and before the next call (`Link::is_stale`). The same holds if SQLite keeps a table of its own that cannot be
//!   dropped, such as `temp.sqlite_sequence`.
//! - TEMP4: SQLite still asks a virtual table to commit that was made in a savepoint and undone with it. Then the COMMIT
//!   may fail (FTS5's does, if the table was written to), and so may a later `CREATE` of the same name. So a call that
//!   made one is undone by undoing the whole transaction, or the whole lease; and a savepoint of the call's own that was
//!   undone ends the batch.
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
    /// The temporary schema. Reset when a lease begins, or a call outside a lease.
    pub(super) touched: Flag,
    /// Any schema. Reset when a call ends.
    pub(super) any_touched: Flag,
    /// The call has made a virtual table, which a savepoint does not undo as a whole (TEMP4). Reset when a call begins.
    pub(super) virtual_made: Flag,
}

impl TempSchema {
    /// Notes which schema a statement may change that is being prepared (TEMP1).
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
            // `CREATE TABLE temp.t` is among these, not among those above.
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
        // Asking for the temporary schema opens the temporary file, which would then take part in every
        // transaction; where nothing was made it is not open yet.
        let open = "SELECT EXISTS (SELECT 1 FROM pragma_database_list WHERE name = 'temp')";
        match conn.prepare(open)?.query_row([], |row| row.get(0))? {
            true => objects(conn).map(Self),
            false => Ok(Self::default()),
        }
    }

    /// Drops the temporary objects that `setup` did not make. False: the schema still differs from `setup`'s.
    pub(super) fn restore(&self, session: &Session) -> bool {
        // In a savepoint, because dropping tables may violate foreign keys between them, which would fail the COMMIT.
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
        // Triggers and views name tables, a virtual table owns some, and later tables may refer to earlier ones.
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
            // SQLite itself writes the first words of the text that it keeps.
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
