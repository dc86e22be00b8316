//! The JSON API that clients of Cuirass and Hydra know: addresses, parameters, errors. The types are in `wire/`.

mod audit;
mod builds;
mod changes;
mod comparison;
mod counts;
mod definitions;
mod document;
mod downloads;
mod evaluations;
mod hydra;
mod job;
mod jobs;
mod log;
mod parameters;
mod session;
mod specifications;

use crate::context::Context;
use crate::openapi::Described;

pub(crate) use builds::{build, build_operation};
pub(crate) use hydra::{
    evaluation, evaluation_operation, projects, projects_operation, search, search_operation,
};
pub(crate) use session::{log_in, log_in_operation, log_out_operation, login_page_operation};

/// The routes of the API, except those that are also pages (`site.rs`).
pub(crate) fn routes() -> Described<Context> {
    Described::new()
        .merge(hydra::routes())
        .merge(downloads::routes())
        .merge(specifications::routes())
        .merge(log::routes())
        .merge(builds::routes())
        .merge(counts::routes())
        .merge(evaluations::routes())
        .merge(jobs::routes())
        .merge(job::routes())
        .merge(changes::routes())
        .merge(audit::routes())
        .merge(comparison::routes())
        .merge(definitions::routes())
        .merge(document::routes())
}

#[cfg(test)]
mod tests;
