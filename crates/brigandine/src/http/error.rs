//! Why a request is refused: the status codes and messages.

use std::fmt::Display;

use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::health;
use crate::model::with_causes;
use crate::wire::{ErrorJson, LIMIT_EXCEEDED, PARAMETER_MISSING};

/// An answer, or the reason for which the request is refused.
pub(crate) type Result<T> = std::result::Result<T, HttpError>;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) enum HttpError {
    /// The thing that the text names does not exist.
    NotFound(String),
    /// A required parameter is missing or unreadable. Clients of Cuirass expect this message and status 500.
    ParameterMissing,
    /// The wanted number of entries is outside of 1 to 1000. Clients of Cuirass expect this answer too.
    LimitExceeded,
    /// The request is not valid; the text says why.
    BadRequest(String),
    /// The state of a build or specification does not allow the change; the text says why.
    Conflict(String),
    /// The sender may not do this; the text says why.
    Forbidden(String),
    /// The request has no valid credentials; the text says which it needs.
    Unauthorized(&'static str),
    /// The server waits for something, which the text names.
    Waiting(String),
    /// The request is for another host; the text says what to configure.
    Misdirected(String),
    /// The target is too long.
    TargetTooLong,
    /// The route does not have the method; the text says which methods it has.
    WrongMethod(&'static str),
    /// The body is too large.
    BodyTooLarge,
    /// The request did not arrive in time.
    TooSlow,
    /// The range begins past the end of the representation, which has this many bytes.
    OutOfRange(u64),
    /// The client has reached the bound of connections of one client.
    TooMany,
    /// The client, or others with the same name, failed too often to log in. There is another attempt after so many
    /// seconds.
    TooManyFailures(u64),
    /// A bound of the server is reached.
    Busy,
    /// A fault of the server; the trace says which.
    Internal,
}

impl HttpError {
    /// The thing that the text names does not exist.
    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound(what.into())
    }

    /// There is no such route.
    pub(crate) fn no_path(uri: &Uri) -> Self {
        let path: String = uri.path().chars().take(200).collect();
        Self::NotFound(format!("nothing is at {path}"))
    }

    /// There is no such build.
    pub(crate) fn no_build(id: &str) -> Self {
        Self::NotFound(format!("Build with ID {} doesn't exist.", cut(id)))
    }

    /// There is no such output.
    pub(crate) fn no_output(name: &str) -> Self {
        Self::NotFound(format!("Output with ID {} doesn't exist.", cut(name)))
    }

    /// There is no such evaluation.
    pub(crate) fn no_evaluation(id: &str) -> Self {
        Self::NotFound(format!("Evaluation with ID {} doesn't exist.", cut(id)))
    }

    /// No specification belongs to such a project.
    pub(crate) fn no_project(name: &str) -> Self {
        Self::NotFound(format!("Project {} doesn't exist.", cut(name)))
    }

    /// There is no such specification in the project, in the words of Hydra.
    pub(crate) fn no_jobset(name: &str) -> Self {
        Self::NotFound(format!("Jobset {} doesn't exist.", cut(name)))
    }

    /// No build of the job has ended.
    pub(crate) fn no_latest(job: &str) -> Self {
        Self::NotFound(format!("No latest build for job {}.", cut(job)))
    }

    /// No evaluation of the specification has the job.
    pub(crate) fn no_job(specification: &str, job: &str) -> Self {
        Self::NotFound(format!(
            "no evaluation of {} has a job called {}",
            cut(specification),
            cut(job)
        ))
    }

    /// There is no such specification.
    pub(crate) fn no_specification(name: &str) -> Self {
        Self::NotFound(format!("there is no specification called {}", cut(name)))
    }

    /// The database failed, or is temporarily not usable.
    #[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
    pub(crate) fn database(error: lockkeeper::Error) -> Self {
        let text = with_causes(&error);
        tracing::error!(error = text, "the database could not do what a request asks for");
        if health::passes(&error) {
            return Self::Waiting(format!("the database cannot be used for now: {text}"));
        }
        Self::Internal
    }

    /// A file of the state directory cannot be read. The server continues.
    pub(crate) fn unreadable(what: impl Display, error: &std::io::Error) -> Self {
        tracing::warn!(%error, "{what} cannot be read");
        Self::NotFound(format!("{what} cannot be read: {error}"))
    }

    /// The status and the message of the refusal.
    pub(crate) fn parts(&self) -> (StatusCode, &str) {
        match self {
            Self::NotFound(what) => (StatusCode::NOT_FOUND, what),
            Self::ParameterMissing => (StatusCode::INTERNAL_SERVER_ERROR, PARAMETER_MISSING),
            Self::LimitExceeded => (StatusCode::INTERNAL_SERVER_ERROR, LIMIT_EXCEEDED),
            Self::BadRequest(why) => (StatusCode::BAD_REQUEST, why),
            Self::Conflict(why) => (StatusCode::CONFLICT, why),
            Self::Forbidden(why) => (StatusCode::FORBIDDEN, why),
            Self::Unauthorized(why) => (StatusCode::UNAUTHORIZED, why),
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
            Self::TooManyFailures(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "too many logins have failed, from your address or with this name; try again in some minutes",
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

impl HttpError {
    /// The header that belongs to the refusal; `None`: none does.
    pub(crate) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        Some(match self {
            Self::Unauthorized(_) => {
                (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"brigandine\""))
            }
            Self::TooManyFailures(seconds) => (header::RETRY_AFTER, HeaderValue::from(*seconds)),
            Self::TooMany | Self::Busy => (header::RETRY_AFTER, HeaderValue::from_static("1")),
            Self::Waiting(_) => (header::RETRY_AFTER, HeaderValue::from_static("5")),
            Self::OutOfRange(bytes) => {
                let range = HeaderValue::from_str(&format!("bytes */{bytes}")).ok()?;
                (header::CONTENT_RANGE, range)
            }
            _ => return None,
        })
    }

    fn body(&self) -> ErrorJson<'_> {
        ErrorJson { error: self.parts().1 }
    }

    /// The bytes of the answer, for a connection on which hyper does not send it. The connection must be closed
    /// afterwards.
    pub(super) fn bare(&self) -> Vec<u8> {
        let (status, body) =
            (self.parts().0, serde_json::to_string(&self.body()).unwrap_or_default());
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

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut response = super::answer::json(self.parts().0, &self.body());
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Cuts a name from a request to at most 100 characters, for a message.
fn cut(name: &str) -> String {
    name.chars().take(100).collect()
}

/// Refuses a method that the route does not have. axum adds the header `allow` with the methods that the route has.
pub(crate) async fn wrong_method(uri: Uri) -> Response {
    HttpError::WrongMethod(methods(&uri)).into_response()
}

/// A text that says which methods the routes at `uri` have.
pub(super) fn methods(uri: &Uri) -> &'static str {
    let path = uri.path();
    let reads = path == "/api/v1/audit" || path.starts_with("/api/v1/job/");
    let reads = reads || path.ends_with("/compare");
    if path.starts_with("/api/v1/") && !reads || path == "/logout" {
        "only POST is answered here"
    } else if path == "/login" {
        "only GET, HEAD and POST are answered here"
    } else if ["/project/", "/jobset/", "/api/push"].iter().any(|begin| path.starts_with(begin)) {
        "the header `allow` says which methods are answered here"
    } else {
        "only GET and HEAD are answered here"
    }
}
