//! The routes of Hydra. A jobset is a specification, which is named by its project and its own name.

mod evaluations;
mod jobs;
mod projects;
mod search;

use axum::Router;
use axum::routing::get;
use serde::Deserialize;

use crate::context::Context;
use crate::http::{HttpError, Result};
use crate::model::SpecificationState;
use crate::store::{self, Snapshot};

pub(crate) use evaluations::evaluation;
pub(crate) use projects::projects;

/// The most builds of an answer that has their numbers.
const NUMBERS_MAX: u32 = 100_000;

/// The most builds of an answer that has them whole.
const BUILDS_MAX: u32 = 10_000;

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

/// The variable parts of the path of a jobset or of one of its jobs.
#[derive(Debug, Deserialize)]
struct Named {
    project: String,
    jobset: String,
    #[serde(default)]
    job: String,
    #[serde(default)]
    system: Option<String>,
}

impl Named {
    /// The specification with this name in this project.
    fn find(&self, s: &Snapshot) -> rusqlite::Result<Option<SpecificationState>> {
        let found = store::specification(s, &self.jobset)?;
        Ok(found.filter(|state| state.specification.project == self.project))
    }

    /// There is no such jobset.
    fn missing(&self) -> HttpError {
        HttpError::no_jobset(&self.jobset)
    }

    /// Reads about the specification.
    ///
    /// # Errors
    /// 404: there is no such jobset. The errors of [`Context::read`].
    async fn read<T: Send + 'static>(
        self,
        context: &Context,
        mut read: impl FnMut(&Snapshot, SpecificationState, &Self) -> rusqlite::Result<T>
        + Send
        + 'static,
    ) -> Result<T> {
        let missing = self.missing();
        let found = context.read(move |s| match self.find(s)? {
            Some(state) => read(s, state, &self).map(Some),
            None => Ok(None),
        });
        found.await?.ok_or(missing)
    }
}

/// The part of a path behind its first `parts` parts, with the slash before it, as the client sent it.
fn tail(path: &str, parts: usize) -> &str {
    let mut slashes = path.match_indices('/').map(|(at, _)| at).skip(parts);
    slashes.next().map_or("", |at| &path[at..])
}

#[cfg(test)]
mod tests;
