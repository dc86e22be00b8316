//! The routes of Hydra. A jobset is a specification, which is named by its project and its own name.

mod evaluations;
mod jobs;
mod named;
mod projects;
mod search;
mod writes;

use crate::context::Context;
use crate::openapi::Described;

pub(crate) use evaluations::{evaluation, evaluation_operation};
pub(crate) use projects::{projects, projects_operation};
pub(crate) use search::{search, search_operation};

pub(super) fn routes() -> Described<Context> {
    Described::new()
        .merge(projects::routes())
        .merge(evaluations::routes())
        .merge(jobs::routes())
        .merge(writes::routes())
}

#[cfg(test)]
mod tests;
