//! Builds as the API and the pages read them.

use super::row::{columns, from_row};
use crate::model::{Build, BuildFilter, BuildStatus, QueueCounts};
use crate::store::database::Snapshot;
use rusqlite::types::ToSqlOutput;
use std::cmp::Reverse;

/// Finished builds, latest stop first.
pub(crate) fn latest_builds(
    s: &Snapshot,
    filter: &BuildFilter,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    if filter.job.is_some()
        && (&filter.specification, filter.evaluation, &filter.derivation) == (&None, None, &None)
    {
        // The index of jobs begins with the specification: one short list for each of them.
        let mut all = Vec::new();
        for specification in specification_names(s)? {
            let one = BuildFilter { specification: Some(specification), ..filter.clone() };
            all.extend(filtered(s, &one, List::Latest, limit)?);
        }
        all.sort_unstable_by_key(|build| Reverse((build.stopped_at, build.id)));
        all.truncate(limit as usize);
        return Ok(all);
    }
    filtered(s, filter, List::Latest, limit)
}

/// Pending builds, running first, then by submission; the limit is applied after the order.
pub(crate) fn queue(
    s: &Snapshot,
    filter: &BuildFilter,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    filtered(s, filter, List::Queue, limit)
}

/// The names of all specifications, removed ones as well, in their order.
pub(crate) fn specification_names(s: &Snapshot) -> rusqlite::Result<Vec<String>> {
    s.prepare_cached("SELECT name FROM specification ORDER BY name")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Which builds a list is about, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// Finished ones, latest stop first.
    Latest,
    /// Pending ones, running first, then by submission.
    Queue,
}

/// Which index a list is read by. What else is asked is looked at row by row, so it should be the
/// one with the fewest.
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
    const fn index(self, list: List) -> &'static str {
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

/// The index for a list; `None`: nothing in the database is asked for.
///
/// Where several would do, the counts say which has the fewest builds.
fn choose(s: &Snapshot, filter: &BuildFilter, list: List) -> rusqlite::Result<Option<By>> {
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
        // The index begins with the status: nothing of another one is read.
        return Ok(Some(By::Order));
    }
    // All, of the specification, for the system, with the status, and with everything asked.
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

/// As many rows as there are specifications, systems and statuses together.
const COUNTS: &str = "SELECT c.status, s.name, c.system, c.builds FROM build_count AS c
     JOIN specification AS s ON s.id = c.specification_id WHERE c.builds > 0";

/// One SQL text per shape of request, so that each finds its index: only the fields that are
/// present stand in it, and the index is named, so that statistics cannot talk the planner out
/// of it.
pub(crate) fn shape<'f>(
    filter: &'f BuildFilter,
    list: List,
    by: By,
) -> (String, Vec<ToSqlOutput<'f>>) {
    let mut sql = String::with_capacity(1024);
    sql.push_str(concat!("SELECT ", columns!(), " FROM build AS b INDEXED BY "));
    sql.push_str(by.index(list));
    // CROSS: the names are few, and must not become the outer loop.
    sql.push_str(" CROSS JOIN specification AS s ON s.id = b.specification_id WHERE ");
    sql.push_str(match list {
        List::Latest => "b.status >= 0",
        List::Queue => "b.status < 0",
    });
    let mut values: Vec<ToSqlOutput<'f>> = Vec::new();
    if let Some(name) = &filter.specification {
        sql.push_str(" AND b.specification_id = (SELECT id FROM specification WHERE name = ?)");
        values.push(name.as_str().into());
    }
    if let Some(job) = &filter.job {
        sql.push_str(" AND b.job = ?");
        values.push(job.as_str().into());
    }
    if let Some(system) = &filter.system {
        sql.push_str(" AND b.system = ?");
        values.push(system.as_str().into());
    }
    if let Some(evaluation) = &filter.evaluation {
        sql.push_str(" AND b.evaluation_id = ?");
        values.push(evaluation.get().into());
    }
    if let Some(derivation) = &filter.derivation {
        sql.push_str(" AND b.derivation_key = ? AND b.derivation = ?");
        values.push(crate::store::derivations::derivation_key(derivation).into());
        values.push(derivation.as_str().into());
    }
    if let Some(status) = &filter.status {
        // See the index `build_latest_with_status`.
        sql.push_str(match list {
            List::Latest => " AND b.status + 0 = ?",
            List::Queue => " AND b.status = ?",
        });
        values.push(status.code().into());
    }
    if by != By::Derivation {
        sql.push_str(match list {
            List::Latest => " ORDER BY b.stopped_at DESC, b.id DESC LIMIT ?",
            List::Queue => " ORDER BY b.status DESC, b.submitted_at, b.id LIMIT ?",
        });
    }
    (sql, values)
}

fn filtered(
    s: &Snapshot,
    filter: &BuildFilter,
    list: List,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    let Some(by) = choose(s, filter, list)? else { return Ok(Vec::new()) };
    let (sql, mut values) = shape(filter, list, by);
    if by != By::Derivation {
        values.push(limit.into());
    }
    let mut statement = s.prepare_cached(&sql)?;
    let found = statement.query_map(rusqlite::params_from_iter(values), from_row)?;
    let mut found: Vec<Build> = found.collect::<rusqlite::Result<_>>()?;
    if by == By::Derivation {
        // One, or as many as an import brought.
        match list {
            List::Latest => {
                found.sort_unstable_by_key(|build| Reverse((build.stopped_at, build.id)));
            }
            List::Queue => found.sort_unstable_by_key(|build| {
                (Reverse(build.status), build.submitted_at, build.id)
            }),
        }
        found.truncate(limit as usize);
    }
    Ok(found)
}

/// The last builds of a job, latest stop first.
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

/// The systems that builds were registered for, in their order.
pub(crate) fn systems(s: &Snapshot) -> rusqlite::Result<Vec<String>> {
    s.prepare_cached("SELECT DISTINCT system FROM build_count ORDER BY system")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// How many builds wait and run.
pub(crate) fn queue_counts(s: &Snapshot) -> rusqlite::Result<QueueCounts> {
    s.prepare_cached(
        "SELECT (SELECT ifnull(sum(builds), 0) FROM build_count WHERE status = -2),
           (SELECT ifnull(sum(builds), 0) FROM build_count WHERE status = -1)",
    )?
    .query_row([], |row| Ok(QueueCounts { scheduled: row.get(0)?, started: row.get(1)? }))
}
