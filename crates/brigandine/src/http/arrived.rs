//! How a request reached the server, as its connection and trusted proxies say.

use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::client::Client;

/// How a request reached the server.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    /// Who sent it.
    pub(crate) client: Client,
    /// Whether the client spoke https to a trusted proxy.
    pub(crate) secure: bool,
    /// The host, and the port if there is one, that the client asked for.
    pub(crate) host: String,
}

impl Arrived {
    /// `proxied`: whether the connection comes from a trusted proxy, whose headers may be believed.
    pub(super) fn new(parts: &Parts, client: Client, proxied: bool) -> Self {
        let forwarded = |name| last(&parts.headers, name).filter(|_| proxied);
        let secure = forwarded("x-forwarded-proto").map_or_else(
            || forwarded(header::FORWARDED.as_str()).is_some_and(|element| is_https(&element)),
            |scheme| scheme.eq_ignore_ascii_case("https"),
        );
        let named = forwarded("x-forwarded-host")
            .or_else(|| parts.uri.authority().map(ToString::to_string))
            .or_else(|| last(&parts.headers, header::HOST.as_str()));
        Self { client, secure, host: named.unwrap_or_default() }
    }
}

/// The last element of a list header, which the nearest proxy has written.
fn last(headers: &HeaderMap, name: &str) -> Option<String> {
    let line = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    line.rsplit(',').next().map(|element| element.trim().to_owned())
}

/// Whether an element of `Forwarded` (RFC 7239) says that the client spoke https.
fn is_https(element: &str) -> bool {
    element.split(';').filter_map(|pair| pair.trim().split_once('=')).any(|(name, value)| {
        name.eq_ignore_ascii_case("proto") && value.trim_matches('"').eq_ignore_ascii_case("https")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn arrived(lines: &[(&str, &str)], proxied: bool) -> Arrived {
        let mut request = Request::get("/queue");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        Arrived::new(&parts, Client::new([192, 0, 2, 1].into()), proxied)
    }

    #[test]
    fn only_a_trusted_proxy_says_that_a_request_is_secure() {
        for (lines, secure) in [
            (&[("x-forwarded-proto", "https")][..], true),
            (&[("x-forwarded-proto", "HTTPS")], true),
            (&[("x-forwarded-proto", "http, https")], true),
            (&[("x-forwarded-proto", "https, http")], false),
            (&[("x-forwarded-proto", "http")], false),
            (&[("forwarded", "for=192.0.2.1;proto=https")], true),
            (&[("forwarded", "for=x;proto=https, for=y;Proto=\"http\"")], false),
            (&[("x-forwarded-proto", "http"), ("forwarded", "proto=https")], false),
            (&[], false),
        ] {
            assert_eq!(arrived(lines, true).secure, secure, "{lines:?}");
            assert!(!arrived(lines, false).secure, "{lines:?}");
        }
    }

    #[test]
    fn the_host_is_the_one_that_the_client_asked_for() {
        let lines = [("host", "inner:8080"), ("x-forwarded-host", "ci.example.org")];
        assert_eq!(arrived(&lines, true).host, "ci.example.org");
        assert_eq!(arrived(&lines, false).host, "inner:8080");
        assert_eq!(arrived(&[], false).host, "");
    }
}
