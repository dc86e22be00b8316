//! `/job/P/J/NAME/latest` and what is like it, `/job/P/J/NAME/shield` and `/build/N/constituents`.
//!
//! The latest build of a job is that of the latest evaluation which has one, because an evaluation may use a build of an
//! earlier one.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::json as object;

use super::named::{BUILDS_MAX, Named, tail};
use crate::context::Context;
use crate::http::{HttpError, Path, Result, json, redirect};
use crate::model::BuildStatus;
use crate::store::{self, Latest};
use crate::wire::whole_builds_json;

/// Redirects to the latest build of a job, or to what the path names of it behind its first `parts` parts.
async fn redirected(
    context: &Context,
    named: Named,
    latest: Latest,
    uri: &Uri,
    parts: usize,
) -> Result<Response> {
    let read = named.read(context, move |s, state, named| {
        store::latest_of_job(s, state.id, &named.job, named.system.as_deref(), latest)
    });
    let none = || HttpError::not_found("There is no successful build to redirect to.");
    let (id, _) = read.await?.ok_or_else(none)?;
    Ok(redirect(&format!("/build/{id}{}", tail(uri.path(), parts))))
}

/// The latest build that succeeded.
///
/// # Errors
/// 404: there is no such specification in the project, or no such build.
pub(super) async fn latest(
    State(context): State<Context>,
    Path(named): Path<Named>,
    uri: Uri,
) -> Result<Response> {
    redirected(&context, named, Latest::Succeeded, &uri, 5).await
}

/// The latest build that succeeded in an evaluation whose builds have all ended.
///
/// # Errors
/// 404: there is no such specification in the project, or no such build.
pub(super) async fn latest_finished(
    State(context): State<Context>,
    Path(named): Path<Named>,
    uri: Uri,
) -> Result<Response> {
    redirected(&context, named, Latest::SucceededInFinished, &uri, 5).await
}

/// The latest build for a system that succeeded.
///
/// # Errors
/// 404: there is no such specification in the project, or no such build.
pub(super) async fn latest_for(
    State(context): State<Context>,
    Path(named): Path<Named>,
    uri: Uri,
) -> Result<Response> {
    redirected(&context, named, Latest::Succeeded, &uri, 6).await
}

/// How the latest ended build of a job ended, as shields.io reads it.
///
/// # Errors
/// 404: there is no such specification in the project, or no build of the job has ended.
pub(super) async fn shield(
    State(context): State<Context>,
    Path(named): Path<Named>,
) -> Result<Response> {
    let none = HttpError::no_latest(&named.job);
    let read = named.read(&context, |s, state, named| {
        store::latest_of_job(s, state.id, &named.job, None, Latest::Ended)
    });
    let (_, status) = read.await?.ok_or(none)?;
    let (color, message) = match status {
        BuildStatus::Succeeded => ("green", "passing"),
        BuildStatus::Canceled => ("yellow", "cancelled"),
        _ => ("red", "failing"),
    };
    let shield =
        object!({"schemaVersion": 1, "label": "build", "color": color, "message": message});
    Ok(json(StatusCode::OK, &shield))
}

/// The builds that a build needs. Hydra has here those that an aggregate is made of.
///
/// # Errors
/// 404: there is no such build.
pub(super) async fn constituents(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<Response> {
    let wanted = id.clone();
    let found = context
        .read(move |s| match store::build_named(s, &wanted)? {
            Some(build) => whole_builds_json(s, store::needs(s, build.id, BUILDS_MAX)?).map(Some),
            None => Ok(None),
        })
        .await?;
    let found = found.ok_or_else(|| HttpError::no_build(&id))?;
    Ok(json(StatusCode::OK, &found))
}
