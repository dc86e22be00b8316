//! Changes: `POST` requests below `/api/v1/`, whose senders must have a role.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::de::DeserializeOwned;

use crate::auth::{Admin, Builder, Needs, Principal};
use crate::context::Context;
use crate::http::{HttpError, Path, Result, json};
use crate::model::{BuildId, BuildStatus, Change, EvaluationId, Outcome, Target};
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::wire::{
    ChangedBuildJson, ChangesJson, EndingBuildJson, EvaluationChangeJson, OutcomeJson,
    OutcomesJson, ReasonJson, WantedLookJson,
};

pub(super) fn routes() -> Described<Context> {
    let several_operation =
        Operation::new(Dialect::Own, "Change several builds, evaluations and specifications")
            .needs::<ChangesJson>()
            .json::<OutcomesJson>(200, "What became of each.")
            .secured();
    Described::new()
        .post("/api/v1/changes", several, several_operation)
        .merge(of_builds())
        .merge(of_evaluations())
        .merge(of_specifications())
}

/// What the operations that change a build have in common.
fn of_build(summary: &'static str) -> Operation {
    Operation::new(Dialect::Own, summary)
        .takes(&[Parameter::new("id", Kind::Text, "7", "The number of the build.")])
        .reads::<ReasonJson>()
        .secured()
        .refuses(404, "There is no such build.")
        .refuses(409, "The state of the build does not allow it; the text says why.")
}

fn of_builds() -> Described<Context> {
    let cancel = of_build("Cancel a build")
        .json::<ChangedBuildJson>(200, DONE)
        .json::<EndingBuildJson>(202, "The build runs, and is asked to end.");
    let restart = of_build("Build once more what has ended without success")
        .json::<ChangedBuildJson>(200, DONE);
    let bump = of_build("Put a build in front of the queue").json::<OutcomeJson>(200, DONE);
    let comment = of_build("Comment on a build").json::<OutcomeJson>(200, DONE);
    let mut all = Described::new();
    for (change, operation) in [
        (Change::Cancel, cancel),
        (Change::Restart, restart),
        (Change::Bump, bump),
        (Change::Comment, comment),
    ] {
        let path = format!("/api/v1/build/{{id}}/{}", change.as_str());
        let handler =
            async move |State(context): State<Context>,
                        by: Needs<Builder>,
                        Path(id): Path<String>,
                        body: Bytes| { build(&context, &by, change, &id, &body).await };
        all = all.post(&path, handler, operation);
    }
    all
}

fn of_evaluations() -> Described<Context> {
    let id = Parameter::new("id", Kind::Text, "2", "The number of the evaluation.");
    let mut all = Described::new();
    for (change, summary) in [
        (Change::Cancel, "Cancel what only this evaluation wants"),
        (Change::Restart, "Build once more what failed in an evaluation"),
        (Change::Bump, "Put what waits in an evaluation in front of the queue"),
        (Change::Keep, "Keep an evaluation against retention"),
        (Change::Release, "Keep an evaluation no longer"),
        (Change::Comment, "Comment on an evaluation"),
    ] {
        let operation = Operation::new(Dialect::Own, summary)
            .takes(&[id])
            .reads::<EvaluationChangeJson>()
            .json::<OutcomeJson>(200, DONE)
            .secured()
            .refuses(404, "There is no such evaluation.")
            .refuses(409, "The state of the evaluation does not allow it; the text says why.");
        let path = format!("/api/v1/eval/{{id}}/{}", change.as_str());
        let handler = async move |State(context): State<Context>,
                                  by: Needs<Builder>,
                                  Path(id): Path<String>,
                                  body: Bytes| {
            evaluation(&context, &by, change, &id, &body).await
        };
        all = all.post(&path, handler, operation);
    }
    all
}

/// What the operations that change a specification have in common.
fn of_specification(summary: &'static str) -> Operation {
    let name = Parameter::new("name", Kind::Text, "hello", "The name of the specification.");
    Operation::new(Dialect::Own, summary)
        .takes(&[name])
        .reads::<ReasonJson>()
        .secured()
        .refuses(404, "There is no such specification.")
}

fn of_specifications() -> Described<Context> {
    let evaluate_operation = of_specification("Look at a specification's inputs now")
        .json::<WantedLookJson>(202, "The inputs are looked at.")
        .refuses(409, "The specification is disabled.");
    let mut all =
        Described::new().post("/api/v1/jobset/{name}/evaluate", evaluate, evaluate_operation);
    for (change, summary) in [
        (Change::Enable, "Look at a specification's inputs from now on"),
        (Change::Disable, "Look at a specification's inputs no longer"),
    ] {
        let operation = of_specification(summary)
            .json::<OutcomeJson>(200, DONE)
            .refuses(409, "The specification is so already.");
        let path = format!("/api/v1/jobset/{{name}}/{}", change.as_str());
        let handler = async move |State(context): State<Context>,
                                  by: Needs<Admin>,
                                  Path(name): Path<String>,
                                  body: Bytes| {
            specification(&context, &by, change, name, &body).await.map(done)
        };
        all = all.post(&path, handler, operation);
    }
    all
}

/// What an answer says of a change that is made.
const DONE: &str = "It is done.";

/// The body of a request as a value. An empty body is an empty object.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T> {
    let text: &[u8] = if body.trim_ascii().is_empty() { b"{}" } else { body.trim_ascii() };
    // serde would take a list for an object without names.
    if !text.starts_with(b"{") {
        let why = "the request's body is not the JSON that is read here: it is no object";
        return Err(HttpError::BadRequest(why.to_owned()));
    }
    serde_json::from_slice(text).map_err(|error| {
        HttpError::BadRequest(format!(
            "the request's body is not the JSON that is read here: {error}"
        ))
    })
}

/// Makes a change of one target, and returns what became of it.
async fn one(
    context: &Context,
    by: &Principal,
    change: Change,
    target: Target,
    reason: &str,
) -> Result<(Target, Outcome)> {
    let outcomes = context.change(change, vec![target], by, reason).await?;
    match outcomes.into_iter().next() {
        Some((_, Outcome::Refused(why))) => Err(HttpError::Conflict(why)),
        Some((target, Outcome::Missing)) => Err(match target {
            Target::Build(id) => HttpError::no_build(&id.to_string()),
            Target::Evaluation(id) | Target::Jobs(id, _) => {
                HttpError::no_evaluation(&id.to_string())
            }
            Target::Specification(name) => HttpError::no_specification(&name),
        }),
        Some(done) => Ok(done),
        None => Err(HttpError::Internal),
    }
}

fn done((target, outcome): (Target, Outcome)) -> Response {
    json(StatusCode::OK, &OutcomeJson::new(target, outcome))
}

/// Changes a build. Its number is parsed after the role was checked, so that a request without credentials learns nothing.
async fn build(
    context: &Context,
    by: &Principal,
    change: Change,
    id: &str,
    body: &Bytes,
) -> Result<Response> {
    let build: BuildId = id.parse().map_err(|_| HttpError::no_build(id))?;
    let ReasonJson { reason } = read(body)?;
    let outcome = one(context, by, change, Target::Build(build), &reason).await?;
    let of = |changed, status: BuildStatus| {
        json(StatusCode::OK, &ChangedBuildJson { build, changed, status: status.as_str() })
    };
    Ok(match (change, &outcome.1) {
        (_, Outcome::Ending(attempt)) => {
            let (attempt, status) = (*attempt, BuildStatus::Started.as_str());
            let message = "it is asked to end, and killed if it does not";
            json(StatusCode::ACCEPTED, &EndingBuildJson { attempt, build, message, status })
        }
        (Change::Cancel, Outcome::Done(changed)) => of(*changed, BuildStatus::Canceled),
        (Change::Restart, Outcome::Done(changed)) => of(*changed, BuildStatus::Scheduled),
        _ => done(outcome),
    })
}

/// Changes an evaluation, or the builds of its jobs.
async fn evaluation(
    context: &Context,
    by: &Principal,
    change: Change,
    id: &str,
    body: &Bytes,
) -> Result<Response> {
    let evaluation: EvaluationId = id.parse().map_err(|_| HttpError::no_evaluation(id))?;
    let body: EvaluationChangeJson = read(body)?;
    let target = body.target(evaluation).map_err(HttpError::BadRequest)?;
    one(context, by, change, target, &body.reason).await.map(done)
}

/// Changes a specification.
async fn specification(
    context: &Context,
    by: &Principal,
    change: Change,
    name: String,
    body: &Bytes,
) -> Result<(Target, Outcome)> {
    let ReasonJson { reason } = read(body)?;
    one(context, by, change, Target::Specification(name), &reason).await
}

/// Requests a look at a specification's inputs now.
async fn evaluate(
    State(context): State<Context>,
    by: Needs<Builder>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response> {
    specification(&context, &by, Change::Evaluate, name.clone(), &body).await?;
    let message = match context.tasks().ending {
        true => "the server ends; it is looked at when the next one starts",
        false => "it is looked at now",
    };
    Ok(json(StatusCode::ACCEPTED, &WantedLookJson { jobset: name, message }))
}

/// Changes several builds, evaluations and specifications in one transaction. The answer says of each what became of it.
async fn several(
    State(context): State<Context>,
    by: Needs<Builder>,
    body: Bytes,
) -> Result<Response> {
    let body: ChangesJson = read(&body)?;
    let (change, targets) = body.read().map_err(HttpError::BadRequest)?;
    if !by.may(change.role()) {
        let (name, role, roles) = (change.as_str(), change.role(), by.roles());
        let actor = &by.actor;
        let why = format!("`{name}` needs the role {role} everywhere; {actor} has {roles}");
        return Err(HttpError::Forbidden(why));
    }
    let outcomes = context.change(change, targets, &by, &body.reason).await?;
    Ok(json(StatusCode::OK, &OutcomesJson::new(change, outcomes)))
}
