//! What a search finds.

use schemars::JsonSchema;
use serde::Serialize;

use super::build::BuildJson;
use super::jobset::HydraJobsetJson;
use super::project::ProjectJson;

/// What a search of Hydra finds, at most 500 of each kind.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SearchResults")]
pub(crate) struct SearchJson {
    pub(crate) projects: Vec<ProjectJson>,
    pub(crate) jobsets: Vec<HydraJobsetJson>,
    /// The builds that have an output at this path.
    pub(crate) builds: Vec<BuildJson>,
    /// The build of this derivation.
    pub(crate) buildsdrv: Vec<BuildJson>,
}
