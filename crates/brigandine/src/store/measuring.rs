//! What `brigandine bench` asks about, chosen so that a request lists as much in a small database as
//! in a large one. Read before anything is measured, and by nothing else: [`JOBS`] reads the whole
//! index of jobs, which takes a second for five million builds.

use super::{Snapshot, builds};
use crate::model::{Build, BuildId, EvaluationId, SpecificationId};
use rusqlite::params;

/// A specification and how many finished builds it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Size {
    /// Its row.
    pub(crate) id: SpecificationId,
    /// Its name.
    pub(crate) name: String,
    /// Finished builds.
    pub(crate) finished: i64,
}

/// All specifications with finished builds, those with the fewest first.
pub(crate) fn sizes(s: &Snapshot) -> rusqlite::Result<Vec<Size>> {
    let mut sizes: Vec<Size> = Vec::new();
    let mut statement = s.prepare_cached(
        "SELECT s.id, s.name, c.builds FROM build_count AS c
         CROSS JOIN specification AS s ON s.id = c.specification_id
         WHERE c.status >= 0 AND c.builds > 0",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, builds): (_, i64) = (row.get(0)?, row.get(2)?);
        match sizes.iter_mut().find(|size| size.id == id) {
            Some(size) => size.finished += builds,
            None => sizes.push(Size { id, name: row.get(1)?, finished: builds }),
        }
    }
    sizes.sort_unstable_by_key(|size| (size.finished, size.id));
    Ok(sizes)
}

const JOBS: &str = "SELECT s.name, j.job, j.builds FROM
       (SELECT specification_id, job, count(*) AS builds
        FROM build INDEXED BY build_latest_of_job WHERE status >= 0 GROUP BY specification_id, job) AS j
     CROSS JOIN specification AS s ON s.id = j.specification_id";

/// Jobs that all have the same number of finished builds: `wanted`, or the nearest to it that any job
/// has. At most `count` of them, from all over the index, as specification and job; and that number.
pub(crate) fn jobs_with(
    s: &Snapshot,
    wanted: i64,
    count: usize,
) -> rusqlite::Result<(i64, Vec<(String, String)>)> {
    let mut statement = s.prepare_cached(JOBS)?;
    let mut rows = statement.query([])?;
    let mut nearest = i64::MAX;
    // The smallest keys stay, so the choice is the same for the same builds.
    let mut chosen = std::collections::BinaryHeap::new();
    while let Some(row) = rows.next()? {
        let builds: i64 = row.get(2)?;
        let (distance, known) = ((builds - wanted).abs(), (nearest - wanted).abs());
        if nearest != i64::MAX && (distance > known || distance == known && builds != nearest) {
            continue;
        }
        if builds != nearest {
            nearest = builds;
            chosen.clear();
        }
        let (specification, job): (String, String) = (row.get(0)?, row.get(1)?);
        chosen.push((super::derivation_key(&job), specification, job));
        if chosen.len() > count {
            chosen.pop();
        }
    }
    let jobs = chosen.into_sorted_vec().into_iter().map(|(_, of, job)| (of, job)).collect();
    Ok((nearest, jobs))
}

/// At most `count` evaluations with more than `jobs` jobs, or those with the most jobs when there is none
/// such; spread over all, and how many jobs the smallest of them has.
pub(crate) fn evaluations_with(
    s: &Snapshot,
    jobs: i64,
    count: usize,
) -> rusqlite::Result<(i64, Vec<EvaluationId>)> {
    let all: Vec<(EvaluationId, i64)> = s
        .prepare_cached(
            "SELECT id, scheduled + started + succeeded + failed + failed_dependency + failed_other
             + canceled FROM evaluation ORDER BY id",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let most = all.iter().map(|(_, jobs)| *jobs).max().unwrap_or(0);
    let least = most.min(jobs + 1);
    let fitting: Vec<_> = all.into_iter().filter(|(_, jobs)| *jobs >= least).collect();
    let chosen: Vec<_> = (0..count.min(fitting.len()))
        .filter_map(|at| fitting.get(at * fitting.len() / count.min(fitting.len())))
        .collect();
    let smallest = chosen.iter().map(|(_, jobs)| *jobs).min().unwrap_or(0);
    Ok((smallest, chosen.into_iter().map(|(id, _)| *id).collect()))
}

/// The highest id of a build; 0 when there is none.
pub(crate) fn highest_build(s: &Snapshot) -> rusqlite::Result<i64> {
    s.prepare_cached("SELECT ifnull(max(id), 0) FROM build")?.query_row([], |row| row.get(0))
}

/// The builds above an id, in their order.
pub(crate) fn builds_above(s: &Snapshot, id: BuildId, limit: u32) -> rusqlite::Result<Vec<Build>> {
    s.prepare_cached(builds::ABOVE)?.query_map(params![id, limit], builds::from_row)?.collect()
}
