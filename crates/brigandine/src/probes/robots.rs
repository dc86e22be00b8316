//! `/robots.txt`: which addresses crawlers should leave alone (RFC 9309).
//!
//! Every address with a query is left out: a list has one for each of its filters and pages, and each comparison of two
//! evaluations has one.

use axum::http::StatusCode;
use axum::response::Response;

use crate::http::text;

/// What no crawler should read: long texts and files, streams without an end, and answers for programs.
pub(super) const RULES: &str = "\
User-agent: *
Disallow: /*?
Disallow: /api/
Disallow: /build/*/constituents
Disallow: /build/*/download
Disallow: /build/*/log
Disallow: /download/
Disallow: /eval/*/builds
Disallow: /eval/*/log
Disallow: /healthz
Disallow: /job/
Disallow: /jobset/*/
Disallow: /jobsets
Disallow: /live
Disallow: /metrics
Disallow: /project/
Disallow: /readyz
Disallow: /search
Disallow: /specifications
";

pub(super) async fn answer() -> Response {
    text(StatusCode::OK, RULES)
}
