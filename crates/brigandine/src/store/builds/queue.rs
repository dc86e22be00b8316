//! The queue in the scheduler's order: which builds run, which start next, and which wait for other builds.

use super::list::{List, listed};
use super::row::{columns, from_row, select};
use crate::model::{Build, BuildFilter, BuildId, BuildStatus};
use crate::store::database::Snapshot;
use crate::store::derivations::derivation_key;
use crate::store::hidden::Hidden;
use crate::store::query::{Query, integer};
use rusqlite::params;
use std::collections::BTreeSet;

/// How many dependencies of a waiting build are listed at most.
const NEEDS: u32 = 3;

/// A scheduled build, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// The build.
    pub(crate) build: Build,
    /// Number and job of some builds that this build needs and that have not succeeded.
    pub(crate) needs: Vec<(BuildId, String)>,
    /// A running build of the same derivation, whose end this build will share.
    pub(crate) twin: Option<BuildId>,
}

/// All builds that have not ended, by what they wait for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WholeQueue {
    /// Running builds, in the order of their start.
    pub(crate) running: Vec<Build>,
    /// Builds that wait only for a free place, in the order in which they will start.
    pub(crate) ready: Vec<Pending>,
    /// Builds that wait for other builds, in the order in which they would start now. If there are more than `limit`,
    /// the builds that were registered first are listed.
    pub(crate) waiting: Vec<Pending>,
    /// Builds that this server never starts: imported builds, and builds for a system that is not in the server's list.
    pub(crate) foreign: Vec<Build>,
}

/// The first `limit` builds that run or wait, for a server that builds for `systems`, without those of hidden
/// specifications.
pub(crate) fn whole_queue(
    s: &Snapshot,
    systems: &[String],
    hidden: &Hidden,
    limit: u32,
) -> rusqlite::Result<WholeQueue> {
    let started = BuildFilter { status: Some(BuildStatus::Started), ..BuildFilter::default() };
    let mut running = listed(s, &started, hidden, List::Queue, limit)?;
    running.sort_by_key(|build| (build.started_at, build.id));
    let mut found = WholeQueue { running, ..WholeQueue::default() };
    let mut left = limit as usize - found.running.len();
    for system in scheduled_systems(s)? {
        let builds = ready(s, &system, hidden, left)?;
        if systems.contains(&system) {
            for build in builds {
                let twin = running_twin(s, &build)?;
                found.ready.push(Pending { build, needs: Vec::new(), twin });
            }
        } else {
            found.foreign.extend(builds);
        }
    }
    found.ready.sort_by(|one, other| order(&one.build).cmp(&order(&other.build)));
    found.ready.truncate(left);
    left -= found.ready.len();
    for build in waiting(s, hidden, left)? {
        if systems.contains(&build.system) {
            let needs = missing(s, build.id)?;
            found.waiting.push(Pending { build, needs, twin: None });
        } else {
            found.foreign.push(build);
        }
    }
    found.waiting.sort_by(|one, other| order(&one.build).cmp(&order(&other.build)));
    left -= found.waiting.len();
    found.foreign.extend(imported(s, hidden, left)?);
    found.foreign.sort_by(|one, other| order(one).cmp(&order(other)));
    found.foreign.truncate(left);
    Ok(found)
}

/// The order in which the scheduler starts builds.
fn order(build: &Build) -> (i64, i64, &str) {
    (-build.priority, build.submitted_at, &build.derivation)
}

fn scheduled_systems(s: &Snapshot) -> rusqlite::Result<BTreeSet<String>> {
    s.values("SELECT system FROM build_count WHERE status = -2 AND builds > 0", [])
}

/// The ready builds in the order of `claim.rs`, and also those whose twin is running.
fn ready(
    s: &Snapshot,
    system: &str,
    hidden: &Hidden,
    limit: usize,
) -> rusqlite::Result<Vec<Build>> {
    let sql = select!(
        "build AS b INDEXED BY build_ready",
        "WHERE b.status = -2 AND b.waiting = 0 AND b.backend = 0 AND b.system = ?1
         ORDER BY b.priority DESC, b.submitted_at, b.derivation LIMIT ?2"
    );
    let mut statement = s.prepare_cached(sql)?;
    first(
        statement.query_map(params![system, read_at_most(hidden, limit)], from_row)?,
        hidden,
        limit,
    )
}

/// How many rows a statement reads, to find so many of specifications that are not hidden.
fn read_at_most(hidden: &Hidden, limit: usize) -> i64 {
    // The queue is read row by row until there are enough.
    if hidden.is_empty() { integer(limit) } else { i64::MAX }
}

/// The first builds of specifications that are not hidden.
fn first(
    rows: impl Iterator<Item = rusqlite::Result<Build>>,
    hidden: &Hidden,
    limit: usize,
) -> rusqlite::Result<Vec<Build>> {
    let is_seen = |build: &rusqlite::Result<Build>| {
        !build.as_ref().is_ok_and(|build| hidden.has(build.specification_id))
    };
    rows.filter(is_seen).take(limit).collect()
}

/// Builds that wait for other builds, in the order of their registration.
fn waiting(s: &Snapshot, hidden: &Hidden, limit: usize) -> rusqlite::Result<Vec<Build>> {
    let sql = select!(
        "build AS b INDEXED BY build_unfinished",
        "WHERE b.status < 0 AND b.backend = 0 AND b.status = -2 AND b.waiting > 0
         ORDER BY b.id LIMIT ?1"
    );
    let mut statement = s.prepare_cached(sql)?;
    first(statement.query_map([read_at_most(hidden, limit)], from_row)?, hidden, limit)
}

/// Imported builds, which no backend of this server builds, in the order of their submission.
fn imported(s: &Snapshot, hidden: &Hidden, limit: usize) -> rusqlite::Result<Vec<Build>> {
    let sql = select!(
        "build AS b INDEXED BY build_queue",
        "WHERE b.status < 0 AND b.status = -2 AND b.backend <> 0 ORDER BY b.submitted_at, b.id LIMIT ?1"
    );
    let mut statement = s.prepare_cached(sql)?;
    first(statement.query_map([read_at_most(hidden, limit)], from_row)?, hidden, limit)
}

fn missing(s: &Snapshot, id: BuildId) -> rusqlite::Result<Vec<(BuildId, String)>> {
    let sql = "SELECT n.id, n.job FROM dependency AS d CROSS JOIN build AS n ON n.id = d.needs_id
         WHERE d.build_id = ?1 AND n.status <> 0 ORDER BY d.needs_id LIMIT ?2";
    s.all(sql, params![id, NEEDS], |row| row.try_into())
}

/// A running build of the same derivation as a scheduled build, whose end that one will share.
pub(crate) fn running_twin(s: &Snapshot, build: &Build) -> rusqlite::Result<Option<BuildId>> {
    let sql = "SELECT id FROM build WHERE derivation_key = ?1 AND derivation = ?2 AND status = -1";
    s.value(sql, params![derivation_key(&build.derivation), build.derivation])
}
