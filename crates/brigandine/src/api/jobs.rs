//! `/api/jobs` and `/api/jobs/history`.

use axum::http::StatusCode;
use axum::response::Response;

use super::parameters::{EVALUATION, NAMES, NR, PROJECT, SPEC, SYSTEM};
use crate::context::{Context, Reading};
use crate::http::{HttpError, Query, Result, json};
use crate::model::{Evaluation, EvaluationId};
use crate::openapi::{Described, Dialect, Operation};
use crate::store::{Visible, visible};
use crate::wire::{HistoryJson, JobJson};

/// The most jobs of an evaluation in an answer.
const JOBS_MAX: u32 = 100_000;
/// The most names in a request.
const NAMES_MAX: usize = 1000;

pub(super) fn routes() -> Described<Context> {
    let list_operation = Operation::new(Dialect::Cuirass, "The jobs of an evaluation")
        .takes(&[EVALUATION.required(), NAMES, SYSTEM, PROJECT])
        .json::<Vec<JobJson>>(200, "The jobs.")
        .refuses_numbers();
    let summary = "The last evaluations of a specification, newest first, with some of their jobs";
    let history_operation = Operation::new(Dialect::Cuirass, summary)
        .takes(&[NR, SPEC.required(), NAMES.required(), PROJECT])
        .json::<Vec<HistoryJson>>(200, "The evaluations.")
        .refuses_numbers();
    Described::new().get("/api/jobs", list, list_operation).get(
        "/api/jobs/history",
        history,
        history_operation,
    )
}

fn names(query: &Query) -> Result<Vec<String>> {
    let names = query.list("names");
    if names.len() > NAMES_MAX {
        return Err(HttpError::BadRequest(format!("at most {NAMES_MAX} names at once")));
    }
    Ok(names)
}

/// Whether there is such a specification in this project.
pub(super) fn is_of(
    s: &Visible<'_>,
    specification: Option<&str>,
    project: &str,
) -> rusqlite::Result<bool> {
    let Some(name) = specification else { return Ok(false) };
    Ok(visible::project_of(s, name)?.is_some_and(|of| of == project))
}

/// The jobs of an evaluation: build, status, name.
async fn list(context: Reading, query: Query) -> Result<Response> {
    let id: EvaluationId = query.parsed("evaluation")?.ok_or(HttpError::ParameterMissing)?;
    let (names, system) = (names(&query)?, query.get("system"));
    let project = query.get("project");
    let jobs = context
        .read(move |s| {
            if let Some(project) = &project {
                let of = visible::evaluation(s, id)?.map(|evaluation| evaluation.specification);
                if !is_of(s, of.as_deref(), project)? {
                    return Ok(Vec::new());
                }
            }
            let jobs = visible::job_builds(s, id, &names, system.as_deref(), JOBS_MAX)?;
            Ok(jobs.into_iter().map(JobJson::from).collect::<Vec<_>>())
        })
        .await?;
    Ok(json(StatusCode::OK, &jobs))
}

/// The last evaluations of a specification, newest first, with the named jobs of each.
///
/// # Errors
/// 500 as clients of Cuirass know it: `nr`, `spec` or `names` is missing. 400: the answer could have too many jobs.
async fn history(context: Reading, query: Query) -> Result<Response> {
    let number = query.number_of_entries()?;
    let specification = query.get("spec").ok_or(HttpError::ParameterMissing)?;
    let (names, project) = (names(&query)?, query.get("project"));
    if names.is_empty() {
        return Err(HttpError::ParameterMissing);
    }
    if names.len() > (JOBS_MAX / number) as usize {
        let why = format!("at most {JOBS_MAX} jobs at once: `nr` times the number of names");
        return Err(HttpError::BadRequest(why));
    }
    let list = context
        .read(move |s| {
            if let Some(project) = &project
                && !is_of(s, Some(&specification), project)?
            {
                return Ok(Vec::new());
            }
            // An imported evaluation may have several builds of one name, so the jobs are counted.
            let mut left = JOBS_MAX;
            let entry = |evaluation: Evaluation| -> rusqlite::Result<HistoryJson> {
                let checkouts = visible::checkouts(s, evaluation.id)?;
                let jobs = visible::job_builds(s, evaluation.id, &names, None, left)?;
                left -= u32::try_from(jobs.len()).unwrap_or(left);
                Ok(HistoryJson::new(&evaluation, checkouts, jobs))
            };
            let evaluations = visible::evaluations(s, Some(&specification), number)?;
            evaluations.into_iter().map(entry).collect::<rusqlite::Result<Vec<_>>>()
        })
        .await?;
    Ok(json(StatusCode::OK, &list))
}
