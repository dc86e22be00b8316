//! `/api/evaluations` and `/api/evaluation`.

use axum::http::StatusCode;
use axum::response::Response;

use super::jobs::is_of;
use super::parameters::{NR, PROJECT, SPEC};
use crate::context::{Context, Reading};
use crate::http::{HttpError, Query, Result, json};
use crate::model::EvaluationId;
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::store::visible;
use crate::wire::EvaluationJson;

pub(super) fn routes() -> Described<Context> {
    let list_operation = Operation::new(Dialect::Cuirass, "Evaluations, newest first")
        .takes(&[NR, SPEC, PROJECT])
        .json::<Vec<EvaluationJson>>(200, "The evaluations.")
        .refuses_numbers();
    let id = Parameter::new("id", Kind::Number, "1", "The number of the evaluation.").required();
    let one_operation = Operation::new(Dialect::Cuirass, "An evaluation")
        .takes(&[id])
        .json::<EvaluationJson>(200, "The evaluation.")
        .refuses(404, "There is no such evaluation.")
        .refuses_numbers();
    Described::new().get("/api/evaluations", list, list_operation).get(
        "/api/evaluation",
        one,
        one_operation,
    )
}

/// The latest evaluations, newest first.
async fn list(context: Reading, query: Query) -> Result<Response> {
    let number = query.number_of_entries()?;
    let (specification, project) = (query.get("spec"), query.get("project"));
    let list = context
        .read(move |s| {
            let found = match (&specification, &project) {
                (Some(_), Some(project)) if !is_of(s, specification.as_deref(), project)? => {
                    Vec::new()
                }
                (None, Some(project)) => visible::evaluations_of_project(s, project, number)?,
                _ => visible::evaluations(s, specification.as_deref(), number)?,
            };
            found
                .into_iter()
                .map(|evaluation| {
                    let checkouts = visible::checkouts(s, evaluation.id)?;
                    Ok(EvaluationJson::new(evaluation, checkouts))
                })
                .collect::<rusqlite::Result<Vec<_>>>()
        })
        .await?;
    Ok(json(StatusCode::OK, &list))
}

/// One evaluation.
async fn one(context: Reading, query: Query) -> Result<Response> {
    let id: EvaluationId = query.parsed("id")?.ok_or(HttpError::ParameterMissing)?;
    let found = context
        .read_few(move |s| {
            let Some(evaluation) = visible::evaluation(s, id)? else { return Ok(None) };
            Ok(Some(EvaluationJson::new(evaluation, visible::checkouts(s, id)?)))
        })
        .await?;
    let evaluation = found.ok_or_else(|| HttpError::no_evaluation(&id.to_string()))?;
    Ok(json(StatusCode::OK, &evaluation))
}
