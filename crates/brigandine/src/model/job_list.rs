//! Jobs as a job list states them, in a repository or in a specification.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A job of a job list. `config/` checks the values when it reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEntry {
    /// The job's name, unique in its list.
    pub name: String,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The program and its arguments. A single text is a shell script.
    pub command: Vec<String>,
    /// Patterns of the paths that the job reads, `PATTERN` or `INPUT:PATTERN`; empty: the whole tree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Jobs of the same list whose outputs the job sees.
    #[serde(default, skip_serializing_if = "Needs::is_empty")]
    pub needs: Needs,
    /// Variables that are added to the clean environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The systems to build for; empty: the server's own system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub systems: Vec<String>,
    /// The most seconds that the build may take; `None`: the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// The most seconds without output; `None`: the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_silent_s: Option<u64>,
    /// Jobs with a higher priority are built earlier.
    #[serde(default)]
    pub priority: i64,
    /// Patterns for the paths of the products.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<String>,
    /// Whether the job may use the network from the sandbox.
    #[serde(default, skip_serializing_if = "super::text::is_no")]
    pub network: bool,
}

/// The jobs of the same list that a job needs, by the names that their outputs have in the build. In JSON this is a
/// list if every output has the name of its job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "NeedsText", into = "NeedsText")]
pub struct Needs(pub BTreeMap<String, String>);

impl Needs {
    /// Whether the job needs no other job.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// [`Needs`] in JSON.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum NeedsText {
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl From<NeedsText> for Needs {
    fn from(text: NeedsText) -> Self {
        Self(match text {
            NeedsText::List(names) => names.into_iter().map(|name| (name.clone(), name)).collect(),
            NeedsText::Map(names) => names,
        })
    }
}

impl From<Needs> for NeedsText {
    fn from(needs: Needs) -> Self {
        if needs.0.iter().all(|(alias, name)| alias == name) {
            Self::List(needs.0.into_keys().collect())
        } else {
            Self::Map(needs.0)
        }
    }
}
