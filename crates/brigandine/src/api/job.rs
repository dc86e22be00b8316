//! `/api/v1/job/NAME/JOB`: the history of a job, and how reliable the job is.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::parameters::JOB;
use crate::context::{Context, Reading};
use crate::http::{HttpError, Path, Query, Result, json};
use crate::model::EvaluationId;
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::store::visible;
use crate::wire::JobHistoryJson;

/// How many builds are listed when the request names no number.
const ROWS: u32 = 100;

pub(super) fn routes() -> Described<Context> {
    let before = "Only evaluations with smaller numbers.";
    let parameters = [
        Parameter::new("name", Kind::Text, "hello", "The name of a specification."),
        JOB,
        Parameter::new("before", Kind::Number, "2", before),
        Parameter::new("nr", Kind::Range(1, 1000), "10", "The most builds to list; else 100."),
    ];
    let operation = Operation::new(Dialect::Own, "The history of a job, and how reliable it is")
        .takes(&parameters)
        .json::<JobHistoryJson>(200, "The job's builds, the latest evaluation first.")
        .refuses(400, "A parameter is not valid.")
        .refuses(404, "There is no such specification, or no evaluation of it has the job.")
        .refuses_numbers();
    Described::new().get("/api/v1/job/{name}/{job}", history, operation)
}

/// The variable parts of the address.
#[derive(Deserialize)]
struct Parts {
    name: String,
    job: String,
}

async fn history(
    context: Reading,
    Path(Parts { name, job }): Path<Parts>,
    query: Query,
) -> Result<Response> {
    let before: Option<EvaluationId> = query.parsed("before")?;
    let limit = if query.get("nr").is_some() { query.number_of_entries()? } else { ROWS };
    let begin = before.unwrap_or(EvaluationId::new(i64::MAX));
    let (wanted, of) = (name.clone(), job.clone());
    let found = context.read(move |s| {
        let Some(state) = visible::specification(s, &wanted)? else { return Ok(None) };
        let past = visible::job_past(s, state.id, &of, begin, limit as usize)?;
        Ok(Some((past, visible::job_rates(s, state.id, &of)?)))
    });
    let (past, rates) = found.await?.ok_or_else(|| HttpError::no_specification(&name))?;
    if past.0.is_empty() && past.1.is_none() && before.is_none() {
        return Err(HttpError::no_job(&name, &job));
    }
    let next = |before| format!("?nr={limit}&before={before}");
    Ok(json(StatusCode::OK, &JobHistoryJson::new((name, job), &rates, past, next)))
}
