//! Bare clones, one per URL: the server fetches into them, asks them for revisions, and exports from them.

mod ask;
mod by_git;
mod environment;
mod error;
mod fetch;
mod mend;
mod name;
mod read;
mod repositories;
mod tidy;

pub(crate) use error::FetchError;
pub(super) use repositories::OUTPUT_MAX;
pub(crate) use repositories::Repositories;
