//! The jobs of an evaluation, with their builds.

use super::row::{columns, from_columns};
use crate::model::{BuildId, BuildStatus, EvaluationId, JobBuild, JobState, SpecificationId};
use crate::store::database::Snapshot;
use crate::store::query::{Columns, Query};
use rusqlite::params;
use rusqlite::types::ToSql;
use std::fmt::Write as _;

/// A job at the edge of a page, by name and build.
pub(crate) type Border = (String, BuildId);

/// Which jobs of an evaluation to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobFilter {
    /// The statuses to list; empty: all.
    pub(crate) statuses: Vec<BuildStatus>,
    /// Text that the job's name must contain, whatever its letter case; empty: all jobs.
    pub(crate) text: String,
    /// Only jobs behind this one, ordered by name, then by build.
    pub(crate) after: Option<Border>,
    /// Only jobs in front of this one; the page has those nearest to it. Ignored when `after` is set.
    pub(crate) before: Option<Border>,
}

impl JobFilter {
    /// Whether the filter asks for the first page of all jobs.
    pub(crate) fn is_whole(&self) -> bool {
        self.statuses.is_empty()
            && self.text.is_empty()
            && self.after.is_none()
            && self.before.is_none()
    }
}

/// A page of an evaluation's jobs, ordered by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobPage {
    /// The jobs.
    pub(crate) jobs: Vec<JobState>,
    /// Whether there are matching jobs before the first one.
    pub(crate) has_before: bool,
    /// Whether there are matching jobs after the last one.
    pub(crate) has_after: bool,
}

/// A page of the jobs of an evaluation with their builds, ordered by job name.
pub(crate) fn job_page(
    s: &Snapshot,
    evaluation: EvaluationId,
    filter: &JobFilter,
    limit: u32,
) -> rusqlite::Result<JobPage> {
    let backwards = filter.after.is_none() && filter.before.is_some();
    let found = jobs(
        s,
        evaluation,
        filter,
        filter.after.as_ref(),
        filter.before.as_ref().filter(|_| backwards),
        backwards,
        limit.saturating_add(1),
    )?;
    let mut page = JobPage { jobs: found, ..JobPage::default() };
    let more = page.jobs.len() > limit as usize;
    page.jobs.truncate(limit as usize);
    if backwards {
        page.jobs.reverse();
    }
    let exists = |after: Option<&Border>, before: Option<&Border>| -> rusqlite::Result<bool> {
        Ok(!jobs(s, evaluation, filter, after, before, before.is_some(), 1)?.is_empty())
    };
    let border = |job: &JobState| (job.job.clone(), job.build.id);
    let (first, last) = (page.jobs.first().map(border), page.jobs.last().map(border));
    if backwards {
        page.has_before = more;
        page.has_after = exists(last.as_ref().or(filter.before.as_ref()), None)?;
    } else {
        page.has_after = more;
        page.has_before = match (&first, &filter.after) {
            (Some(first), Some(_)) => exists(None, Some(first))?,
            (None, Some(_)) => true,
            (_, None) => false,
        };
    }
    Ok(page)
}

fn jobs(
    s: &Snapshot,
    evaluation: EvaluationId,
    filter: &JobFilter,
    after: Option<&Border>,
    before: Option<&Border>,
    descending: bool,
    limit: u32,
) -> rusqlite::Result<Vec<JobState>> {
    let mut sql = String::from(concat!(
        "SELECT ",
        columns!(),
        ", j.name, j.reused FROM job AS j CROSS JOIN build AS b ON b.id = j.build_id
         CROSS JOIN specification AS s ON s.id = b.specification_id WHERE j.evaluation_id = ?"
    ));
    let mut values: Vec<&dyn ToSql> = vec![&evaluation];
    let text = filter.text.to_lowercase();
    if !text.is_empty() {
        sql.push_str(" AND instr(lower(j.name), ?) > 0");
        values.push(&text);
    }
    is_one_of(&mut sql, &mut values, "b.status", &filter.statuses);
    for (border, condition) in [
        (after, " AND (j.name, j.build_id) > (?, ?)"),
        (before, " AND (j.name, j.build_id) < (?, ?)"),
    ] {
        if let Some((name, build)) = border {
            sql.push_str(condition);
            values.extend([name as &dyn ToSql, build]);
        }
    }
    sql.push_str(if descending {
        " ORDER BY j.name DESC, j.build_id DESC LIMIT ?"
    } else {
        " ORDER BY j.name, j.build_id LIMIT ?"
    });
    values.push(&limit);
    s.all(&sql, values.as_slice(), |row| {
        let columns = &mut Columns::of(row);
        Ok(JobState {
            build: from_columns(columns)?,
            job: columns.take()?,
            reused: columns.take()?,
        })
    })
}

/// Adds the condition that `column` has one of the values in `allowed`. An empty `allowed` adds no condition.
fn is_one_of<'v, T: ToSql>(
    sql: &mut String,
    values: &mut Vec<&'v dyn ToSql>,
    column: &str,
    allowed: &'v [T],
) {
    if !allowed.is_empty() {
        let _ = write!(sql, " AND {column} IN (?{})", ", ?".repeat(allowed.len() - 1));
        values.extend(allowed.iter().map(|value| value as &dyn ToSql));
    }
}

/// Which build of a job is meant by its latest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Latest {
    /// The one that has ended.
    Ended,
    /// The one that succeeded.
    Succeeded,
    /// The one that succeeded in an evaluation whose builds have all ended, none of them by a cancel.
    SucceededInFinished,
}

/// The build of a job in the latest evaluation in which the job has such a build.
pub(crate) fn latest_of_job(
    s: &Snapshot,
    specification: SpecificationId,
    job: &str,
    system: Option<&str>,
    latest: Latest,
) -> rusqlite::Result<Option<(BuildId, BuildStatus)>> {
    let mut sql = String::from(
        "SELECT b.id, b.status FROM evaluation AS e
         CROSS JOIN job AS j ON j.evaluation_id = e.id
         CROSS JOIN build AS b ON b.id = j.build_id
         WHERE e.specification_id = ? AND j.name = ?",
    );
    sql.push_str(match latest {
        Latest::Ended => " AND b.status >= 0",
        Latest::Succeeded => " AND b.status = 0",
        Latest::SucceededInFinished => {
            " AND b.status = 0 AND e.status = 0 AND e.scheduled = 0 AND e.started = 0
             AND e.canceled = 0"
        }
    });
    let mut values: Vec<&dyn ToSql> = vec![&specification, &job];
    if let Some(system) = &system {
        sql.push_str(" AND b.system = ?");
        values.push(system);
    }
    sql.push_str(" ORDER BY e.id DESC LIMIT 1");
    s.first(&sql, values.as_slice(), |row| row.try_into())
}

/// The builds of an evaluation's jobs, sorted, each once. At most `limit` jobs are read, in the order of their names.
pub(crate) fn build_ids(
    s: &Snapshot,
    evaluation: EvaluationId,
    limit: u32,
) -> rusqlite::Result<Vec<BuildId>> {
    let sql = "SELECT build_id FROM job WHERE evaluation_id = ?1 ORDER BY name, build_id LIMIT ?2";
    let mut builds: Vec<BuildId> = s.values(sql, params![evaluation, limit])?;
    builds.sort_unstable();
    builds.dedup();
    Ok(builds)
}

/// Job names with builds, for `/api/jobs`: the jobs in `names`, or all jobs if `names` is empty.
pub fn job_builds(
    s: &Snapshot,
    evaluation: EvaluationId,
    names: &[String],
    system: Option<&str>,
    limit: u32,
) -> rusqlite::Result<Vec<JobBuild>> {
    let mut sql = String::from(
        "SELECT j.build_id, b.status, j.name FROM job AS j
         CROSS JOIN build AS b ON b.id = j.build_id WHERE j.evaluation_id = ?",
    );
    let mut values: Vec<&dyn ToSql> = vec![&evaluation];
    is_one_of(&mut sql, &mut values, "j.name", names);
    if let Some(system) = &system {
        sql.push_str(" AND b.system = ?");
        values.push(system);
    }
    sql.push_str(" ORDER BY j.name, j.build_id LIMIT ?");
    values.push(&limit);
    s.all(&sql, values.as_slice(), |row| {
        Ok(JobBuild { build: row.get(0)?, status: row.get(1)?, name: row.get(2)? })
    })
}
