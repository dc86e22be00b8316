//! The JSON API that clients of Cuirass and Hydra know: addresses, parameters, errors. The types are in `wire/`.

mod builds;
mod changes;
mod counts;
mod downloads;
mod evaluations;
mod hydra;
mod jobs;
mod log;
mod specifications;

use axum::Router;
use axum::routing::{get, post};

use crate::context::Context;

pub(crate) use builds::build;
pub(crate) use hydra::{evaluation, projects};

/// The routes of the API, except those that are also pages (`site.rs`).
pub(crate) fn router() -> Router<Context> {
    Router::new()
        .merge(hydra::router())
        .merge(downloads::router())
        .route("/jobsets", get(specifications::list))
        .route("/specifications", get(specifications::list))
        .route("/api/jobsets", get(specifications::list))
        .route("/build/{id}/log/raw", get(log::raw))
        .route("/api/latestbuilds", get(builds::latest))
        .route("/api/queue", get(builds::queue))
        .route("/api/nrqueue", get(counts::queued))
        .route("/api/nrbuilds", get(counts::ended))
        .route("/api/evaluations", get(evaluations::list))
        .route("/api/evaluation", get(evaluations::one))
        .route("/api/jobs", get(jobs::list))
        .route("/api/jobs/history", get(jobs::history))
        .route("/api/v1/build/{id}/cancel", post(changes::cancel))
        .route("/api/v1/build/{id}/restart", post(changes::restart))
        .route("/api/v1/jobset/{name}/evaluate", post(changes::evaluate))
}

#[cfg(test)]
mod tests;
