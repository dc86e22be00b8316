//! Changes: `POST` requests below `/api/v1/`, which must have the server's token.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use crate::context::Context;
use crate::http::{self, HttpError, Path, Result};
use crate::model::{BuildId, Cancel, Restart, restart_refused};
use crate::store;

/// The number of a build. It is parsed after the token was checked, so that a request without the token learns nothing.
fn number(id: &str) -> Result<BuildId> {
    id.parse().map_err(|_| HttpError::no_build(id))
}

fn answer(status: StatusCode, value: &Value) -> Result<Response> {
    Ok(http::json(status, value))
}

/// Cancels a build.
pub(super) async fn cancel(
    State(context): State<Context>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let actions = context.actions(&headers)?;
    let id = number(&id)?;
    match actions.cancel(id).await.map_err(HttpError::database)? {
        Cancel::Done(changed) => answer(
            StatusCode::OK,
            &json!({"build": id, "status": "canceled", "changed": changed.len()}),
        ),
        Cancel::Running(attempt) => answer(
            StatusCode::ACCEPTED,
            &json!({"build": id, "status": "started", "attempt": attempt,
                "message": "it is asked to end, and killed if it does not"}),
        ),
        Cancel::TooLate => {
            let found = context.read(move |s| store::build(s, id)).await?;
            let found = found.ok_or_else(|| HttpError::no_build(&id.to_string()))?;
            Err(HttpError::Conflict(format!("build {id} has ended already: {}", found.status)))
        }
    }
}

/// Reschedules a build.
pub(super) async fn restart(
    State(context): State<Context>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let actions = context.actions(&headers)?;
    let id = number(&id)?;
    let why = match actions.restart(id).await.map_err(HttpError::database)? {
        Restart::Done(changed) => {
            let value = json!({"build": id, "status": "scheduled", "changed": changed.len()});
            return answer(StatusCode::OK, &value);
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
pub(super) async fn evaluate(
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
    answer(StatusCode::ACCEPTED, &json!({"jobset": name, "message": "it is looked at now"}))
}
