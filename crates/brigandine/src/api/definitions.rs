//! Adding, replacing and removing specifications: `POST` requests below `/api/v1/`.
//!
//! The body that defines specifications has the tables of a specification file as JSON, with the same rules and messages.

use std::fmt::Display;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::parameters::BOOLEAN;
use crate::auth::{Admin, Needs, Principal};
use crate::config::{self, JsonProblem};
use crate::context::Context;
use crate::http::{HttpError, Path, Query, Result, json};
use crate::model::{
    Change, History, Loaded, Replace, Specification, Specified, Specify, TARGETS_MAX, Target,
};
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::wire::{ProblemJson, ProblemsJson, SpecificationFileJson, StoredJson, StoredOneJson};

pub(super) const OVERRIDE: Parameter = Parameter::new(
    "override",
    BOOLEAN,
    "false",
    "`true`: also a specification that stands in one of the server's specification files.",
);

pub(super) const REASON: Parameter =
    Parameter::new("reason", Kind::Text, "moved", "Why, for the audit.");

pub(super) const HISTORY: Parameter = Parameter::new(
    "history",
    Kind::OneOf(&["keep", "delete"]),
    "keep",
    "`delete`: evaluations and builds are deleted too, in the background.",
);

pub(super) fn routes() -> Described<Context> {
    let replace = Parameter::new(
        "replace",
        BOOLEAN,
        "false",
        "`true`: a specification of this name is replaced.",
    );
    let put_operation = Operation::new(Dialect::Own, "Add or replace specifications, all or none")
        .takes(&[replace, OVERRIDE, REASON])
        .needs::<SpecificationFileJson>()
        .json::<StoredJson>(200, "They are stored.")
        .json::<ProblemsJson>(400, "The body has problems; each is named.")
        .secured()
        .refuses(409, "One is stored otherwise, or stands in a specification file.");
    let name = Parameter::new("name", Kind::Text, "hello", "The name of the specification.");
    let remove_operation = Operation::new(Dialect::Own, "Remove a specification")
        .takes(&[name, HISTORY, OVERRIDE, REASON])
        .json::<StoredJson>(200, "It is removed.")
        .secured()
        .refuses(404, "There is no such specification.")
        .refuses(409, "The specification stands in a specification file.");
    Described::new().post("/api/v1/specifications", put, put_operation).post(
        "/api/v1/jobset/{name}/remove",
        remove,
        remove_operation,
    )
}

/// Reads the value of a parameter that is `true` or `false`.
pub(super) fn flag(query: &Query, name: &str) -> Result<bool> {
    Ok(query.parsed(name)?.unwrap_or(false))
}

/// Reads whether a removal keeps evaluations and builds.
pub(super) fn history(query: &Query) -> Result<History> {
    match query.get("history").as_deref() {
        None | Some("keep") => Ok(History::Kept),
        Some("delete") => Ok(History::Deleted),
        Some(_) => Err(HttpError::BadRequest("'history' may be 'keep' or 'delete'".to_owned())),
    }
}

/// A value, or what is wrong with the body that should have it.
pub(super) type Read<T> = std::result::Result<T, Vec<ProblemJson>>;

/// The body as JSON, which must be an object.
///
/// # Errors
/// Where it is no such JSON.
pub(super) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Read<T> {
    let problem = |error: &dyn Display| {
        let message = format!("the body cannot be read as JSON: {error}");
        let help = "send JSON as the document of the API describes it".to_owned();
        vec![ProblemJson { pointer: String::new(), message, help }]
    };
    // serde_json does not look at the encoding of what is ignored.
    let text = std::str::from_utf8(bytes).map_err(|error| problem(&error))?;
    // serde would take a list for an object without names.
    if text.trim_start().starts_with('[') {
        return Err(problem(&"it is no object"));
    }
    serde_json::from_str(text).map_err(|error| problem(&error))
}

/// The answer to a body that has problems.
pub(super) fn refused(problems: Vec<ProblemJson>) -> Response {
    let error = match problems.first() {
        Some(first) if first.pointer.is_empty() => first.message.clone(),
        Some(first) => format!("{}: {}", first.pointer, first.message),
        None => String::new(),
    };
    json(StatusCode::BAD_REQUEST, &ProblemsJson { error, problems })
}

/// The specifications of a definition.
///
/// # Errors
/// Every problem.
pub(super) fn specifications(definition: &Value) -> Read<Vec<Specification>> {
    let place =
        |it: JsonProblem| ProblemJson { pointer: it.pointer, message: it.message, help: it.help };
    let placed = config::json_specifications(definition)
        .map_err(|problems| problems.into_iter().map(place).collect::<Vec<_>>())?;
    if placed.len() > TARGETS_MAX {
        let message = format!("{} specifications at once", placed.len());
        let (pointer, help) = ("/specification".to_owned(), format!("at most {TARGETS_MAX}"));
        return Err(vec![ProblemJson { pointer, message, help }]);
    }
    Ok(placed.into_iter().map(|placed| placed.specification).collect())
}

/// What the requests for changes to specifications have in common.
pub(super) struct Request<'a> {
    by: &'a Principal,
    reason: String,
    /// Whether specifications that stand in a specification file are changed too.
    even_of_files: bool,
}

impl<'a> Request<'a> {
    /// Reads the parameters.
    ///
    /// # Errors
    /// 400: one of them cannot be read.
    pub(super) fn of(query: &Query, by: &'a Principal) -> Result<Self> {
        let reason = query.get("reason").unwrap_or_default();
        Ok(Self { by, reason, even_of_files: flag(query, "override")? })
    }

    /// Makes a change to specifications.
    ///
    /// # Errors
    /// 404: there is no such specification. 409: it is stored otherwise, is in another project, or stands in a file.
    pub(super) async fn change(
        &self,
        context: &Context,
        change: Specify,
    ) -> Result<Vec<StoredOneJson>> {
        let specified = context.specify(change, self.even_of_files, self.by, &self.reason).await?;
        let one =
            |(name, loaded): (String, Loaded)| StoredOneJson { name, outcome: loaded.as_str() };
        match specified {
            Specified::Done(all) => Ok(all.into_iter().map(one).collect()),
            Specified::Removed(names) => {
                let one = |name| StoredOneJson { name, outcome: "removed" };
                Ok(names.into_iter().map(one).collect())
            }
            Specified::Missing(name) => Err(HttpError::no_specification(&name)),
            Specified::Kept(all) => {
                let all = all.iter().map(|(name, keys)| format!("`{name}` ({})", keys.join(", ")));
                let all: Vec<String> = all.collect();
                Err(HttpError::Conflict(format!(
                    "stored already and otherwise: {}; `replace=true` replaces what is stored",
                    all.join(", ")
                )))
            }
            Specified::Elsewhere(name, project) => {
                Err(HttpError::Conflict(format!("`{name}` is in the project `{project}`")))
            }
            Specified::OfFile(name, file) => Err(HttpError::Conflict(format!(
                "`{name}` stands in the specification file {file}: change it there and start the server again with \
                 `--replace`, or send `override=true`"
            ))),
        }
    }

    /// Enables or disables specifications. Those that are so already, or were removed meanwhile, stay as they are.
    pub(super) async fn enable(
        &self,
        context: &Context,
        names: impl IntoIterator<Item = String>,
        enabled: bool,
    ) -> Result<()> {
        let change = if enabled { Change::Enable } else { Change::Disable };
        let targets: Vec<Target> = names.into_iter().map(Target::Specification).collect();
        for some in targets.chunks(TARGETS_MAX) {
            context.change(change, some.to_vec(), self.by, &self.reason).await?;
        }
        Ok(())
    }
}

/// Adds or replaces specifications.
async fn put(
    State(context): State<Context>,
    by: Needs<Admin>,
    query: Query,
    bytes: Bytes,
) -> Result<Response> {
    let (replace, request) = (flag(&query, "replace")?, Request::of(&query, &by)?);
    let read = body(&bytes).and_then(|definition: Value| specifications(&definition));
    let specifications = match read {
        Ok(specifications) => specifications,
        Err(problems) => return Ok(refused(problems)),
    };
    let replace = if replace { Replace::Always } else { Replace::Never };
    let put = Specify::Put { specifications, replace };
    let stored = request.change(&context, put).await?;
    Ok(json(StatusCode::OK, &StoredJson { specifications: stored }))
}

/// Removes a specification.
async fn remove(
    State(context): State<Context>,
    by: Needs<Admin>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    let (history, request) = (history(&query)?, Request::of(&query, &by)?);
    let remove = Specify::Remove { names: vec![name], history };
    let stored = request.change(&context, remove).await?;
    Ok(json(StatusCode::OK, &StoredJson { specifications: stored }))
}

#[cfg(test)]
mod tests;
