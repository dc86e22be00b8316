//! A project.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::model::SpecificationState;

/// A project as clients of Hydra know it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Project")]
pub(crate) struct ProjectJson {
    name: String,
    displayname: String,
    description: &'static str,
    homepage: &'static str,
    owner: &'static str,
    #[schemars(range(max = 1))]
    enabled: u8,
    /// 1: all its specifications are private.
    #[schemars(range(max = 1))]
    hidden: u8,
    releases: [(); 0],
    /// The names of its specifications.
    jobsets: Vec<String>,
}

impl ProjectJson {
    /// The project's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The projects of these specifications, by name. A project is enabled if one of its specifications is, and hidden if
    /// all of them are private.
    pub(crate) fn all(specifications: &[SpecificationState]) -> Vec<Self> {
        let mut projects: BTreeMap<&str, Self> = BTreeMap::new();
        for specification in specifications.iter().map(|state| &state.specification) {
            let name = &specification.project;
            let project = projects.entry(name).or_insert_with(|| Self {
                name: name.clone(),
                displayname: name.clone(),
                description: "",
                homepage: "",
                owner: "",
                enabled: 0,
                hidden: 1,
                releases: [],
                jobsets: Vec::new(),
            });
            project.enabled |= u8::from(specification.enabled);
            project.hidden &= u8::from(specification.private);
            project.jobsets.push(specification.name.clone());
        }
        projects.into_values().collect()
    }
}
