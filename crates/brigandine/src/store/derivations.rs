//! What defines the derivations of the `command` backend.

use super::Snapshot;
use crate::model::{BuildId, Definition};

/// The definition of a build of the `command` backend; `None` for other backends.
pub(crate) fn definition(s: &Snapshot, id: BuildId) -> rusqlite::Result<Option<Definition>> {
    s.prepare_cached("SELECT text FROM definition WHERE build_id = ?1")?
        .query_map([id], |row| {
            let text: String = row.get(0)?;
            serde_json::from_str(&text).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(
                    0,
                    rusqlite::types::Type::Text,
                    Box::new(error),
                )
            })
        })?
        .next()
        .transpose()
}
