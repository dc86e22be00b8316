//! `/eval/N`, `/eval/N/builds`, `/jobset/P/J/evals` and `/jobset/P/J/latest-eval`.

use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::named::{BUILDS_MAX, JOBSET, NUMBERS_MAX, Named, PROJECT, tail};
use crate::api::parameters::{EVALUATION_ID, REST};
use crate::context::{Context, Reading};
use crate::http::{HttpError, Path, Query, Result, json, redirect};
use crate::model::{BuildId, EvaluationId, Specification};
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::store::{JobFilter, Visible, visible};
use crate::wire::{BuildJson, EvaluationPageJson, HydraEvaluationJson, whole_builds_json};

/// How many evaluations a page of the list has, and how many pages there are at most.
const PAGE: usize = 20;
const PAGES_MAX: usize = 1000;

/// The description of [`evaluation`].
pub(crate) fn evaluation_operation() -> Operation {
    Operation::new(
        Dialect::Both,
        "An evaluation with the numbers of its builds, for requests of JSON; a page for others",
    )
    .takes(&[EVALUATION_ID])
    .json::<HydraEvaluationJson>(200, "The evaluation.")
    .other(200, "text/html; charset=utf-8", "The page of the evaluation.")
    .other(400, "text/html; charset=utf-8", "A parameter of the page is wrong.")
    .refuses(400, "A parameter of the page is wrong.")
    .other(404, "text/html; charset=utf-8", "There is no such evaluation.")
    .refuses(404, "There is no such evaluation.")
}

pub(super) fn routes() -> Described<Context> {
    let after = Parameter::new("after", Kind::Text, "compile", "The list begins behind this job.");
    let build = Parameter::new("build", Kind::Number, "1", "The build of the job `after`.");
    let builds_operation =
        Operation::new(Dialect::Hydra, "The builds of an evaluation's jobs, by name")
            .takes(&[EVALUATION_ID, after, build])
            .json::<Vec<BuildJson>>(200, "At most 10,000 builds.")
            .refuses(404, "There is no such evaluation.");
    let page = Parameter::new("page", Kind::Range(1, 1000), "1", "The number of the page.");
    let list_operation =
        Operation::new(Dialect::Hydra, "The evaluations of a specification, newest first")
            .takes(&[PROJECT, JOBSET, page])
            .json::<EvaluationPageJson>(200, "A page of 20 evaluations.")
            .refuses(404, "There is no such specification in the project.");
    let latest_operation = |more: &[Parameter]| {
        Operation::new(Dialect::Hydra, "The latest evaluation whose builds have all ended")
            .takes(&[PROJECT, JOBSET])
            .takes(more)
            .redirects("The evaluation, or what the rest of the path names of it.")
            .refuses(404, "There is no such specification in the project, or no such evaluation.")
    };
    Described::new()
        .get("/eval/{id}/builds", builds, builds_operation)
        .get("/jobset/{project}/{jobset}/evals", list, list_operation)
        .get("/jobset/{project}/{jobset}/latest-eval", latest, latest_operation(&[]))
        .get("/jobset/{project}/{jobset}/latest-eval/{*rest}", latest, latest_operation(&[REST]))
}

fn number(id: &str) -> Result<EvaluationId> {
    id.parse().map_err(|_| HttpError::no_evaluation(id))
}

/// An evaluation with the numbers of at most `left` of its builds, which are subtracted from `left`.
fn read(
    s: &Visible<'_>,
    id: EvaluationId,
    specification: &Specification,
    left: &mut u32,
) -> rusqlite::Result<Option<HydraEvaluationJson>> {
    let Some(evaluation) = visible::evaluation(s, id)? else { return Ok(None) };
    let builds = visible::build_ids(s, id, *left)?;
    *left -= u32::try_from(builds.len()).unwrap_or(*left);
    let checkouts = visible::checkouts(s, id)?;
    Ok(Some(HydraEvaluationJson::new(evaluation, specification, checkouts, builds)))
}

/// One evaluation.
///
/// # Errors
/// 404: there is no such evaluation.
pub(crate) async fn evaluation(context: &Reading, id: &str) -> Result<Response> {
    let number = number(id)?;
    let found = context
        .read(move |s| {
            let Some(evaluation) = visible::evaluation(s, number)? else { return Ok(None) };
            let of = visible::specification_by_id(s, evaluation.specification_id)?;
            let Some(of) = of else { return Ok(None) };
            let mut left = NUMBERS_MAX;
            read(s, number, &of.specification, &mut left)
        })
        .await?;
    let found = found.ok_or_else(|| HttpError::no_evaluation(id))?;
    Ok(json(StatusCode::OK, &found))
}

/// The builds of an evaluation's jobs, by the names of the jobs. `after` and `build` name the job behind which the list
/// begins, and its build.
///
/// # Errors
/// 404: there is no such evaluation. 400: `build` is no number.
async fn builds(context: Reading, Path(id): Path<String>, query: Query) -> Result<Response> {
    let evaluation = number(&id)?;
    let build: Option<BuildId> = query.parsed("build")?;
    let build = build.unwrap_or(BuildId::new(i64::MAX));
    let after = query.get("after").map(|job| (job, build));
    let filter = JobFilter { after, ..JobFilter::default() };
    let found = context
        .read(move |s| {
            if visible::evaluation(s, evaluation)?.is_none() {
                return Ok(None);
            }
            let page = visible::job_page(s, evaluation, &filter, BUILDS_MAX)?;
            let builds = page.jobs.into_iter().map(|found| found.build).collect();
            whole_builds_json(s, builds).map(Some)
        })
        .await?;
    let found = found.ok_or_else(|| HttpError::no_evaluation(&id))?;
    Ok(json(StatusCode::OK, &found))
}

/// A specification's evaluations, newest first, by pages that Hydra's clients count.
///
/// # Errors
/// 404: there is no such specification in the project. 400: `page` is no number from 1 on.
async fn list(context: Reading, Path(named): Path<Named>, query: Query) -> Result<Response> {
    let page: usize = query.parsed("page")?.unwrap_or(1);
    if !(1..=PAGES_MAX).contains(&page) {
        return Err(HttpError::BadRequest(format!("'page' is a number from 1 to {PAGES_MAX}")));
    }
    let found = named.read(&context, move |s, state, _| {
        // Only the numbers are read of the evaluations on other pages.
        let most = u32::try_from(PAGE * PAGES_MAX).unwrap_or(u32::MAX);
        let ids = visible::evaluation_ids(s, state.id, most)?;
        let last = ids.len().div_ceil(PAGE).max(1);
        let mut left = NUMBERS_MAX;
        let here = ids.chunks(PAGE).nth(page - 1).unwrap_or_default();
        let evals = here
            .iter()
            .filter_map(|id| read(s, *id, &state.specification, &mut left).transpose())
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let link = |page: usize| format!("?page={page}");
        Ok(EvaluationPageJson {
            first: link(1),
            previous: (page > 1).then(|| link((page - 1).min(last))),
            next: (page < last).then(|| link(page + 1)),
            last: link(last),
            evals,
        })
    });
    Ok(json(StatusCode::OK, &found.await?))
}

/// Redirects to the latest evaluation whose builds have all ended, or to what the rest of the path names of it.
///
/// # Errors
/// 404: there is no such specification in the project, or no such evaluation.
async fn latest(context: Reading, Path(named): Path<Named>, uri: Uri) -> Result<Response> {
    let read = named.read(&context, |s, state, _| visible::latest_finished_evaluation(s, state.id));
    let id = read.await?.ok_or_else(|| HttpError::not_found("No evaluation found."))?;
    Ok(redirect(&format!("/eval/{id}{}", tail(&uri, 4))))
}
