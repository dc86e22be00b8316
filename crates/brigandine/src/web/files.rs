//! What pages load beside themselves: style, script and icon, parts of the program.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

pub(super) const STYLE: &str = include_str!("../../static/style.css");
pub(super) const SCRIPT: &str = include_str!("../../static/live.js");
pub(super) const ICON: &str = include_str!("../../static/icon.svg");

/// A file that is part of the program. Pages name it with [`VERSION`], so it may be kept.
pub(super) fn asset(kind: &'static str, body: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, body).into_response()
}

/// Changes when one of the files that pages load changes.
pub(super) const VERSION: u64 = fingerprint(&[STYLE, SCRIPT, ICON]);

/// FNV-1a: not for secrets, but it can be computed while compiling.
const fn fingerprint(texts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut text = 0;
    while text < texts.len() {
        let bytes = texts[text].as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        text += 1;
    }
    hash
}
