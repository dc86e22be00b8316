//! Builds as the API and the pages read them.

use super::Snapshot;
use crate::model::{
    Attempt, Build, BuildDetails, BuildFilter, BuildId, BuildLogFile, BuildStatus, EvaluationId,
    JobBuild, JobState, Output, Product, ProductId, QueueCounts,
};
use rusqlite::types::{ToSql, ToSqlOutput};
use rusqlite::{Row, params};
use std::cmp::Reverse;
use std::collections::HashMap;

/// The columns that [`from_row`] reads, of `build AS b` and `specification AS s`.
macro_rules! columns {
    () => {
        "b.id, b.derivation, b.specification_id, s.name, b.evaluation_id, b.job, b.system, \
         b.nix_name, b.priority, b.status, b.weather, b.attempt, b.waiting, b.message, \
         b.submitted_at, b.started_at, b.stopped_at, b.log_path, b.log_bytes, b.log_digest, \
         b.backend"
    };
}

const COLUMN_COUNT: usize = 21;

macro_rules! select {
    ($rest:literal) => {
        select!("build AS b", $rest)
    };
    // CROSS: tables are read in the order they are written in.
    ($from:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM ",
            $from,
            " CROSS JOIN specification AS s ON s.id = b.specification_id ",
            $rest
        )
    };
}

pub(super) use {columns, select};

pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Build> {
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
        imported: row.get::<_, i64>(20)? != 0,
    })
}

/// One build.
pub fn build(s: &Snapshot, id: BuildId) -> rusqlite::Result<Option<Build>> {
    s.prepare_cached(select!("WHERE b.id = ?1"))?.query_map([id], from_row)?.next().transpose()
}

/// The builds above an id; for measurements.

pub(super) const BY_KEY: &str = select!("WHERE b.derivation_key = ?1 ORDER BY b.id DESC");

/// The build whose derivation ends with this component, as in `/build/BASENAME.drv`; the newest,
/// where an import brought several.
fn build_by_basename(s: &Snapshot, basename: &str) -> rusqlite::Result<Option<Build>> {
    for build in s.prepare_cached(BY_KEY)?.query_map([super::derivation_key(basename)], from_row)? {
        let build = build?;
        if build.derivation.rsplit('/').next() == Some(basename) {
            return Ok(Some(build));
        }
    }
    Ok(None)
}

/// A build by its number or by the last component of its derivation.
pub(crate) fn build_named(s: &Snapshot, id: &str) -> rusqlite::Result<Option<Build>> {
    match id.parse::<i64>() {
        Ok(number) => build(s, BuildId::new(number)),
        Err(_) if id.ends_with(".drv") => build_by_basename(s, id),
        Err(_) => Ok(None),
    }
}

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
pub(super) enum List {
    /// Finished ones, latest stop first.
    Latest,
    /// Pending ones, running first, then by submission.
    Queue,
}

/// Which index a list is read by. What else is asked is looked at row by row, so it should be the
/// one with the fewest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
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
pub(super) fn shape<'f>(
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
        values.push(super::derivation_key(derivation).into());
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

/// A job of an evaluation as the border of a page.
pub(crate) type Border = (String, BuildId);

/// Which jobs of an evaluation a page holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobFilter {
    /// Statuses to keep; all when empty.
    pub(crate) statuses: Vec<BuildStatus>,
    /// Text that the job's name must contain, letter case ignored; all when empty.
    pub(crate) text: String,
    /// Only jobs behind this one: by name, then by build.
    pub(crate) after: Option<Border>,
    /// Only jobs before this one (the nearest are taken); `after` wins.
    pub(crate) before: Option<Border>,
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
    if !filter.statuses.is_empty() {
        sql.push_str(" AND b.status IN (");
        for (position, status) in filter.statuses.iter().enumerate() {
            sql.push_str(if position == 0 { "?" } else { ", ?" });
            values.push(status);
        }
        sql.push(')');
    }
    if let Some((name, build)) = after {
        sql.push_str(" AND (j.name, j.build_id) > (?, ?)");
        values.extend([name as &dyn ToSql, build]);
    }
    if let Some((name, build)) = before {
        sql.push_str(" AND (j.name, j.build_id) < (?, ?)");
        values.extend([name as &dyn ToSql, build]);
    }
    sql.push_str(if descending {
        " ORDER BY j.name DESC, j.build_id DESC LIMIT ?"
    } else {
        " ORDER BY j.name, j.build_id LIMIT ?"
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
    sql.push_str(" ORDER BY j.name, j.build_id LIMIT ?");
    values.push(&limit);
    s.prepare_cached(&sql)?
        .query_map(values.as_slice(), |row| {
            Ok(JobBuild { build: row.get(0)?, status: row.get(1)?, name: row.get(2)? })
        })?
        .collect()
}

/// The outputs of these builds, in one query: fetched for a whole page.
pub fn outputs(
    s: &Snapshot,
    builds: &[BuildId],
) -> rusqlite::Result<HashMap<BuildId, Vec<Output>>> {
    if let [one] = builds {
        let mut statement =
            s.prepare_cached("SELECT name, path FROM output WHERE build_id = ?1 ORDER BY name")?;
        let rows = statement
            .query_map([one], |row| Ok(Output { name: row.get(0)?, path: row.get(1)? }))?;
        return Ok(HashMap::from([(*one, rows.collect::<rusqlite::Result<_>>()?)]));
    }
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
    if let [one] = builds {
        let mut statement = s.prepare_cached(
            "SELECT id, build_id, kind, path, name, bytes, checksum FROM product
             WHERE build_id = ?1 ORDER BY id",
        )?;
        let rows = statement.query_map([one], product_from_row)?;
        return Ok(HashMap::from([(*one, rows.collect::<rusqlite::Result<_>>()?)]));
    }
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
            "dependency AS d CROSS JOIN build AS b ON b.id = d.needs_id",
            "WHERE d.build_id = ?1 ORDER BY d.needs_id"
        ))?
        .query_map(params![id], from_row)?
        .collect::<Result<_, _>>()?;
    let needed_by = s
        .prepare_cached(select!(
            "dependency AS d CROSS JOIN build AS b ON b.id = d.build_id",
            "WHERE d.needs_id = ?1 ORDER BY d.build_id LIMIT 100"
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
