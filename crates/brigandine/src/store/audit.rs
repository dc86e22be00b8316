//! The audit: a row for each change that somebody asked for, written in the transaction that makes the change.
//!
//! - AUDIT1: there are at most [`ROWS_MAX`] rows: each new row replaces the row with the number [`ROWS_MAX`] below its
//!   own. Retention deletes rows that are older than [`DAYS_MAX`].

use super::database::{Snapshot, Transaction};
use super::hidden::{Hidden, NOTHING};
use super::query::{Columns, Query, read};
use crate::model::{
    Asked, AuditFilter, Audited, BuildId, Change, EvaluationId, SpecificationId, Timestamp,
};
use rusqlite::params;
use rusqlite::types::ToSql;

/// The most rows.
const ROWS_MAX: i64 = 100_000;

/// The most days for which a row is kept.
const DAYS_MAX: i64 = 730;

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Build(BuildId),
    Evaluation(EvaluationId),
    Specification(SpecificationId),
}

/// Notes a change of `subject`, and in `result` what the change did. Returns the number of the row, which is higher than
/// that of every earlier row.
pub(super) fn note(
    tx: &Transaction,
    change: Change,
    subject: Subject,
    asked: &Asked,
    result: &str,
) -> rusqlite::Result<i64> {
    let (sql, id) = match subject {
        Subject::Build(id) => (
            "INSERT INTO audit (at, actor, change, build_id, evaluation_id, specification_id, result, reason)
             SELECT ?2, ?3, ?4, id, evaluation_id, specification_id, ?5, ?6 FROM build WHERE id = ?1",
            id.get(),
        ),
        Subject::Evaluation(id) => (
            "INSERT INTO audit (at, actor, change, build_id, evaluation_id, specification_id, result, reason)
             SELECT ?2, ?3, ?4, NULL, id, specification_id, ?5, ?6 FROM evaluation WHERE id = ?1",
            id.get(),
        ),
        Subject::Specification(id) => (
            "INSERT INTO audit (at, actor, change, build_id, evaluation_id, specification_id, result, reason)
             VALUES (?2, ?3, ?4, NULL, NULL, ?1, ?5, ?6)",
            id.get(),
        ),
    };
    let values = params![id, asked.at, asked.actor.as_str(), change.as_str(), result, asked.reason];
    let row = tx.prepare_cached(sql)?.insert(values)?;
    // AUDIT1
    tx.execute("DELETE FROM audit WHERE id = ?1", [row - ROWS_MAX])?;
    Ok(row)
}

/// The latest rows that fit the filter, the latest first.
pub(crate) fn audit(
    s: &Snapshot,
    filter: &AuditFilter,
    limit: u32,
) -> rusqlite::Result<Vec<Audited>> {
    audit_without(s, &NOTHING, filter, limit)
}

/// As [`audit`], without the rows about what belongs to hidden specifications.
pub(super) fn audit_without(
    s: &Snapshot,
    hidden: &Hidden,
    filter: &AuditFilter,
    limit: u32,
) -> rusqlite::Result<Vec<Audited>> {
    let mut sql = String::from(
        "SELECT a.id, a.at, a.actor, a.change, a.build_id, a.evaluation_id,
         (SELECT s.name FROM specification AS s WHERE s.id = a.specification_id), a.result, a.reason
         FROM audit AS a WHERE a.id < ?",
    );
    let (before, json) = (filter.before.unwrap_or(i64::MAX), hidden.json());
    let mut values: Vec<&dyn ToSql> = vec![&before];
    if let Some(id) = &filter.build {
        sql.push_str(" AND a.build_id = ?");
        values.push(id);
    }
    if let Some(id) = &filter.evaluation {
        sql.push_str(" AND a.evaluation_id = ?");
        values.push(id);
    }
    if let Some(name) = &filter.specification {
        sql.push_str(
            " AND a.specification_id = (SELECT n.id FROM specification AS n WHERE n.name = ?)",
        );
        values.push(name);
    }
    if !hidden.is_empty() {
        sql.push_str(" AND ifnull(a.specification_id NOT IN (SELECT value FROM json_each(?)), 0)");
        values.push(&json);
    }
    sql.push_str(" ORDER BY a.id DESC LIMIT ?");
    values.push(&limit);
    s.all(&sql, values.as_slice(), |row| {
        let columns = &mut Columns::of(row);
        Ok(read!(columns: Audited {
            id, at, actor, change, build, evaluation, specification, result, reason
        }))
    })
}

/// Deletes rows that are too old, at most `limit`. Returns whether there may be more of them.
pub(crate) fn prune_audit(tx: &Transaction, now: Timestamp, limit: u32) -> rusqlite::Result<bool> {
    let since = now - DAYS_MAX * 86_400;
    let sql = "SELECT id, at FROM audit WHERE id > ?1 ORDER BY id LIMIT ?2";
    let oldest: Vec<(i64, Timestamp)> =
        tx.all(sql, params![i64::MIN, limit], |row| row.try_into())?;
    let old = oldest.iter().take_while(|(_, at)| *at < since);
    let mut deleted = 0;
    for (id, _) in old {
        deleted += tx.execute("DELETE FROM audit WHERE id = ?1", [id])?;
    }
    Ok(deleted > 0 && deleted == limit as usize)
}
