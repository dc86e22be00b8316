//! Finds the evaluations that no rule of retention keeps.

use crate::model::{EvaluationId, Keep, Specification, SpecificationId, Timestamp};
use crate::store::database::Snapshot;
use crate::store::query::Query;

/// The most evaluations that one query finds. The next query finds further ones.
const DUE_MAX: usize = 10_000;

/// The evaluations that have the build or the product with the highest number (PRUNE1).
const HIGHEST: &str = "SELECT max(j.evaluation_id) FROM job AS j WHERE j.build_id =
       (SELECT max(id) FROM build)
     UNION ALL
     SELECT max(j.evaluation_id) FROM job AS j WHERE j.build_id =
       (SELECT build_id FROM product WHERE id = (SELECT max(id) FROM product))";

/// Evaluations of a specification that need not be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    /// The specification.
    pub(crate) specification: SpecificationId,
    /// Its name.
    pub(crate) name: String,
    /// The rules: the specification's own, or those of the server.
    pub(crate) keep: Keep,
    /// The evaluations that may be deleted, oldest first.
    pub(crate) evaluations: Vec<EvaluationId>,
    /// How many jobs `evaluations` have.
    pub(crate) jobs: i64,
    /// The number of evaluations that stay.
    pub(crate) kept: usize,
}

/// Which evaluations may be deleted, of every specification, removed ones included. Reads all evaluations, and no
/// build.
pub(crate) fn due(s: &Snapshot, default: Keep, now: Timestamp) -> rusqlite::Result<Vec<Due>> {
    let sql = "SELECT id, name, definition, removed_at FROM specification ORDER BY name";
    let rows: Vec<(SpecificationId, String, String, Timestamp)> =
        s.all(sql, [], |row| row.try_into())?;
    let highest: Vec<Option<EvaluationId>> = s.values(HIGHEST, [])?;
    let mut all = Vec::new();
    let mut room = DUE_MAX;
    for (id, name, definition, removed_at) in rows {
        // If the definition cannot be read, its rules are not known: nothing of the specification is deleted.
        let Ok(definition) = serde_json::from_str::<Specification>(&definition) else { continue };
        let keep = definition.keep.unwrap_or(default);
        // Removed with its history.
        let whole = removed_at > 0 && keep.evaluations == Some(0);
        let one = due_of(s, (id, name), (keep, whole), now, room, &highest)?;
        room -= one.evaluations.len();
        all.push(one);
    }
    Ok(all)
}

fn due_of(
    s: &Snapshot,
    (specification, name): (SpecificationId, String),
    (keep, whole): (Keep, bool),
    now: Timestamp,
    room: usize,
    highest: &[Option<EvaluationId>],
) -> rusqlite::Result<Due> {
    let since = keep.days.map(|days| now - i64::from(days) * 86_400);
    let newest = keep.evaluations.map(|count| count as usize);
    let mut statement = s.prepare_cached(
        "SELECT id, created_at, status = 0, status = -1 OR scheduled + started > 0,
         id IS (SELECT evaluation_id FROM specification WHERE id = ?1)
           OR EXISTS (SELECT 1 FROM kept_evaluation AS k WHERE k.evaluation_id = evaluation.id),
         stamp = 'removed #' || id, scheduled + started + succeeded + failed + failed_dependency
           + failed_other + canceled
         FROM evaluation WHERE specification_id = ?1 ORDER BY id DESC",
    )?;
    let mut rows = statement.query([specification])?;
    let (mut found, mut place, mut kept, mut seen) = (Vec::new(), 0, 0, false);
    while let Some(row) = rows.next()? {
        let (id, created_at): (EvaluationId, Timestamp) = (row.get(0)?, row.get(1)?);
        let (good, pending, current, marked): (bool, bool, bool, bool) =
            (row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?);
        let ruled = keep.is_everything()
            || newest.is_some_and(|newest| place < newest)
            || since.is_some_and(|since| created_at >= since);
        // PRUNE1. A deletion that was begun continues, even if the rules keep the evaluation now.
        let useful = current || !whole && (place == 0 || good && !seen);
        let held = useful || pending || highest.contains(&Some(id));
        if held || (ruled && !marked) {
            kept += 1;
        } else {
            found.push((id, row.get::<_, i64>(6)?));
        }
        place += 1;
        seen |= good;
    }
    found.reverse();
    kept += found.len().saturating_sub(room);
    found.truncate(room);
    Ok(Due {
        specification,
        name,
        keep,
        jobs: found.iter().map(|(_, jobs)| jobs).sum(),
        evaluations: found.into_iter().map(|(id, _)| id).collect(),
        kept,
    })
}
