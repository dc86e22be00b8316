//! What a specification file says and the server does not do.

use serde::{Deserialize, Serialize};

/// Names that a sentence lists at most.
const NAMES_MAX: usize = 10;

/// Something in a specification file that the server was given, and that it does not go by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unused {
    /// The file.
    pub file: String,
    /// What is not used of it.
    pub what: UnusedPart,
}

/// What is not used of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnusedPart {
    /// It says otherwise than what is stored under this name, in these keys.
    Differs {
        /// The specification's name.
        specification: String,
        /// As [`Specification::differences`](super::Specification::differences) names them.
        keys: Vec<String>,
    },
    /// Specifications that were not in it when the server started, and are not stored.
    New(Vec<String>),
    /// It cannot be read, or has mistakes: the first of them.
    Wrong(String),
}

impl Unused {
    /// The specification that is stored and that it is about, if there is one.
    pub fn specification(&self) -> Option<&str> {
        match &self.what {
            UnusedPart::Differs { specification, .. } => Some(specification),
            UnusedPart::New(_) | UnusedPart::Wrong(_) => None,
        }
    }

    /// In sentences for people: which file, what, and what to do.
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

/// The first of them, and how many more there are.
fn some(names: &[String]) -> String {
    let mut text = names[..names.len().min(NAMES_MAX)].join(", ");
    if names.len() > NAMES_MAX {
        text.push_str(&format!(" and {} more", names.len() - NAMES_MAX));
    }
    text
}
