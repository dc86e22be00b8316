//! `/jobsets`, `/specifications`, `/api/jobsets`.

use axum::http::StatusCode;
use axum::response::Response;

use super::parameters::PROJECT;
use crate::context::{Context, Reading};
use crate::http::{HttpError, Query, Result, json};
use crate::openapi::{Described, Dialect, Operation};
use crate::store::visible;
use crate::wire::JobsetJson;

pub(super) fn routes() -> Described<Context> {
    let operation = || {
        Operation::new(Dialect::Both, "All specifications with their states, or those of a project")
            .takes(&[PROJECT])
            .json::<Vec<JobsetJson>>(200, "The specifications, by name.")
            .refuses(404, "There is no such project.")
    };
    let paths = ["/jobsets", "/specifications", "/api/jobsets"];
    paths.into_iter().fold(Described::new(), |all, path| all.get(path, list, operation()))
}

/// All specifications with their states, by name, or those of one project.
///
/// # Errors
/// 404: no specification belongs to the project.
async fn list(context: Reading, query: Query) -> Result<Response> {
    let project = query.get("project");
    let wanted = project.clone();
    let found = context
        .read_few(move |s| {
            let mut all = visible::specifications(s)?;
            all.retain(|state| {
                wanted.as_ref().is_none_or(|wanted| *wanted == state.specification.project)
            });
            all.into_iter()
                .map(|state| JobsetJson::read(s, &state))
                .collect::<rusqlite::Result<Vec<_>>>()
        })
        .await?;
    match project {
        Some(project) if found.is_empty() => Err(HttpError::no_project(&project)),
        _ => Ok(json(StatusCode::OK, &found)),
    }
}
