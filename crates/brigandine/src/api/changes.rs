//! Changes: `POST` below `/api/v1/`, for requests that carry the server's token.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::context::Context;
use crate::http::{self, Path, Refusal, Result};
use crate::model::{BuildId, Cancel, Restart, restart_refused};
use crate::store;

/// The number of a build, after the token: who has none learns nothing.
fn build(id: &str) -> Result<BuildId> {
    id.parse().map_err(|_| Refusal::no_build(id))
}

/// Cancels a build.
pub(super) async fn cancel(
    State(context): State<Context>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let actions = context.actions(&headers)?;
    let id = build(&id)?;
    match actions.cancel(id).await.map_err(Refusal::database)? {
        Cancel::Done(changed) => Ok(http::json(
            StatusCode::OK,
            &json!({"build": id, "status": "canceled", "changed": changed.len()}),
        )),
        Cancel::Running(attempt) => Ok(http::json(
            StatusCode::ACCEPTED,
            &json!({"build": id, "status": "started", "attempt": attempt,
                "message": "it is asked to end, and killed if it does not"}),
        )),
        Cancel::TooLate => {
            let found = context.read(move |s| store::build(s, id)).await?;
            let found = found.ok_or_else(|| Refusal::no_build(&id.to_string()))?;
            Err(Refusal::Conflict(format!("build {id} has ended already: {}", found.status)))
        }
    }
}

/// Builds once more.
pub(super) async fn restart(
    State(context): State<Context>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let actions = context.actions(&headers)?;
    let id = build(&id)?;
    let conflict = |why: String| Err(Refusal::Conflict(why));
    match actions.restart(id).await.map_err(Refusal::database)? {
        Restart::Done(changed) => Ok(http::json(
            StatusCode::OK,
            &json!({"build": id, "status": "scheduled", "changed": changed.len()}),
        )),
        Restart::Not(status) => conflict(restart_refused(id, status)),
        Restart::Needs(needed) => {
            conflict(format!("build {id} needs build {needed}, which failed; restart that"))
        }
        Restart::Undefined => {
            conflict(format!("build {id} has no derivation any more; evaluate again"))
        }
        Restart::Missing => Err(Refusal::no_build(&id.to_string())),
    }
}

/// Looks at a specification's inputs now.
pub(super) async fn evaluate(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let actions = context.actions(&headers)?;
    let wanted = name.clone();
    let found = context.read(move |s| store::specification(s, &wanted)).await?;
    let found = found.ok_or_else(|| {
        let name: String = name.chars().take(100).collect();
        Refusal::not_found(format!("there is no specification called {name}"))
    })?;
    if !found.specification.enabled {
        return Err(Refusal::Conflict(format!("{name} is disabled")));
    }
    // One that was stored in this moment is looked at anyway.
    let _ = actions.look(&name);
    Ok(http::json(StatusCode::ACCEPTED, &json!({"jobset": name, "message": "it is looked at now"})))
}
