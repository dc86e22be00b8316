//! What programs ask that watch the server: whether its process answers, whether it does its work, and its figures. And
//! which addresses crawlers should leave alone.
//!
//! - PROBE1: an answer waits neither for a turn of its client nor for the database nor for a disk, or at most a second
//!   where it shows their figures, and another where the request has credentials.

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
use crate::measure::Text;
use crate::openapi::{Described, Dialect, Operation};
use crate::wire::ReadinessJson;

const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";
const METRICS: &str = "/metrics";
const ROBOTS: &str = "/robots.txt";

/// The paths of all probes.
pub(crate) const PATHS: &[&str] = &[HEALTHZ, READYZ, METRICS, ROBOTS];

/// The routes of the probes.
pub(crate) fn routes() -> Described<Context> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let probe = |summary| Operation::new(Dialect::Probe, summary);
    let ready_operation = probe("Whether the server does its work")
        .other(200, TEXT, "It does.")
        .json::<ReadinessJson>(200, "It does.")
        .other(503, TEXT, "It does not; the reasons, a line each.")
        .json::<ReadinessJson>(503, "It does not; the reasons.")
        .open();
    let metrics_operation =
        probe("Figures for Prometheus").other(200, Text::CONTENT_TYPE, "The figures.");
    Described::new()
        .get(
            HEALTHZ,
            alive::answer,
            probe("Whether the process answers").other(200, TEXT, "It does.").open(),
        )
        .get(READYZ, ready::answer, ready_operation)
        .get(METRICS, metrics::answer, metrics_operation)
        .get(
            ROBOTS,
            robots::answer,
            probe("What crawlers should leave alone").other(200, TEXT, "The rules.").open(),
        )
}

/// The routes of the probes while the server waits to start for the reason `why`.
pub(crate) fn waiting(why: Arc<Mutex<String>>) -> Router {
    Router::new()
        .route(HEALTHZ, get(alive::answer))
        .route(READYZ, get(async move |headers: HeaderMap| ready::waiting(&why, &headers)))
        .route(METRICS, get(metrics::waiting))
        .route(ROBOTS, get(robots::answer))
}
