//! Specifications and the looks at them.

use super::Snapshot;
use crate::model::{Look, SpecificationId, SpecificationState};
use rusqlite::Row;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, definition, created_at, looked_at, look_error, look_failures, next_look_at,",
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
        },
        latest_evaluation: row.get(7)?,
    })
}

/// All specifications that were not removed, by name.
pub(crate) fn specifications(s: &Snapshot) -> rusqlite::Result<Vec<SpecificationState>> {
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
