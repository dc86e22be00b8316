//! Builds as the API and the pages read them.

use super::Snapshot;
use crate::model::{
    Attempt, Build, BuildDetails, BuildFilter, BuildId, BuildLogFile, BuildStatus, EvaluationId,
    JobBuild, JobState, Output, Product, ProductId, QueueCounts,
};
use rusqlite::types::ToSql;
use rusqlite::{Row, params};
use std::collections::HashMap;

/// The columns that [`from_row`] reads, of `build AS b` and `specification AS s`.
macro_rules! columns {
    () => {
        "b.id, b.derivation, b.specification_id, s.name, b.evaluation_id, b.job, b.system, \
         b.nix_name, b.priority, b.status, b.weather, b.attempt, b.waiting, b.message, \
         b.submitted_at, b.started_at, b.stopped_at, b.log_path, b.log_bytes, b.log_digest"
    };
}

const COLUMN_COUNT: usize = 20;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM build AS b JOIN specification AS s ON s.id = b.specification_id ",
            $rest
        )
    };
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Build> {
    Ok(Build {
        id: row.get(0)?,
        derivation: row.get(1)?,
        specification_id: row.get(2)?,
        specification: row.get(3)?,
        evaluation: row.get(4)?,
        job: row.get(5)?,
        system: row.get(6)?,
        nix_name: row.get(7)?,
        priority: row.get(8)?,
        status: row.get(9)?,
        weather: row.get(10)?,
        attempt: row.get(11)?,
        waiting: row.get(12)?,
        message: row.get(13)?,
        submitted_at: row.get(14)?,
        started_at: row.get(15)?,
        stopped_at: row.get(16)?,
        log: BuildLogFile { path: row.get(17)?, bytes: row.get(18)?, digest: row.get(19)? },
    })
}

/// One build.
pub(crate) fn build(s: &Snapshot, id: BuildId) -> rusqlite::Result<Option<Build>> {
    s.prepare_cached(select!("WHERE b.id = ?1"))?.query_map([id], from_row)?.next().transpose()
}

/// The build whose derivation ends with this component, as in `/build/BASENAME.drv`.
pub(crate) fn build_by_basename(s: &Snapshot, basename: &str) -> rusqlite::Result<Option<Build>> {
    s.prepare_cached(select!("WHERE b.basename = ?1 ORDER BY b.id LIMIT 1"))?
        .query_map([basename], from_row)?
        .next()
        .transpose()
}

/// Finished builds, latest stop first.
pub(crate) fn latest_builds(
    s: &Snapshot,
    filter: &BuildFilter,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    filtered(s, filter, &LATEST, limit)
}

/// Pending builds, running first, then by submission; the limit is applied after the order.
pub(crate) fn queue(
    s: &Snapshot,
    filter: &BuildFilter,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    filtered(s, filter, &QUEUE, limit)
}

/// Which builds a list is about, and in which order.
pub(super) struct List {
    condition: &'static str,
    order: &'static str,
    has_job_index: bool,
}

pub(super) const LATEST: List =
    List { condition: "b.status >= 0", order: "b.stopped_at DESC, b.id DESC", has_job_index: true };
pub(super) const QUEUE: List = List {
    condition: "b.status < 0",
    order: "b.status DESC, b.submitted_at, b.id",
    has_job_index: false,
};

/// One SQL text per shape of request, so that each finds its index: only the fields that are
/// present stand in it.
pub(super) fn shape<'f>(filter: &'f BuildFilter, list: &List) -> (String, Vec<&'f dyn ToSql>) {
    let mut sql = String::from(concat!("SELECT ", columns!(), " FROM build AS b"));
    let narrow = filter.evaluation.is_some() || filter.derivation.is_some();
    if list.has_job_index && filter.specification.is_some() && filter.job.is_some() && !narrow {
        // Without statistics the planner takes the specification's index as readily, and reads all
        // of its builds for the few of one job.
        sql.push_str(" INDEXED BY build_latest_of_job");
    }
    sql.push_str(" JOIN specification AS s ON s.id = b.specification_id WHERE ");
    sql.push_str(list.condition);
    let mut values: Vec<&dyn ToSql> = Vec::new();
    if let Some(name) = &filter.specification {
        sql.push_str(" AND b.specification_id = (SELECT id FROM specification WHERE name = ?)");
        values.push(name);
    }
    if let Some(job) = &filter.job {
        sql.push_str(" AND b.job = ?");
        values.push(job);
    }
    if let Some(system) = &filter.system {
        sql.push_str(" AND b.system = ?");
        values.push(system);
    }
    if let Some(evaluation) = &filter.evaluation {
        sql.push_str(" AND b.id IN (SELECT build_id FROM job WHERE evaluation_id = ?)");
        values.push(evaluation);
    }
    if let Some(derivation) = &filter.derivation {
        sql.push_str(" AND b.derivation = ?");
        values.push(derivation);
    }
    if let Some(status) = &filter.status {
        // See the index `build_latest_with_status`.
        sql.push_str(" AND b.status + 0 = ?");
        values.push(status);
    }
    sql.push_str(" ORDER BY ");
    sql.push_str(list.order);
    sql.push_str(" LIMIT ?");
    (sql, values)
}

fn filtered(
    s: &Snapshot,
    filter: &BuildFilter,
    list: &List,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    let (sql, mut values) = shape(filter, list);
    values.push(&limit);
    s.prepare_cached(&sql)?.query_map(values.as_slice(), from_row)?.collect()
}

/// The last builds of a job, latest stop first.
pub(crate) fn job_history(
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

/// How many builds wait and run.
pub(crate) fn queue_counts(s: &Snapshot) -> rusqlite::Result<QueueCounts> {
    s.prepare_cached(
        "SELECT count(*) FILTER (WHERE status = -2), count(*) FILTER (WHERE status = -1)
         FROM build WHERE status < 0",
    )?
    .query_row([], |row| Ok(QueueCounts { scheduled: row.get(0)?, started: row.get(1)? }))
}

/// Which jobs of an evaluation a page holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobFilter {
    /// Statuses to keep; all when empty.
    pub(crate) statuses: Vec<BuildStatus>,
    /// Text that the job's name must contain, letter case ignored; all when empty.
    pub(crate) text: String,
    /// Only jobs whose name is greater.
    pub(crate) after: Option<String>,
    /// Only jobs whose name is smaller (the nearest are taken); `after` wins.
    pub(crate) before: Option<String>,
}

impl JobFilter {
    /// Whether it is the first page of all jobs.
    pub(crate) fn is_whole(&self) -> bool {
        self.statuses.is_empty()
            && self.text.is_empty()
            && self.after.is_none()
            && self.before.is_none()
    }
}

/// A page of an evaluation's jobs, by name.
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
        filter.after.as_deref(),
        filter.before.as_deref().filter(|_| backwards),
        backwards,
        limit.saturating_add(1),
    )?;
    let mut page = JobPage { jobs: found, ..JobPage::default() };
    let more = page.jobs.len() > limit as usize;
    page.jobs.truncate(limit as usize);
    if backwards {
        page.jobs.reverse();
    }
    let exists = |after: Option<&str>, before: Option<&str>| -> rusqlite::Result<bool> {
        Ok(!jobs(s, evaluation, filter, after, before, before.is_some(), 1)?.is_empty())
    };
    let (first, last) = (page.jobs.first(), page.jobs.last());
    if backwards {
        page.has_before = more;
        let border = last.map_or(filter.before.as_deref(), |last| Some(last.job.as_str()));
        page.has_after = exists(border, None)?;
    } else {
        page.has_after = more;
        page.has_before = match (first, &filter.after) {
            (Some(first), Some(_)) => exists(None, Some(&first.job))?,
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
    after: Option<&str>,
    before: Option<&str>,
    descending: bool,
    limit: u32,
) -> rusqlite::Result<Vec<JobState>> {
    let mut sql = String::from(concat!(
        "SELECT ",
        columns!(),
        ", j.name, j.reused FROM job AS j JOIN build AS b ON b.id = j.build_id
         JOIN specification AS s ON s.id = b.specification_id WHERE j.evaluation_id = ?"
    ));
    let mut values: Vec<&dyn ToSql> = vec![&evaluation];
    let text = filter.text.to_lowercase();
    if !text.is_empty() {
        sql.push_str(" AND instr(lower(j.name), ?) > 0");
        values.push(&text);
    }
    if !filter.statuses.is_empty() {
        sql.push_str(" AND b.status IN (");
        for (position, status) in filter.statuses.iter().enumerate() {
            sql.push_str(if position == 0 { "?" } else { ", ?" });
            values.push(status);
        }
        sql.push(')');
    }
    if let Some(after) = &after {
        sql.push_str(" AND j.name > ?");
        values.push(after);
    }
    if let Some(before) = &before {
        sql.push_str(" AND j.name < ?");
        values.push(before);
    }
    sql.push_str(if descending {
        " ORDER BY j.name DESC LIMIT ?"
    } else {
        " ORDER BY j.name LIMIT ?"
    });
    values.push(&limit);
    s.prepare_cached(&sql)?
        .query_map(values.as_slice(), |row| {
            Ok(JobState {
                build: from_row(row)?,
                job: row.get(COLUMN_COUNT)?,
                reused: row.get(COLUMN_COUNT + 1)?,
            })
        })?
        .collect()
}

/// Job names with builds, for `/api/jobs`: those in `names`, or all when it is empty.
pub(crate) fn job_builds(
    s: &Snapshot,
    evaluation: EvaluationId,
    names: &[String],
    system: Option<&str>,
    limit: u32,
) -> rusqlite::Result<Vec<JobBuild>> {
    let mut sql = String::from(
        "SELECT j.build_id, b.status, j.name FROM job AS j JOIN build AS b ON b.id = j.build_id
         WHERE j.evaluation_id = ?",
    );
    let mut values: Vec<&dyn ToSql> = vec![&evaluation];
    if !names.is_empty() {
        sql.push_str(" AND j.name IN (");
        for (position, name) in names.iter().enumerate() {
            sql.push_str(if position == 0 { "?" } else { ", ?" });
            values.push(name);
        }
        sql.push(')');
    }
    if let Some(system) = &system {
        sql.push_str(" AND b.system = ?");
        values.push(system);
    }
    sql.push_str(" ORDER BY j.name LIMIT ?");
    values.push(&limit);
    s.prepare_cached(&sql)?
        .query_map(values.as_slice(), |row| {
            Ok(JobBuild { build: row.get(0)?, status: row.get(1)?, name: row.get(2)? })
        })?
        .collect()
}

/// The outputs of these builds, in one query: fetched for a whole page.
pub(crate) fn outputs(
    s: &Snapshot,
    builds: &[BuildId],
) -> rusqlite::Result<HashMap<BuildId, Vec<Output>>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    let ids = id_list(builds);
    let mut statement = s.prepare_cached(
        "SELECT build_id, name, path FROM output
         WHERE build_id IN (SELECT value FROM json_each(?1)) ORDER BY build_id, name",
    )?;
    let rows = statement.query_map([ids], |row| {
        Ok((row.get(0)?, Output { name: row.get(1)?, path: row.get(2)? }))
    })?;
    for row in rows {
        let (id, output) = row?;
        found.entry(id).or_default().push(output);
    }
    Ok(found)
}

fn id_list(builds: &[BuildId]) -> String {
    let ids: Vec<String> = builds.iter().map(ToString::to_string).collect();
    format!("[{}]", ids.join(","))
}

/// The products of these builds, in one query: fetched for a whole page.
pub(crate) fn products(
    s: &Snapshot,
    builds: &[BuildId],
) -> rusqlite::Result<HashMap<BuildId, Vec<Product>>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    let mut statement = s.prepare_cached(
        "SELECT id, build_id, kind, path, name, bytes, checksum FROM product
         WHERE build_id IN (SELECT value FROM json_each(?1)) ORDER BY build_id, id",
    )?;
    for row in statement.query_map([id_list(builds)], product_from_row)? {
        let product = row?;
        found.entry(product.build).or_default().push(product);
    }
    Ok(found)
}

fn product_from_row(row: &Row<'_>) -> rusqlite::Result<Product> {
    Ok(Product {
        id: row.get(0)?,
        build: row.get(1)?,
        kind: row.get(2)?,
        path: row.get(3)?,
        name: row.get(4)?,
        bytes: row.get(5)?,
        checksum: row.get(6)?,
    })
}

/// One product, for `/download/ID`.
pub(crate) fn product(s: &Snapshot, id: ProductId) -> rusqlite::Result<Option<Product>> {
    s.prepare_cached(
        "SELECT id, build_id, kind, path, name, bytes, checksum FROM product WHERE id = ?1",
    )?
    .query_map([id], product_from_row)?
    .next()
    .transpose()
}

/// The attempts of a build, first to last.
pub(crate) fn attempts(s: &Snapshot, id: BuildId) -> rusqlite::Result<Vec<Attempt>> {
    s.prepare_cached(
        "SELECT number, worker, status, message, started_at, stopped_at FROM attempt
         WHERE build_id = ?1 ORDER BY number",
    )?
    .query_map([id], |row| {
        Ok(Attempt {
            number: row.get(0)?,
            worker: row.get(1)?,
            status: row.get(2)?,
            message: row.get(3)?,
            started_at: row.get(4)?,
            stopped_at: row.get(5)?,
        })
    })?
    .collect()
}

/// Everything a page about one build shows.
pub(crate) fn build_details(s: &Snapshot, id: BuildId) -> rusqlite::Result<Option<BuildDetails>> {
    let Some(build) = build(s, id)? else { return Ok(None) };
    let needs = s
        .prepare_cached(select!(
            "JOIN dependency AS d ON d.needs_id = b.id WHERE d.build_id = ?1 ORDER BY b.id"
        ))?
        .query_map(params![id], from_row)?
        .collect::<Result<_, _>>()?;
    let needed_by = s
        .prepare_cached(select!(
            "JOIN dependency AS d ON d.build_id = b.id WHERE d.needs_id = ?1
             ORDER BY b.id LIMIT 100"
        ))?
        .query_map(params![id], from_row)?
        .collect::<Result<_, _>>()?;
    Ok(Some(BuildDetails {
        outputs: outputs(s, &[id])?.remove(&id).unwrap_or_default(),
        products: products(s, &[id])?.remove(&id).unwrap_or_default(),
        attempts: attempts(s, id)?,
        needs,
        needed_by,
        definition: super::definition(s, id)?,
        build,
    }))
}
