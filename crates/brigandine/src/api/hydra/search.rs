//! `/search?query=`: projects and specifications by name, builds by output and derivation.

use axum::http::StatusCode;
use axum::response::Response;

use crate::context::Reading;
use crate::http::{HttpError, Query, Result, json};
use crate::model::{Build, SpecificationState};
use crate::openapi::{Dialect, Kind, Operation, Parameter};
use crate::store::{Visible, visible};
use crate::wire::{HydraJobsetJson, ProjectJson, SearchJson, whole_builds_json};

/// The most results of each kind, as in Hydra.
const RESULTS_MAX: u32 = 500;

/// The description of [`search`].
pub(crate) fn search_operation() -> Operation {
    let text = Parameter::new("query", Kind::Words, "compile", "The text.");
    Operation::new(
        Dialect::Hydra,
        "Projects and specifications by name, builds by output and derivation; a page for browsers",
    )
    .takes(&[text.required()])
    .json::<SearchJson>(200, "What the text finds.")
    .other(200, "text/html; charset=utf-8", "The page of the search.")
    .refuses(400, "There is no text.")
    .other(400, "text/html; charset=utf-8", "A word is no part of a search.")
}

/// What the text of `query` finds.
///
/// # Errors
/// 400: there is no text.
pub(crate) async fn search(context: &Reading, query: &Query) -> Result<Response> {
    let text = query.get("query").unwrap_or_default().trim().to_owned();
    if text.is_empty() {
        return Err(HttpError::BadRequest("Query is empty.".to_owned()));
    }
    let found = context.read(move |s| read(s, &text)).await?;
    Ok(json(StatusCode::OK, &found))
}

fn read(s: &Visible<'_>, text: &str) -> rusqlite::Result<SearchJson> {
    let wanted = text.to_lowercase();
    let has = |name: &str| name.to_lowercase().contains(&wanted);
    let all = visible::specifications(s)?;
    let jobset = |state: &&SpecificationState| {
        has(&state.specification.name) || has(&state.specification.description)
    };
    let mut projects = ProjectJson::all(&all);
    projects.retain(|project| has(project.name()));
    projects.truncate(RESULTS_MAX as usize);
    let jobsets = all.iter().filter(jobset).take(RESULTS_MAX as usize);
    Ok(SearchJson {
        projects,
        jobsets: jobsets
            .map(|state| HydraJobsetJson::read(s, state))
            .collect::<rusqlite::Result<_>>()?,
        builds: whole_builds_json(s, of_output(s, text)?)?,
        buildsdrv: whole_builds_json(s, of_derivation(s, text)?)?,
    })
}

/// The builds with an output at a path, which may be relative to the state directory.
fn of_output(s: &Visible<'_>, path: &str) -> rusqlite::Result<Vec<Build>> {
    match path.rfind("outputs/") {
        Some(at) => visible::builds_of_output(s, &path[at..], RESULTS_MAX),
        None => Ok(Vec::new()),
    }
}

/// The build of a derivation, which is named by its path or by the last part of the path.
fn of_derivation(s: &Visible<'_>, path: &str) -> rusqlite::Result<Vec<Build>> {
    let name = path.rsplit('/').next().unwrap_or_default();
    if !name.ends_with(".drv") {
        return Ok(Vec::new());
    }
    Ok(visible::build_named(s, name)?.into_iter().collect())
}
