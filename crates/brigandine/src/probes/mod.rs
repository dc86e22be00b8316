//! What programs ask that watch the server: whether its process answers, whether it does its work. And which addresses
//! crawlers should leave alone.
//!
//! - PROBE1: an answer waits neither for the database nor for a disk nor for a turn of its client.

mod alive;
mod ready;
mod robots;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing::get;

use crate::context::Context;

pub(crate) const HEALTHZ: &str = "/healthz";
pub(crate) const READYZ: &str = "/readyz";
pub(crate) const ROBOTS: &str = "/robots.txt";

/// The paths of all probes.
pub(crate) const PATHS: &[&str] = &[HEALTHZ, READYZ, ROBOTS];

/// The routes of the probes.
pub(crate) fn router() -> Router<Context> {
    Router::new()
        .route(HEALTHZ, get(alive::answer))
        .route(READYZ, get(ready::answer))
        .route(ROBOTS, get(robots::answer))
}

/// The routes of the probes while the server waits to start for the reason `why`.
pub(crate) fn waiting(why: Arc<Mutex<String>>) -> Router {
    Router::new()
        .route(HEALTHZ, get(alive::answer))
        .route(READYZ, get(async move |headers: HeaderMap| ready::waiting(&why, &headers)))
        .route(ROBOTS, get(robots::answer))
}

/// Tells caches not to keep an answer that is true only now.
fn not_kept(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
