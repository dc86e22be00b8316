//! Changes: `POST` requests below `/api/v1/`, which must have the server's token.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use crate::context::Context;
use crate::http::{HttpError, Path, Result, json};
use crate::model::{BuildId, BuildStatus, Cancel, Restart, restart_refused};
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::store;
use crate::wire::{ChangedBuildJson, EndingBuildJson, WantedLookJson};

pub(super) fn routes() -> Described<Context> {
    let id = Parameter::new("id", Kind::Text, "7", "The number of the build.");
    let of_build = |summary| {
        let operation = Operation::new(Dialect::Own, summary).takes(&[id]);
        operation.json::<ChangedBuildJson>(200, "It is done.").secured()
    };
    let cancel_operation = of_build("Cancel a build")
        .json::<EndingBuildJson>(202, "The build runs, and is asked to end.")
        .refuses(404, "There is no such build.")
        .refuses(409, "The build has ended already.");
    let restart_operation = of_build("Build once more what has ended without success")
        .refuses(404, "There is no such build.")
        .refuses(409, "The build succeeded, waits or runs, or needs a build that failed.");
    let evaluate_operation = Operation::new(Dialect::Own, "Look at a specification's inputs now")
        .takes(&[Parameter::new("name", Kind::Text, "hello", "The name of the specification.")])
        .json::<WantedLookJson>(202, "The inputs are looked at.")
        .secured()
        .refuses(404, "There is no such specification.")
        .refuses(409, "The specification is disabled.");
    Described::new()
        .post("/api/v1/build/{id}/cancel", cancel, cancel_operation)
        .post("/api/v1/build/{id}/restart", restart, restart_operation)
        .post("/api/v1/jobset/{name}/evaluate", evaluate, evaluate_operation)
}

/// The number of a build. It is parsed after the token was checked, so that a request without the token learns nothing.
fn number(id: &str) -> Result<BuildId> {
    id.parse().map_err(|_| HttpError::no_build(id))
}

/// Cancels a build.
async fn cancel(
    State(context): State<Context>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let actions = context.actions(&headers)?;
    let id = number(&id)?;
    match actions.cancel(id).await.map_err(HttpError::database)? {
        Cancel::Done(changed) => {
            let status = BuildStatus::Canceled.as_str();
            let value = ChangedBuildJson { build: id, changed: changed.len(), status };
            Ok(json(StatusCode::OK, &value))
        }
        Cancel::Running(attempt) => {
            let (status, message) =
                (BuildStatus::Started.as_str(), "it is asked to end, and killed if it does not");
            let value = EndingBuildJson { attempt, build: id, message, status };
            Ok(json(StatusCode::ACCEPTED, &value))
        }
        Cancel::TooLate => {
            let found = context.read(move |s| store::build(s, id)).await?;
            let found = found.ok_or_else(|| HttpError::no_build(&id.to_string()))?;
            Err(HttpError::Conflict(format!("build {id} has ended already: {}", found.status)))
        }
    }
}

/// Reschedules a build.
async fn restart(
    State(context): State<Context>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let actions = context.actions(&headers)?;
    let id = number(&id)?;
    let why = match actions.restart(id).await.map_err(HttpError::database)? {
        Restart::Done(changed) => {
            let status = BuildStatus::Scheduled.as_str();
            let value = ChangedBuildJson { build: id, changed: changed.len(), status };
            return Ok(json(StatusCode::OK, &value));
        }
        Restart::Missing => return Err(HttpError::no_build(&id.to_string())),
        Restart::Not(status) => restart_refused(id, status),
        Restart::Needs(needed) => {
            format!("build {id} needs build {needed}, which failed; restart that")
        }
        Restart::Undefined => format!("build {id} has no derivation any more; evaluate again"),
    };
    Err(HttpError::Conflict(why))
}

/// Requests a look at a specification's inputs now.
async fn evaluate(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let actions = context.actions(&headers)?;
    let wanted = name.clone();
    let found = context.read(move |s| store::specification(s, &wanted)).await?;
    let found = found.ok_or_else(|| HttpError::no_specification(&name))?;
    if !found.specification.enabled {
        return Err(HttpError::Conflict(format!("{name} is disabled")));
    }
    // `false`: no monitor watches the specification yet. The result is ignored, because a new specification is looked
    // at anyway.
    let _ = actions.look(&name);
    let value = WantedLookJson { jobset: name, message: "it is looked at now" };
    Ok(json(StatusCode::ACCEPTED, &value))
}
