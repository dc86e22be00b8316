//! The files of a revision: names, modes and git objects, without their contents.
//!
//! E1: the digest of a selection covers all that decides what is copied for it: each file's path, kind and
//! object, and, where a `.gitattributes` file lies above one of them, that file, an `.lfsconfig` beside
//! it, and how the server converts files.

use super::{Pattern, git::hex};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What a tree entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A regular file.
    File,
    /// A regular file that may be executed.
    Executable,
    /// A symbolic link.
    Link,
    /// A submodule that is not exported: an empty directory.
    Submodule,
}

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// What it is.
    pub(crate) kind: EntryKind,
    /// The git object with its contents.
    pub(crate) object: String,
}

impl Entry {
    /// An entry with git's mode for it. `None`: it cannot be a file of a build, by its mode or by
    /// the last part of its path, `name`.
    pub(super) fn new(path: String, name: &str, mode: i32, object: String) -> Option<Self> {
        let kind = match mode {
            0o100_644 | 0o100_664 => EntryKind::File,
            0o100_755 => EntryKind::Executable,
            0o120_000 => EntryKind::Link,
            0o160_000 => EntryKind::Submodule,
            _ => return None,
        };
        // git refuses such trees as well; here nothing may depend on it.
        let sound = is_sound(name) && path.split('/').all(is_sound);
        sound.then_some(Self { path, kind, object })
    }

    /// The last part of its path.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit_once('/').map_or(&self.path, |(_, name)| name)
    }
}

/// Whether a part of a path may be the name of a file.
fn is_sound(name: &str) -> bool {
    !matches!(name, "" | "." | ".." | ".git") && !name.contains(['/', '\0'])
}

/// All files of a revision, by path.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    entries: Vec<Entry>,
    /// Places of the files by which git decides how it writes others.
    rules: Vec<usize>,
    /// How the server converts files that rules speak of: the settings of its filters.
    conversion: String,
    /// Selections by pattern list: jobs of one evaluation mostly share a few. Bounded by
    /// [`SELECTIONS_MAX`], emptied when full.
    selections: Mutex<HashMap<Vec<String>, Selection>>,
}

const SELECTIONS_MAX: usize = 256;

#[derive(Debug, Clone)]
struct Selection {
    digest: String,
    files: std::sync::Arc<[usize]>,
    /// The first pattern that selects nothing.
    idle: Option<String>,
}

/// Why files could not be selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SelectError {
    /// A pattern that cannot be understood, for people.
    Pattern(String),
    /// There is no time left.
    Late,
}

/// Between two looks at the time, in comparisons.
const LATE_EVERY: usize = 64;

impl Tree {
    /// Sorts the entries by path. `conversion` says how the server converts files. `None`: an entry is
    /// both a file and a directory, as a hostile tree may have it to lead a copy through a link.
    pub(crate) fn new(mut entries: Vec<Entry>, conversion: String) -> Option<Self> {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let doubled = entries.windows(2).any(|pair| pair[0].path == pair[1].path);
        let is_file =
            |path: &str| entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).is_ok();
        let below_file = |entry: &Entry| {
            entry.path.match_indices('/').any(|(slash, _)| is_file(&entry.path[..slash]))
        };
        if doubled || entries.iter().any(below_file) {
            return None;
        }
        let is_rule = |entry: &Entry| matches!(entry.name(), ".gitattributes" | ".lfsconfig");
        let rules = (0..entries.len()).filter(|index| is_rule(&entries[*index])).collect();
        Some(Self { entries, rules, conversion, selections: Mutex::default() })
    }

    /// The digest of the files that the patterns select (E1), and the first pattern that selects
    /// none. No pattern at all selects every file. Asks `late` whether to go on.
    pub(crate) fn digest(
        &self,
        patterns: &[String],
        late: &dyn Fn() -> bool,
    ) -> Result<(String, Option<String>), SelectError> {
        self.select(patterns, late).map(|selection| (selection.digest, selection.idle))
    }

    fn select(
        &self,
        patterns: &[String],
        late: &dyn Fn() -> bool,
    ) -> Result<Selection, SelectError> {
        let cached = {
            let selections = self.selections.lock().unwrap_or_else(PoisonError::into_inner);
            selections.get(patterns).cloned()
        };
        if let Some(cached) = cached {
            return Ok(cached);
        }
        let (chosen, idle) = self.choose(patterns, late)?;
        let files: Vec<usize> = chosen
            .iter()
            .enumerate()
            .filter_map(|(index, chosen)| chosen.then_some(index))
            .collect();
        let digest = self.digest_of(&files);
        let selection = Selection { digest, files: files.into(), idle };
        let mut selections = self.selections.lock().unwrap_or_else(PoisonError::into_inner);
        if selections.len() >= SELECTIONS_MAX {
            selections.clear();
        }
        selections.insert(patterns.to_vec(), selection.clone());
        Ok(selection)
    }

    /// Which entries the patterns select, and the first pattern that selects none.
    fn choose(
        &self,
        patterns: &[String],
        late: &dyn Fn() -> bool,
    ) -> Result<(Vec<bool>, Option<String>), SelectError> {
        let mut chosen = vec![patterns.is_empty(); self.entries.len()];
        let mut wild = Vec::new();
        let mut matched = vec![false; patterns.len()];
        for (place, text) in patterns.iter().enumerate() {
            let pattern = Pattern::new(text).map_err(SelectError::Pattern)?;
            let range = self.below(pattern.prefix());
            if !pattern.is_literal() {
                wild.push((place, pattern, range));
                continue;
            }
            for index in range {
                let below = self.entries[index].path.strip_prefix(pattern.prefix());
                if below.is_some_and(|below| below.is_empty() || below.starts_with('/')) {
                    (chosen[index], matched[place]) = (true, true);
                }
            }
        }
        let mut compared = 0_usize;
        let mut parts = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            if wild.is_empty() {
                break;
            }
            parts.clear();
            parts.extend(entry.path.split('/'));
            for (place, pattern, range) in &wild {
                // Compared further only for patterns that have not been of any use yet.
                if !range.contains(&index) || (chosen[index] && matched[*place]) {
                    continue;
                }
                compared += 1;
                if compared.is_multiple_of(LATE_EVERY) && late() {
                    return Err(SelectError::Late);
                }
                if pattern.matches_parts(&parts) {
                    (chosen[index], matched[*place]) = (true, true);
                }
            }
        }
        let idle = matched.iter().position(|matched| !matched);
        Ok((chosen, idle.map(|place| patterns[place].clone())))
    }

    /// E1. `files` are places of entries, in order.
    fn digest_of(&self, files: &[usize]) -> String {
        let mut digest = Sha256::new();
        let mut add = |index: usize| {
            let entry = &self.entries[index];
            digest.update(entry.path.as_bytes());
            digest.update([0, entry.kind as u8]);
            digest.update(entry.object.as_bytes());
            digest.update([0]);
        };
        files.iter().copied().for_each(&mut add);
        let mut ruled = false;
        for rule in self.rules.iter().copied() {
            let folder = self.entries[rule].path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let below = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            let range = self.below(&below);
            let first = files.partition_point(|file| *file < range.start);
            if files.get(first).is_some_and(|file| range.contains(file)) {
                ruled = true;
                add(rule);
            }
        }
        if ruled {
            // No entry begins like this: its path has no zero byte.
            digest.update([0]);
            digest.update(self.conversion.as_bytes());
        }
        hex(&digest.finalize())
    }

    /// The places of the entry `prefix` and of all below it; of all entries when it is empty.
    fn below(&self, prefix: &str) -> std::ops::Range<usize> {
        if prefix.is_empty() {
            return 0..self.entries.len();
        }
        // `a`, `a-b`, `a/b` sort in this order, so the range is a little wider than needed.
        let start = self.entries.partition_point(|entry| entry.path.as_str() < prefix);
        let end = self.entries[start..].partition_point(|entry| entry.path.starts_with(prefix));
        start..start + end
    }

    /// Makes the selected files below `to`, which is there. `write` makes one of them: from its
    /// entry to its path. Blocks.
    pub(super) fn copy(
        &self,
        patterns: &[String],
        to: &Path,
        mut write: impl FnMut(&Entry, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        // The evaluation took its time over these patterns, and could be stopped.
        let selection = self.select(patterns, &|| false).map_err(|error| match error {
            SelectError::Pattern(message) => io::Error::other(message),
            SelectError::Late => io::ErrorKind::TimedOut.into(),
        })?;
        let mut last_parent = String::new();
        for index in selection.files.iter() {
            let entry = &self.entries[*index];
            let parent = entry.path.rsplit_once('/').map_or("", |(parent, _)| parent);
            if parent != last_parent && !parent.is_empty() {
                std::fs::create_dir_all(to.join(parent))?;
                parent.clone_into(&mut last_parent);
            }
            let target = to.join(&entry.path);
            let done = match entry.kind {
                EntryKind::Submodule => std::fs::create_dir_all(&target),
                _ => write(entry, &target),
            };
            done.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", entry.path)))?;
        }
        Ok(())
    }

    /// The entry of this path.
    pub(super) fn entry(&self, path: &str) -> Option<&Entry> {
        let place = self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path));
        place.ok().map(|place| &self.entries[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let entry = |(path, object): &(&str, &str)| Entry {
            path: (*path).to_owned(),
            kind: EntryKind::File,
            object: (*object).to_owned(),
        };
        Tree::new(files.iter().map(entry).collect(), String::new()).expect("a sound tree")
    }

    fn digest(tree: &Tree, patterns: &[&str]) -> String {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        let (digest, idle) = tree.digest(&patterns, &|| false).expect("patterns");
        assert_eq!(idle, None);
        digest
    }

    fn count(tree: &Tree, patterns: &[&str]) -> usize {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        tree.select(&patterns, &|| false).expect("patterns").files.len()
    }

    #[test]
    fn a_selection_is_covered_by_the_rules_above_its_files_and_by_no_others() {
        let files = [
            (".gitattributes", "r"),
            (".lfsconfig", "l"),
            ("a/.gitattributes", "ra"),
            ("a/x", "1"),
            ("ab/.gitattributes", "rb"),
            ("ab/x", "2"),
            ("c/x", "3"),
        ];
        let before = tree(&files);
        for (rule, above) in [
            (".gitattributes", "*"),
            (".lfsconfig", "*"),
            ("a/.gitattributes", "a"),
            ("ab/.gitattributes", "ab"),
        ] {
            let changed =
                files.map(|(path, object)| (path, if path == rule { "other" } else { object }));
            let after = tree(&changed);
            for folder in ["a", "ab", "c"] {
                let pattern = [format!("{folder}/x")];
                let pattern = [pattern[0].as_str()];
                let differs = digest(&before, &pattern) != digest(&after, &pattern);
                assert_eq!(differs, above == "*" || above == folder, "{rule} over {folder}");
            }
        }
        let entries = before.entries.clone();
        let other = Tree::new(entries, "another filter".to_owned()).expect("sound");
        assert_ne!(digest(&before, &["c/x"]), digest(&other, &["c/x"]));
        let plain = |conversion: &str| {
            let entry =
                Entry { path: "x".to_owned(), kind: EntryKind::File, object: String::new() };
            digest(&Tree::new(vec![entry], conversion.to_owned()).expect("sound"), &[])
        };
        assert_eq!(plain(""), plain("a filter"), "nothing says that x is to be converted");
    }

    #[test]
    fn a_selection_of_many_patterns_ends_when_it_is_late() {
        let files: Vec<(String, String)> =
            (0..2000).map(|number| (format!("folder/file-{number}"), number.to_string())).collect();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(p, o)| (p.as_str(), o.as_str())).collect();
        let tree = tree(&files);
        let patterns: Vec<String> = (0..50).map(|number| format!("**/*{number}*e*")).collect();
        let asked = std::cell::Cell::new(0);
        let late = || {
            asked.set(asked.get() + 1);
            asked.get() == 3
        };
        assert_eq!(tree.digest(&patterns, &late), Err(SelectError::Late));
        assert_eq!(asked.get(), 3, "nothing is compared after that");
    }

    #[test]
    fn the_digest_changes_with_the_selected_files_only() {
        let before = tree(&[("a/x.c", "1"), ("a-b", "9"), ("b/y.c", "2"), ("README", "3")]);
        let after = tree(&[("a/x.c", "1"), ("a-b", "9"), ("b/y.c", "4"), ("README", "3")]);
        assert_eq!(digest(&before, &["a"]), digest(&after, &["a/**"]));
        assert_ne!(digest(&before, &["b"]), digest(&after, &["b"]));
        assert_ne!(digest(&before, &[]), digest(&after, &[]));
        assert_eq!(count(&before, &["a"]), 1);
        assert_eq!(count(&before, &["**/*.c"]), 2);
        assert_eq!(count(&before, &["a/x.c", "a"]), 1);
        let idle = before.digest(&["a".to_owned(), "*.h".to_owned()], &|| false).expect("patterns");
        assert_eq!(idle.1.as_deref(), Some("*.h"));
    }

    #[test]
    fn entries_are_told_apart_by_their_modes_and_hostile_ones_refused() {
        let entry = |mode, path: &str| Entry::new(path.to_owned(), path, mode, "aa".to_owned());
        assert_eq!(entry(0o100_755, "run").expect("sound").kind, EntryKind::Executable);
        assert_eq!(entry(0o120_000, "link").expect("sound").kind, EntryKind::Link);
        assert_eq!(entry(0o160_000, "sub").expect("sound").kind, EntryKind::Submodule);
        for hostile in ["..", ".", ".git", "", "a/../b"] {
            assert_eq!(entry(0o100_644, hostile), None, "{hostile}");
        }
        assert_eq!(entry(0o140_000, "socket"), None);
    }

    #[test]
    fn a_path_that_is_a_link_and_a_directory_is_refused() {
        let entry = |path: &str, kind| Entry { path: path.to_owned(), kind, object: String::new() };
        let (link, file) = (EntryKind::Link, EntryKind::File);
        let within = vec![entry("a", link), entry("ab", file), entry("a/b", file)];
        assert!(Tree::new(within, String::new()).is_none());
        assert!(Tree::new(vec![entry("a", link), entry("a", file)], String::new()).is_none());
    }
}
