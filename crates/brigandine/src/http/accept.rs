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

/// Whether the body of a request is JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    names(headers, header::CONTENT_TYPE, "application/json")
}

fn names(headers: &HeaderMap, name: HeaderName, kind: &str) -> bool {
    let lines = headers.get_all(name).iter();
    lines.filter_map(|line| line.to_str().ok()).any(|line| line.contains(kind))
}

/// Tells caches that the answer depends on the headers that [`wants_json`] and [`accepts_html`] read.
pub(crate) fn varied(mut response: Response) -> Response {
    vary(response.headers_mut(), &["accept", "content-type"]);
    response
}

/// Tells caches that an answer also depends on these headers of its request, named in lower case.
pub(crate) fn vary(headers: &mut HeaderMap, names: &[&str]) {
    let before = headers.get_all(header::VARY).iter().filter_map(|line| line.to_str().ok());
    let before = before.flat_map(|line| line.split(','));
    let mut all: Vec<String> = before.map(|name| name.trim().to_ascii_lowercase()).collect();
    for name in names {
        if !all.iter().any(|known| known == name) {
            all.push((*name).to_owned());
        }
    }
    if let Ok(value) = HeaderValue::from_str(&all.join(", ")) {
        headers.insert(header::VARY, value);
    }
}
