//! Evaluations and their checkouts.

use super::database::Snapshot;
use super::hidden::Hidden;
use super::query::{Columns, Query, read};
use crate::model::{
    Checkout, Counters, Evaluation, EvaluationDetails, EvaluationId, EvaluationStatus,
    SpecificationId,
};
use rusqlite::{Row, params};
use std::cmp::Reverse;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT e.id, e.specification_id, s.name, e.status, e.message, e.created_at,",
            " e.checkout_at, e.finished_at, e.log_path, e.scheduled, e.started, e.succeeded,",
            " e.failed, e.failed_dependency, e.failed_other, e.canceled,",
            " EXISTS (SELECT 1 FROM kept_evaluation AS k WHERE k.evaluation_id = e.id),",
            " EXISTS (SELECT 1 FROM withdrawn_evaluation AS w WHERE w.evaluation_id = e.id),",
            " (SELECT v.successor FROM withdrawn_evaluation AS v WHERE v.evaluation_id = e.id)",
            // `CROSS` makes SQLite read the evaluations first, in their order.
            " FROM evaluation AS e CROSS JOIN specification AS s ON s.id = e.specification_id ",
            $rest
        )
    };
}

/// The number of an evaluation's jobs, by its counters.
macro_rules! jobs {
    () => {
        "scheduled + started + succeeded + failed + failed_dependency + failed_other + canceled"
    };
}

pub(super) use jobs;

fn from_row(row: &Row<'_>) -> rusqlite::Result<Evaluation> {
    let columns = &mut Columns::of(row);
    Ok(read!(columns: Evaluation {
        id, specification_id, specification, status, message, created_at, checkout_at, finished_at,
        log_path;
        counters: counters(columns)?,
        kept: columns.take()?,
        withdrawn: columns.take()?,
        successor: columns.take()?
    }))
}

fn counters(columns: &mut Columns<'_, '_>) -> rusqlite::Result<Counters> {
    Ok(read!(columns: Counters {
        scheduled, started, succeeded, failed, failed_dependency, failed_other, canceled
    }))
}

/// One evaluation.
pub fn evaluation(s: &Snapshot, id: EvaluationId) -> rusqlite::Result<Option<Evaluation>> {
    s.first(select!("WHERE e.id = ?1"), [id], from_row)
}

/// The latest evaluations of the named specification, newest first; `None`: of all specifications.
pub fn evaluations(
    s: &Snapshot,
    specification: Option<&str>,
    limit: u32,
) -> rusqlite::Result<Vec<Evaluation>> {
    let Some(name) = specification else {
        return s.all(select!("ORDER BY e.id DESC LIMIT ?1"), [limit], from_row);
    };
    let sql = select!(
        "WHERE e.specification_id = (SELECT id FROM specification WHERE name = ?1)
         ORDER BY e.id DESC LIMIT ?2"
    );
    s.all(sql, params![name, limit], from_row)
}

/// The latest evaluations of all specifications of a project but the hidden ones, newest first.
pub(super) fn evaluations_of_project(
    s: &Snapshot,
    hidden: &Hidden,
    project: &str,
    limit: u32,
) -> rusqlite::Result<Vec<Evaluation>> {
    let sql = "SELECT id FROM specification WHERE project = ?1";
    let mut specifications: Vec<SpecificationId> = s.values(sql, [project])?;
    specifications.retain(|id| !hidden.has(*id));
    newest_of(s, specifications, limit)
}

/// The latest evaluations of all specifications but the hidden ones, newest first.
pub(super) fn evaluations_without(
    s: &Snapshot,
    hidden: &Hidden,
    limit: u32,
) -> rusqlite::Result<Vec<Evaluation>> {
    let mut specifications: Vec<SpecificationId> = s.values("SELECT id FROM specification", [])?;
    specifications.retain(|id| !hidden.has(*id));
    newest_of(s, specifications, limit)
}

/// The latest evaluations of these specifications, newest first.
fn newest_of(
    s: &Snapshot,
    specifications: Vec<SpecificationId>,
    limit: u32,
) -> rusqlite::Result<Vec<Evaluation>> {
    let mut newest: Vec<EvaluationId> = Vec::new();
    for specification in specifications {
        newest.extend(evaluation_ids(s, specification, limit)?);
        // After each specification, so that the list never has more than twice as many numbers.
        newest.sort_unstable_by_key(|id| Reverse(*id));
        newest.truncate(limit as usize);
    }
    newest.into_iter().filter_map(|id| evaluation(s, id).transpose()).collect()
}

/// The latest evaluations of a specification, newest first: only their numbers, statuses and counters.
pub(crate) fn evaluation_states(
    s: &Snapshot,
    specification: SpecificationId,
    limit: u32,
) -> rusqlite::Result<Vec<(EvaluationId, EvaluationStatus, Counters)>> {
    let sql =
        "SELECT id, status, scheduled, started, succeeded, failed, failed_dependency, failed_other,
         canceled FROM evaluation WHERE specification_id = ?1 ORDER BY id DESC LIMIT ?2";
    s.all(sql, params![specification, limit], |row| {
        let columns = &mut Columns::of(row);
        Ok((columns.take()?, columns.take()?, counters(columns)?))
    })
}

/// A page of a specification's evaluations, newest first. With `after`: the evaluations with the next higher numbers;
/// otherwise with `before`: those with the next lower numbers; with neither: the newest.
pub(crate) fn evaluation_page(
    s: &Snapshot,
    specification: &str,
    before: Option<EvaluationId>,
    after: Option<EvaluationId>,
    limit: u32,
) -> rusqlite::Result<Vec<Evaluation>> {
    if let Some(after) = after {
        let sql = select!(
            "WHERE e.specification_id = (SELECT id FROM specification WHERE name = ?1)
             AND e.id > ?2 ORDER BY e.id LIMIT ?3"
        );
        let mut page: Vec<_> = s.all(sql, params![specification, after, limit], from_row)?;
        page.reverse();
        return Ok(page);
    }
    let sql = select!(
        "WHERE e.specification_id = (SELECT id FROM specification WHERE name = ?1)
         AND e.id < ?2 ORDER BY e.id DESC LIMIT ?3"
    );
    let before = before.map_or(i64::MAX, |id| id.get());
    s.all(sql, params![specification, before, limit], from_row)
}

/// The latest evaluations of a specification, newest first: only their numbers.
pub(crate) fn evaluation_ids(
    s: &Snapshot,
    specification: SpecificationId,
    limit: u32,
) -> rusqlite::Result<Vec<EvaluationId>> {
    let sql = "SELECT id FROM evaluation WHERE specification_id = ?1 ORDER BY id DESC LIMIT ?2";
    s.values(sql, params![specification, limit])
}

/// The latest successful evaluation of a specification whose builds have all ended, none of them by a cancel; `None`:
/// there is none.
pub(crate) fn latest_finished_evaluation(
    s: &Snapshot,
    specification: SpecificationId,
) -> rusqlite::Result<Option<EvaluationId>> {
    let sql = "SELECT id FROM evaluation WHERE specification_id = ?1 AND status = 0
         AND scheduled = 0 AND started = 0 AND canceled = 0 ORDER BY id DESC LIMIT 1";
    s.value(sql, [specification])
}

/// The checkouts of an evaluation, in the order of the specification's inputs.
pub(crate) fn checkouts(s: &Snapshot, id: EvaluationId) -> rusqlite::Result<Vec<Checkout>> {
    let sql = "SELECT input, revision, subject, author, revision_at FROM checkout
         WHERE evaluation_id = ?1 ORDER BY position";
    s.all(sql, [id], |row| {
        let columns = &mut Columns::of(row);
        Ok(read!(columns: Checkout { input, revision, subject, author, revision_at }))
    })
}

/// An evaluation with its checkouts and neighbours.
pub(crate) fn evaluation_details(
    s: &Snapshot,
    id: EvaluationId,
) -> rusqlite::Result<Option<EvaluationDetails>> {
    let Some(evaluation) = evaluation(s, id)? else { return Ok(None) };
    let neighbour =
        |sql: &str| s.query_row(sql, params![evaluation.specification_id, id], |row| row.get(0));
    let previous = neighbour(
        "SELECT max(id) FROM evaluation
         WHERE specification_id = ?1 AND id < ?2 AND status = 0",
    )?;
    let next = neighbour("SELECT min(id) FROM evaluation WHERE specification_id = ?1 AND id > ?2")?;
    Ok(Some(EvaluationDetails { checkouts: checkouts(s, id)?, evaluation, previous, next }))
}
