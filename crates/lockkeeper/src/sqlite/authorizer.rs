//! The authorizer, which SQLite calls whenever a statement is prepared: denies what calls may not do, and notes what the
//! statement reads, writes and changes.

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::callbacks::{Access, Callbacks};
use super::temporary::is_temp;
use crate::changes::interest::Reads;
use crate::sync::lock;

impl Callbacks {
    pub(super) fn authorize(&self, context: &AuthContext<'_>) -> Authorization {
        match self.access.get() {
            Access::Call => {}
            Access::Exclusive => return authorize_exclusive(&context.action),
            Access::Open => return Authorization::Allow,
        }
        self.temp_schema.note(context);
        if self.recorder.is_on() {
            self.recorder.authorized(context);
        }
        if self.noting_reads.get() {
            note_read(&mut lock(&self.reads), context);
        }
        match &context.action {
            AuthAction::Transaction { .. }
            | AuthAction::Savepoint { .. }
            | AuthAction::Attach { .. }
            | AuthAction::Detach { .. } => Authorization::Deny,
            AuthAction::Pragma { pragma_name, pragma_value } => {
                let deferred = pragma_name.eq_ignore_ascii_case("defer_foreign_keys");
                if deferred {
                    self.deferred_keys.set(true);
                }
                // A checkpoint would fail, because every call runs in a transaction.
                if pragma_name.eq_ignore_ascii_case("wal_checkpoint") {
                    return Authorization::Deny;
                }
                // These fields also exist in the temporary schema, where their values would outlive the call.
                let in_header = ["application_id", "user_version"]
                    .iter()
                    .any(|field| pragma_name.eq_ignore_ascii_case(field));
                let undone =
                    keeps_state(pragma_name) && !(in_header && is_temp(context.database_name));
                match pragma_value.is_none() || deferred || undone {
                    true => Authorization::Allow,
                    false => Authorization::Deny,
                }
            }
            _ => Authorization::Allow,
        }
    }
}

/// An exclusive call may do everything but change settings that all connections of the process share.
fn authorize_exclusive(action: &AuthAction<'_>) -> Authorization {
    const OF_THE_PROCESS: [&str; 4] =
        ["soft_heap_limit", "hard_heap_limit", "temp_store_directory", "data_store_directory"];
    match action {
        AuthAction::Pragma { pragma_name, pragma_value: Some(_) }
            if OF_THE_PROCESS.iter().any(|own| pragma_name.eq_ignore_ascii_case(own)) =>
        {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }
}

/// Notes the table that a statement reads, under the name that the change feed uses.
fn note_read(reads: &mut Reads, context: &AuthContext<'_>) {
    match context.action {
        AuthAction::Read { table_name, .. } => {
            // The schema, and tables that SQLite derives from the schema or from the file, may change with any table.
            let of_all = ["sqlite_master", "sqlite_schema", "dbstat", "sqlite_dbpage"];
            if of_all.iter().any(|name| name.eq_ignore_ascii_case(table_name))
                || table_name.starts_with("pragma_")
            {
                reads.anything = true;
            } else {
                reads.note(context.database_name.unwrap_or("main"), table_name);
            }
        }
        // A PRAGMA reports something about the schema or the file, which may change with any table. `data_version` is
        // left out, because FTS5 runs it in every query.
        AuthAction::Pragma { pragma_name, .. } => {
            reads.anything |= !pragma_name.eq_ignore_ascii_case("data_version");
        }
        _ => {}
    }
}

/// Whether the PRAGMA, with an argument, changes nothing on the connection, or only what a rollback undoes.
fn keeps_state(pragma: &str) -> bool {
    const ALLOWED: [&str; 17] = [
        "application_id",
        "data_version",
        "foreign_key_check",
        "foreign_key_list",
        "function_list",
        "incremental_vacuum",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "optimize",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
        "user_version",
        "collation_list",
    ];
    ALLOWED.iter().any(|allowed| pragma.eq_ignore_ascii_case(allowed))
}
