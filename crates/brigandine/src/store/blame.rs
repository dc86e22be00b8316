//! The history of a job around a build: its neighbours, and since when the job fails.
//!
//! A history is that of the specification for which the build was made, in the order of its evaluations: a branch that is
//! set back goes on with its next evaluation.
//!
//! - BLAME1: at most [`HORIZON`] evaluations are looked at in each direction, so a question costs the same whatever
//!   the history of the specification is.

use super::database::Snapshot;
use super::hidden::Hidden;
use super::query::Query;
use crate::model::{Blame, Build, BuildId, EvaluationId, SpecificationId, Surroundings};
use rusqlite::params;

/// How many evaluations before or after a build are looked at.
const HORIZON: i64 = 500;

/// How many suspects, and evaluations with the build, are named.
const NAMED: u32 = 6;

/// What stands around a build in the history of its job. Evaluations of hidden specifications are not named and not
/// counted.
pub(super) fn surroundings(
    s: &Snapshot,
    hidden: &Hidden,
    build: &Build,
) -> rusqlite::Result<Surroundings> {
    let (of, at) = (build.specification_id, build.evaluation);
    // The borders are read first: they are rows of the index of evaluations alone.
    let sql =
        "SELECT min(e.id) FROM (SELECT id FROM evaluation WHERE specification_id = ?1 AND id < ?2
         ORDER BY id DESC LIMIT ?3) AS e";
    let first: Option<i64> = s.query_row(sql, params![of, at, HORIZON], |row| row.get(0))?;
    let sql =
        "SELECT max(e.id) FROM (SELECT id FROM evaluation WHERE specification_id = ?1 AND id > ?2
         ORDER BY id LIMIT ?3) AS e";
    let last: Option<i64> = s.query_row(sql, params![of, at, HORIZON], |row| row.get(0))?;
    let sql = "SELECT j.build_id FROM evaluation AS e CROSS JOIN job AS j ON j.evaluation_id = e.id
         WHERE e.specification_id = ?1 AND e.id < ?2 AND e.id >= ?3 AND j.name = ?4
         AND j.build_id <> ?5 ORDER BY e.id DESC LIMIT 1";
    let values = params![of, at, first.unwrap_or(i64::MAX), build.job, build.id];
    let previous = s.value(sql, values)?;
    let sql = "SELECT j.build_id FROM evaluation AS e CROSS JOIN job AS j ON j.evaluation_id = e.id
         WHERE e.specification_id = ?1 AND e.id > ?2 AND e.id <= ?3 AND j.name = ?4
         AND j.build_id <> ?5 ORDER BY e.id LIMIT 1";
    let values = params![of, at, last.unwrap_or(i64::MIN), build.job, build.id];
    let next = s.value(sql, values)?;
    let (evaluations, others) = match hidden.is_empty() {
        true => evaluations_with(s, build.id)?,
        false => seen_evaluations_with(s, hidden, build.id)?,
    };
    let blame = match build.status.is_broken() {
        true => Some(blame(s, build, first.unwrap_or(i64::MAX))?),
        false => None,
    };
    Ok(Surroundings { previous, next, evaluations, others, blame })
}

/// The latest evaluations that have a build, and how many further ones there are.
fn evaluations_with(s: &Snapshot, id: BuildId) -> rusqlite::Result<(Vec<EvaluationId>, i64)> {
    // An evaluation may have several jobs with one build.
    let sql = "SELECT DISTINCT evaluation_id FROM job WHERE build_id = ?1
         ORDER BY evaluation_id DESC LIMIT ?2";
    let named: Vec<EvaluationId> = s.values(sql, params![id, NAMED])?;
    let Some(least) = named.last() else { return Ok((named, 0)) };
    let sql = "SELECT count(*) FROM (SELECT DISTINCT evaluation_id FROM job
         WHERE build_id = ?1 AND evaluation_id < ?2) AS e";
    let others = s.query_row(sql, params![id, least], |row| row.get(0))?;
    Ok((named, others))
}

/// As [`evaluations_with`], without the evaluations of hidden specifications.
fn seen_evaluations_with(
    s: &Snapshot,
    hidden: &Hidden,
    id: BuildId,
) -> rusqlite::Result<(Vec<EvaluationId>, i64)> {
    let sql = "SELECT DISTINCT j.evaluation_id FROM job AS j
         CROSS JOIN evaluation AS e ON e.id = j.evaluation_id
         WHERE j.build_id = ?1 AND e.specification_id NOT IN (SELECT value FROM json_each(?2))
         ORDER BY j.evaluation_id DESC LIMIT ?3";
    let hidden = hidden.json();
    let named: Vec<EvaluationId> = s.values(sql, params![id, hidden, NAMED])?;
    let Some(least) = named.last() else { return Ok((named, 0)) };
    let sql = "SELECT count(*) FROM (SELECT DISTINCT j.evaluation_id FROM job AS j
         CROSS JOIN evaluation AS e ON e.id = j.evaluation_id
         WHERE j.build_id = ?1 AND e.specification_id NOT IN (SELECT value FROM json_each(?2))
         AND j.evaluation_id < ?3) AS e";
    let others = s.query_row(sql, params![id, hidden, least], |row| row.get(0))?;
    Ok((named, others))
}

/// Since when the job of a failed build fails. No evaluation before `first` is looked at.
fn blame(s: &Snapshot, build: &Build, first: i64) -> rusqlite::Result<Blame> {
    let (of, at) = (build.specification_id, build.evaluation);
    let sql = "SELECT e.id, b.id FROM evaluation AS e
         CROSS JOIN job AS j ON j.evaluation_id = e.id CROSS JOIN build AS b ON b.id = j.build_id
         WHERE e.specification_id = ?1 AND e.id < ?2 AND e.id >= ?3 AND j.name = ?4 AND b.status = 0
         ORDER BY e.id DESC LIMIT 1";
    let values = params![of, at, first, build.job];
    let success: Option<(EvaluationId, BuildId)> = s.first(sql, values, |row| row.try_into())?;
    let since = success.map_or(first.saturating_sub(1), |(evaluation, _)| evaluation.get());
    let sql = "SELECT e.id, b.id FROM evaluation AS e
         CROSS JOIN job AS j ON j.evaluation_id = e.id CROSS JOIN build AS b ON b.id = j.build_id
         WHERE e.specification_id = ?1 AND e.id > ?2 AND e.id < ?3 AND j.name = ?4
         AND b.status BETWEEN 1 AND 3 ORDER BY e.id LIMIT 1";
    let values = params![of, since, at, build.job];
    let earlier = s.first(sql, values, |row| row.try_into())?;
    // No earlier evaluation has a failed build of the job, so this build is the first.
    let failure = earlier.unwrap_or((at, build.id));
    let (suspects, others) = match success {
        Some(_) => suspects(s, of, since, failure.0)?,
        None => (Vec::new(), 0),
    };
    Ok(Blame { success, failure, suspects, others })
}

/// The latest evaluations after `since`, up to `until`, and how many further ones there are.
fn suspects(
    s: &Snapshot,
    of: SpecificationId,
    since: i64,
    until: EvaluationId,
) -> rusqlite::Result<(Vec<EvaluationId>, i64)> {
    let sql = "SELECT id FROM evaluation WHERE specification_id = ?1 AND id > ?2 AND id <= ?3
         ORDER BY id DESC LIMIT ?4";
    let named: Vec<EvaluationId> = s.values(sql, params![of, since, until, NAMED])?;
    let Some(least) = named.last() else { return Ok((named, 0)) };
    let sql = "SELECT count(*) FROM evaluation
         WHERE specification_id = ?1 AND id > ?2 AND id < ?3";
    let others = s.query_row(sql, params![of, since, least], |row| row.get(0))?;
    Ok((named, others))
}
