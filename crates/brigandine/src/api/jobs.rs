//! `/api/jobs` and `/api/jobs/history`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json as object;

use crate::context::Context;
use crate::http::{HttpError, Query, Result, json};
use crate::model::EvaluationId;
use crate::store;
use crate::wire::builds_json;

/// The most jobs of an evaluation in an answer.
const JOBS_MAX: u32 = 100_000;
/// The most names in a request.
const NAMES_MAX: usize = 1000;

fn names(query: &Query) -> Result<Vec<String>> {
    let names = query.list("names");
    if names.len() > NAMES_MAX {
        return Err(HttpError::BadRequest(format!("at most {NAMES_MAX} names at once")));
    }
    Ok(names)
}

/// The jobs of an evaluation: build, status, name.
pub(super) async fn list(State(context): State<Context>, query: Query) -> Result<Response> {
    let id: EvaluationId = query.parsed("evaluation")?.ok_or(HttpError::ParameterMissing)?;
    let (names, system) = (names(&query)?, query.get("system"));
    let jobs = context
        .read(move |s| store::job_builds(s, id, &names, system.as_deref(), JOBS_MAX))
        .await?;
    Ok(json(StatusCode::OK, &jobs))
}

/// The last builds of each named job.
pub(super) async fn history(State(context): State<Context>, query: Query) -> Result<Response> {
    let number = query.number_of_entries()?;
    let specification = query.get("spec").ok_or(HttpError::ParameterMissing)?;
    let names = names(&query)?;
    let list = context
        .read(move |s| {
            names
                .iter()
                .map(|name| {
                    let builds = store::job_history(s, &specification, name, number)?;
                    Ok(object!({ "name": name, "builds": builds_json(s, builds)? }))
                })
                .collect::<rusqlite::Result<Vec<_>>>()
        })
        .await?;
    Ok(json(StatusCode::OK, &list))
}
