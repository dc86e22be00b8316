//! The queue in the scheduler's order: what runs, what starts next, and what waits for something else.

use super::list::queue;
use super::row::{columns, from_row, select};
use crate::model::{Build, BuildFilter, BuildId, BuildStatus};
use crate::store::database::Snapshot;
use crate::store::derivations::derivation_key;
use crate::store::query::{Query, integer};
use rusqlite::params;
use std::collections::BTreeSet;

/// The most dependencies that are named of a waiting build.
const NEEDS: u32 = 3;

/// A build that waits, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// The build.
    pub(crate) build: Build,
    /// Number and job of some of the builds that it needs and that have not succeeded.
    pub(crate) needs: Vec<(BuildId, String)>,
    /// A running build of the same derivation, whose end is the end of this one as well.
    pub(crate) twin: Option<BuildId>,
}

/// What has not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WholeQueue {
    /// Running builds, the first started first.
    pub(crate) running: Vec<Build>,
    /// Builds that start as room becomes free, in this order.
    pub(crate) ready: Vec<Pending>,
    /// Builds that wait for others, in the order in which they would start now. When there are more than fit, the
    /// first registered are listed.
    pub(crate) waiting: Vec<Pending>,
    /// Builds that this server never starts: imported, or for a system that it does not build for.
    pub(crate) foreign: Vec<Build>,
}

/// The first `limit` builds that run or wait, for a server that builds for `systems`.
pub(crate) fn whole_queue(
    s: &Snapshot,
    systems: &[String],
    limit: u32,
) -> rusqlite::Result<WholeQueue> {
    let started = BuildFilter { status: Some(BuildStatus::Started), ..BuildFilter::default() };
    let mut running = queue(s, &started, limit)?;
    running.sort_by_key(|build| (build.started_at, build.id));
    let mut found = WholeQueue { running, ..WholeQueue::default() };
    let mut left = limit as usize - found.running.len();
    for system in scheduled_systems(s)? {
        let builds = ready(s, &system, left)?;
        if systems.contains(&system) {
            for build in builds {
                let twin = twin(s, &build)?;
                found.ready.push(Pending { build, needs: Vec::new(), twin });
            }
        } else {
            found.foreign.extend(builds);
        }
    }
    found.ready.sort_by(|one, other| order(&one.build).cmp(&order(&other.build)));
    found.ready.truncate(left);
    left -= found.ready.len();
    for build in waiting(s, left)? {
        if systems.contains(&build.system) {
            let needs = missing(s, build.id)?;
            found.waiting.push(Pending { build, needs, twin: None });
        } else {
            found.foreign.push(build);
        }
    }
    found.waiting.sort_by(|one, other| order(&one.build).cmp(&order(&other.build)));
    left -= found.waiting.len();
    found.foreign.extend(imported(s, left)?);
    found.foreign.sort_by(|one, other| order(one).cmp(&order(other)));
    found.foreign.truncate(left);
    Ok(found)
}

/// The scheduler's order.
fn order(build: &Build) -> (i64, i64, &str) {
    (-build.priority, build.submitted_at, &build.derivation)
}

fn scheduled_systems(s: &Snapshot) -> rusqlite::Result<BTreeSet<String>> {
    s.values("SELECT system FROM build_count WHERE status = -2 AND builds > 0", [])
}

/// The ready builds as the scheduler asks for them (`claim.rs`), together with those whose twin is running.
fn ready(s: &Snapshot, system: &str, limit: usize) -> rusqlite::Result<Vec<Build>> {
    let sql = select!(
        "build AS b INDEXED BY build_ready",
        "WHERE b.status = -2 AND b.waiting = 0 AND b.backend = 0 AND b.system = ?1
         ORDER BY b.priority DESC, b.submitted_at, b.derivation LIMIT ?2"
    );
    s.all(sql, params![system, integer(limit)], from_row)
}

/// Builds that wait for others, the first registered first.
fn waiting(s: &Snapshot, limit: usize) -> rusqlite::Result<Vec<Build>> {
    let sql = select!(
        "build AS b INDEXED BY build_unfinished",
        "WHERE b.status < 0 AND b.backend = 0 AND b.status = -2 AND b.waiting > 0
         ORDER BY b.id LIMIT ?1"
    );
    s.all(sql, [integer(limit)], from_row)
}

/// Builds that no backend of this server builds, the first queued first.
fn imported(s: &Snapshot, limit: usize) -> rusqlite::Result<Vec<Build>> {
    let sql = select!(
        "build AS b INDEXED BY build_queue",
        "WHERE b.status < 0 AND b.status = -2 AND b.backend <> 0 ORDER BY b.submitted_at, b.id LIMIT ?1"
    );
    s.all(sql, [integer(limit)], from_row)
}

fn missing(s: &Snapshot, id: BuildId) -> rusqlite::Result<Vec<(BuildId, String)>> {
    let sql = "SELECT n.id, n.job FROM dependency AS d CROSS JOIN build AS n ON n.id = d.needs_id
         WHERE d.build_id = ?1 AND n.status <> 0 ORDER BY d.needs_id LIMIT ?2";
    s.all(sql, params![id, NEEDS], |row| row.try_into())
}

fn twin(s: &Snapshot, build: &Build) -> rusqlite::Result<Option<BuildId>> {
    let sql = "SELECT id FROM build WHERE derivation_key = ?1 AND derivation = ?2 AND status = -1";
    s.value(sql, params![derivation_key(&build.derivation), build.derivation])
}
