//! What programs ask that watch the server: whether its process answers, whether it does its work, and its figures. And
//! which addresses crawlers should leave alone.
//!
//! - PROBE1: an answer waits neither for a turn of its client nor for the database nor for a disk, or at most a second
//!   where it shows their figures.

mod alive;
mod metrics;
mod ready;
mod robots;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;

use crate::context::Context;

const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";
const METRICS: &str = "/metrics";
const ROBOTS: &str = "/robots.txt";

/// The paths of all probes.
pub(crate) const PATHS: &[&str] = &[HEALTHZ, READYZ, METRICS, ROBOTS];

/// The routes of the probes.
pub(crate) fn router() -> Router<Context> {
    Router::new()
        .route(HEALTHZ, get(alive::answer))
        .route(READYZ, get(ready::answer))
        .route(METRICS, get(metrics::answer))
        .route(ROBOTS, get(robots::answer))
}

/// The routes of the probes while the server waits to start for the reason `why`.
pub(crate) fn waiting(why: Arc<Mutex<String>>) -> Router {
    Router::new()
        .route(HEALTHZ, get(alive::answer))
        .route(READYZ, get(async move |headers: HeaderMap| ready::waiting(&why, &headers)))
        .route(ROBOTS, get(robots::answer))
}
