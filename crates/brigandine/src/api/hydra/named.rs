//! What the paths of Hydra name: a jobset or a job by its project and its own name, and the part of a path behind that.

use axum::http::Uri;
use serde::Deserialize;

use crate::context::Reading;
use crate::http::{HttpError, Result};
use crate::model::SpecificationState;
use crate::openapi::{Kind, Parameter};
use crate::store::{Visible, visible};

/// The most builds of an answer that has their numbers.
pub(super) const NUMBERS_MAX: u32 = 100_000;

/// The most builds of an answer that has them whole.
pub(super) const BUILDS_MAX: u32 = 10_000;

pub(super) const PROJECT: Parameter =
    Parameter::new("project", Kind::Text, "main", "The project of the specification.");
pub(super) const JOBSET: Parameter =
    Parameter::new("jobset", Kind::Text, "hello", "The name of the specification.");

/// The variable parts of the path of a jobset or of one of its jobs.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    pub(super) project: String,
    pub(super) jobset: String,
    #[serde(default)]
    pub(super) job: String,
    #[serde(default)]
    pub(super) system: Option<String>,
}

impl Named {
    /// The specification with this name in this project.
    pub(super) fn find(&self, s: &Visible<'_>) -> rusqlite::Result<Option<SpecificationState>> {
        let found = visible::specification(s, &self.jobset)?;
        Ok(found.filter(|state| state.specification.project == self.project))
    }

    /// There is no such jobset.
    pub(super) fn missing(&self) -> HttpError {
        HttpError::no_jobset(&self.jobset)
    }

    /// Reads about the specification.
    ///
    /// # Errors
    /// 404: there is no such jobset. The errors of [`Context::read`].
    pub(super) async fn read<T: Send + 'static>(
        self,
        context: &Reading,
        mut read: impl FnMut(&Visible<'_>, SpecificationState, &Self) -> rusqlite::Result<T>
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

/// What an address has behind the first `parts` parts of its path, with the slash before it, and its query, as the client
/// sent them.
pub(super) fn tail(uri: &Uri, parts: usize) -> String {
    let path = uri.path();
    let mut slashes = path.match_indices('/').map(|(at, _)| at).skip(parts);
    let path = slashes.next().map_or("", |at| &path[at..]);
    uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}
