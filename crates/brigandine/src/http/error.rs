//! Why a request is refused, and the status codes that say so.

use std::fmt::Display;

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::health;
use crate::model::with_causes;
use crate::store::DatabaseError;

/// An answer, or why there is none.
pub(crate) type Result<T> = std::result::Result<T, Refusal>;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no such thing; the text says which.
    NotFound(String),
    /// A parameter that must be there is missing or unreadable. Clients of Cuirass expect these
    /// words, and status 500.
    ParameterMissing,
    /// A number of entries outside of 1 to 1000, likewise.
    LimitExceeded,
    /// The request makes no sense; the text says why.
    BadRequest(String),
    /// It cannot be done as things stand; the text says why.
    Conflict(String),
    /// Changes are not allowed at all; the text says how they would be.
    Forbidden(&'static str),
    /// The request does not carry the token.
    Unauthorized,
    /// The server waits for something; the text says for what.
    Waiting(String),
    /// Too much is going on.
    Busy,
    /// The server's fault; the text went to the trace.
    Internal,
}

impl Refusal {
    /// There is no such thing.
    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound(what.into())
    }

    /// There is no such route.
    pub(crate) fn no_path(uri: &Uri) -> Self {
        let path: String = uri.path().chars().take(200).collect();
        Self::NotFound(format!("nothing is at {path}"))
    }

    /// There is no such build. `id` comes from the request, so it is cut.
    pub(crate) fn no_build(id: &str) -> Self {
        let id: String = id.chars().take(100).collect();
        Self::NotFound(format!("Build with ID {id} doesn't exist."))
    }

    /// The database did not answer.
    pub(crate) fn database(error: DatabaseError) -> Self {
        let text = with_causes(&error);
        tracing::error!(error = text, "the database could not do what a request asks for");
        if health::passes(&error) {
            return Self::Waiting(format!("the database cannot be used for now: {text}"));
        }
        Self::Internal
    }

    /// A log cannot be read.
    pub(crate) fn log(what: impl Display, error: &std::io::Error) -> Self {
        tracing::warn!(%error, "{what} cannot be read");
        Self::NotFound(format!("{what} cannot be read: {error}"))
    }

    /// A file could not be read.
    pub(crate) fn io(what: &str, error: &std::io::Error) -> Self {
        tracing::error!(%error, "{what} could not be read");
        Self::Internal
    }

    /// Its status and what it says.
    pub(crate) fn parts(&self) -> (StatusCode, &str) {
        match self {
            Self::NotFound(what) => (StatusCode::NOT_FOUND, what),
            Self::ParameterMissing => (StatusCode::INTERNAL_SERVER_ERROR, "Parameter not defined!"),
            Self::LimitExceeded => (StatusCode::INTERNAL_SERVER_ERROR, "Maximum limit exceeded"),
            Self::BadRequest(why) => (StatusCode::BAD_REQUEST, why),
            Self::Conflict(why) => (StatusCode::CONFLICT, why),
            Self::Forbidden(why) => (StatusCode::FORBIDDEN, why),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "changes need the server's token: `authorization: Bearer TOKEN`",
            ),
            Self::Waiting(what) => (StatusCode::SERVICE_UNAVAILABLE, what),
            Self::Busy => {
                (StatusCode::SERVICE_UNAVAILABLE, "too many open streams, try again later")
            }
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal error, see the server's trace")
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, text) = self.parts();
        let mut response = super::json(status, &json!({ "error": text }));
        if status == StatusCode::UNAUTHORIZED {
            let how = HeaderValue::from_static("Bearer realm=\"brigandine\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, how);
        }
        response
    }
}

/// A method that a route does not have; which ones it has stands in the header `allow`.
pub(super) async fn wrong_method(uri: Uri) -> Response {
    let changes = uri.path().starts_with("/api/v1/");
    let methods = if changes { "POST is" } else { "GET and HEAD are" };
    let error = json!({ "error": format!("only {methods} answered here") });
    super::json(StatusCode::METHOD_NOT_ALLOWED, &error)
}
