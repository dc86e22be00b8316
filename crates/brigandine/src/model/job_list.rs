//! Jobs as a person lists them, in a repository or in a specification.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One job of a job list. What it says is checked where it is read; here it is a plain value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEntry {
    /// Unique in its list.
    pub name: String,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// A single text is a shell script, several are program and arguments.
    pub command: Vec<String>,
    /// Patterns of the paths it reads, `PATTERN` or `INPUT:PATTERN`; empty means the whole tree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Jobs of the same list whose outputs it sees.
    #[serde(default, skip_serializing_if = "Needs::is_empty")]
    pub needs: Needs,
    /// Added to the clean environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What it is built for; empty means the server's own system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub systems: Vec<String>,
    /// Seconds it may take; the server's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// Seconds it may be silent; the server's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_silent_s: Option<u64>,
    /// Higher is built earlier.
    #[serde(default)]
    pub priority: i64,
    /// Patterns of the files to keep and offer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<String>,
    /// Whether it may use the network from the sandbox.
    #[serde(default, skip_serializing_if = "super::text::is_no")]
    pub network: bool,
}

/// Jobs of the same list by the names that the build knows them by. Written as a list of jobs, each has
/// its own name; as a map, any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "NeedsText", into = "NeedsText")]
pub struct Needs(pub BTreeMap<String, String>);

impl Needs {
    /// Whether it needs nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// [`Needs`] as they are stored.
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
