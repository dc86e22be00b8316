//! What derivations are called, and what defines those of the `command` backend.

use super::database::Snapshot;
use crate::model::{BuildId, Definition, EvaluationId};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// What `build.derivation_key` holds: derivations are looked up by their last component, as in
/// `/build/BASENAME.drv`, and by the whole.
pub fn derivation_key(derivation: &str) -> i64 {
    let digest = Sha256::digest(derivation.rsplit('/').next().unwrap_or_default());
    let mut key = [0; 8];
    key.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(key)
}

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

/// The outputs in the state directory that the jobs of an evaluation have.
pub(crate) fn outputs_of(s: &Snapshot, id: EvaluationId) -> rusqlite::Result<HashSet<String>> {
    s.prepare_cached(
        "SELECT o.path FROM job AS j CROSS JOIN output AS o ON o.build_id = j.build_id
         WHERE j.evaluation_id = ?1 AND substr(o.path, 1, 8) = 'outputs/'",
    )?
    .query_map([id], |row| row.get(0))?
    .collect()
}

/// The revisions that builds still need, and those of the last evaluations of each specification.
pub(crate) fn revisions_in_use(s: &Snapshot) -> rusqlite::Result<HashSet<String>> {
    s.prepare_cached(
        "SELECT json_extract(source.value, '$.revision')
         FROM build AS b JOIN definition AS d ON d.build_id = b.id,
           json_each(d.text, '$.sources') AS source
         WHERE b.status < 0 AND b.backend = 0
         UNION
         SELECT c.revision FROM checkout AS c
         WHERE c.evaluation_id > (SELECT max(id) - 200 FROM evaluation)",
    )?
    .query_map([], |row| row.get(0))?
    .collect()
}
