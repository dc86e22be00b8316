//! Builds and the queue, as somebody may see them.

use super::snapshot::Visible;
use crate::model::{
    Attempt, Build, BuildDetails, BuildFilter, BuildId, EvaluationId, JobPast, JobRates, Output,
    Product, ProductId, QueueCounts, Search, SpecificationId, Surroundings,
};
use crate::store::blame;
use crate::store::builds::{
    self as all, FoundBuilds, List, NEEDED_BY_MAX, NEEDS_MAX, Pending, SearchBorder, SearchStep,
    WholeQueue,
};
use crate::store::query::Query;
use crate::store::why::{self, Predecessor};
use rusqlite::params;
use std::collections::HashMap;

/// One build.
pub(crate) fn build(s: &Visible<'_>, id: BuildId) -> rusqlite::Result<Option<Build>> {
    match all::build(s.snapshot, id)? {
        Some(build) => s.show(build),
        None => Ok(None),
    }
}

/// A build by its number or by the last component of its derivation. If several builds have the derivation, the newest is
/// meant.
pub(crate) fn build_named(s: &Visible<'_>, id: &str) -> rusqlite::Result<Option<Build>> {
    Ok(s.show_all(all::builds_named(s.snapshot, id)?, 1)?.pop())
}

/// Whether a build belongs to a hidden specification, and is shown because a job of another one has it. Nobody who sees
/// it so may change it.
pub(crate) fn is_lent(s: &Visible<'_>, id: BuildId) -> rusqlite::Result<bool> {
    s.lends(id)
}

/// Finished builds, sorted by the time at which they stopped, the newest first.
pub(crate) fn latest_builds(
    s: &Visible<'_>,
    filter: &BuildFilter,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    let found = all::listed(s.snapshot, filter, &s.hidden, List::Latest, limit)?;
    s.show_all(found, limit)
}

/// Pending builds: running ones first, then in the order of their submission. The list is cut to `limit` after sorting.
pub(crate) fn queue(
    s: &Visible<'_>,
    filter: &BuildFilter,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    let found = all::listed(s.snapshot, filter, &s.hidden, List::Queue, limit)?;
    s.show_all(found, limit)
}

/// The last builds of a job, sorted by the time at which they stopped, the newest first.
pub(crate) fn job_history(
    s: &Visible<'_>,
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

/// How many builds of a project's specifications wait or run.
pub(crate) fn pending_builds(s: &Visible<'_>, project: &str) -> rusqlite::Result<i64> {
    all::pending_builds(s.snapshot, &s.hidden, project)
}

/// How many builds wait and run.
pub(crate) fn queue_counts(s: &Visible<'_>) -> rusqlite::Result<QueueCounts> {
    if s.hidden.is_empty() {
        return all::queue_counts(s.snapshot);
    }
    all::queue_counts_without(s.snapshot, &s.hidden)
}

/// The number of finished builds in each period of `seconds`, for the last `limit` periods in which builds ended, the
/// oldest first. The filter must not name an evaluation or a derivation, whose builds are few.
pub(crate) fn ended_per_period(
    s: &Visible<'_>,
    filter: &BuildFilter,
    seconds: i64,
    limit: u32,
) -> rusqlite::Result<Vec<i64>> {
    all::ended_per_period(s.snapshot, filter, &s.hidden, seconds, limit)
}

/// The first `limit` builds that run or wait, for a server that builds for `systems`.
pub(crate) fn whole_queue(
    s: &Visible<'_>,
    systems: &[String],
    limit: u32,
) -> rusqlite::Result<WholeQueue> {
    let found = all::whole_queue(s.snapshot, systems, &s.hidden, limit)?;
    if s.hidden.is_empty() {
        return Ok(found);
    }
    let WholeQueue { running, ready, waiting, foreign } = found;
    let pending = |builds: Vec<Pending>| -> rusqlite::Result<Vec<Pending>> {
        builds.into_iter().filter_map(|pending| show_pending(s, pending).transpose()).collect()
    };
    Ok(WholeQueue {
        running: s.show_all(running, limit)?,
        ready: pending(ready)?,
        waiting: pending(waiting)?,
        foreign: s.show_all(foreign, limit)?,
    })
}

fn show_pending(s: &Visible<'_>, pending: Pending) -> rusqlite::Result<Option<Pending>> {
    let Some(shown) = s.show(pending.build)? else { return Ok(None) };
    let mut needs = Vec::new();
    for (id, _) in pending.needs {
        // The job of a lent build has another name here.
        needs.extend(build(s, id)?.map(|need| (id, need.job)));
    }
    let twin = match pending.twin {
        Some(twin) if s.shows(twin)? => Some(twin),
        _ => None,
    };
    Ok(Some(Pending { build: shown, needs, twin }))
}

/// A running build of the same derivation as a scheduled build, whose end that one will share.
pub(crate) fn running_twin(s: &Visible<'_>, build: &Build) -> rusqlite::Result<Option<BuildId>> {
    match all::running_twin(s.snapshot, build)? {
        Some(twin) if s.shows(twin)? => Ok(Some(twin)),
        _ => Ok(None),
    }
}

/// How many ready builds a server for `systems` starts before this scheduled one, those of hidden specifications
/// included: they take its place.
pub(crate) fn ahead(s: &Visible<'_>, build: &Build, systems: &[String]) -> rusqlite::Result<i64> {
    why::ahead(s.snapshot, build, systems)
}

/// What is known of the job's build before.
pub(crate) fn predecessor(
    s: &Visible<'_>,
    of: &Build,
    id: BuildId,
) -> rusqlite::Result<Option<Predecessor>> {
    let Some(before) = build(s, id)? else { return Ok(None) };
    let Some(found) = why::predecessor(s.snapshot, of, id)? else { return Ok(None) };
    let definition = s.define(&before, found.definition)?;
    Ok(Some(Predecessor { definition, ..found }))
}

/// What stands around a build in the history of its job.
pub(crate) fn surroundings(s: &Visible<'_>, build: &Build) -> rusqlite::Result<Surroundings> {
    blame::surroundings(s.snapshot, &s.hidden, build)
}

/// Those of the builds that are shown.
fn seen(s: &Visible<'_>, builds: &[BuildId]) -> rusqlite::Result<Vec<BuildId>> {
    let shown = |id: &BuildId| s.shows(*id).map(|shown| shown.then_some(*id)).transpose();
    builds.iter().filter_map(shown).collect()
}

/// The outputs of these builds, read by one query for a whole page.
pub(crate) fn outputs(
    s: &Visible<'_>,
    builds: &[BuildId],
) -> rusqlite::Result<HashMap<BuildId, Vec<Output>>> {
    if s.hidden.is_empty() {
        return all::outputs(s.snapshot, builds);
    }
    all::outputs(s.snapshot, &seen(s, builds)?)
}

/// The products of these builds, read by one query for a whole page.
pub(crate) fn products(
    s: &Visible<'_>,
    builds: &[BuildId],
) -> rusqlite::Result<HashMap<BuildId, Vec<Product>>> {
    if s.hidden.is_empty() {
        return all::products(s.snapshot, builds);
    }
    all::products(s.snapshot, &seen(s, builds)?)
}

/// One product, for `/download/ID`.
pub(crate) fn product(s: &Visible<'_>, id: ProductId) -> rusqlite::Result<Option<Product>> {
    match all::product(s.snapshot, id)? {
        Some(product) if s.shows(product.build)? => Ok(Some(product)),
        _ => Ok(None),
    }
}

/// The latest evaluations that have a build, at most `limit`, the oldest of them first.
pub(crate) fn evaluations_of_build(
    s: &Visible<'_>,
    id: BuildId,
    limit: u32,
) -> rusqlite::Result<Vec<EvaluationId>> {
    if s.hidden.is_empty() {
        return all::evaluations_of_build(s.snapshot, id, limit);
    }
    let sql = "SELECT j.evaluation_id FROM job AS j
         CROSS JOIN evaluation AS e ON e.id = j.evaluation_id
         WHERE j.build_id = ?1 AND e.specification_id NOT IN (SELECT value FROM json_each(?2))
         ORDER BY j.evaluation_id DESC LIMIT ?3";
    let values = params![id, s.hidden.json(), limit];
    let mut evaluations: Vec<EvaluationId> = s.snapshot.values(sql, values)?;
    // Two jobs of an evaluation may have the same build.
    evaluations.dedup();
    evaluations.reverse();
    Ok(evaluations)
}

/// The builds that have an output in the state directory at this path, the newest first, at most `limit`.
pub(crate) fn builds_of_output(
    s: &Visible<'_>,
    path: &str,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    let found = all::builds_of_output(s.snapshot, path, s.read_at_most(limit))?;
    s.show_all(found, limit)
}

/// The builds that a build needs, by their numbers, at most `limit`.
pub(crate) fn needs(s: &Visible<'_>, id: BuildId, limit: u32) -> rusqlite::Result<Vec<Build>> {
    if !s.shows(id)? {
        return Ok(Vec::new());
    }
    s.show_all(all::needs(s.snapshot, id, s.read_at_most(limit))?, limit)
}

/// Everything that a build's page shows.
pub(crate) fn build_details(
    s: &Visible<'_>,
    id: BuildId,
) -> rusqlite::Result<Option<BuildDetails>> {
    let Some(details) = all::build_details(s.snapshot, id)? else { return Ok(None) };
    if s.hidden.is_empty() {
        return Ok(Some(details));
    }
    let Some(build) = s.show(details.build)? else { return Ok(None) };
    let told = |attempt: Attempt| Ok(Attempt { message: s.told(attempt.message)?, ..attempt });
    // Read once more: builds that are not shown may have taken the places of others.
    let needed_by = all::needed_by(s.snapshot, id, NEEDS_MAX)?;
    Ok(Some(BuildDetails {
        attempts: details.attempts.into_iter().map(told).collect::<rusqlite::Result<_>>()?,
        needs: s.show_all(details.needs, NEEDS_MAX)?,
        needed_by: s.show_all(needed_by, NEEDED_BY_MAX)?,
        definition: s.define(&build, details.definition)?,
        outputs: details.outputs,
        products: details.products,
        build,
    }))
}

/// The builds of a job in the evaluations before `before`, the latest first, at most `limit`; and where the next page
/// begins. `None`: there is no next page.
pub(crate) fn job_past(
    s: &Visible<'_>,
    of: SpecificationId,
    job: &str,
    before: EvaluationId,
    limit: usize,
) -> rusqlite::Result<(Vec<JobPast>, Option<EvaluationId>)> {
    if s.hidden.has(of) {
        return Ok((Vec::new(), None));
    }
    let (found, next) = all::job_past(s.snapshot, of, job, before, limit)?;
    let mut shown = Vec::with_capacity(found.len());
    for JobPast { build, evaluation, reused } in found {
        let is_lent = s.hidden.has(build.specification_id);
        let Some(build) = s.show(build)? else { continue };
        // Nobody whom the reader sees had it before.
        let reused = reused && !(is_lent && build.evaluation == evaluation);
        shown.push(JobPast { build, evaluation, reused });
    }
    Ok((shown, next))
}

/// How reliable a job is, over the latest evaluations of its specification.
pub(crate) fn job_rates(
    s: &Visible<'_>,
    of: SpecificationId,
    job: &str,
) -> rusqlite::Result<JobRates> {
    if s.hidden.has(of) {
        return Ok(JobRates::default());
    }
    all::job_rates(s.snapshot, of, job)
}

/// Looks for builds behind `after`.
pub(crate) fn search_builds(
    s: &Visible<'_>,
    search: &Search,
    after: Option<SearchBorder>,
    step: SearchStep,
) -> rusqlite::Result<FoundBuilds> {
    let found = all::search_builds(s.snapshot, search, &s.hidden, after, step)?;
    Ok(FoundBuilds { builds: s.show_all(found.builds, u32::MAX)?, ..found })
}
