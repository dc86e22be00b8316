//! `PUT` and `DELETE` of `/project/P` and `/jobset/P/J`, and `/api/push`, as clients of Hydra send them.
//!
//! A project is there while a specification belongs to it, so making a project stores nothing.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::Response;

use super::named::{JOBSET, Named, PROJECT};
use crate::api::definitions::{
    HISTORY, OVERRIDE, REASON, Request, body, history, refused, specifications,
};
use crate::auth::{Admin, Builder, Needs};
use crate::config;
use crate::context::{Context, Reading};
use crate::http::{HttpError, Path, Query, Result, json};
use crate::model::{Change, Loaded, Replace, Specify, TARGETS_MAX, Target};
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::store::visible;
use crate::wire::{
    JobsetConfigJson, ProblemJson, ProblemsJson, ProjectConfigJson, RemovedJson,
    StoredResourceJson, TriggeredJson,
};

/// The most jobsets and repositories that one push names.
const PUSHED_MAX: usize = 1000;

pub(super) fn routes() -> Described<Context> {
    let stores = |summary, name: &[Parameter]| {
        Operation::new(Dialect::Hydra, summary)
            .takes(name)
            .takes(&[OVERRIDE, REASON])
            .json::<StoredResourceJson>(200, "It was there, and is changed.")
            .json::<StoredResourceJson>(201, "It is new.")
            .json::<ProblemsJson>(400, "The body has problems.")
            .secured()
            .refuses(409, "One of the specifications stands in a specification file, or is in another project.")
    };
    let removes = |summary, name: &[Parameter]| {
        Operation::new(Dialect::Hydra, summary)
            .takes(name)
            .takes(&[HISTORY, OVERRIDE, REASON])
            .json::<RemovedJson>(200, "It is removed.")
            .secured()
            .refuses(404, "There is none of this name.")
            .refuses(409, "One of the specifications stands in a specification file.")
    };
    let push_operation = || {
        let list = |name, example, about| Parameter::new(name, Kind::Text, example, about);
        Operation::new(Dialect::Hydra, "Look at the inputs of specifications now")
            .takes(&[
                list(
                    "jobsets",
                    "main:hello",
                    "Specifications as `PROJECT:NAME`, divided by commas.",
                ),
                list(
                    "repos",
                    "https://example.org/hello.git",
                    "Addresses of inputs, divided by commas.",
                ),
                list("force", "1", "Ignored: only enabled specifications are looked at."),
            ])
            .json::<TriggeredJson>(200, "Those that are looked at.")
            .secured()
    };
    let project = "/project/{project}";
    let jobset = "/jobset/{project}/{jobset}";
    Described::new()
        .put(
            project,
            put_project,
            stores("Make a project, or enable or disable its specifications", &[PROJECT])
                .needs::<ProjectConfigJson>(),
        )
        .delete(
            project,
            delete_project,
            removes("Remove all specifications of a project", &[PROJECT]),
        )
        .put(
            jobset,
            put_jobset,
            stores("Add or replace a specification", &[PROJECT, JOBSET])
                .needs::<JobsetConfigJson>(),
        )
        .delete(jobset, delete_jobset, removes("Remove a specification", &[PROJECT, JOBSET]))
        .post("/api/push", push, push_operation())
        .put("/api/push", push, push_operation())
}

fn stored(status: StatusCode, kind: &'static str, name: String, uri: String) -> Response {
    json(status, &StoredResourceJson { name, r#type: kind, uri })
}

/// The names of a project's specifications.
async fn names(context: &Reading, project: String) -> Result<Vec<(String, bool)>> {
    let read = context.read(move |s| {
        let all = visible::specifications(s)?.into_iter().map(|state| state.specification);
        let of = all.filter(|specification| specification.project == project);
        Ok(of.map(|specification| (specification.name, specification.enabled)).collect())
    });
    read.await
}

/// Makes a project: checks its name. Enables or disables all specifications of one that is there.
async fn put_project(
    context: Reading,
    by: Needs<Admin>,
    Path(project): Path<String>,
    query: Query,
    bytes: Bytes,
) -> Result<Response> {
    let request = Request::of(&query, &by)?;
    let read = body(&bytes)
        .and_then(|config: ProjectConfigJson| config.enabled().map_err(|problem| vec![problem]));
    let wanted = match read {
        Ok(wanted) => wanted,
        Err(problems) => return Ok(refused(problems)),
    };
    if let Err((message, help)) = config::check_project(&project) {
        return Ok(refused(vec![ProblemJson { pointer: String::new(), message, help }]));
    }
    let uri = format!("/project/{project}");
    let found = names(&context, project.clone()).await?;
    if found.is_empty() {
        return Ok(stored(StatusCode::CREATED, "project", project, uri));
    }
    // A project is enabled if one of its specifications is.
    let is_enabled = found.iter().any(|(_, enabled)| *enabled);
    if let Some(enabled) = wanted.filter(|enabled| *enabled != is_enabled) {
        let others = found.into_iter().filter(|(_, is)| *is != enabled);
        request.enable(&context, others.map(|(name, _)| name), enabled).await?;
    }
    Ok(stored(StatusCode::OK, "project", project, uri))
}

/// Removes all specifications of a project.
async fn delete_project(
    context: Reading,
    by: Needs<Admin>,
    Path(project): Path<String>,
    query: Query,
) -> Result<Response> {
    let (history, request) = (history(&query)?, Request::of(&query, &by)?);
    let found = names(&context, project.clone()).await?;
    if found.is_empty() {
        return Err(HttpError::no_project(&project));
    }
    let names = found.into_iter().map(|(name, _)| name).collect();
    let remove = Specify::Remove { names, history };
    request.change(&context, remove).await?;
    Ok(json(StatusCode::OK, &RemovedJson { redirect: "/".to_owned() }))
}

/// Adds or replaces a specification.
async fn put_jobset(
    context: Reading,
    by: Needs<Admin>,
    Path(named): Path<Named>,
    query: Query,
    bytes: Bytes,
) -> Result<Response> {
    let request = Request::of(&query, &by)?;
    let Named { project, jobset, .. } = named;
    let read = body(&bytes).and_then(|config: JobsetConfigJson| {
        let definition = config.definition(&project, &jobset).map_err(|problem| vec![problem])?;
        let place = |it: ProblemJson| ProblemJson { pointer: config.place(&it.pointer), ..it };
        specifications(&definition).map_err(|all| all.into_iter().map(place).collect())
    });
    let specifications = match read {
        Ok(specifications) => specifications,
        Err(problems) => return Ok(refused(problems)),
    };
    let put = Specify::Put { specifications, replace: Replace::InProject };
    let done = request.change(&context, put).await?;
    let is_new = done.iter().any(|one| one.outcome == Loaded::New.as_str());
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let uri = format!("/jobset/{project}/{jobset}");
    Ok(stored(status, "jobset", jobset, uri))
}

/// Removes a specification.
async fn delete_jobset(
    context: Reading,
    by: Needs<Admin>,
    Path(named): Path<Named>,
    query: Query,
) -> Result<Response> {
    let (history, request) = (history(&query)?, Request::of(&query, &by)?);
    let project = named.project.clone();
    let name = named.read(&context, |_, state, _| Ok(state.specification.name)).await?;
    let remove = Specify::Remove { names: vec![name], history };
    request.change(&context, remove).await?;
    Ok(json(StatusCode::OK, &RemovedJson { redirect: format!("/project/{project}") }))
}

/// Looks at the inputs of the named specifications, and of those that have an input at a named address. Names that are
/// not there, and disabled specifications, are left out, as in Hydra.
async fn push(context: Reading, by: Needs<Builder>, query: Query) -> Result<Response> {
    let (jobsets, repos) = (query.list("jobsets"), query.list("repos"));
    let _ = query.get("force");
    if jobsets.len() + repos.len() > PUSHED_MAX {
        return Err(HttpError::BadRequest(format!("at most {PUSHED_MAX} names at once")));
    }
    let all = context.read(visible::specifications).await?;
    let (mut triggered, mut targets) = (Vec::new(), Vec::new());
    for specification in all.into_iter().map(|state| state.specification) {
        let name = format!("{}:{}", specification.project, specification.name);
        let named = jobsets.contains(&name)
            || specification.inputs.iter().any(|input| repos.contains(&input.url));
        if named && specification.enabled && targets.len() < TARGETS_MAX {
            targets.push(Target::Specification(specification.name));
            triggered.push(name);
        }
    }
    context.change(Change::Evaluate, targets, &by, "").await?;
    Ok(json(StatusCode::OK, &TriggeredJson { triggered }))
}
