//! Specifications and the looks at them.

use super::database::{Snapshot, Transaction};
use crate::model::{
    EvaluationId, Look, Specification, SpecificationId, SpecificationState, Timestamp,
};
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
    let definition: String = row.get(1)?;
    let specification = serde_json::from_str(&definition).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(SpecificationState {
        id: row.get(0)?,
        specification,
        created_at: row.get(2)?,
        look: Look {
            looked_at: row.get(3)?,
            error: row.get(4)?,
            failures: row.get(5)?,
            next_at: row.get(6)?,
            wanted_at: row.get(7)?,
            answered_at: row.get(8)?,
        },
        current_evaluation: row.get(9)?,
        latest_evaluation: row.get(10)?,
    })
}

/// All specifications that were not removed, by name.
pub fn specifications(s: &Snapshot) -> rusqlite::Result<Vec<SpecificationState>> {
    s.prepare_cached(select!("WHERE removed_at = 0 ORDER BY name"))?.query_map([], state)?.collect()
}

/// The specification of this name, unless it was removed.
pub(crate) fn specification(
    s: &Snapshot,
    name: &str,
) -> rusqlite::Result<Option<SpecificationState>> {
    s.prepare_cached(select!("WHERE name = ?1 AND removed_at = 0"))?
        .query_map([name], state)?
        .next()
        .transpose()
}

/// The specification in this row, removed or not.
pub(crate) fn specification_by_id(
    s: &Snapshot,
    id: SpecificationId,
) -> rusqlite::Result<Option<SpecificationState>> {
    s.prepare_cached(select!("WHERE id = ?1"))?.query_map([id], state)?.next().transpose()
}

/// What became of a specification that was to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// It was not there.
    New,
    /// It was there with another definition, and was replaced.
    Changed,
    /// It was there and says the same.
    Unchanged,
    /// It was there with another definition, which differs in these keys, and replacing was not asked for.
    Kept(Vec<String>),
}

const INSERT: &str = "INSERT INTO specification (name, definition, created_at, removed_at,
    looked_at, look_error, look_failures, next_look_at, look_wanted_at, look_answered_at, evaluation_id)
    VALUES (?1, ?2, ?3, 0, 0, '', 0, 0, 0, 0, NULL)";

/// Stores a specification in a file that has none of its name: an import's.
pub(super) fn insert(
    conn: &rusqlite::Connection,
    specification: &Specification,
    now: Timestamp,
) -> rusqlite::Result<i64> {
    let definition = serde_json::to_string(specification)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    conn.prepare_cached(INSERT)?.insert(params![specification.name, definition, now])
}

/// Stores a specification under its name. An existing one is replaced only with `replace`; a
/// removed one of the same name comes back with its past.
pub(crate) fn put_specification(
    tx: &Transaction,
    specification: &Specification,
    replace: bool,
    now: Timestamp,
) -> rusqlite::Result<(SpecificationId, Loaded)> {
    let definition = serde_json::to_string(specification)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let known: Option<(SpecificationId, String, Timestamp)> = tx
        .prepare_cached("SELECT id, definition, removed_at FROM specification WHERE name = ?1")?
        .query_map([&specification.name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .next()
        .transpose()?;
    let Some((id, before, removed_at)) = known else {
        let id = tx.prepare_cached(INSERT)?.insert(params![specification.name, definition, now])?;
        return Ok((SpecificationId::new(id), Loaded::New));
    };
    let active = removed_at == 0;
    // One that an older version wrote may say the same in other words, or cannot be read.
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
    tx.prepare_cached(
        "UPDATE specification SET definition = ?2, removed_at = 0, look_error = '',
         look_failures = 0, next_look_at = 0 WHERE id = ?1",
    )?
    .execute(params![id, definition])?;
    Ok((id, if active { Loaded::Changed } else { Loaded::New }))
}

/// Takes a specification out of service; its evaluations and builds stay. `None`: there is none.
pub(crate) fn remove_specification(
    tx: &Transaction,
    name: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<SpecificationId>> {
    tx.prepare_cached(
        "UPDATE specification SET removed_at = ?2 WHERE name = ?1 AND removed_at = 0 RETURNING id",
    )?
    .query_map(params![name, now], |row| row.get(0))?
    .next()
    .transpose()
}

/// A look at a specification's inputs that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looked {
    /// Whose inputs.
    pub(crate) specification: SpecificationId,
    /// [`Look::wanted_at`] when it began: what was wanted later is not answered by it.
    pub(crate) wanted_at: Timestamp,
    /// When it ended.
    pub(crate) at: Timestamp,
    /// When the next one is due.
    pub(crate) next_at: Timestamp,
    /// If it went wrong: how many did in a row, with this one.
    pub(crate) failures: i64,
}

/// Notes how a look at the inputs ended; an empty `error` means well.
pub(crate) fn note_look(tx: &Transaction, look: Looked, error: &str) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE specification SET looked_at = ?3, look_error = ?2,
         look_failures = CASE WHEN ?2 = '' THEN 0 ELSE ?6 END, next_look_at = ?4,
         look_answered_at = ?5 WHERE id = ?1",
    )?
    .execute(params![
        look.specification,
        error,
        look.at,
        look.next_at,
        look.wanted_at,
        look.failures.max(1)
    ])?;
    Ok(())
}

/// Notes which evaluation the inputs are at.
pub(super) fn note_current(
    tx: &Transaction,
    id: SpecificationId,
    evaluation: EvaluationId,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE specification SET evaluation_id = ?2 WHERE id = ?1 AND evaluation_id IS NOT ?2",
    )?
    .execute(params![id, evaluation])?;
    Ok(())
}

/// Asks for a look at a specification's inputs. `None`: there is none of this name.
pub(crate) fn want_look(
    tx: &Transaction,
    name: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<SpecificationId>> {
    // Two wishes in one second are two wishes.
    tx.prepare_cached(
        "UPDATE specification SET look_wanted_at = max(?2, look_wanted_at + 1)
         WHERE name = ?1 AND removed_at = 0 RETURNING id",
    )?
    .query_map(params![name, now], |row| row.get(0))?
    .next()
    .transpose()
}
