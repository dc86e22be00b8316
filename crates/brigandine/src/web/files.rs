//! The style, the script and the icon that pages load. All of them are compiled into the program.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

pub(super) const STYLE: &str = include_str!("../../static/style.css");
pub(super) const SCRIPT: &str = include_str!("../../static/live.js");
pub(super) const ICON: &str = include_str!("../../static/icon.svg");

/// Serves a file. Pages request it with [`VERSION`] in the address, so caches may keep it.
pub(super) fn asset(kind: &'static str, body: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, body).into_response()
}

/// A number that changes when one of the files changes.
pub(super) const VERSION: u64 = fingerprint(&[STYLE, SCRIPT, ICON]);

/// FNV-1a, which the compiler can compute. It is not suited for secrets.
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
