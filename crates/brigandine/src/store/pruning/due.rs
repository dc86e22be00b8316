//! Which evaluations need not be kept.

use crate::model::{EvaluationId, Keep, Specification, SpecificationId, Timestamp};
use crate::store::database::Snapshot;

/// Evaluations that one look finds at most; the next look finds further ones.
const DUE_MAX: usize = 10_000;

/// The evaluations that hold the highest numbers (D1).
const HIGHEST: &str = "SELECT max(j.evaluation_id) FROM job AS j WHERE j.build_id =
       (SELECT max(id) FROM build)
     UNION ALL
     SELECT max(j.evaluation_id) FROM job AS j WHERE j.build_id =
       (SELECT build_id FROM product WHERE id = (SELECT max(id) FROM product))";

/// Evaluations of a specification that need not be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    /// Whose.
    pub(crate) specification: SpecificationId,
    /// Its name.
    pub(crate) name: String,
    /// The rules, from itself or the server.
    pub(crate) keep: Keep,
    /// Oldest first.
    pub(crate) evaluations: Vec<EvaluationId>,
    /// Jobs of these.
    pub(crate) jobs: i64,
    /// Evaluations that stay.
    pub(crate) kept: usize,
}

/// What may go, of specifications that have a rule, removed ones as well. Reads every evaluation of
/// these, and no build.
pub(crate) fn due(s: &Snapshot, default: Keep, now: Timestamp) -> rusqlite::Result<Vec<Due>> {
    let mut statement =
        s.prepare_cached("SELECT id, name, definition FROM specification ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let highest: Vec<Option<EvaluationId>> =
        s.prepare_cached(HIGHEST)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut all = Vec::new();
    let mut room = DUE_MAX;
    for row in rows {
        let (id, name, definition): (SpecificationId, String, String) = row?;
        // One that cannot be read says nothing about what may go.
        let Ok(definition) = serde_json::from_str::<Specification>(&definition) else { continue };
        let keep = definition.keep.unwrap_or(default);
        let one = due_of(s, (id, name), keep, now, room, &highest)?;
        room -= one.evaluations.len();
        all.push(one);
    }
    Ok(all)
}

fn due_of(
    s: &Snapshot,
    (specification, name): (SpecificationId, String),
    keep: Keep,
    now: Timestamp,
    room: usize,
    highest: &[Option<EvaluationId>],
) -> rusqlite::Result<Due> {
    let since = keep.days.map(|days| now - i64::from(days) * 86_400);
    let newest = keep.evaluations.map(|count| count as usize);
    let mut statement = s.prepare_cached(
        "SELECT id, created_at, status = 0, status = -1 OR scheduled + started > 0,
         id IS (SELECT evaluation_id FROM specification WHERE id = ?1),
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
        // D1. What was begun is brought to its end, whatever the rules say by now.
        let held =
            place == 0 || current || pending || (good && !seen) || highest.contains(&Some(id));
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
