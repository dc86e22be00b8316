//! The history of a job, evaluation by evaluation, and how reliable the job is.

use super::row::{columns, from_columns};
use crate::model::{BuildId, BuildStatus, EvaluationId, JobPast, JobRates, SpecificationId};
use crate::store::database::Snapshot;
use crate::store::query::{Columns, Query, integer};
use rusqlite::params;
use std::collections::{BTreeMap, BTreeSet};

/// How many evaluations are looked at for a page.
const HORIZON: u32 = 500;

/// How many evaluations are looked at for the rates.
const RATED: u32 = 100;

/// The builds of a job in the evaluations before `before`, the latest first, at most `limit`; and where the next page
/// begins. `None`: there is no next page. A page may be empty although there is a next one: the job was not in so many
/// evaluations.
pub(crate) fn job_past(
    s: &Snapshot,
    of: SpecificationId,
    job: &str,
    before: EvaluationId,
    limit: usize,
) -> rusqlite::Result<(Vec<JobPast>, Option<EvaluationId>)> {
    let sql =
        "SELECT min(e.id) FROM (SELECT id FROM evaluation WHERE specification_id = ?1 AND id < ?2
         ORDER BY id DESC LIMIT ?3) AS e";
    let floor: Option<EvaluationId> =
        s.query_row(sql, params![of, before, HORIZON], |row| row.get(0))?;
    let Some(floor) = floor else { return Ok((Vec::new(), None)) };
    let sql = concat!(
        "SELECT ",
        columns!(),
        ", e.id, j.reused FROM evaluation AS e CROSS JOIN job AS j ON j.evaluation_id = e.id
         CROSS JOIN build AS b ON b.id = j.build_id CROSS JOIN specification AS s ON s.id = b.specification_id
         WHERE e.specification_id = ?1 AND e.id < ?2 AND e.id >= ?3 AND j.name = ?4
         ORDER BY e.id DESC LIMIT ?5"
    );
    let values = params![of, before, floor, job, integer(limit) + 1];
    let mut found: Vec<JobPast> = s.all(sql, values, |row| {
        let columns = &mut Columns::of(row);
        Ok(JobPast {
            build: from_columns(columns)?,
            evaluation: columns.take()?,
            reused: columns.take()?,
        })
    })?;
    if found.len() > limit {
        // An imported evaluation may have several builds of one name. They stand on one page, unless they fill it.
        let cut = found[limit].evaluation;
        let whole = found.iter().position(|one| one.evaluation == cut).filter(|at| *at > 0);
        found.truncate(whole.unwrap_or(limit));
        let older = found.last().map(|one| one.evaluation);
        return Ok((found, older));
    }
    let sql = "SELECT max(id) FROM evaluation WHERE specification_id = ?1 AND id < ?2";
    let more: Option<EvaluationId> = s.query_row(sql, params![of, floor], |row| row.get(0))?;
    Ok((found, more.map(|_| floor)))
}

/// How reliable a job is, over the latest evaluations of its specification.
pub(crate) fn job_rates(
    s: &Snapshot,
    of: SpecificationId,
    job: &str,
) -> rusqlite::Result<JobRates> {
    let sql =
        "SELECT count(*), min(e.id) FROM (SELECT id FROM evaluation WHERE specification_id = ?1
         ORDER BY id DESC LIMIT ?2) AS e";
    let (evaluations, floor): (i64, Option<EvaluationId>) =
        s.query_row(sql, params![of, RATED], |row| row.try_into())?;
    let mut rates = JobRates { evaluations, ..JobRates::default() };
    let Some(floor) = floor else { return Ok(rates) };
    let sql = "SELECT e.id, b.id, b.derivation, b.status FROM evaluation AS e
         CROSS JOIN job AS j ON j.evaluation_id = e.id CROSS JOIN build AS b ON b.id = j.build_id
         WHERE e.specification_id = ?1 AND e.id >= ?2 AND j.name = ?3";
    let rows: Vec<(EvaluationId, BuildId, String, BuildStatus)> =
        s.all(sql, params![of, floor, job], |row| row.try_into())?;
    // Many evaluations may have one build.
    let mut builds = BTreeMap::new();
    for (evaluation, id, derivation, status) in rows {
        if status.is_success() {
            rates.success = rates.success.max(Some((evaluation, id)));
        }
        builds.insert(id, (derivation, status));
    }
    let (mut good, mut bad) = (BTreeSet::new(), BTreeSet::new());
    for (id, (derivation, status)) in &builds {
        rates.succeeded += i64::from(status.is_success());
        rates.failed += i64::from(status.is_broken());
        let sql = "SELECT status FROM attempt WHERE build_id = ?1";
        let mut outcomes: Vec<BuildStatus> = s.values(sql, [id])?;
        outcomes.push(*status);
        for outcome in outcomes {
            match outcome {
                BuildStatus::Succeeded => good.insert(derivation),
                BuildStatus::Failed | BuildStatus::FailedOther => bad.insert(derivation),
                _ => false,
            };
        }
    }
    rates.derivations = integer(good.union(&bad).count());
    rates.flaky = good.intersection(&bad).map(|derivation| (*derivation).clone()).collect();
    Ok(rates)
}
