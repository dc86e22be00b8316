//! `/build/ID`, `/api/latestbuilds`, `/api/queue`.

use axum::http::StatusCode;
use axum::response::Response;

use super::parameters::{BUILD_ID, EVALUATION, JOB, JOBSET, NR, PROJECT, SYSTEM};
use crate::context::{Context, Reading};
use crate::http::{HttpError, Path, Query, Result, json};
use crate::model::{BuildFilter, BuildStatus};
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::store::{Visible, visible};
use crate::wire::{BuildJson, NamedOutputJson, builds_json, whole_builds_json};

/// The most builds that are read on the thread of the request.
const FEW: u32 = 20;

/// Which builds a list has. The status is also a number.
const FILTERS: [Parameter; 7] = [
    JOBSET,
    JOB,
    SYSTEM,
    EVALUATION,
    Parameter::new("derivation", Kind::Text, "aaaa-compile.drv", "The derivation of the build."),
    Parameter::new(
        "status",
        Kind::OneOf(&[
            "-2",
            "-1",
            "0",
            "1",
            "2",
            "3",
            "4",
            "scheduled",
            "started",
            "succeeded",
            "failed",
            "failed-dependency",
            "failed-other",
            "canceled",
            "success",
            "done",
            "pending",
        ]),
        "succeeded",
        "The status: a code, its name, or a word of Cuirass. `done`: all that have ended; `pending`: all that have not.",
    ),
    PROJECT,
];

pub(super) fn routes() -> Described<Context> {
    let list = |summary| {
        let list = Operation::new(Dialect::Both, summary).takes(&[NR]).takes(&FILTERS);
        list.json::<Vec<BuildJson>>(200, "The builds.").refuses_numbers()
    };
    let name =
        Parameter::new("name", Kind::Text, "bbbb-test", "The last part of the output's path.");
    let output_operation =
        Operation::new(Dialect::Cuirass, "An output in the state directory, with its newest build")
            .takes(&[name])
            .json::<NamedOutputJson>(200, "The output.")
            .refuses(404, "There is no such output.");
    Described::new()
        .get("/output/{name}", output, output_operation)
        .get("/api/latestbuilds", latest, list("Finished builds, the latest stop first"))
        .get("/api/queue", queue, list("Pending builds: running first, then by submission"))
}

/// The description of [`build`].
pub(crate) fn build_operation() -> Operation {
    Operation::new(Dialect::Both, "A build; a page for browsers")
        .takes(&[BUILD_ID])
        .json::<BuildJson>(200, "The build.")
        .other(200, "text/html; charset=utf-8", "The page of the build.")
        .other(404, "text/html; charset=utf-8", "There is no such build.")
        .refuses(404, "There is no such build.")
}

/// One build.
///
/// # Errors
/// 404: there is no such build. The message is the one that clients of Cuirass and Hydra expect.
pub(crate) async fn build(context: &Reading, id: String) -> Result<Response> {
    let wanted = id.clone();
    let found = context
        .read_few(move |s| match visible::build_named(s, &wanted)? {
            Some(build) => whole_builds_json(s, vec![build]),
            None => Ok(Vec::new()),
        })
        .await?;
    let build = found.first().ok_or_else(|| HttpError::no_build(&id))?;
    Ok(json(StatusCode::OK, build))
}

/// An output with its newest build, by the last part of its path. Outputs of imported builds are no files of this server.
///
/// # Errors
/// 404: no build has such an output.
async fn output(context: Reading, Path(name): Path<String>) -> Result<Response> {
    let path = format!("outputs/{name}");
    let read = move |s: &Visible<'_>| {
        let builds = builds_json(s, visible::builds_of_output(s, &path, 1)?)?;
        Ok(builds.into_iter().find_map(|build| NamedOutputJson::new(build, &path)))
    };
    let found = context.read_few(read).await?.ok_or_else(|| HttpError::no_output(&name))?;
    Ok(json(StatusCode::OK, &found))
}

/// Which builds of the finished ones, or of the pending ones, a request wants. `None`: it wants the others.
fn filter(query: &Query, finished: bool) -> Result<Option<BuildFilter>> {
    let status = match query.get("status").as_deref() {
        None => None,
        // Cuirass's words for all builds of one list.
        Some(all @ ("done" | "pending")) => {
            if (all == "done") != finished {
                return Ok(None);
            }
            None
        }
        // Cuirass's word in searches.
        Some("success") => Some(BuildStatus::Succeeded),
        Some(text) => {
            let code = text.parse().ok().and_then(BuildStatus::from_code);
            let status = code.map_or_else(|| text.parse(), Ok);
            Some(status.map_err(|_: String| HttpError::BadRequest(no_status()))?)
        }
    };
    Ok(Some(BuildFilter {
        project: query.get("project"),
        specification: query.get("jobset"),
        job: query.get("job"),
        system: query.get("system"),
        evaluation: query.parsed("evaluation")?,
        derivation: query.get("derivation"),
        status,
    }))
}

/// What is said of a `status` that is none.
fn no_status() -> String {
    let names: Vec<_> = BuildStatus::ALL.iter().map(|status| status.as_str()).collect();
    format!(
        "the value of 'status' is not valid; valid are the codes from -2 to 4, {}, success, done and pending",
        names.join(", ")
    )
}

fn none() -> Response {
    json(StatusCode::OK, &[(); 0])
}

/// Finished builds, sorted by the time at which they stopped, the newest first.
pub(super) async fn latest(context: Reading, query: Query) -> Result<Response> {
    let (number, filter) = (query.number_of_entries()?, filter(&query, true)?);
    let Some(filter) = filter else { return Ok(none()) };
    let read = move |s: &Visible<'_>| builds_json(s, visible::latest_builds(s, &filter, number)?);
    let builds =
        if number <= FEW { context.read_few(read).await } else { context.read(read).await }?;
    Ok(json(StatusCode::OK, &builds))
}

/// Pending builds: running ones first, then in the order of their submission. The list is cut after sorting.
pub(super) async fn queue(context: Reading, query: Query) -> Result<Response> {
    let (number, filter) = (query.number_of_entries()?, filter(&query, false)?);
    let Some(filter) = filter else { return Ok(none()) };
    let builds = context.read(move |s| builds_json(s, visible::queue(s, &filter, number)?)).await?;
    Ok(json(StatusCode::OK, &builds))
}
