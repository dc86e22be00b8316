//! `/job/P/J/NAME/latest` and what is like it, `/job/P/J/NAME/shield` and `/build/N/constituents`.
//!
//! The latest build of a job is that of the latest evaluation which has one, because an evaluation may use a build of an
//! earlier one.

use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::named::{BUILDS_MAX, JOBSET, Named, PROJECT, tail};
use crate::api::parameters::{BUILD_ID, JOB, REST, SYSTEM};
use crate::context::{Context, Reading};
use crate::http::{HttpError, Path, Result, json, redirect};
use crate::openapi::{Described, Dialect, Operation, Parameter};
use crate::store::{Latest, visible};
use crate::wire::{BuildJson, ShieldJson, whole_builds_json};

pub(super) fn routes() -> Described<Context> {
    let latest_operation = |summary, more: &[Parameter]| {
        Operation::new(Dialect::Hydra, summary)
            .takes(&[PROJECT, JOBSET, JOB])
            .takes(more)
            .redirects("The build, or what the rest of the path names of it.")
            .refuses(404, "There is no such specification in the project, or no such build.")
    };
    let any = "The latest build of a job that succeeded";
    let finished =
        "The latest build of a job that succeeded, of evaluations whose builds have all ended";
    let system = "The latest build of a job for a system that succeeded";
    let shield_operation =
        Operation::new(Dialect::Hydra, "How the latest ended build of a job did, for shields.io")
            .takes(&[PROJECT, JOBSET, JOB])
            .json::<ShieldJson>(200, "What the shield shows.")
            .refuses(
                404,
                "There is no such specification in the project, or no build of the job has ended.",
            );
    let constituents_operation = Operation::new(Dialect::Hydra, "The builds that a build needs")
        .takes(&[BUILD_ID])
        .json::<Vec<BuildJson>>(200, "At most 10,000 builds.")
        .refuses(404, "There is no such build.");
    let path = |rest: &str| format!("/job/{{project}}/{{jobset}}/{{job}}/{rest}");
    Described::new()
        .get(&path("latest"), latest, latest_operation(any, &[]))
        .get(&path("latest/{*rest}"), latest, latest_operation(any, &[REST]))
        .get(&path("latest-finished"), latest_finished, latest_operation(finished, &[]))
        .get(&path("latest-finished/{*rest}"), latest_finished, latest_operation(finished, &[REST]))
        .get(&path("latest-for/{system}"), latest_for, latest_operation(system, &[SYSTEM]))
        .get(
            &path("latest-for/{system}/{*rest}"),
            latest_for,
            latest_operation(system, &[SYSTEM, REST]),
        )
        .get(&path("shield"), shield, shield_operation)
        .get("/build/{id}/constituents", constituents, constituents_operation)
}

/// Redirects to the latest build of a job, or to what the path names of it behind its first `parts` parts.
async fn redirected(
    context: &Reading,
    named: Named,
    latest: Latest,
    uri: &Uri,
    parts: usize,
) -> Result<Response> {
    let read = named.read(context, move |s, state, named| {
        visible::latest_of_job(s, state.id, &named.job, named.system.as_deref(), latest)
    });
    let none = || HttpError::not_found("There is no successful build to redirect to.");
    let (id, _) = read.await?.ok_or_else(none)?;
    Ok(redirect(&format!("/build/{id}{}", tail(uri, parts))))
}

/// The latest build that succeeded.
///
/// # Errors
/// 404: there is no such specification in the project, or no such build.
async fn latest(context: Reading, Path(named): Path<Named>, uri: Uri) -> Result<Response> {
    redirected(&context, named, Latest::Succeeded, &uri, 5).await
}

/// The latest build that succeeded in an evaluation whose builds have all ended.
///
/// # Errors
/// 404: there is no such specification in the project, or no such build.
async fn latest_finished(context: Reading, Path(named): Path<Named>, uri: Uri) -> Result<Response> {
    redirected(&context, named, Latest::SucceededInFinished, &uri, 5).await
}

/// The latest build for a system that succeeded.
///
/// # Errors
/// 404: there is no such specification in the project, or no such build.
async fn latest_for(context: Reading, Path(named): Path<Named>, uri: Uri) -> Result<Response> {
    redirected(&context, named, Latest::Succeeded, &uri, 6).await
}

/// How the latest ended build of a job ended, as shields.io reads it.
///
/// # Errors
/// 404: there is no such specification in the project, or no build of the job has ended.
async fn shield(context: Reading, Path(named): Path<Named>) -> Result<Response> {
    let none = HttpError::no_latest(&named.job);
    let read = named.read(&context, |s, state, named| {
        visible::latest_of_job(s, state.id, &named.job, None, Latest::Ended)
    });
    let (_, status) = read.await?.ok_or(none)?;
    Ok(json(StatusCode::OK, &ShieldJson::from(status)))
}

/// The builds that a build needs. Hydra has here those that an aggregate is made of.
///
/// # Errors
/// 404: there is no such build.
async fn constituents(context: Reading, Path(id): Path<String>) -> Result<Response> {
    let wanted = id.clone();
    let found = context
        .read(move |s| match visible::build_named(s, &wanted)? {
            Some(build) => whole_builds_json(s, visible::needs(s, build.id, BUILDS_MAX)?).map(Some),
            None => Ok(None),
        })
        .await?;
    let found = found.ok_or_else(|| HttpError::no_build(&id))?;
    Ok(json(StatusCode::OK, &found))
}
