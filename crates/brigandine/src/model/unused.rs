//! Differences between the configured specification files and the stored specifications.

use serde::{Deserialize, Serialize};

/// How many names a sentence lists at most.
const NAMES_MAX: usize = 10;

/// A part of a specification file that the server does not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unused {
    /// The file.
    pub file: String,
    /// The part that is not used.
    pub what: UnusedPart,
}

/// The part of a specification file that the server does not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnusedPart {
    /// The file differs from the stored specification in these keys.
    Differs {
        /// The specification's name.
        specification: String,
        /// The keys, as [`Specification::differences`](super::Specification::differences) returns them.
        keys: Vec<String>,
    },
    /// The names of specifications that were added to the file after the server started, and are not stored.
    New(Vec<String>),
    /// The file cannot be read, or has mistakes: the first problem.
    Wrong(String),
}

impl Unused {
    /// The stored specification from which the file differs; `None`: the file as a whole is not used, or has new
    /// specifications.
    pub fn specification(&self) -> Option<&str> {
        match &self.what {
            UnusedPart::Differs { specification, .. } => Some(specification),
            UnusedPart::New(_) | UnusedPart::Wrong(_) => None,
        }
    }

    /// Sentences that tell people which part of which file is not used, and what to do.
    pub fn sentences(&self) -> String {
        let file = &self.file;
        match &self.what {
            UnusedPart::Differs { keys, .. } => format!(
                "{file} says otherwise than what is used: {}. `brigandine spec add --replace {file}` \
                 uses it from now on; so does a start of the server with `--replace` (or `replace = true`).",
                some(keys)
            ),
            UnusedPart::New(names) => format!(
                "{file} has what is not used yet: {}. `brigandine spec add {file}` adds it; so does the \
                 next start of the server.",
                some(names)
            ),
            UnusedPart::Wrong(first) => format!(
                "{file} was changed and has mistakes, with which the server would not start again: \
                 {first}. `brigandine check {file}` tells all of them."
            ),
        }
    }
}

/// The first [`NAMES_MAX`] names, and how many more there are.
fn some(names: &[String]) -> String {
    let mut text = names[..names.len().min(NAMES_MAX)].join(", ");
    if names.len() > NAMES_MAX {
        text.push_str(&format!(" and {} more", names.len() - NAMES_MAX));
    }
    text
}
