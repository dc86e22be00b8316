//! The keys of derivations, and the definitions of those that the `command` backend builds.

use super::database::Snapshot;
use super::query::{Columns, Query};
use crate::model::{BuildId, Definition, EvaluationId};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// The value of `build.derivation_key`: the first eight bytes of the SHA-256 of the derivation's last component. The
/// key finds a build by that component, as in `/build/BASENAME.drv`, and by the whole derivation.
pub fn derivation_key(derivation: &str) -> i64 {
    let digest = Sha256::digest(derivation.rsplit('/').next().unwrap_or_default());
    let mut key = [0; 8];
    key.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(key)
}

/// The definition of a build of the `command` backend; `None` for other backends.
pub(crate) fn definition(s: &Snapshot, id: BuildId) -> rusqlite::Result<Option<Definition>> {
    let sql = "SELECT text FROM definition WHERE build_id = ?1";
    s.first(sql, [id], |row| Columns::of(row).json())
}

/// The paths of the outputs in the state directory that belong to the jobs of an evaluation.
pub(crate) fn outputs_of(s: &Snapshot, id: EvaluationId) -> rusqlite::Result<HashSet<String>> {
    let sql = "SELECT o.path FROM job AS j CROSS JOIN output AS o ON o.build_id = j.build_id
         WHERE j.evaluation_id = ?1 AND substr(o.path, 1, 8) = 'outputs/'";
    s.values(sql, [id])
}

/// The revisions that pending builds need, and the revisions of the last 200 evaluations.
pub(crate) fn revisions_in_use(s: &Snapshot) -> rusqlite::Result<HashSet<String>> {
    let sql = "SELECT json_extract(source.value, '$.revision')
         FROM build AS b JOIN definition AS d ON d.build_id = b.id,
           json_each(d.text, '$.sources') AS source
         WHERE b.status < 0 AND b.backend = 0
         UNION
         SELECT c.revision FROM checkout AS c
         WHERE c.evaluation_id > (SELECT max(id) - 200 FROM evaluation)";
    s.values(sql, [])
}
