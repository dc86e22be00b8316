//! How the jobs of a specification did, evaluation by evaluation: a page of jobs by a page of evaluations.
//!
//! - GRID1: a page reads about as many names and builds as it has cells. With "only failing ones" it also reads the jobs
//!   of at most [`FAILING_IN`] evaluations.

use super::database::Snapshot;
use super::evaluations::jobs;
use super::query::Query;
use crate::model::{BuildId, BuildStatus, EvaluationId, SpecificationId};
use rusqlite::params;
use rusqlite::types::ToSql;
use std::collections::BTreeSet;

/// In how many evaluations failing jobs are looked for at most.
const FAILING_IN: usize = 3;

/// Which part of a grid is wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct GridFilter {
    /// The latest evaluation that may be in it; `None`: the latest of all.
    pub(crate) until: Option<EvaluationId>,
    /// Whether only failing jobs are wanted.
    pub(crate) failing: bool,
    /// Only jobs behind this one, by name.
    pub(crate) after: Option<String>,
    /// Only jobs in front of this one; the page has those nearest to it. Ignored when `after` is set.
    pub(crate) before: Option<String>,
    /// How many evaluations the page has at most.
    pub(crate) evaluations: u32,
    /// How many jobs the page has at most.
    pub(crate) jobs: u32,
}

/// A build of a job and its status; `None`: the evaluation does not have the job.
pub(crate) type GridCell = Option<(BuildId, BuildStatus)>;

/// A page of a grid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grid {
    /// The evaluations that have jobs, the latest first.
    pub(crate) evaluations: Vec<EvaluationId>,
    /// In which of these the listed jobs fail; empty: failing jobs are not told apart.
    pub(crate) failing_in: Vec<EvaluationId>,
    /// The jobs by name, each with a cell for each evaluation.
    pub(crate) rows: Vec<(String, Vec<GridCell>)>,
    /// Whether there may be jobs before the first one.
    pub(crate) has_before: bool,
    /// Whether there may be jobs after the last one.
    pub(crate) has_after: bool,
    /// The latest evaluation of the page with newer evaluations; `None`: there is no such page.
    pub(crate) newer: Option<EvaluationId>,
    /// The latest evaluation of the page with older evaluations; `None`: there is no such page.
    pub(crate) older: Option<EvaluationId>,
}

/// A page of the grid of a specification.
pub(crate) fn grid(
    s: &Snapshot,
    of: SpecificationId,
    filter: &GridFilter,
) -> rusqlite::Result<Grid> {
    let mut grid = Grid::default();
    let until = filter.until.unwrap_or(EvaluationId::new(i64::MAX));
    let sql = concat!(
        "SELECT id, scheduled + started > 0 FROM evaluation
         WHERE specification_id = ?1 AND id <= ?2 AND status = 0 AND ",
        jobs!(),
        " > 0 ORDER BY id DESC LIMIT ?3"
    );
    let found: Vec<(EvaluationId, bool)> =
        s.all(sql, params![of, until, filter.evaluations], |row| row.try_into())?;
    grid.evaluations = found.iter().map(|(id, _)| *id).collect();
    let ends = grid.evaluations.first().copied().zip(grid.evaluations.last().copied());
    let Some((newest, oldest)) = ends else { return Ok(grid) };
    let sql = concat!(
        "SELECT id FROM evaluation WHERE specification_id = ?1 AND id > ?2 AND status = 0 AND ",
        jobs!(),
        " > 0 ORDER BY id LIMIT ?3"
    );
    let newer: Vec<EvaluationId> = s.values(sql, params![of, newest, filter.evaluations])?;
    grid.newer = newer.last().copied();
    let sql = concat!(
        "SELECT max(id) FROM evaluation
         WHERE specification_id = ?1 AND id < ?2 AND status = 0 AND ",
        jobs!(),
        " > 0"
    );
    grid.older = s.query_row(sql, params![of, oldest], |row| row.get(0))?;
    if filter.failing {
        // Of an evaluation that is still being built, not every job that fails is known to fail.
        let ended = found.iter().position(|(_, pending)| !pending);
        let count = ended.map_or(FAILING_IN, |at| at + 1).min(FAILING_IN);
        grid.failing_in = grid.evaluations.iter().take(count).copied().collect();
    }
    let names = page_of_names(s, filter, &mut grid)?;
    grid.rows = names.iter().map(|name| (name.clone(), Vec::new())).collect();
    let list = serde_json::to_string(&names).unwrap_or_default();
    for evaluation in &grid.evaluations {
        for (row, cell) in grid.rows.iter_mut().zip(cells(s, *evaluation, &names, &list)?) {
            row.1.push(cell);
        }
    }
    Ok(grid)
}

/// The names of the jobs of a page, sorted. Notes in `grid` whether there may be others before and after them.
fn page_of_names(
    s: &Snapshot,
    filter: &GridFilter,
    grid: &mut Grid,
) -> rusqlite::Result<Vec<String>> {
    let backwards = filter.after.is_none() && filter.before.is_some();
    let searched = if filter.failing { &grid.failing_in } else { &grid.evaluations };
    let mut all = BTreeSet::new();
    // The first names of all evaluations are among the first names of each.
    for evaluation in searched {
        all.extend(names(s, *evaluation, filter, backwards)?);
    }
    let limit = filter.jobs as usize;
    let more = all.len() > limit;
    let page: Vec<String> = if backwards {
        all.into_iter().rev().take(limit).collect::<Vec<_>>().into_iter().rev().collect()
    } else {
        all.into_iter().take(limit).collect()
    };
    // A border is the name of a job on the page beside this one.
    grid.has_before = if backwards { more } else { filter.after.is_some() };
    grid.has_after = backwards || more;
    Ok(page)
}

/// The first names of the jobs of an evaluation that fit the filter, one more than a page has.
fn names(
    s: &Snapshot,
    evaluation: EvaluationId,
    filter: &GridFilter,
    backwards: bool,
) -> rusqlite::Result<Vec<String>> {
    let limit = i64::from(filter.jobs) + 1;
    let mut sql = String::from("SELECT j.name FROM job AS j");
    if filter.failing {
        sql.push_str(" CROSS JOIN build AS b ON b.id = j.build_id");
    }
    sql.push_str(" WHERE j.evaluation_id = ?");
    let mut values: Vec<&dyn ToSql> = vec![&evaluation];
    if filter.failing {
        sql.push_str(" AND b.status BETWEEN 1 AND 3");
    }
    let border = if backwards { &filter.before } else { &filter.after };
    if let Some(border) = border {
        sql.push_str(if backwards { " AND j.name < ?" } else { " AND j.name > ?" });
        values.push(border);
    }
    // An imported evaluation may have a name several times.
    sql.push_str(if backwards {
        " GROUP BY j.name ORDER BY j.name DESC LIMIT ?"
    } else {
        " GROUP BY j.name ORDER BY j.name LIMIT ?"
    });
    values.push(&limit);
    s.values(&sql, values.as_slice())
}

/// What the named jobs are in an evaluation. `names` is sorted, and `list` is the same as JSON.
fn cells(
    s: &Snapshot,
    evaluation: EvaluationId,
    names: &[String],
    list: &str,
) -> rusqlite::Result<Vec<GridCell>> {
    let sql = "SELECT j.name, j.build_id, b.status FROM json_each(?2)
         CROSS JOIN job AS j ON j.evaluation_id = ?1 AND j.name = json_each.value
         CROSS JOIN build AS b ON b.id = j.build_id";
    let found: Vec<(String, BuildId, BuildStatus)> =
        s.all(sql, params![evaluation, list], |row| row.try_into())?;
    let mut cells: Vec<GridCell> = vec![None; names.len()];
    for (name, build, status) in found {
        let Ok(at) = names.binary_search(&name) else { continue };
        // Of several builds of one name, a failed one is shown, or else the first.
        let rank = |(build, status): (BuildId, BuildStatus)| (!status.is_broken(), build);
        let seen = (build, status);
        cells[at] = match cells[at] {
            Some(other) if rank(other) <= rank(seen) => Some(other),
            _ => Some(seen),
        };
    }
    Ok(cells)
}
