//! Compares the jobs of two evaluations, by name.
//!
//! - COMP1: both lists of jobs are read once, side by side, in the order of names. Nothing is kept of a job that is not
//!   listed, so a comparison takes the memory of its lists, however many jobs there are.

use super::builds::Border;
use super::database::Snapshot;
use super::evaluations::evaluation;
use super::query::Query;
use crate::model::{BuildId, BuildStatus, ComparedJob, Evaluation, EvaluationId, JobChange};
use rusqlite::{Row, Rows, params};
use std::cmp::Ordering;
use std::collections::VecDeque;

/// Which compared jobs are listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct ComparisonFilter {
    /// How many jobs are listed at most for each change, in the order of [`JobChange::ALL`].
    pub(crate) limits: [u32; 6],
    /// Text that the names of counted and listed jobs contain, whatever its letter case; empty: all jobs.
    pub(crate) text: String,
    /// Only jobs behind this one are listed, ordered by name, then by build.
    pub(crate) after: Option<Border>,
    /// Only jobs in front of this one are listed, those nearest to it. Ignored when `after` is set.
    pub(crate) before: Option<Border>,
}

impl ComparisonFilter {
    /// Lists the jobs that differ in one way.
    pub(crate) fn one(change: JobChange, limit: u32) -> Self {
        let mut limits = [0; 6];
        limits[change as usize] = limit;
        Self { limits, ..Self::default() }
    }
}

/// The jobs that differ, counted and listed for each change in the order of [`JobChange::ALL`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) counts: [i64; 6],
    pub(crate) lists: [ComparedList; 6],
}

impl Comparison {
    /// How many jobs differ in a way.
    pub(crate) const fn count(&self, change: JobChange) -> i64 {
        self.counts[change as usize]
    }

    /// Takes the list of a change out.
    pub(crate) fn take(&mut self, change: JobChange) -> ComparedList {
        std::mem::take(&mut self.lists[change as usize])
    }
}

/// Some of the jobs that differ in one way, ordered by name, then by build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ComparedList {
    pub(crate) jobs: VecDeque<ComparedJob>,
    /// Whether there are such jobs before the first one.
    pub(crate) has_before: bool,
    /// Whether there are such jobs after the last one.
    pub(crate) has_after: bool,
}

/// The evaluation that is meant by `text`, for a comparison with `of`: the one with this number, or else the latest other
/// evaluation of the same specification that succeeded and has a revision that begins so. `None`: there is none.
pub(crate) fn other_evaluation(
    s: &Snapshot,
    of: &Evaluation,
    text: &str,
) -> rusqlite::Result<Option<Evaluation>> {
    let text = text.trim().trim_start_matches('#').to_ascii_lowercase();
    if let Ok(number) = text.parse::<EvaluationId>()
        && let Some(found) = evaluation(s, number)?
    {
        return Ok(Some(found));
    }
    // git abbreviates a revision to no less than four digits; SHA-256 has 64.
    if !(4..=64).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let sql = "SELECT e.id FROM evaluation AS e CROSS JOIN checkout AS c ON c.evaluation_id = e.id
         WHERE e.specification_id = ?1 AND e.status = 0 AND e.id <> ?2 AND substr(c.revision, 1, length(?3)) = ?3
         ORDER BY e.id DESC LIMIT 1";
    let found: Option<EvaluationId> = s.value(sql, params![of.specification_id, of.id, text])?;
    found.map_or(Ok(None), |id| evaluation(s, id))
}

/// Compares the jobs of the evaluation `id` with those of `other`.
///
/// Imported evaluations may have several builds of one name. Each is then compared with itself if `other` has it too,
/// otherwise with a build of that name which failed, otherwise with the first.
pub(crate) fn compare(
    s: &Snapshot,
    id: EvaluationId,
    other: EvaluationId,
    wanted: &ComparisonFilter,
) -> rusqlite::Result<Comparison> {
    let mut now = s.prepare_cached(
        "SELECT j.name, j.build_id, b.status FROM job AS j CROSS JOIN build AS b ON b.id = j.build_id
         WHERE j.evaluation_id = ?1 ORDER BY j.name, j.build_id",
    )?;
    let mut past = s.prepare_cached(
        "SELECT name, build_id FROM job WHERE evaluation_id = ?1 ORDER BY name, build_id",
    )?;
    let mut now = Groups::new(now.query([id])?, |row| Ok((row.get(1)?, row.get(2)?)));
    let mut past = Groups::new(past.query([other])?, |row| row.get(1));
    let mut status = s.prepare_cached("SELECT status FROM build WHERE id = ?1")?;
    let mut status = |id: BuildId| status.query_row([id], |row| row.get::<_, BuildStatus>(0));
    let mut found = Collector::new(wanted);
    now.advance()?;
    past.advance()?;
    loop {
        let order = match (now.group.builds.is_empty(), past.group.builds.is_empty()) {
            (true, true) => return Ok(found.comparison),
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => now.group.name.cmp(&past.group.name),
        };
        if order == Ordering::Greater {
            for build in &past.group.builds {
                found.add(&past.group.name, (*build, status(*build)?), None, true);
            }
        } else {
            for build in &now.group.builds {
                let before = match order {
                    Ordering::Equal => counterpart(*build, &past.group.builds, &mut status)?,
                    _ => None,
                };
                found.add(&now.group.name, *build, before, false);
            }
            now.advance()?;
        }
        if order != Ordering::Less {
            past.advance()?;
        }
    }
}

type Seen = (BuildId, BuildStatus);

/// The build in `past` with which a build of the same name is compared.
fn counterpart(
    (build, now): Seen,
    past: &[BuildId],
    status: &mut impl FnMut(BuildId) -> rusqlite::Result<BuildStatus>,
) -> rusqlite::Result<Option<Seen>> {
    // Most jobs have the same build in both evaluations, and need no further look-up.
    if past.contains(&build) {
        return Ok(Some((build, now)));
    }
    let mut best = None;
    for before in past {
        let seen = (*before, status(*before)?);
        if seen.1.is_broken() {
            return Ok(Some(seen));
        }
        best = best.or(Some(seen));
    }
    Ok(best)
}

/// Counts compared jobs, which come in the order of their names, and keeps those that are wanted.
struct Collector<'w> {
    wanted: &'w ComparisonFilter,
    text: String,
    comparison: Comparison,
}

impl<'w> Collector<'w> {
    fn new(wanted: &'w ComparisonFilter) -> Self {
        Self { wanted, text: wanted.text.to_lowercase(), comparison: Comparison::default() }
    }

    fn add(&mut self, name: &str, (build, status): Seen, before: Option<Seen>, removed: bool) {
        let (now, past) = match removed {
            true => (None, Some(status)),
            false => (Some(status), before.map(|(_, status)| status)),
        };
        let is_named = || self.text.is_empty() || name.to_lowercase().contains(&self.text);
        let mut fitting = JobChange::ALL.into_iter().filter(|change| change.fits(now, past));
        let Some(first) = fitting.next().filter(|_| is_named()) else { return };
        for change in std::iter::once(first).chain(fitting) {
            let job = || ComparedJob { name: name.to_owned(), build, status, removed, before };
            self.list(change, (name, build), job);
        }
    }

    /// Counts a job for a change, and puts it into the list of this change if it belongs there.
    fn list(&mut self, change: JobChange, at: (&str, BuildId), job: impl Fn() -> ComparedJob) {
        let behind = |(name, build): &Border| at > (name.as_str(), *build);
        let limit = self.wanted.limits[change as usize] as usize;
        self.comparison.counts[change as usize] += 1;
        let list = &mut self.comparison.lists[change as usize];
        match (&self.wanted.after, &self.wanted.before) {
            (Some(after), _) if !behind(after) => list.has_before = true,
            (None, Some(before)) if (before.0.as_str(), before.1) <= at => list.has_after = true,
            (None, Some(_)) => {
                list.jobs.push_back(job());
                if list.jobs.len() > limit {
                    list.jobs.pop_front();
                    list.has_before = true;
                }
            }
            _ if list.jobs.len() < limit => list.jobs.push_back(job()),
            _ => list.has_after = true,
        }
    }
}

/// The builds of a job in an evaluation: one, or several if an import brought them.
struct Group<T> {
    name: String,
    builds: Vec<T>,
}

impl<T> Group<T> {
    const fn new() -> Self {
        Self { name: String::new(), builds: Vec::new() }
    }

    fn begin(&mut self, name: &str, build: T) {
        self.name.clear();
        self.name.push_str(name);
        self.builds.push(build);
    }
}

/// Groups rows with the same name, which are sorted by name. The texts of the groups are used again and again.
struct Groups<'s, T> {
    rows: Rows<'s>,
    /// Reads what a group keeps of a row.
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
    /// The present group; without builds: there is none any more.
    group: Group<T>,
    /// The first row of the next group, which has been read already.
    ahead: Group<T>,
}

impl<'s, T> Groups<'s, T> {
    fn new(rows: Rows<'s>, read: fn(&Row<'_>) -> rusqlite::Result<T>) -> Self {
        Self { rows, read, group: Group::new(), ahead: Group::new() }
    }

    /// Goes to the next group.
    fn advance(&mut self) -> rusqlite::Result<()> {
        std::mem::swap(&mut self.group, &mut self.ahead);
        self.ahead.builds.clear();
        while let Some(row) = self.rows.next()? {
            let name = row.get_ref(0)?.as_str()?;
            let build = (self.read)(row)?;
            if self.group.builds.is_empty() {
                self.group.begin(name, build);
            } else if name == self.group.name {
                self.group.builds.push(build);
            } else {
                self.ahead.begin(name, build);
                break;
            }
        }
        Ok(())
    }
}
