//! The style, the script and the icon that pages load. All of them are compiled into the program.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;

use crate::http::Fixed;

const STYLE_TEXT: &str = include_str!("../../static/style.css");
const SCRIPT_TEXT: &str = include_str!("../../static/live.js");
const ICON_TEXT: &str = include_str!("../../static/icon.svg");

/// A file. It is compressed when it is first requested.
pub(super) type File = LazyLock<Fixed>;

pub(super) static STYLE: File = LazyLock::new(|| Fixed::new("text/css; charset=utf-8", STYLE_TEXT));
pub(super) static SCRIPT: File =
    LazyLock::new(|| Fixed::new("text/javascript; charset=utf-8", SCRIPT_TEXT));
pub(super) static ICON: File = LazyLock::new(|| Fixed::new("image/svg+xml", ICON_TEXT));

/// Serves a file. Pages request it with [`version`] in the address, so caches may keep it. At an address without the
/// version the file may be another one tomorrow.
pub(super) fn asset(file: &File, uri: &Uri, headers: &HeaderMap) -> Response {
    let mut response = file.answer(headers);
    let control = match uri.query() {
        Some(query) if query == version() => "public, max-age=31536000, immutable",
        _ => "no-cache",
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
    response
}

/// What pages put into the addresses of files. It changes when one of the files changes.
pub(super) fn version() -> String {
    format!("{VERSION:x}")
}

/// A number that changes when one of the files changes.
const VERSION: u64 = fingerprint(&[STYLE_TEXT, SCRIPT_TEXT, ICON_TEXT]);

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
