//! Lists of builds, for the API and the pages.

use super::row::{columns, from_row};
use crate::model::{Build, BuildFilter, BuildStatus, QueueCounts};
use crate::store::database::Snapshot;
use crate::store::derivations::derivation_key;
use crate::store::hidden::{Hidden, NOTHING};
use crate::store::query::Query;
use rusqlite::types::ToSqlOutput;
use rusqlite::{Row, params};
use std::cmp::Reverse;

/// Finished builds, sorted by the time at which they stopped, the newest first.
pub(crate) fn latest_builds(
    s: &Snapshot,
    filter: &BuildFilter,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    listed(s, filter, &NOTHING, List::Latest, limit)
}

/// Pending builds: running ones first, then in the order of their submission. The list is cut to `limit` after sorting.
pub(crate) fn queue(
    s: &Snapshot,
    filter: &BuildFilter,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    listed(s, filter, &NOTHING, List::Queue, limit)
}

/// The builds of a list, without those of hidden specifications.
pub(crate) fn listed(
    s: &Snapshot,
    filter: &BuildFilter,
    hidden: &Hidden,
    list: List,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    let Some(filters) = per_specification(s, filter, hidden, list)? else {
        return filtered(s, filter, hidden, list, limit);
    };
    let mut all = Vec::new();
    for filter in filters {
        all.extend(filtered(s, &filter, hidden, list, limit)?);
        // After each specification, so that the list never has more than twice as many builds.
        sort(&mut all, list);
        all.truncate(limit as usize);
    }
    Ok(all)
}

/// The filters that find, one specification each, what `filter` finds. `None`: the builds of all its specifications can
/// be read as one list.
///
/// The index of jobs begins with the specification, so the builds of a job of any specification are several lists. So
/// are the finished builds of a project, and those of all specifications that are not hidden, since the latest builds may
/// be those of a hidden one. The queue, an evaluation and a derivation have one index each for all specifications.
pub(super) fn per_specification(
    s: &Snapshot,
    filter: &BuildFilter,
    hidden: &Hidden,
    list: List,
) -> rusqlite::Result<Option<Vec<BuildFilter>>> {
    if filter.specification.as_ref().is_some_and(|name| hidden.has_named(name)) {
        return Ok(Some(Vec::new()));
    }
    if list == List::Queue || filter.evaluation.is_some() || filter.derivation.is_some() {
        return Ok(None);
    }
    let is_job_of_any = filter.job.is_some() && filter.specification.is_none();
    let mut names = match &filter.project {
        Some(project) => names_of_project(s, project)?,
        None if is_job_of_any => specification_names(s)?,
        None if filter.specification.is_none() && !hidden.is_empty() => specification_names(s)?,
        None => return Ok(None),
    };
    names.retain(|name| !hidden.has_named(name));
    names.retain(|name| filter.specification.as_ref().is_none_or(|wanted| wanted == name));
    let one = |name| BuildFilter { project: None, specification: Some(name), ..filter.clone() };
    Ok(Some(names.into_iter().map(one).collect()))
}

fn sort(builds: &mut [Build], list: List) {
    match list {
        List::Latest => builds.sort_unstable_by_key(|build| Reverse((build.stopped_at, build.id))),
        List::Queue => builds
            .sort_unstable_by_key(|build| (Reverse(build.status), build.submitted_at, build.id)),
    }
}

/// The names of all specifications, removed ones included, sorted.
pub(crate) fn specification_names(s: &Snapshot) -> rusqlite::Result<Vec<String>> {
    s.values("SELECT name FROM specification ORDER BY name", [])
}

/// The names of a project's specifications, removed ones included.
fn names_of_project(s: &Snapshot, project: &str) -> rusqlite::Result<Vec<String>> {
    s.values("SELECT name FROM specification WHERE project = ?1", [project])
}

/// Which builds a list has, and their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// Finished builds, sorted by the time at which they stopped, the newest first.
    Latest,
    /// Pending builds: running ones first, then in the order of their submission.
    Queue,
}

/// The index by which a list is read. SQLite checks the other conditions row by row, so the index should be the one
/// with the fewest rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Order,
    Specification,
    Evaluation,
    Job,
    System,
    Status,
    Derivation,
}

impl By {
    pub(super) const fn index(self, list: List) -> &'static str {
        match (self, list) {
            (Self::Derivation, _) => "build_derivation",
            (_, List::Queue) => "build_queue",
            (Self::Order, _) => "build_latest",
            (Self::Specification, _) => "build_latest_of_specification",
            (Self::Evaluation, _) => "build_latest_of_evaluation",
            (Self::Job, _) => "build_latest_of_job",
            (Self::System, _) => "build_latest_for_system",
            (Self::Status, _) => "build_latest_with_status",
        }
    }
}

/// Chooses the index for a list. `None`: no build fits the filter.
///
/// If several indexes would serve, the counts tell which has the fewest builds.
pub(super) fn choose(
    s: &Snapshot,
    filter: &BuildFilter,
    list: List,
) -> rusqlite::Result<Option<By>> {
    if filter.derivation.is_some() {
        return Ok(Some(By::Derivation));
    }
    if list == List::Latest && filter.evaluation.is_some() {
        return Ok(Some(By::Evaluation));
    }
    let (specification, system, status) =
        (filter.specification.as_deref(), filter.system.as_deref(), filter.status);
    if list == List::Latest && specification.is_some() && filter.job.is_some() {
        return Ok(Some(By::Job));
    }
    if (specification, system, status) == (None, None, None) {
        return Ok(Some(By::Order));
    }
    if list == List::Latest && (system, status) == (None, None) {
        return Ok(Some(By::Specification));
    }
    if list == List::Queue && (specification, system) == (None, None) {
        // The index begins with the status, so builds of other statuses are not read.
        return Ok(Some(By::Order));
    }
    // Four numbers of builds: those of the specification, those for the system, those with the status, and those that
    // fit all three.
    let mut counts = [0_i64; 4];
    let mut statement = s.prepare_cached(COUNTS)?;
    let rows = statement.query_map([], |row| {
        let finished = row.get::<_, BuildStatus>(0)?.is_finished();
        let of =
            specification.is_none_or(|name| row.get_ref(1).is_ok_and(|v| v.as_str() == Ok(name)));
        let for_it = system.is_none_or(|name| row.get_ref(2).is_ok_and(|v| v.as_str() == Ok(name)));
        let with = status.is_none_or(|status| row.get(0) == Ok(status));
        Ok((finished == (list == List::Latest), [of, for_it, with], row.get::<_, i64>(3)?))
    })?;
    for row in rows {
        let (listed, fits, builds) = row?;
        if !listed {
            continue;
        }
        for (count, fits) in counts.iter_mut().zip(fits) {
            *count += if fits { builds } else { 0 };
        }
        counts[3] += if fits.iter().all(|fits| *fits) { builds } else { 0 };
    }
    if counts[3] == 0 {
        return Ok(None);
    }
    if list == List::Queue {
        return Ok(Some(By::Order));
    }
    let asked = [
        (specification.is_some(), By::Specification),
        (system.is_some(), By::System),
        (status.is_some(), By::Status),
    ];
    let asked = asked.into_iter().zip(counts).filter(|((asked, _), _)| *asked);
    Ok(asked.min_by_key(|(_, count)| *count).map(|((_, by), _)| by))
}

/// Returns one row for each combination of specification, system and status that has builds.
const COUNTS: &str = "SELECT c.status, s.name, c.system, c.builds FROM build_count AS c
     JOIN specification AS s ON s.id = c.specification_id WHERE c.builds > 0";

/// The SQL text of a filter, with its values. The text has conditions only for the fields that are
/// present. It names the index, so that the planner takes this index whatever the statistics say.
pub(crate) fn shape<'f>(
    filter: &'f BuildFilter,
    hidden: &Hidden,
    list: List,
    by: By,
) -> (String, Vec<ToSqlOutput<'f>>) {
    let mut sql = String::with_capacity(1024);
    sql.push_str(concat!("SELECT ", columns!(), " FROM build AS b INDEXED BY "));
    sql.push_str(by.index(list));
    // `CROSS` keeps `build` in the outer loop. Without it, SQLite might read the few specifications first.
    sql.push_str(" CROSS JOIN specification AS s ON s.id = b.specification_id WHERE ");
    let values = conditions(filter, hidden, list, &mut sql);
    if by != By::Derivation {
        sql.push_str(match list {
            List::Latest => " ORDER BY b.stopped_at DESC, b.id DESC LIMIT ?",
            List::Queue => " ORDER BY b.status DESC, b.submitted_at, b.id LIMIT ?",
        });
    }
    (sql, values)
}

/// Adds the conditions of a list and a filter to `sql`, and returns their values.
pub(super) fn conditions<'f>(
    filter: &'f BuildFilter,
    hidden: &Hidden,
    list: List,
    sql: &mut String,
) -> Vec<ToSqlOutput<'f>> {
    sql.push_str(match list {
        List::Latest => "b.status >= 0",
        List::Queue => "b.status < 0",
    });
    let specification = " AND b.specification_id = (SELECT id FROM specification WHERE name = ?)";
    let status = match list {
        // `+ 0` as in the index `build_latest_with_status`, so that SQLite uses that index.
        List::Latest => " AND b.status + 0 = ?",
        List::Queue => " AND b.status = ?",
    };
    let derivation = filter.derivation.as_deref();
    let project = " AND b.specification_id IN (SELECT id FROM specification WHERE project = ?)";
    let seen = " AND b.specification_id NOT IN (SELECT value FROM json_each(?))";
    // The caller has left out the specifications that are hidden and named.
    let hidden = (filter.specification.is_none() && !hidden.is_empty()).then(|| hidden.json());
    let conditions: [(&str, Option<ToSqlOutput<'f>>); 9] = [
        (specification, filter.specification.as_deref().map(Into::into)),
        (project, filter.project.as_deref().map(Into::into)),
        (seen, hidden.map(Into::into)),
        (" AND b.job = ?", filter.job.as_deref().map(Into::into)),
        (" AND b.system = ?", filter.system.as_deref().map(Into::into)),
        (" AND b.evaluation_id = ?", filter.evaluation.map(|id| id.get().into())),
        (" AND b.derivation_key = ?", derivation.map(|path| derivation_key(path).into())),
        (" AND b.derivation = ?", derivation.map(Into::into)),
        (status, filter.status.map(|status| status.code().into())),
    ];
    let mut values = Vec::new();
    for (condition, value) in conditions {
        if let Some(value) = value {
            sql.push_str(condition);
            values.push(value);
        }
    }
    values
}

fn filtered(
    s: &Snapshot,
    filter: &BuildFilter,
    hidden: &Hidden,
    list: List,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    let Some(by) = choose(s, filter, list)? else { return Ok(Vec::new()) };
    let (sql, mut values) = shape(filter, hidden, list, by);
    if by != By::Derivation {
        values.push(limit.into());
    }
    let mut found: Vec<Build> = s.all(&sql, rusqlite::params_from_iter(values), from_row)?;
    if by == By::Derivation {
        // The derivation has one build, or several if an import brought them.
        sort(&mut found, list);
        found.truncate(limit as usize);
    }
    Ok(found)
}

/// The last builds of a job, sorted by the time at which they stopped, the newest first.
pub fn job_history(
    s: &Snapshot,
    specification: &str,
    job: &str,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    let filter = BuildFilter {
        specification: Some(specification.to_owned()),
        job: Some(job.to_owned()),
        ..BuildFilter::default()
    };
    latest_builds(s, &filter, limit)
}

/// The systems that builds were registered for, sorted.
pub(crate) fn systems(s: &Snapshot) -> rusqlite::Result<Vec<String>> {
    s.values("SELECT DISTINCT system FROM build_count ORDER BY system", [])
}

/// How many builds of a project's specifications wait or run, without those of hidden ones.
pub(crate) fn pending_builds(
    s: &Snapshot,
    hidden: &Hidden,
    project: &str,
) -> rusqlite::Result<i64> {
    if hidden.is_empty() {
        let sql = "SELECT ifnull(sum(c.builds), 0) FROM build_count AS c
             CROSS JOIN specification AS s ON s.id = c.specification_id
             WHERE c.status < 0 AND s.project = ?1";
        return s.query_row(sql, [project], |row| row.get(0));
    }
    let sql = "SELECT ifnull(sum(c.builds), 0) FROM build_count AS c
         CROSS JOIN specification AS s ON s.id = c.specification_id
         WHERE c.status < 0 AND s.project = ?1
         AND s.id NOT IN (SELECT value FROM json_each(?2))";
    s.query_row(sql, params![project, hidden.json()], |row| row.get(0))
}

fn counts(row: &Row<'_>) -> rusqlite::Result<QueueCounts> {
    Ok(QueueCounts { scheduled: row.get(0)?, started: row.get(1)? })
}

/// How many builds wait and run.
pub(crate) fn queue_counts(s: &Snapshot) -> rusqlite::Result<QueueCounts> {
    let sql = "SELECT (SELECT ifnull(sum(builds), 0) FROM build_count WHERE status = -2),
           (SELECT ifnull(sum(builds), 0) FROM build_count WHERE status = -1)";
    s.query_row(sql, [], counts)
}

/// How many builds wait and run, without those of hidden specifications.
pub(crate) fn queue_counts_without(s: &Snapshot, hidden: &Hidden) -> rusqlite::Result<QueueCounts> {
    let sql = "SELECT ifnull(sum(iif(c.status = -2, c.builds, 0)), 0),
           ifnull(sum(iif(c.status = -1, c.builds, 0)), 0) FROM build_count AS c
         WHERE c.status < 0 AND c.specification_id NOT IN (SELECT value FROM json_each(?1))";
    s.query_row(sql, [hidden.json()], counts)
}
