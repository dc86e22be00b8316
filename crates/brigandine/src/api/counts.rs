//! `/api/nrqueue` and `/api/nrbuilds`: how many builds wait, and how many have ended.

use axum::http::StatusCode;
use axum::response::Response;

use super::parameters::{JOB, JOBSET, NR, PROJECT, SYSTEM};
use crate::context::{Context, Reading};
use crate::http::{HttpError, Query, Result, json};
use crate::model::BuildFilter;
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::store::visible;

pub(super) fn routes() -> Described<Context> {
    let queued_operation = Operation::new(Dialect::Hydra, "How many builds are pending")
        .takes(&[PROJECT])
        .json::<u64>(200, "The number.");
    let period = Parameter::new(
        "period",
        Kind::OneOf(&["hour", "day"]),
        "day",
        "The length of a period, in UTC.",
    );
    let ended_operation =
        Operation::new(Dialect::Hydra, "How many builds ended in each of the last periods")
            .takes(&[NR, period.required(), JOBSET, JOB, SYSTEM, PROJECT])
            .json::<Vec<u64>>(
                200,
                "The numbers of the periods in which builds ended, the oldest first.",
            )
            .refuses_numbers();
    Described::new().get("/api/nrqueue", queued, queued_operation).get(
        "/api/nrbuilds",
        ended,
        ended_operation,
    )
}

/// The number of pending builds, of all projects or of one.
async fn queued(context: Reading, query: Query) -> Result<Response> {
    let project = query.get("project");
    let read = context.read_few(move |s| match &project {
        Some(project) => visible::pending_builds(s, project),
        None => visible::queue_counts(s).map(|counts| counts.scheduled + counts.started),
    });
    Ok(json(StatusCode::OK, &read.await?))
}

/// How many builds ended in each of the last hours or days in which builds ended, the oldest first.
///
/// # Errors
/// 500 as clients of Hydra know it: `nr` or `period` is missing. 400: `period` is neither `hour` nor `day`.
async fn ended(context: Reading, query: Query) -> Result<Response> {
    let number = query.number_of_entries()?;
    let seconds = match query.get("period").as_deref() {
        Some("hour") => 3600,
        Some("day") => 86_400,
        Some(_) => {
            return Err(HttpError::BadRequest("'period' may be 'hour' or 'day'".to_owned()));
        }
        None => return Err(HttpError::ParameterMissing),
    };
    let filter = BuildFilter {
        project: query.get("project"),
        specification: query.get("jobset"),
        job: query.get("job"),
        system: query.get("system"),
        ..BuildFilter::default()
    };
    let read = context.read(move |s| visible::ended_per_period(s, &filter, seconds, number));
    Ok(json(StatusCode::OK, &read.await?))
}
