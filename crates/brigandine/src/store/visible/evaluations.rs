//! Evaluations and their jobs, as somebody may see them.

use super::snapshot::Visible;
use crate::model::{
    BuildId, BuildStatus, Checkout, Counters, Evaluation, EvaluationDetails, EvaluationId,
    EvaluationStatus, JobBuild, JobState, Search, SpecificationId,
};
use crate::store::builds::{self, JobFilter, JobPage, Latest};
use crate::store::comparison::{self, Comparison, ComparisonFilter};
use crate::store::evaluations as all;
use crate::store::grid::{self as grids, Grid, GridFilter};

/// One evaluation.
pub(crate) fn evaluation(
    s: &Visible<'_>,
    id: EvaluationId,
) -> rusqlite::Result<Option<Evaluation>> {
    let found = all::evaluation(s.snapshot, id)?;
    Ok(found.filter(|evaluation| !s.hidden.has(evaluation.specification_id)))
}

/// The latest evaluations of the named specification, newest first; `None`: of all specifications.
pub(crate) fn evaluations(
    s: &Visible<'_>,
    specification: Option<&str>,
    limit: u32,
) -> rusqlite::Result<Vec<Evaluation>> {
    match specification {
        Some(name) if s.hidden.has_named(name) => Ok(Vec::new()),
        None if !s.hidden.is_empty() => all::evaluations_without(s.snapshot, &s.hidden, limit),
        specification => all::evaluations(s.snapshot, specification, limit),
    }
}

/// The latest evaluations of all specifications of a project, newest first.
pub(crate) fn evaluations_of_project(
    s: &Visible<'_>,
    project: &str,
    limit: u32,
) -> rusqlite::Result<Vec<Evaluation>> {
    all::evaluations_of_project(s.snapshot, &s.hidden, project, limit)
}

/// The latest evaluations of a specification, newest first: only their numbers, statuses and counters.
pub(crate) fn evaluation_states(
    s: &Visible<'_>,
    specification: SpecificationId,
    limit: u32,
) -> rusqlite::Result<Vec<(EvaluationId, EvaluationStatus, Counters)>> {
    if s.hidden.has(specification) {
        return Ok(Vec::new());
    }
    all::evaluation_states(s.snapshot, specification, limit)
}

/// A page of a specification's evaluations, newest first. With `after`: the evaluations with the next higher numbers;
/// otherwise with `before`: those with the next lower numbers; with neither: the newest.
pub(crate) fn evaluation_page(
    s: &Visible<'_>,
    specification: &str,
    before: Option<EvaluationId>,
    after: Option<EvaluationId>,
    limit: u32,
) -> rusqlite::Result<Vec<Evaluation>> {
    if s.hidden.has_named(specification) {
        return Ok(Vec::new());
    }
    all::evaluation_page(s.snapshot, specification, before, after, limit)
}

/// The latest evaluations of a specification, newest first: only their numbers.
pub(crate) fn evaluation_ids(
    s: &Visible<'_>,
    specification: SpecificationId,
    limit: u32,
) -> rusqlite::Result<Vec<EvaluationId>> {
    if s.hidden.has(specification) {
        return Ok(Vec::new());
    }
    all::evaluation_ids(s.snapshot, specification, limit)
}

/// The latest successful evaluation of a specification whose builds have all ended, none of them by a cancel; `None`:
/// there is none.
pub(crate) fn latest_finished_evaluation(
    s: &Visible<'_>,
    specification: SpecificationId,
) -> rusqlite::Result<Option<EvaluationId>> {
    if s.hidden.has(specification) {
        return Ok(None);
    }
    all::latest_finished_evaluation(s.snapshot, specification)
}

/// The checkouts of an evaluation, in the order of the specification's inputs.
pub(crate) fn checkouts(s: &Visible<'_>, id: EvaluationId) -> rusqlite::Result<Vec<Checkout>> {
    if s.hides_evaluation(id)? {
        return Ok(Vec::new());
    }
    all::checkouts(s.snapshot, id)
}

/// An evaluation with its checkouts and neighbours.
pub(crate) fn evaluation_details(
    s: &Visible<'_>,
    id: EvaluationId,
) -> rusqlite::Result<Option<EvaluationDetails>> {
    if s.hides_evaluation(id)? {
        return Ok(None);
    }
    all::evaluation_details(s.snapshot, id)
}

/// The evaluation that is meant by `text`, for a comparison with `of`: the one with this number, or else the latest other
/// evaluation of the same specification that succeeded and has a revision that begins so. `None`: there is none.
pub(crate) fn other_evaluation(
    s: &Visible<'_>,
    of: &Evaluation,
    text: &str,
) -> rusqlite::Result<Option<Evaluation>> {
    let found = comparison::other_evaluation(s.snapshot, of, text)?;
    Ok(found.filter(|evaluation| !s.hidden.has(evaluation.specification_id)))
}

/// Compares the jobs of the evaluation `id` with those of `other`.
pub(crate) fn compare(
    s: &Visible<'_>,
    id: EvaluationId,
    other: EvaluationId,
    wanted: &ComparisonFilter,
) -> rusqlite::Result<Comparison> {
    if s.hides_evaluation(id)? || s.hides_evaluation(other)? {
        return Ok(Comparison::default());
    }
    comparison::compare(s.snapshot, id, other, wanted)
}

/// A page of the jobs of an evaluation with their builds, ordered by job name.
pub(crate) fn job_page(
    s: &Visible<'_>,
    evaluation: EvaluationId,
    filter: &JobFilter,
    limit: u32,
) -> rusqlite::Result<JobPage> {
    if s.hides_evaluation(evaluation)? {
        return Ok(JobPage::default());
    }
    let mut page = builds::job_page(s.snapshot, evaluation, filter, limit)?;
    if s.hidden.is_empty() {
        return Ok(page);
    }
    let mut jobs = Vec::with_capacity(page.jobs.len());
    for JobState { build, job, reused } in page.jobs {
        let is_lent = s.hidden.has(build.specification_id);
        // The evaluation is visible and has the build, so the build is there.
        let Some(build) = s.show(build)? else { continue };
        // Nobody whom the reader sees had it before.
        let reused = reused && !(is_lent && build.evaluation == evaluation);
        jobs.push(JobState { build, job, reused });
    }
    page.jobs = jobs;
    Ok(page)
}

/// The builds of an evaluation's jobs, sorted, each once. At most `limit` jobs are read, in the order of their names.
pub(crate) fn build_ids(
    s: &Visible<'_>,
    evaluation: EvaluationId,
    limit: u32,
) -> rusqlite::Result<Vec<BuildId>> {
    if s.hides_evaluation(evaluation)? {
        return Ok(Vec::new());
    }
    builds::build_ids(s.snapshot, evaluation, limit)
}

/// Job names with builds, for `/api/jobs`: the jobs in `names`, or all jobs if `names` is empty.
pub(crate) fn job_builds(
    s: &Visible<'_>,
    evaluation: EvaluationId,
    names: &[String],
    system: Option<&str>,
    limit: u32,
) -> rusqlite::Result<Vec<JobBuild>> {
    if s.hides_evaluation(evaluation)? {
        return Ok(Vec::new());
    }
    builds::job_builds(s.snapshot, evaluation, names, system, limit)
}

/// The build of a job in the latest evaluation in which the job has such a build.
pub(crate) fn latest_of_job(
    s: &Visible<'_>,
    specification: SpecificationId,
    job: &str,
    system: Option<&str>,
    latest: Latest,
) -> rusqlite::Result<Option<(BuildId, BuildStatus)>> {
    if s.hidden.has(specification) {
        return Ok(None);
    }
    builds::latest_of_job(s.snapshot, specification, job, system, latest)
}

/// A page of the grid of a specification.
pub(crate) fn grid(
    s: &Visible<'_>,
    of: SpecificationId,
    filter: &GridFilter,
) -> rusqlite::Result<Grid> {
    if s.hidden.has(of) {
        return Ok(Grid::default());
    }
    grids::grid(s.snapshot, of, filter)
}

/// The latest evaluations that a search names by an author, or by the beginning of a revision.
pub(crate) fn search_evaluations(
    s: &Visible<'_>,
    search: &Search,
) -> rusqlite::Result<Vec<EvaluationId>> {
    builds::search_evaluations(s.snapshot, search, &s.hidden)
}
