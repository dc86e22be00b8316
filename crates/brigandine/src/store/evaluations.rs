//! Evaluations, their checkouts and how they differ.

use super::Snapshot;
use crate::model::{
    BuildId, Checkout, Counters, Evaluation, EvaluationDetails, EvaluationId, JobChange,
};
use rusqlite::{Row, params};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT e.id, e.specification_id, s.name, e.status, e.message, e.created_at,",
            " e.checkout_at, e.finished_at, e.log_path, e.scheduled, e.started, e.succeeded,",
            " e.failed, e.failed_dependency, e.failed_other, e.canceled",
            " FROM evaluation AS e JOIN specification AS s ON s.id = e.specification_id ",
            $rest
        )
    };
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Evaluation> {
    Ok(Evaluation {
        id: row.get(0)?,
        specification_id: row.get(1)?,
        specification: row.get(2)?,
        status: row.get(3)?,
        message: row.get(4)?,
        created_at: row.get(5)?,
        checkout_at: row.get(6)?,
        finished_at: row.get(7)?,
        log_path: row.get(8)?,
        counters: Counters {
            scheduled: row.get(9)?,
            started: row.get(10)?,
            succeeded: row.get(11)?,
            failed: row.get(12)?,
            failed_dependency: row.get(13)?,
            failed_other: row.get(14)?,
            canceled: row.get(15)?,
        },
    })
}

/// One evaluation.
pub(crate) fn evaluation(s: &Snapshot, id: EvaluationId) -> rusqlite::Result<Option<Evaluation>> {
    s.prepare_cached(select!("WHERE e.id = ?1"))?.query_map([id], from_row)?.next().transpose()
}

/// The latest evaluations, newest first: of one specification by name, or of all.
pub(crate) fn evaluations(
    s: &Snapshot,
    specification: Option<&str>,
    limit: u32,
) -> rusqlite::Result<Vec<Evaluation>> {
    match specification {
        Some(name) => s
            .prepare_cached(select!(
                "WHERE e.specification_id = (SELECT id FROM specification WHERE name = ?1)
                 ORDER BY e.id DESC LIMIT ?2"
            ))?
            .query_map(params![name, limit], from_row)?
            .collect(),
        None => s
            .prepare_cached(select!("ORDER BY e.id DESC LIMIT ?1"))?
            .query_map([limit], from_row)?
            .collect(),
    }
}

/// A page of a specification's evaluations, newest first: those below `before`, or those above
/// `after` (nearest first taken, still returned newest first), or the newest.
pub(crate) fn evaluation_page(
    s: &Snapshot,
    specification: &str,
    before: Option<EvaluationId>,
    after: Option<EvaluationId>,
    limit: u32,
) -> rusqlite::Result<Vec<Evaluation>> {
    if let Some(after) = after {
        let mut page: Vec<_> = s
            .prepare_cached(select!(
                "WHERE e.specification_id = (SELECT id FROM specification WHERE name = ?1)
                 AND e.id > ?2 ORDER BY e.id LIMIT ?3"
            ))?
            .query_map(params![specification, after, limit], from_row)?
            .collect::<Result<_, _>>()?;
        page.reverse();
        return Ok(page);
    }
    s.prepare_cached(select!(
        "WHERE e.specification_id = (SELECT id FROM specification WHERE name = ?1)
         AND e.id < ?2 ORDER BY e.id DESC LIMIT ?3"
    ))?
    .query_map(params![specification, before.map_or(i64::MAX, |id| id.get()), limit], from_row)?
    .collect()
}

/// The checkouts of an evaluation, in the order of the specification's inputs.
pub(crate) fn checkouts(s: &Snapshot, id: EvaluationId) -> rusqlite::Result<Vec<Checkout>> {
    s.prepare_cached(
        "SELECT input, revision, subject, author, revision_at FROM checkout
         WHERE evaluation_id = ?1 ORDER BY position",
    )?
    .query_map([id], |row| {
        Ok(Checkout {
            input: row.get(0)?,
            revision: row.get(1)?,
            subject: row.get(2)?,
            author: row.get(3)?,
            revision_at: row.get(4)?,
        })
    })?
    .collect()
}

/// An evaluation with its checkouts and neighbours.
pub(crate) fn evaluation_details(
    s: &Snapshot,
    id: EvaluationId,
) -> rusqlite::Result<Option<EvaluationDetails>> {
    let Some(evaluation) = evaluation(s, id)? else { return Ok(None) };
    let previous = s
        .prepare_cached(
            "SELECT max(id) FROM evaluation
             WHERE specification_id = ?1 AND id < ?2 AND status = 0",
        )?
        .query_row(params![evaluation.specification_id, id], |row| row.get(0))?;
    let next = s
        .prepare_cached("SELECT min(id) FROM evaluation WHERE specification_id = ?1 AND id > ?2")?
        .query_row(params![evaluation.specification_id, id], |row| row.get(0))?;
    Ok(Some(EvaluationDetails { checkouts: checkouts(s, id)?, evaluation, previous, next }))
}

/// How an evaluation's jobs differ from those of `previous`, by job name: at most `limit` entries
/// of each kind. Jobs without a change, and jobs still pending, are left out.
pub(crate) fn changes(
    s: &Snapshot,
    id: EvaluationId,
    previous: EvaluationId,
    limit: u32,
) -> rusqlite::Result<Vec<(String, BuildId, JobChange)>> {
    let mut found = Vec::new();
    let both = "SELECT now.name, now.build_id
         FROM job AS now JOIN build AS b ON b.id = now.build_id
         JOIN job AS past ON past.evaluation_id = ?2 AND past.name = now.name
         JOIN build AS p ON p.id = past.build_id
         WHERE now.evaluation_id = ?1 AND b.id <> p.id";
    let only = "SELECT a.name, a.build_id FROM job AS a WHERE a.evaluation_id = ?1 AND NOT EXISTS
         (SELECT 1 FROM job AS b WHERE b.evaluation_id = ?2 AND b.name = a.name)
         ORDER BY a.name LIMIT ?3";
    let failing =
        format!("{both} AND b.status BETWEEN 1 AND 3 AND p.status = 0 ORDER BY now.name LIMIT ?3");
    let fixed =
        format!("{both} AND b.status = 0 AND p.status BETWEEN 1 AND 3 ORDER BY now.name LIMIT ?3");
    for (sql, change, newer, older) in [
        (failing.as_str(), JobChange::NewlyFailing, id, previous),
        (fixed.as_str(), JobChange::Fixed, id, previous),
        (only, JobChange::New, id, previous),
        (only, JobChange::Gone, previous, id),
    ] {
        let mut statement = s.prepare_cached(sql)?;
        let rows = statement.query_map(params![newer, older, limit], |row| {
            Ok((row.get(0)?, row.get(1)?, change))
        })?;
        for row in rows {
            found.push(row?);
        }
    }
    Ok(found)
}
