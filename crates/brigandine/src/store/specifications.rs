//! Specifications, and the results of looking at their inputs.

use super::database::{Snapshot, Transaction};
use super::query::{Columns, Query, read};
use crate::model::{
    EvaluationId, Loaded, Look, Specification, SpecificationId, SpecificationState, Timestamp,
};
use lockkeeper::Queryable;
use rusqlite::{Row, params};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, definition, created_at, looked_at, look_error, look_failures, next_look_at,",
            " look_wanted_at, look_answered_at, evaluation_id,",
            " (SELECT max(e.id) FROM evaluation AS e WHERE e.specification_id = specification.id)",
            " FROM specification ",
            $rest
        )
    };
}

fn state(row: &Row<'_>) -> rusqlite::Result<SpecificationState> {
    let columns = &mut Columns::of(row);
    Ok(SpecificationState {
        id: columns.take()?,
        specification: columns.json()?,
        created_at: columns.take()?,
        look: read!(columns: Look { looked_at, error, failures, next_at, wanted_at, answered_at }),
        current_evaluation: columns.take()?,
        latest_evaluation: columns.take()?,
    })
}

/// All specifications that were not removed, by name.
pub fn specifications(s: &Snapshot) -> rusqlite::Result<Vec<SpecificationState>> {
    s.all(select!("WHERE removed_at = 0 ORDER BY name"), [], state)
}

/// The names of all specifications that were not removed, sorted.
pub(crate) fn active_names(s: &Snapshot) -> rusqlite::Result<Vec<String>> {
    s.values("SELECT name FROM specification WHERE removed_at = 0 ORDER BY name", [])
}

/// The specification of this name; `None`: there is none, or it was removed.
pub(crate) fn specification(
    s: &Snapshot,
    name: &str,
) -> rusqlite::Result<Option<SpecificationState>> {
    s.first(select!("WHERE name = ?1 AND removed_at = 0"), [name], state)
}

/// The project of the named specification, removed or not; `None`: there is none of this name.
pub(crate) fn project_of(s: &Snapshot, name: &str) -> rusqlite::Result<Option<String>> {
    s.value("SELECT project FROM specification WHERE name = ?1", [name])
}

/// The specification with this number, removed or not.
pub(crate) fn specification_by_id(
    s: &Snapshot,
    id: SpecificationId,
) -> rusqlite::Result<Option<SpecificationState>> {
    s.first(select!("WHERE id = ?1"), [id], state)
}

const INSERT: &str = "INSERT INTO specification (name, definition, created_at, removed_at,
    looked_at, look_error, look_failures, next_look_at, look_wanted_at, look_answered_at, evaluation_id)
    VALUES (?1, ?2, ?3, 0, 0, '', 0, 0, 0, 0, NULL)";

/// Stores a specification in a new database that has no specification of this name.
pub(super) fn insert(
    conn: &impl Queryable,
    specification: &Specification,
    now: Timestamp,
) -> rusqlite::Result<SpecificationId> {
    let definition = json(specification)?;
    let values = params![specification.name, definition, now];
    conn.prepare_cached(INSERT)?.insert(values).map(SpecificationId::new)
}

fn json(specification: &Specification) -> rusqlite::Result<String> {
    serde_json::to_string(specification)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Stores a specification under its name. An existing one is replaced only if `replace` is set. A removed one of the
/// same name returns, with its evaluations and builds.
pub(crate) fn put_specification(
    tx: &Transaction,
    specification: &Specification,
    replace: bool,
    now: Timestamp,
) -> rusqlite::Result<(SpecificationId, Loaded)> {
    let sql = "SELECT id, definition, removed_at FROM specification WHERE name = ?1";
    let known: Option<(SpecificationId, String, Timestamp)> =
        tx.first(sql, [&specification.name], |row| row.try_into())?;
    let Some((id, before, removed_at)) = known else {
        return Ok((insert(tx, specification, now)?, Loaded::New));
    };
    let definition = json(specification)?;
    let active = removed_at == 0;
    // Another version may have written the same definition in another form, or a definition that this version cannot
    // read.
    let differences = match serde_json::from_str::<Specification>(&before) {
        Ok(before) => specification.differences(&before),
        Err(_) => vec!["everything, for the stored one cannot be read".to_owned()],
    };
    if active && (before == definition || differences.is_empty()) {
        return Ok((id, Loaded::Unchanged));
    }
    if active && !replace {
        return Ok((id, Loaded::Kept(differences)));
    }
    let sql = "UPDATE specification SET definition = ?2, removed_at = 0, look_error = '',
         look_failures = 0, next_look_at = 0 WHERE id = ?1";
    tx.execute(sql, params![id, definition])?;
    Ok((id, if active { Loaded::Changed } else { Loaded::New }))
}

/// Replaces the definition of a specification, whose name stays.
pub(super) fn define(
    tx: &Transaction,
    id: SpecificationId,
    specification: &Specification,
) -> rusqlite::Result<()> {
    let sql = "UPDATE specification SET definition = ?2 WHERE id = ?1";
    tx.execute(sql, params![id, json(specification)?])?;
    Ok(())
}

/// Removes a specification from service; its evaluations and builds stay. `None`: there is none of this name.
pub(crate) fn remove_specification(
    tx: &Transaction,
    name: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<SpecificationId>> {
    let sql =
        "UPDATE specification SET removed_at = ?2 WHERE name = ?1 AND removed_at = 0 RETURNING id";
    tx.value(sql, params![name, now])
}

/// A look at a specification's inputs that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looked {
    /// The specification.
    pub(crate) specification: SpecificationId,
    /// [`Look::wanted_at`] when the look began. The look does not answer a request that came later.
    pub(crate) wanted_at: Timestamp,
    /// When the look ended.
    pub(crate) at: Timestamp,
    /// When the next look is due.
    pub(crate) next_at: Timestamp,
    /// If the look failed: the number of failures in a row, including this one.
    pub(crate) failures: i64,
}

/// Notes how a look at the inputs ended; an empty `error` means success.
pub(crate) fn note_look(tx: &Transaction, look: Looked, error: &str) -> rusqlite::Result<()> {
    let Looked { specification, wanted_at, at, next_at, failures } = look;
    let sql = "UPDATE specification SET looked_at = ?3, look_error = ?2,
         look_failures = CASE WHEN ?2 = '' THEN 0 ELSE ?6 END, next_look_at = ?4,
         look_answered_at = ?5 WHERE id = ?1";
    tx.execute(sql, params![specification, error, at, next_at, wanted_at, failures.max(1)])?;
    Ok(())
}

/// Notes the evaluation of the revisions that the inputs have now.
pub(super) fn note_current(
    tx: &Transaction,
    id: SpecificationId,
    evaluation: EvaluationId,
) -> rusqlite::Result<()> {
    let sql =
        "UPDATE specification SET evaluation_id = ?2 WHERE id = ?1 AND evaluation_id IS NOT ?2";
    tx.execute(sql, params![id, evaluation])?;
    Ok(())
}

/// Requests a look at a specification's inputs. `None`: there is no specification of this name.
pub(crate) fn want_look(
    tx: &Transaction,
    name: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<SpecificationId>> {
    // The time is at least one second after that of the last request, so that two requests never have the same time.
    let sql = "UPDATE specification SET look_wanted_at = max(?2, look_wanted_at + 1)
         WHERE name = ?1 AND removed_at = 0 RETURNING id";
    tx.value(sql, params![name, now])
}
