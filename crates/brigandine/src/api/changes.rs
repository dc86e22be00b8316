//! Changes: `POST` requests below `/api/v1/`, whose senders must have a role.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::de::DeserializeOwned;

use crate::auth::{Builder, Needs, Principal};
use crate::context::Context;
use crate::http::{HttpError, Path, Result, json};
use crate::model::{BuildId, BuildStatus, Change, Outcome, Target};
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::wire::{ChangedBuildJson, EndingBuildJson, ReasonJson, WantedLookJson};

pub(super) fn routes() -> Described<Context> {
    let id = Parameter::new("id", Kind::Text, "7", "The number of the build.");
    let of_build = |summary| {
        let operation = Operation::new(Dialect::Own, summary).takes(&[id]).reads::<ReasonJson>();
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
        .reads::<ReasonJson>()
        .json::<WantedLookJson>(202, "The inputs are looked at.")
        .secured()
        .refuses(404, "There is no such specification.")
        .refuses(409, "The specification is disabled.");
    Described::new()
        .post("/api/v1/build/{id}/cancel", cancel, cancel_operation)
        .post("/api/v1/build/{id}/restart", restart, restart_operation)
        .post("/api/v1/jobset/{name}/evaluate", evaluate, evaluate_operation)
}

/// The number of a build. It is parsed after the role was checked, so that a request without credentials learns nothing.
fn number(id: &str) -> Result<BuildId> {
    id.parse().map_err(|_| HttpError::no_build(id))
}

/// The body of a request as a value. An empty body is an empty object.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T> {
    let text: &[u8] = if body.trim_ascii().is_empty() { b"{}" } else { body.trim_ascii() };
    // serde would take a list for an object without names.
    if !text.starts_with(b"{") {
        let why = "the request's body is not the JSON that is read here: it is no object";
        return Err(HttpError::BadRequest(why.to_owned()));
    }
    serde_json::from_slice(text).map_err(|error| {
        HttpError::BadRequest(format!(
            "the request's body is not the JSON that is read here: {error}"
        ))
    })
}

/// Makes a change of one target, and returns what became of it.
async fn change(
    context: &Context,
    by: &Principal,
    body: &Bytes,
    change: Change,
    target: impl FnOnce() -> Result<Target>,
) -> Result<Outcome> {
    let target = target()?;
    let ReasonJson { reason } = read(body)?;
    let outcomes = context.change(change, vec![target], by, &reason).await?;
    match outcomes.into_iter().next() {
        Some((_, Outcome::Refused(why))) => Err(HttpError::Conflict(why)),
        Some((target, Outcome::Missing)) => Err(match target {
            Target::Build(id) => HttpError::no_build(&id.to_string()),
            Target::Evaluation(id) => HttpError::no_evaluation(&id.to_string()),
            Target::Specification(name) => HttpError::no_specification(&name),
        }),
        Some((_, outcome)) => Ok(outcome),
        None => Err(HttpError::Internal),
    }
}

/// Cancels a build.
async fn cancel(
    State(context): State<Context>,
    by: Needs<Builder>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response> {
    let target = || number(&id).map(Target::Build);
    let outcome = change(&context, &by, &body, Change::Cancel, target).await?;
    let build = number(&id)?;
    Ok(match outcome {
        Outcome::Ending(attempt) => {
            let (status, message) =
                (BuildStatus::Started.as_str(), "it is asked to end, and killed if it does not");
            json(StatusCode::ACCEPTED, &EndingBuildJson { attempt, build, message, status })
        }
        outcome => changed(build, BuildStatus::Canceled, &outcome),
    })
}

fn changed(build: BuildId, status: BuildStatus, outcome: &Outcome) -> Response {
    let changed = if let Outcome::Done(changed) = outcome { *changed } else { 0 };
    json(StatusCode::OK, &ChangedBuildJson { build, changed, status: status.as_str() })
}

/// Reschedules a build.
async fn restart(
    State(context): State<Context>,
    by: Needs<Builder>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response> {
    let target = || number(&id).map(Target::Build);
    let outcome = change(&context, &by, &body, Change::Restart, target).await?;
    Ok(changed(number(&id)?, BuildStatus::Scheduled, &outcome))
}

/// Requests a look at a specification's inputs now.
async fn evaluate(
    State(context): State<Context>,
    by: Needs<Builder>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response> {
    let target = || Ok(Target::Specification(name.clone()));
    change(&context, &by, &body, Change::Evaluate, target).await?;
    let message = match context.tasks().ending {
        true => "the server ends; it is looked at when the next one starts",
        false => "it is looked at now",
    };
    let value = WantedLookJson { jobset: name, message };
    Ok(json(StatusCode::ACCEPTED, &value))
}
