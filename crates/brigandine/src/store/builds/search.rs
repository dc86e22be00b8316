//! Searches for builds, in steps of a bounded length: ended builds, the latest first, or pending ones, the oldest first.
//!
//! - SRCH1: a step reads at most about [`SearchStep::looked_at`] builds, so a step takes as long whatever is looked for. If it
//!   finds less than a page of builds, it says where to go on.
//! - SRCH2: a step looks through lists, each a range of an index in the order of the search. It drops what stands behind
//!   the place where it left a list, so the steps together find every build once.
//! - SRCH3: what a text means is found out in a bounded number of names and evaluations ([`NAMES_MAX`],
//!   [`EVALUATIONS_MAX`]).

use super::find::build;
use super::list::{By, List, choose};
use crate::model::{
    Build, BuildFilter, BuildId, BuildStatus, EvaluationId, Search, SpecificationId, Timestamp,
};
use crate::store::database::Snapshot;
use crate::store::evaluations::jobs;
use crate::store::hidden::Hidden;
use crate::store::query::{Query, integer};
use rusqlite::types::Value;
use rusqlite::{Row, params, params_from_iter};
use std::collections::BTreeSet;

/// The most names of jobs that are looked at for a text.
const NAMES_MAX: i64 = 20_000;
/// The most evaluations whose revisions are looked at, the latest of them.
const EVALUATIONS_MAX: i64 = 2000;
/// The most jobs with a text, and evaluations with an author, whose builds are listed one job or evaluation at a time.
const LISTS_MAX: usize = 50;
/// The least number of builds of one list that are looked at.
const LEAST: usize = 20;

/// The place of a build in the order of a search: when it stopped or, if it is pending, was submitted; and its number.
pub(crate) type SearchBorder = (Timestamp, BuildId);

/// How far a step of a search goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SearchStep {
    /// The most builds that it finds.
    pub(crate) rows: usize,
    /// The most builds that it looks at, if there are not too many lists.
    pub(crate) looked_at: usize,
}

/// What a step of a search found.
#[derive(Debug, Default)]
pub(crate) struct FoundBuilds {
    pub(crate) builds: Vec<Build>,
    /// Behind which place the next step begins; `None`: there is nothing more.
    pub(crate) next: Option<SearchBorder>,
    /// Specifications and names of the jobs with the texts; empty: there are none, or too many to be named.
    pub(crate) jobs: Vec<(String, String)>,
    /// Whether there are texts, and builds were compared with them one by one, because too many jobs have the texts or
    /// there are too many names.
    pub(crate) one_by_one: bool,
}

/// The lists through which a search looks: all have the same columns of an index.
struct Lists {
    by: By,
    list: List,
    /// The values of these columns, for each list.
    keys: Vec<Vec<Value>>,
}

impl Lists {
    fn sql(&self) -> String {
        let equal = match (self.list, self.by) {
            (List::Queue, _) => " AND b.status = ?",
            (List::Latest, By::Order | By::Derivation) => "",
            (List::Latest, By::Specification) => " AND b.specification_id = ?",
            (List::Latest, By::Evaluation) => " AND b.evaluation_id = ?",
            (List::Latest, By::Job) => " AND b.specification_id = ? AND b.job = ?",
            (List::Latest, By::System) => " AND b.system = ?",
            // `+ 0` as in the index `build_latest_with_status`.
            (List::Latest, By::Status) => " AND b.status + 0 = ?",
        };
        let (of_list, time, order) = match self.list {
            List::Latest => (
                "b.status >= 0",
                "b.stopped_at",
                "(b.stopped_at, b.id) < (?, ?) ORDER BY b.stopped_at DESC, b.id DESC",
            ),
            List::Queue => (
                "b.status < 0",
                "b.submitted_at",
                "(b.submitted_at, b.id) > (?, ?) ORDER BY b.submitted_at, b.id",
            ),
        };
        let index = self.by.index(self.list);
        format!(
            "SELECT {time}, b.id, b.specification_id, b.evaluation_id, b.job, b.system, b.status
             FROM build AS b INDEXED BY {index} WHERE {of_list}{equal} AND {order} LIMIT ?"
        )
    }

    /// The place in front of all builds.
    const fn begin(&self) -> SearchBorder {
        match self.list {
            List::Latest => (i64::MAX, BuildId::new(i64::MAX)),
            List::Queue => (i64::MIN, BuildId::new(i64::MIN)),
        }
    }

    /// Whether one place is in front of another.
    fn is_before(&self, one: SearchBorder, other: SearchBorder) -> bool {
        match self.list {
            List::Latest => one > other,
            List::Queue => one < other,
        }
    }
}

/// What a search looks for, in the numbers of the database.
struct Wanted<'a> {
    search: &'a Search,
    /// Of these specifications nothing is found.
    hidden: &'a Hidden,
    /// `None`: of all specifications.
    specification: Option<SpecificationId>,
    /// The evaluations with the author, the latest first; `None`: of all.
    evaluations: Option<Vec<EvaluationId>>,
    /// The jobs with the texts; `None`: there are no texts, or too many such jobs.
    jobs: Option<Vec<(SpecificationId, String)>>,
}

/// Looks for builds behind `after`, without those of hidden specifications.
pub(crate) fn search_builds(
    s: &Snapshot,
    search: &Search,
    hidden: &Hidden,
    after: Option<SearchBorder>,
    step: SearchStep,
) -> rusqlite::Result<FoundBuilds> {
    let wanted = Wanted::read(s, search, hidden)?;
    let one_by_one = !search.texts.is_empty() && wanted.jobs.is_none();
    let jobs = wanted.named_jobs(s)?;
    let mut found = FoundBuilds { jobs, one_by_one, ..FoundBuilds::default() };
    let Some(lists) = wanted.lists(s)? else { return Ok(found) };
    let begin = after.unwrap_or(lists.begin());
    let each =
        SearchStep { looked_at: (step.looked_at / lists.keys.len().max(1)).max(LEAST), ..step };
    let (mut hits, mut left) = (Vec::new(), None);
    let sql = lists.sql();
    for key in &lists.keys {
        let end = look(s, (&sql, key), begin, each, &wanted, &mut hits)?;
        // SRCH2
        if let Some(end) = end
            && left.is_none_or(|left| lists.is_before(end, left))
        {
            left = Some(end);
        }
    }
    hits.retain(|hit| left.is_none_or(|left| !lists.is_before(left, *hit)));
    hits.sort_unstable();
    if lists.list == List::Latest {
        hits.reverse();
    }
    found.next = left;
    if hits.len() > step.rows {
        hits.truncate(step.rows);
        found.next = hits.last().copied();
    }
    for (_, id) in hits {
        found.builds.extend(build(s, id)?);
    }
    Ok(found)
}

/// Looks through one list, and adds what fits. Returns the place where it stopped before the end of the list; `None`: it
/// came to the end.
fn look(
    s: &Snapshot,
    (sql, key): (&str, &[Value]),
    (time, id): SearchBorder,
    step: SearchStep,
    wanted: &Wanted<'_>,
    hits: &mut Vec<SearchBorder>,
) -> rusqlite::Result<Option<SearchBorder>> {
    let mut values = key.to_vec();
    let most = if wanted.hidden.is_empty() { integer(step.looked_at) } else { i64::MAX };
    values.extend([time, id.get(), most].map(Value::Integer));
    let mut statement = s.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut looked_at, mut found) = (0, 0);
    while let Some(row) = rows.next()? {
        // Not counted, so that no step ends at a hidden build. Only lists of pending builds have such (`Wanted::lists`).
        if wanted.hidden.has(row.get(2)?) {
            continue;
        }
        let place = (row.get(0)?, row.get(1)?);
        looked_at += 1;
        if wanted.fits(row)? {
            hits.push(place);
            found += 1;
        }
        if looked_at == step.looked_at || found > step.rows {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

impl<'a> Wanted<'a> {
    fn read(s: &Snapshot, search: &'a Search, hidden: &'a Hidden) -> rusqlite::Result<Self> {
        let specification = named_specification(s, search, hidden)?;
        let evaluations = match &search.author {
            Some(author) => Some(evaluations_with(s, specification, hidden, |name, _| {
                name.to_lowercase().contains(author)
            })?),
            None => None,
        };
        let jobs = jobs_with(s, specification, hidden, &search.texts)?;
        Ok(Self { search, hidden, specification, evaluations, jobs })
    }

    /// The jobs with the texts, by the names of their specifications.
    fn named_jobs(&self, s: &Snapshot) -> rusqlite::Result<Vec<(String, String)>> {
        let mut named = Vec::new();
        for (specification, job) in self.jobs.iter().flatten() {
            let sql = "SELECT name FROM specification WHERE id = ?1";
            let name: Option<String> = s.value(sql, [specification])?;
            named.extend(name.map(|name| (name, job.clone())));
        }
        Ok(named)
    }

    /// The lists to look through, of which there are few, or which are short. `None`: no build fits.
    fn lists(&self, s: &Snapshot) -> rusqlite::Result<Option<Lists>> {
        let search = self.search;
        let latest = |by, keys| Ok(Some(Lists { by, list: List::Latest, keys }));
        if let Some(status) = search.status.filter(|status| !status.is_finished()) {
            let keys = vec![vec![status.code().into()]];
            return Ok(Some(Lists { by: By::Order, list: List::Queue, keys }));
        }
        if let Some(evaluations) = &self.evaluations {
            let keys = evaluations.iter().map(|id| vec![id.get().into()]).collect();
            return latest(By::Evaluation, keys);
        }
        let of_job = |id: SpecificationId, job: &String| -> Vec<Value> {
            vec![id.get().into(), job.clone().into()]
        };
        if let Some(job) = &search.job {
            let all: Vec<SpecificationId> = match self.specification {
                Some(id) => vec![id],
                None => self.seen(s)?,
            };
            return latest(By::Job, all.into_iter().map(|id| of_job(id, job)).collect());
        }
        if let Some(jobs) = &self.jobs {
            return latest(By::Job, jobs.iter().map(|(id, job)| of_job(*id, job)).collect());
        }
        let filter = BuildFilter {
            specification: search.specification.clone(),
            system: search.system.clone(),
            status: search.status,
            ..BuildFilter::default()
        };
        let Some(by) = choose(s, &filter, List::Latest)? else { return Ok(None) };
        if self.specification.is_none() && !self.hidden.is_empty() {
            // One list for each, since the latest builds may be those of a hidden one.
            let all = self.seen(s)?.into_iter().map(|id| vec![id.get().into()]);
            return latest(By::Specification, all.collect());
        }
        let value: Option<Value> = match by {
            By::Specification => self.specification.map(|id| id.get().into()),
            By::System => search.system.clone().map(Into::into),
            By::Status => search.status.map(|status| status.code().into()),
            By::Order | By::Evaluation | By::Job | By::Derivation => None,
        };
        latest(by, vec![value.into_iter().collect()])
    }

    /// All specifications that are not hidden.
    fn seen(&self, s: &Snapshot) -> rusqlite::Result<Vec<SpecificationId>> {
        let mut all: Vec<SpecificationId> = s.values("SELECT id FROM specification", [])?;
        all.retain(|id| !self.hidden.has(*id));
        Ok(all)
    }

    /// Whether a build fits.
    fn fits(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
        let Search { job, system, status, texts, .. } = self.search;
        let specification: SpecificationId = row.get(2)?;
        let evaluation: EvaluationId = row.get(3)?;
        let (name, of_system) = (row.get_ref(4)?.as_str()?, row.get_ref(5)?.as_str()?);
        let now: BuildStatus = row.get(6)?;
        let fits = self.specification.is_none_or(|id| id == specification)
            && self.evaluations.as_ref().is_none_or(|all| all.contains(&evaluation))
            && job.as_ref().is_none_or(|job| job == name)
            && system.as_ref().is_none_or(|system| system == of_system)
            && status.is_none_or(|status| status == now);
        Ok(fits && has_all(name, texts))
    }
}

/// The specification that a search names; `None`: it names none. A name that no specification has is that of number 0,
/// which nothing belongs to, and so is that of a hidden one.
fn named_specification(
    s: &Snapshot,
    search: &Search,
    hidden: &Hidden,
) -> rusqlite::Result<Option<SpecificationId>> {
    let Some(name) = &search.specification else { return Ok(None) };
    if hidden.has_named(name) {
        return Ok(Some(SpecificationId::new(0)));
    }
    let id = s.value("SELECT id FROM specification WHERE name = ?1", [name])?;
    Ok(Some(id.unwrap_or(SpecificationId::new(0))))
}

/// Whether a name contains all texts, which are in lower case.
fn has_all(name: &str, texts: &[String]) -> bool {
    texts.is_empty() || {
        let name = name.to_lowercase();
        texts.iter().all(|text| name.contains(text))
    }
}

/// The jobs whose names contain all texts, in the latest list of jobs of each specification. `None`: there are no texts;
/// or there are more than [`LISTS_MAX`] such jobs, or more than [`NAMES_MAX`] names (SRCH3).
fn jobs_with(
    s: &Snapshot,
    specification: Option<SpecificationId>,
    hidden: &Hidden,
    texts: &[String],
) -> rusqlite::Result<Option<Vec<(SpecificationId, String)>>> {
    let Some(longest) = texts.iter().max_by_key(|text| text.len()) else { return Ok(None) };
    let all: Vec<SpecificationId> = match specification {
        Some(id) => vec![id],
        None => s.values("SELECT id FROM specification ORDER BY name", [])?,
    };
    let mut names_left = NAMES_MAX;
    let mut jobs = BTreeSet::new();
    for id in all.into_iter().filter(|id| !hidden.has(*id)) {
        let sql = concat!(
            "SELECT id, ",
            jobs!(),
            " FROM evaluation WHERE specification_id = ?1 AND status = 0 AND ",
            jobs!(),
            " > 0 ORDER BY id DESC LIMIT 1"
        );
        let latest: Option<(EvaluationId, i64)> = s.first(sql, [id], |row| row.try_into())?;
        let Some((evaluation, names)) = latest else { continue };
        names_left -= names;
        if names_left < 0 {
            return Ok(None);
        }
        // SQLite's `lower` leaves letters beyond ASCII as they are, so such texts are only compared below.
        let found: Vec<String> = if longest.is_ascii() {
            let sql = "SELECT name FROM job WHERE evaluation_id = ?1 AND instr(lower(name), ?2) > 0
                 ORDER BY name LIMIT ?3";
            s.values(sql, params![evaluation, longest, NAMES_MAX])?
        } else {
            let sql = "SELECT name FROM job WHERE evaluation_id = ?1 ORDER BY name LIMIT ?2";
            s.values(sql, params![evaluation, NAMES_MAX])?
        };
        jobs.extend(found.into_iter().filter(|name| has_all(name, texts)).map(|name| (id, name)));
        if jobs.len() > LISTS_MAX {
            return Ok(None);
        }
    }
    Ok(Some(jobs.into_iter().collect()))
}

/// The latest evaluations one of whose revisions fits, by the name of its author and by itself, at most [`LISTS_MAX`]
/// (SRCH3).
fn evaluations_with(
    s: &Snapshot,
    specification: Option<SpecificationId>,
    hidden: &Hidden,
    fits: impl Fn(&str, &str) -> bool,
) -> rusqlite::Result<Vec<EvaluationId>> {
    let (floor, rows) = match specification {
        Some(_) => (
            "SELECT min(e.id) FROM (SELECT id FROM evaluation WHERE specification_id = ?2
             ORDER BY id DESC LIMIT ?1) AS e",
            "SELECT e.id, c.author, c.revision FROM evaluation AS e
             CROSS JOIN checkout AS c ON c.evaluation_id = e.id
             WHERE e.specification_id = ?2 AND e.id >= ?1 ORDER BY e.id DESC",
        ),
        None => (
            "SELECT min(e.id) FROM (SELECT id FROM evaluation ORDER BY id DESC LIMIT ?1) AS e",
            "SELECT e.id, c.author, c.revision FROM evaluation AS e
             CROSS JOIN checkout AS c ON c.evaluation_id = e.id
             WHERE e.id >= ?1 ORDER BY e.id DESC",
        ),
    };
    let values = |first: Option<i64>| {
        [first, specification.map(|id| id.get())]
            .into_iter()
            .take(1 + usize::from(specification.is_some()))
    };
    let limit = params_from_iter(values(Some(EVALUATIONS_MAX)));
    let floor: Option<i64> = s.query_row(floor, limit, |row| row.get(0))?;
    let mut statement = s.prepare_cached(rows)?;
    let mut rows = statement.query(params_from_iter(values(floor)))?;
    let mut found: Vec<EvaluationId> = Vec::new();
    while let Some(row) = rows.next()?
        && found.len() < LISTS_MAX
    {
        let (author, revision) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
        let id = row.get(0)?;
        if found.last() != Some(&id) && fits(author, revision) && !is_hidden(s, hidden, id)? {
            found.push(id);
        }
    }
    Ok(found)
}

/// Whether an evaluation belongs to a hidden specification.
fn is_hidden(s: &Snapshot, hidden: &Hidden, id: EvaluationId) -> rusqlite::Result<bool> {
    if hidden.is_empty() {
        return Ok(false);
    }
    let sql = "SELECT specification_id FROM evaluation WHERE id = ?1";
    let of: Option<SpecificationId> = s.value(sql, [id])?;
    Ok(of.is_some_and(|of| hidden.has(of)))
}

/// The latest evaluations that a search names by an author, or by the beginning of a revision of at least seven digits.
pub(crate) fn search_evaluations(
    s: &Snapshot,
    search: &Search,
    hidden: &Hidden,
) -> rusqlite::Result<Vec<EvaluationId>> {
    let revision = search.texts.iter().find(|text| {
        (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    if search.author.is_none() && revision.is_none() {
        return Ok(Vec::new());
    }
    evaluations_with(s, named_specification(s, search, hidden)?, hidden, |name, of| {
        let by = search.author.as_ref();
        by.is_none_or(|author| name.to_lowercase().contains(author))
            && revision.is_none_or(|begin| of.starts_with(begin))
    })
}
