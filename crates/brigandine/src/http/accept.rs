//! What kind of answer a request asks for, where an address has a page and JSON.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

/// Whether a request accepts HTML by name. Browsers send such a header, and other clients do not.
pub(crate) fn accepts_html(headers: &HeaderMap) -> bool {
    names(headers, header::ACCEPT, "text/html")
}

/// Whether a request asks for JSON by name and accepts no HTML. Some clients of Hydra do so with `Content-Type`, though
/// the request has no body.
pub(crate) fn wants_json(headers: &HeaderMap) -> bool {
    let json = |name| names(headers, name, "application/json");
    !accepts_html(headers) && (json(header::ACCEPT) || json(header::CONTENT_TYPE))
}

fn names(headers: &HeaderMap, name: HeaderName, kind: &str) -> bool {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.contains(kind))
}

/// Tells caches that the answer depends on the headers that [`wants_json`] and [`accepts_html`] read.
pub(crate) fn varied(mut response: Response) -> Response {
    let names = HeaderValue::from_static("accept, content-type");
    response.headers_mut().insert(header::VARY, names);
    response
}
