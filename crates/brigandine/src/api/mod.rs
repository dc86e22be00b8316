//! The JSON API that clients of Cuirass and Hydra know. Only this folder knows their spelling.

mod builds;
mod changes;
mod evaluations;
mod jobs;
mod log;
mod specifications;
mod wire;

use axum::Router;
use axum::routing::{get, post};

use crate::http::Site;

pub(crate) use builds::{find as find_build, json_of_build};
pub(crate) use changes::restart_refused;
pub(crate) use log::follow as follow_log;
pub(crate) use wire::{BuildJson, builds_json};

/// The routes of the API. `/build/ID` itself is among the pages, which hand it over here unless a
/// browser asks.
pub(crate) fn router() -> Router<Site> {
    Router::new()
        .route("/jobsets", get(specifications::list))
        .route("/specifications", get(specifications::list))
        .route("/api/jobsets", get(specifications::list))
        .route("/build/{id}/log/raw", get(log::raw))
        .route("/download/{product}", get(builds::download))
        .route("/api/latestbuilds", get(builds::latest))
        .route("/api/queue", get(builds::queue))
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
