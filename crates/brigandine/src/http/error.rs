//! Why a request is refused, and the status codes that say so.

use std::fmt::Display;

use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::health;
use crate::model::with_causes;

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
    /// It is for another host; the text says what to configure.
    Misdirected(String),
    /// The target is longer than any that there is.
    TargetTooLong,
    /// The method is none that anything here has; the text says which there are.
    WrongMethod(&'static str),
    /// The body is larger than any that is taken.
    BodyTooLarge,
    /// The request did not arrive in time.
    TooSlow,
    /// The range begins past the end of so many bytes.
    OutOfRange(u64),
    /// The client has as many connections as one client may have.
    TooMany,
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
    #[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
    pub(crate) fn database(error: lockkeeper::Error) -> Self {
        let text = with_causes(&error);
        tracing::error!(error = text, "the database could not do what a request asks for");
        if health::passes(&error) {
            return Self::Waiting(format!("the database cannot be used for now: {text}"));
        }
        Self::Internal
    }

    /// A file of the state directory cannot be read: a fault of the machine, which the server outlives.
    pub(crate) fn unreadable(what: impl Display, error: &std::io::Error) -> Self {
        tracing::warn!(%error, "{what} cannot be read");
        Self::NotFound(format!("{what} cannot be read: {error}"))
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
            Self::Misdirected(why) => (StatusCode::MISDIRECTED_REQUEST, why),
            Self::TargetTooLong => (StatusCode::URI_TOO_LONG, "the request's target is too long"),
            Self::WrongMethod(why) => (StatusCode::METHOD_NOT_ALLOWED, why),
            Self::BodyTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "the body of a request may have at most 1 MiB")
            }
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time"),
            Self::OutOfRange(_) => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "the range begins past the end")
            }
            Self::TooMany => (
                StatusCode::TOO_MANY_REQUESTS,
                "too many connections of this client are open, try again later",
            ),
            Self::Busy => {
                (StatusCode::SERVICE_UNAVAILABLE, "too many open streams, try again later")
            }
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal error, see the server's trace")
            }
        }
    }
}

impl Refusal {
    /// The header that belongs to its status, if one does.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        Some(match self {
            Self::Unauthorized => {
                (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"brigandine\""))
            }
            Self::TooMany | Self::Busy => (header::RETRY_AFTER, HeaderValue::from_static("1")),
            Self::OutOfRange(bytes) => {
                let range = HeaderValue::from_str(&format!("bytes */{bytes}")).ok()?;
                (header::CONTENT_RANGE, range)
            }
            _ => return None,
        })
    }

    fn body(&self) -> serde_json::Value {
        json!({ "error": self.parts().1 })
    }

    /// The answer as it is sent where hyper sends none: on a connection that is closed after it.
    pub(super) fn bare(&self) -> Vec<u8> {
        let (status, body) = (self.parts().0, self.body().to_string());
        let mut answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n",
            body.len()
        )
        .into_bytes();
        if let Some((name, value)) = self.header() {
            let line = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
            answer.extend_from_slice(&line.concat());
        }
        answer.extend_from_slice(b"\r\n");
        answer.extend_from_slice(body.as_bytes());
        answer
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = super::json(self.parts().0, &self.body());
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A method that a route does not have; which ones it has stands in the header `allow`.
pub(crate) async fn wrong_method(uri: Uri) -> Response {
    Refusal::WrongMethod(methods(&uri)).into_response()
}

/// Which methods there are at `uri`.
pub(super) fn methods(uri: &Uri) -> &'static str {
    if uri.path().starts_with("/api/v1/") {
        "only POST is answered here"
    } else {
        "only GET and HEAD are answered here"
    }
}
