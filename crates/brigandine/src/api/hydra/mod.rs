//! The routes of Hydra. A jobset is a specification, which is named by its project and its own name.

mod evaluations;
mod jobs;
mod named;
mod projects;
mod search;

use axum::Router;
use axum::routing::get;

use crate::context::Context;

pub(crate) use evaluations::evaluation;
pub(crate) use projects::projects;

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/project/{project}", get(projects::one))
        .route("/jobset/{project}/{jobset}", get(projects::jobset))
        .route("/jobset/{project}/{jobset}/evals", get(evaluations::list))
        .route("/jobset/{project}/{jobset}/latest-eval", get(evaluations::latest))
        .route("/jobset/{project}/{jobset}/latest-eval/{*rest}", get(evaluations::latest))
        .route("/eval/{id}/builds", get(evaluations::builds))
        .route("/build/{id}/constituents", get(jobs::constituents))
        .route("/job/{project}/{jobset}/{job}/latest", get(jobs::latest))
        .route("/job/{project}/{jobset}/{job}/latest/{*rest}", get(jobs::latest))
        .route("/job/{project}/{jobset}/{job}/latest-finished", get(jobs::latest_finished))
        .route("/job/{project}/{jobset}/{job}/latest-finished/{*rest}", get(jobs::latest_finished))
        .route("/job/{project}/{jobset}/{job}/latest-for/{system}", get(jobs::latest_for))
        .route("/job/{project}/{jobset}/{job}/latest-for/{system}/{*rest}", get(jobs::latest_for))
        .route("/job/{project}/{jobset}/{job}/shield", get(jobs::shield))
        .route("/search", get(search::search))
}

#[cfg(test)]
mod tests;
