//! Answers whose whole body is in memory.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;

use super::accept::vary;

/// What pages may load: the style, script and images of this server, and nothing from elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// An answer with a body of known length, so hyper sends `Content-Length`.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// `value` as JSON. There is no blank after `:`, because some clients match the text with sed.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => answer(status, "application/json", body),
        // Only a map whose keys are not text fails, and no answer has such a map.
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            internal_error()
        }
    }
}

fn internal_error() -> Response {
    answer(StatusCode::INTERNAL_SERVER_ERROR, "application/json", r#"{"error":"internal"}"#)
}

/// Sends the client to another address. One that begins with `/` is this server's.
pub(crate) fn redirect(location: &str) -> Response {
    let Ok(location) = HeaderValue::from_str(location) else {
        return internal_error();
    };
    let mut response = answer(StatusCode::FOUND, "text/plain; charset=utf-8", Body::empty());
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// Sends the client to another address, which it requests with `GET`.
pub(crate) fn see_other(location: &str) -> Response {
    let mut response = redirect(location);
    if response.status() == StatusCode::FOUND {
        *response.status_mut() = StatusCode::SEE_OTHER;
    }
    response
}

/// Tells caches not to keep an answer that is true only now.
pub(crate) fn not_kept(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Plain text.
pub(crate) fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    answer(status, "text/plain; charset=utf-8", body)
}

/// A page.
pub(crate) fn html(status: StatusCode, page: String) -> Response {
    let mut response = answer(status, "text/html; charset=utf-8", page);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // One address serves pages and JSON (`/build/7`), so caches must distinguish them by the header `accept`.
    vary(headers, &["accept"]);
    response
}
