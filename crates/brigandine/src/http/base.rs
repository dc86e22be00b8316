//! The path below which a proxy serves the server, such as `/ci`.
//!
//! Routes, pages and redirects are written as for the root. Here, and only here, the path is taken off requests and put
//! before addresses in answers: links and forms of pages, `Location`, and the path of cookies. So no new link can forget
//! it. A proxy may also take the path off itself: requests without it are answered too.
//!
//! - BASE1: only attributes of tags are changed, never text. Text from elsewhere is escaped, so each `<` of a page begins
//!   a tag, and no value of an attribute holds a quote.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;

/// The attributes that have addresses, with the beginning of one of this server.
const ADDRESSES: [&str; 5] =
    [" href=\"/", " src=\"/", " action=\"/", " data-live=\"/", " data-log=\"/"];

/// The path: empty, or with a slash at its beginning and none at its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base(Arc<str>);

impl Base {
    pub(crate) fn new(path: &str) -> Self {
        Self(path.into())
    }

    /// Takes the path off the target of a request, if it begins with it.
    pub(super) fn take_off(&self, uri: &mut Uri) {
        if self.0.is_empty() {
            return;
        }
        let target = uri.path_and_query().map_or("", PathAndQuery::as_str);
        let Some(rest) = target.strip_prefix(&*self.0) else { return };
        let rest = match rest.as_bytes().first() {
            None => "/".to_owned(),
            Some(b'/') => rest.to_owned(),
            Some(b'?') => format!("/{rest}"),
            // Another path that begins alike.
            Some(_) => return,
        };
        let mut parts = uri.clone().into_parts();
        let Ok(rest) = rest.parse::<PathAndQuery>() else { return };
        parts.path_and_query = Some(rest);
        if let Ok(inner) = Uri::from_parts(parts) {
            *uri = inner;
        }
    }

    /// Puts the path before the addresses in a page or in parts of one (BASE1).
    fn in_page(&self, page: &str) -> String {
        let mut text = String::with_capacity(page.len() + page.len() / 16);
        let mut rest = page;
        while let Some(begin) = rest.find('<') {
            let end = rest[begin..].find('>').map_or(rest.len(), |end| begin + end + 1);
            text.push_str(&rest[..begin]);
            self.in_tag(&rest[begin..end], &mut text);
            rest = &rest[end..];
        }
        text.push_str(rest);
        text
    }

    fn in_tag(&self, tag: &str, text: &mut String) {
        let mut rest = tag;
        let first = |rest: &str| {
            let found =
                ADDRESSES.iter().filter_map(|begin| Some(rest.find(begin)? + begin.len() - 1));
            found.min()
        };
        while let Some(slash) = first(rest) {
            text.push_str(&rest[..slash]);
            text.push_str(&self.0);
            text.push('/');
            rest = &rest[slash + 1..];
        }
        text.push_str(rest);
    }
}

/// A layer of the router: puts the path before the addresses of an answer.
pub(crate) async fn place(State(base): State<Base>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if base.0.is_empty() {
        return response;
    }
    replace(&mut response, header::LOCATION, |place| {
        place.starts_with('/').then(|| format!("{}{place}", base.0))
    });
    replace(&mut response, header::SET_COOKIE, |cookie| {
        let own = format!("; Path={};", base.0);
        cookie.contains("; Path=/;").then(|| cookie.replace("; Path=/;", &own))
    });
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
        return response;
    }
    let (head, body) = response.into_parts();
    // Pages are in memory, so this does not fail.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = match std::str::from_utf8(&body) {
        Ok(page) => Body::from(base.in_page(page)),
        Err(_) => Body::from(body),
    };
    Response::from_parts(head, body)
}

fn replace(response: &mut Response, name: HeaderName, f: impl Fn(&str) -> Option<String>) {
    let value = response.headers().get(&name).and_then(|value| value.to_str().ok());
    if let Some(Ok(value)) = value.and_then(f).map(|value| HeaderValue::from_str(&value)) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_taken_off_whole() {
        let base = Base::new("/ci");
        for (target, wanted) in [
            ("/ci", "/"),
            ("/ci/", "/"),
            ("/ci?nr=1", "/?nr=1"),
            ("/ci/queue?nr=1", "/queue?nr=1"),
            ("/ci/ci", "/ci"),
            ("/queue", "/queue"),
            ("/cider", "/cider"),
            ("/a/ci", "/a/ci"),
            ("http://x/ci/queue", "http://x/queue"),
        ] {
            let mut uri: Uri = target.parse().expect("a target");
            base.take_off(&mut uri);
            assert_eq!(uri.to_string(), wanted, "{target}");
        }
        let mut uri: Uri = "/queue".parse().expect("a target");
        Base::default().take_off(&mut uri);
        assert_eq!(uri, "/queue");
    }

    #[test]
    fn addresses_in_tags_are_changed_and_nothing_else() {
        let base = Base::new("/ci");
        for (page, wanted) in [
            ("<a href=\"/queue\">/x</a>", "<a href=\"/ci/queue\">/x</a>"),
            ("<a href=\"/\">", "<a href=\"/ci/\">"),
            (
                "<a class=\"x\" href=\"/a\" data-log=\"/b\">",
                "<a class=\"x\" href=\"/ci/a\" data-log=\"/ci/b\">",
            ),
            (
                "<form action=\"/login\"><input value=\"/queue\">",
                "<form action=\"/ci/login\"><input value=\"/queue\">",
            ),
            ("<a href=\"#main\"><a href=\"?nr=1\">", "<a href=\"#main\"><a href=\"?nr=1\">"),
            ("<p title=\"/store\"> href=\"/x\"</p>", "<p title=\"/store\"> href=\"/x\"</p>"),
            ("a < b", "a < b"),
            ("", ""),
        ] {
            assert_eq!(base.in_page(page), wanted);
        }
    }
}
