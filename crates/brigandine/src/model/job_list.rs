//! Jobs as a job list has them, in a repository or in a specification.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A job of a job list. `config/` checks the values when it reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEntry {
    /// Unique in its list.
    pub name: String,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// One text is a shell script; several are a program and its arguments.
    pub command: Vec<String>,
    /// Patterns of the paths that it reads, `PATTERN` or `INPUT:PATTERN`; empty: the whole tree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Jobs of the same list whose outputs it sees.
    #[serde(default, skip_serializing_if = "Needs::is_empty")]
    pub needs: Needs,
    /// Added to the clean environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Its systems; empty: the server's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub systems: Vec<String>,
    /// Seconds that it may take; `None`: the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// Seconds that it may print nothing; `None`: the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_silent_s: Option<u64>,
    /// Higher is built earlier.
    #[serde(default)]
    pub priority: i64,
    /// Patterns of its products.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<String>,
    /// Whether it may use the network from the sandbox.
    #[serde(default, skip_serializing_if = "super::text::is_no")]
    pub network: bool,
}

/// Needed jobs of the same list, by the names of their outputs in the build. A list is short for a map in which every job
/// has its own name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "NeedsText", into = "NeedsText")]
pub struct Needs(pub BTreeMap<String, String>);

impl Needs {
    /// Whether it needs nothing.
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
