//! The server's configuration as people see it: each setting as text, and what became of a reload.

use super::{Timestamp, one_line};
use serde::{Deserialize, Serialize};

/// A setting of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The key, with its table: `limits.build-time`.
    pub key: &'static str,
    /// The value that the server uses.
    pub running: String,
    /// The value in the files and on the command line, if it is another one.
    pub file: Option<String>,
    /// Whether only a restart of the server changes the value.
    pub restart: bool,
}

/// The configuration of the running server, and how the files differ from it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Configuration {
    /// The configuration file; empty: there is none.
    pub file: String,
    /// Every setting.
    pub settings: Vec<Setting>,
    /// Why the files cannot be used as they are now; empty: they can.
    pub problem: String,
    /// The last reload; `None`: there was none since the server started.
    pub reload: Option<Reload>,
}

/// What became of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// Who asked: `SIGHUP`, or the number that a command has given its request.
    pub id: String,
    /// When it was done.
    pub at: Timestamp,
    /// Why everything stays as it was; empty: the files are in use.
    pub error: String,
    /// The settings that have changed.
    pub changed: Vec<String>,
    /// The settings that differ, and that only a restart changes.
    pub restart: Vec<String>,
    /// What became of each specification in the files: its name, and `new`, `changed`, `unchanged` or `kept`.
    pub specifications: Vec<(String, String)>,
}

/// The most names in a sentence.
const NAMES_MAX: usize = 20;

impl Reload {
    /// Sentences for people.
    pub fn sentences(&self) -> Vec<String> {
        if !self.error.is_empty() {
            // Without the drawings of the places in files.
            let lines = self.error.lines().filter(|line| !line.starts_with(' '));
            let why: Vec<&str> = lines.collect();
            return vec![format!(
                "The configuration was not reloaded, and everything stays as it was: {}",
                one_line(&why.join("\n"), 2000)
            )];
        }
        let list = |names: &[String]| {
            let mut text = names[..names.len().min(NAMES_MAX)].join(", ");
            if names.len() > NAMES_MAX {
                text.push_str(&format!(" and {} more", names.len() - NAMES_MAX));
            }
            text
        };
        let of = |word: &str| {
            let found = self.specifications.iter().filter(|(_, became)| became == word);
            found.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        let mut all = Vec::new();
        for (what, names) in [
            ("Changed: ", self.changed.clone()),
            ("Changed only by a restart of the server: ", self.restart.clone()),
            ("New specifications: ", of("new")),
            ("Changed specifications: ", of("changed")),
            ("Stored specifications that `replace = true` would change: ", of("kept")),
        ] {
            if !names.is_empty() {
                all.push(format!("{what}{}.", list(&names)));
            }
        }
        if all.is_empty() {
            all.push("The files say what the server uses already.".to_owned());
        }
        all
    }
}
