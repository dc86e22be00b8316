//! Changes: `POST` below `/api/v1/`, for requests that carry the server's token.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::app::App;
use crate::http::{self, Change, Changes, Path, Refusal, Result, Site};
use crate::model::{BuildId, BuildStatus};
use crate::store::{self, Cancel, Restart};

/// The number of a build, after the token: who has none learns nothing.
fn build(id: &str) -> Result<BuildId> {
    id.parse().map_err(|_| Refusal::no_build(id))
}

/// Cancels a build.
pub(super) async fn cancel(
    State(site): State<Site>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let (status, said) = site.changes(&headers)?.cancel(build(&id)?).await?;
    Ok(http::json(status, &said))
}

/// Builds once more.
pub(super) async fn restart(
    State(site): State<Site>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let (status, said) = site.changes(&headers)?.restart(build(&id)?).await?;
    Ok(http::json(status, &said))
}

/// Looks at a specification's inputs now.
pub(super) async fn evaluate(
    State(site): State<Site>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let (status, said) = site.changes(&headers)?.evaluate(name).await?;
    Ok(http::json(status, &said))
}

impl Changes for App {
    fn cancel(&self, id: BuildId) -> Change<'_> {
        Box::pin(async move {
            match App::cancel(self, id).await.map_err(Refusal::database)? {
                Cancel::Done(changed) => Ok((
                    StatusCode::OK,
                    json!({"build": id, "status": "canceled", "changed": changed.len()}),
                )),
                Cancel::Running(attempt) => Ok((
                    StatusCode::ACCEPTED,
                    json!({"build": id, "status": "started", "attempt": attempt,
                        "message": "it is asked to end, and killed if it does not"}),
                )),
                Cancel::TooLate => Err(self.ended(id).await),
            }
        })
    }

    fn restart(&self, id: BuildId) -> Change<'_> {
        Box::pin(async move {
            let conflict = |why: String| Err(Refusal::Conflict(why));
            match App::restart(self, id).await.map_err(Refusal::database)? {
                Restart::Done(changed) => Ok((
                    StatusCode::OK,
                    json!({"build": id, "status": "scheduled", "changed": changed.len()}),
                )),
                Restart::Not(status) => conflict(restart_refused(id, status)),
                Restart::Needs(needed) => {
                    conflict(format!("build {id} needs build {needed}, which failed; restart that"))
                }
                Restart::Undefined => {
                    conflict(format!("nothing says any more how to build {id}; evaluate again"))
                }
                Restart::Missing => Err(Refusal::no_build(&id.to_string())),
            }
        })
    }

    fn evaluate(&self, name: String) -> Change<'_> {
        Box::pin(async move {
            let wanted = name.clone();
            let found = self.database().read(move |s| store::specification(s, &wanted)).await;
            let found = found.map_err(Refusal::database)?;
            let found = found.ok_or_else(|| {
                let name: String = name.chars().take(100).collect();
                Refusal::not_found(format!("there is no specification called {name}"))
            })?;
            if !found.specification.enabled {
                return Err(Refusal::Conflict(format!("{name} is disabled")));
            }
            // One that was stored in this moment is looked at anyway.
            let _ = self.look(&name);
            Ok((StatusCode::ACCEPTED, json!({"jobset": name, "message": "it is looked at now"})))
        })
    }
}

/// Why a build in this state is not restarted.
pub(crate) fn restart_refused(id: BuildId, status: BuildStatus) -> String {
    if status.is_success() {
        format!("build {id} succeeded; what succeeded is not built again")
    } else {
        format!("build {id} is {status} already")
    }
}

impl App {
    /// Why a build cannot be canceled.
    async fn ended(&self, id: BuildId) -> Refusal {
        match self.database().read(move |s| store::build(s, id)).await {
            Ok(Some(build)) => {
                Refusal::Conflict(format!("build {id} has ended already: {}", build.status))
            }
            Ok(None) => Refusal::no_build(&id.to_string()),
            Err(error) => Refusal::database(error),
        }
    }
}
