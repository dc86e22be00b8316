//! `/`, `/project/P` and `/jobset/P/J`.

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::named::{JOBSET, Named, PROJECT};
use crate::context::{Context, Reading};
use crate::http::{HttpError, Path, Result, accepts_html, json, redirect, vary};
use crate::openapi::{Described, Dialect, Operation};
use crate::store::visible;
use crate::wire::{HydraJobsetJson, ProjectJson};

/// The description of [`projects`].
pub(crate) fn projects_operation() -> Operation {
    Operation::new(Dialect::Hydra, "All projects, for requests of JSON; a page for others")
        .json::<Vec<ProjectJson>>(200, "The projects, by name.")
        .other(200, "text/html; charset=utf-8", "The overview.")
}

pub(super) fn routes() -> Described<Context> {
    let one_operation = Operation::new(Dialect::Hydra, "A project")
        .takes(&[PROJECT])
        .json::<ProjectJson>(200, "The project.")
        .refuses(404, "There is no such project.");
    let jobset_operation = Operation::new(Dialect::Hydra, "A specification with its state")
        .takes(&[PROJECT, JOBSET])
        .json::<HydraJobsetJson>(200, "The specification.")
        .redirects("The page of the specification, for browsers.")
        .refuses(404, "There is no such specification in the project.");
    Described::new().get("/project/{project}", one, one_operation).get(
        "/jobset/{project}/{jobset}",
        jobset,
        jobset_operation,
    )
}

/// All projects, by name.
pub(crate) async fn projects(context: &Reading) -> Result<Response> {
    let found = context.read_few(|s| Ok(ProjectJson::all(&visible::specifications(s)?))).await?;
    Ok(json(StatusCode::OK, &found))
}

/// One project.
///
/// # Errors
/// 404: no specification belongs to it.
async fn one(context: Reading, Path(name): Path<String>) -> Result<Response> {
    let wanted = name.clone();
    let found = context
        .read_few(move |s| {
            let mut all = visible::specifications(s)?;
            all.retain(|state| state.specification.project == wanted);
            Ok(ProjectJson::all(&all))
        })
        .await?;
    let project = found.first().ok_or_else(|| HttpError::no_project(&name))?;
    Ok(json(StatusCode::OK, project))
}

/// One specification with its state. A browser is sent to the page of the specification.
///
/// # Errors
/// 404: there is no such specification in the project.
async fn jobset(
    context: Reading,
    Path(named): Path<Named>,
    headers: HeaderMap,
) -> Result<Response> {
    let mut response = if accepts_html(&headers) {
        let name = named.read(&context, |_, state, _| Ok(state.specification.name)).await?;
        redirect(&format!("/jobset/{name}"))
    } else {
        let found = named.read(&context, |s, state, _| HydraJobsetJson::read(s, &state)).await?;
        json(StatusCode::OK, &found)
    };
    vary(response.headers_mut(), &["accept"]);
    Ok(response)
}
