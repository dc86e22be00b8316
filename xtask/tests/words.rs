//! Checks that sentences and names of a private language, which were replaced once, do not return.
//!
//! Each entry has what to write instead. Changelogs are left out, because they tell about the past.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Sentences whose meaning an operator or a reader had to guess, and what to write instead.
const SENTENCES: [(&str, &str); 9] = [
    ("brought to this version", "migrated to this version"),
    ("an essential part ended", "a required task exited"),
    ("what need not be kept was deleted", "retention run finished"),
    ("nothing says any more how to build", "has no derivation any more"),
    ("the bad day", "worst-case guarantees"),
    ("no trouble of anybody", "the failure is logged and ignored"),
    ("on a sleeping processor", "whose CPU is idle"),
    ("is no longer needed when it does", "enters the reserve when the others keep up"),
    ("what is above counts as that", "clamped to"),
];

/// Names in the library that were private metaphors, and the names that replaced them.
const NAMES: [(&str, &str); 6] = [
    ("relay", "wakeups"),
    ("deference", "yields_left"),
    ("betray", "revoke"),
    ("chair", "running call"),
    ("relayed", "woken"),
    ("news", "changes"),
];

fn root() -> PathBuf {
    let xtask = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    Path::new(&xtask).parent().expect("xtask is in the workspace").to_owned()
}

/// The files below `folder` with one of these extensions.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("a folder's entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if path.is_dir() {
                if !["target", "out", "data"].contains(&&*name) {
                    open.push(path);
                }
            } else if name != "CHANGELOG.md"
                && extensions.iter().any(|extension| name.ends_with(extension))
            {
                found.push(path);
            }
        }
    }
    found
}

/// The text with one blank for each run of white space and comment marks, so that a sentence is found across lines.
fn joined(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| !["//", "///", "//!"].contains(word));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn no_message_and_no_comment_says_what_a_reader_has_to_guess_at() {
    let root = root();
    let mut all = files(&root.join("crates"), &[".rs", ".md", ".html", ".toml"]);
    all.extend(files(&root.join("docs"), &[".md"]));
    all.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    assert!(all.len() > 300, "only {} files", all.len());
    for path in all {
        let text = joined(&fs::read_to_string(&path).expect("text")).to_lowercase();
        for (sentence, instead) in SENTENCES {
            assert!(
                !text.contains(&sentence.to_lowercase()),
                "{} says {sentence:?}; say {instead:?}",
                path.display()
            );
        }
    }
}

#[test]
fn no_name_of_the_library_is_a_private_metaphor() {
    let src = root().join("crates/lockkeeper/src");
    let all = files(&src, &[".rs"]);
    assert!(all.len() > 100, "only {} files", all.len());
    for path in all {
        let text = fs::read_to_string(&path).expect("text").to_lowercase();
        let words: Vec<&str> = text
            .split(|char: char| !char.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        for (name, instead) in NAMES {
            assert!(
                !words.contains(&name),
                "{} says {name:?}; say {instead:?}",
                path.strip_prefix(&src).expect("below").display()
            );
        }
    }
}

#[test]
fn a_sentence_is_found_over_lines_of_a_comment() {
    let text = "/// The file is\n    /// brought to this\n/// version.";
    assert!(joined(text).contains("brought to this version"));
}

fn is_label(word: &str) -> bool {
    let digits = word.trim_start_matches(|char: char| char.is_ascii_uppercase());
    let letters = word.len() - digits.len();
    (1..=6).contains(&letters)
        && (1..=2).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The labels of invariants that comments define (`//! - ADM1: …`), and the labels that comments name.
fn labels(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut defined, mut named) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let Some((_, comment)) = line.split_once("//") else { continue };
        let head = line.trim_start().strip_prefix("//! - ").and_then(|rest| rest.split_once(':'));
        if let Some((label, _)) = head.filter(|(label, _)| is_label(label)) {
            defined.push(label.to_owned());
        } else {
            let words = comment.split(|char: char| !char.is_alphanumeric() && char != '_');
            named.extend(words.filter(|word| is_label(word)).map(str::to_owned));
        }
    }
    (defined, named)
}

#[test]
fn each_label_of_an_invariant_stands_for_one_thing_and_is_defined() {
    let mut of_all = HashSet::new();
    for name in ["lockkeeper", "brigandine", "brigandine-bench"] {
        let src = root().join("crates").join(name).join("src");
        let texts: Vec<(PathBuf, String)> = files(&src, &[".rs"])
            .into_iter()
            .map(|path| (path.clone(), fs::read_to_string(&path).expect("text")))
            .collect();
        let mut defined = HashMap::new();
        for (path, text) in &texts {
            for label in labels(text).0 {
                if let Some(other) = defined.insert(label.clone(), path) {
                    panic!("{} and {} both define {label}", other.display(), path.display());
                }
            }
        }
        let prefix = |label: &str| label.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        let prefixes: HashSet<String> = defined.keys().map(|label| prefix(label)).collect();
        for (path, text) in &texts {
            for label in labels(text).1 {
                let is_known = defined.contains_key(&label) || !prefixes.contains(&prefix(&label));
                assert!(is_known, "{} names {label}, which nothing defines", path.display());
            }
        }
        let enough = name == "brigandine-bench" || defined.len() > 40;
        assert!(enough, "{name} defines only {} labels", defined.len());
        of_all.extend(defined.into_keys());
    }
    // The table of all files names the invariants that each file keeps.
    let table = fs::read_to_string(root().join("docs/files.md")).expect("text");
    let words = table.split(|char: char| !char.is_alphanumeric());
    for label in words.filter(|word| is_label(word)) {
        assert!(of_all.contains(label), "docs/files.md names {label}, which nothing defines");
    }
}

#[test]
fn labels_are_told_from_other_words() {
    let text = "//! - ADM1: kept.\n    // ADM1, ADM2. SHA256 is none.\nlet A1 = 2; // see `CLK12`.";
    let (defined, named) = labels(text);
    assert_eq!(defined, ["ADM1"]);
    assert_eq!(named, ["ADM1", "ADM2", "CLK12"]);
}
