//! The files of a revision: names, modes and git objects, without their contents.
//!
//! - TREE1: the digest of a selection covers everything that decides what is copied: the path, kind and object of each
//!   file; each `.gitattributes` and `.lfsconfig` file in a folder above a selected file; and, if there is such a file,
//!   the server's filters.

use super::objects;
use super::pattern::Pattern;
use crate::model;
use crate::os::digest::hex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
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
    /// The path relative to the root, with `/` between names, in any encoding.
    pub(crate) path: Vec<u8>,
    /// The kind of the entry.
    pub(crate) kind: EntryKind,
    /// The name of the git object with the contents.
    pub(crate) object: String,
}

/// The most bytes of one name; file systems accept no longer name.
const NAME_BYTES_MAX: usize = 255;

impl Entry {
    /// Makes an entry from git's mode. `None`: the mode or a component of the path is not allowed.
    fn new(path: Vec<u8>, mode: u32, object: String) -> Option<Self> {
        // As in git, only the kind and the owner's right to execute matter.
        let kind = match mode & 0o170_000 {
            0o100_000 if mode & 0o100 == 0 => EntryKind::File,
            0o100_000 => EntryKind::Executable,
            0o120_000 => EntryKind::Link,
            0o160_000 => EntryKind::Submodule,
            _ => return None,
        };
        // git refuses such paths as well, but this check does not rely on it.
        path.split(|byte| *byte == b'/').all(is_sound).then_some(Self { path, kind, object })
    }

    /// The entries that `git ls-tree -r -z` printed, with `prefix` before their paths.
    ///
    /// # Errors
    /// What is wrong with the listing, for people.
    pub(super) fn parse(listing: &[u8], prefix: &[u8], most: usize) -> Result<Vec<Self>, String> {
        let mut entries = Vec::new();
        for record in listing.split(|byte| *byte == 0).filter(|record| !record.is_empty()) {
            let entry = Self::parse_record(record, prefix)?;
            if entries.len() == most {
                return Err(objects::too_many());
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn parse_record(record: &[u8], prefix: &[u8]) -> Result<Self, String> {
        let tab = record.iter().position(|byte| *byte == b'\t');
        let (head, name) = record.split_at(tab.unwrap_or(record.len()));
        let path = [prefix, name.get(1..).unwrap_or_default()].concat();
        let shown = || model::one_line(&String::from_utf8_lossy(&path), 200);
        let long = path.len() > objects::PATH_BYTES_MAX;
        if long || path.split(|byte| *byte == b'/').any(|part| part.len() > NAME_BYTES_MAX) {
            return Err(format!("no file here can have a name as long as that of `{}`", shown()));
        }
        let head = std::str::from_utf8(head).unwrap_or_default();
        let mut words = head.split(' ');
        let mode = words.next().and_then(|mode| u32::from_str_radix(mode, 8).ok());
        let (Some(mode), Some(object)) = (mode, words.next_back()) else {
            return Err("its listing cannot be understood".to_owned());
        };
        let refused = format!("it has a file that cannot be: `{}`", shown());
        Self::new(path, mode, object.to_owned()).ok_or(refused)
    }

    /// The last component of the path.
    pub(super) fn name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// The path relative to the root.
    pub(super) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }
}

/// Whether a part of a path may be the name of a file.
fn is_sound(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b".." | b".git")
}

/// All files of a revision, by path.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    entries: Vec<Entry>,
    /// Indexes of the `.gitattributes` and `.lfsconfig` files, which decide how git writes other files.
    rules: Vec<usize>,
    /// The settings of the server's filters, which convert files that have attributes.
    conversion: String,
    /// Selections by their patterns, because many jobs of an evaluation have the same patterns. Guard: the mutex. At
    /// most [`SELECTIONS_MAX`]; cleared when full.
    selections: Mutex<HashMap<Vec<String>, Selection>>,
}

const SELECTIONS_MAX: usize = 256;

#[derive(Debug, Clone)]
struct Selection {
    digest: String,
    files: std::sync::Arc<[usize]>,
    /// The first pattern that selects nothing; `None`: each selects a file.
    idle: Option<String>,
}

/// Why files could not be selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SelectError {
    /// A pattern cannot be understood; the text says why, for people.
    Pattern(String),
    /// There is no time left.
    Late,
}

/// How many comparisons are made between two calls of `late`.
const LATE_EVERY: usize = 64;

impl Tree {
    /// Sorts the entries by path. `conversion` is the settings of the server's filters. `None`: a path is both a file
    /// and a directory. In a hostile tree the file could be a link, through which a copy would leave its directory.
    pub(crate) fn new(mut entries: Vec<Entry>, conversion: String) -> Option<Self> {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let doubled = entries.windows(2).any(|pair| pair[0].path == pair[1].path);
        let is_file =
            |path: &[u8]| entries.binary_search_by(|entry| entry.path.as_slice().cmp(path)).is_ok();
        let below_file = |entry: &Entry| {
            let slashes = (0..entry.path.len()).filter(|place| entry.path[*place] == b'/');
            slashes.into_iter().any(|slash| is_file(&entry.path[..slash]))
        };
        if doubled || entries.iter().any(below_file) {
            return None;
        }
        let is_rule = |entry: &Entry| matches!(entry.name(), b".gitattributes" | b".lfsconfig");
        let rules = (0..entries.len()).filter(|index| is_rule(&entries[*index])).collect();
        Some(Self { entries, rules, conversion, selections: Mutex::default() })
    }

    /// The digest of the files that the patterns select (TREE1), and the first pattern that selects none. Without
    /// patterns every file is selected. Stops when `late` returns true.
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
        let lock = || self.selections.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = lock().get(patterns).cloned();
        if let Some(cached) = cached {
            return Ok(cached);
        }
        let (chosen, idle) = self.choose(patterns, late)?;
        let files: Vec<usize> = (0..chosen.len()).filter(|index| chosen[*index]).collect();
        let digest = self.digest_of(&files);
        let selection = Selection { digest, files: files.into(), idle };
        let mut selections = lock();
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
            let range = self.below(pattern.prefix().as_bytes());
            if !pattern.is_literal() {
                wild.push((place, pattern, range));
                continue;
            }
            for index in range {
                let below = self.entries[index].path.strip_prefix(pattern.prefix().as_bytes());
                if below.is_some_and(|below| below.is_empty() || below.starts_with(b"/")) {
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
            parts.extend(entry.path.split(|byte| *byte == b'/'));
            for (place, pattern, range) in &wild {
                // A chosen entry is compared only with patterns that have not matched yet.
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

    /// The digest of these entries (TREE1), which are indexes in ascending order.
    fn digest_of(&self, files: &[usize]) -> String {
        let mut digest = Sha256::new();
        let mut add = |index: usize| {
            let entry = &self.entries[index];
            digest.update(&entry.path);
            digest.update([0, entry.kind as u8]);
            digest.update(entry.object.as_bytes());
            digest.update([0]);
        };
        files.iter().copied().for_each(&mut add);
        let mut ruled = false;
        for rule in self.rules.iter().copied() {
            let (path, name) = (&self.entries[rule].path, self.entries[rule].name());
            // The path of the folder with its slash; empty for the root.
            let range = self.below(&path[..path.len() - name.len()]);
            let first = files.partition_point(|file| *file < range.start);
            if files.get(first).is_some_and(|file| range.contains(file)) {
                ruled = true;
                add(rule);
            }
        }
        if ruled {
            // No entry begins with a zero byte, so the settings cannot be taken for an entry.
            digest.update([0]);
            digest.update(self.conversion.as_bytes());
        }
        hex(&digest.finalize())
    }

    /// A range with the entry `prefix` and all entries below it; if `prefix` is empty, the range of all entries.
    fn below(&self, prefix: &[u8]) -> std::ops::Range<usize> {
        if prefix.is_empty() {
            return 0..self.entries.len();
        }
        // Paths sort in the order `a`, `a-b`, `a/b`, so the range may contain other entries.
        let start = self.entries.partition_point(|entry| entry.path.as_slice() < prefix);
        let end = self.entries[start..].partition_point(|entry| entry.path.starts_with(prefix));
        start..start + end
    }

    /// The selected files, in order of their paths.
    pub(super) fn selected(&self, patterns: &[String]) -> io::Result<Vec<&Entry>> {
        // No time limit is needed here: the evaluation has selected the same files within its limit.
        let selection = self.select(patterns, &|| false).map_err(|error| match error {
            SelectError::Pattern(message) => io::Error::other(message),
            SelectError::Late => io::ErrorKind::TimedOut.into(),
        })?;
        Ok(selection.files.iter().map(|index| &self.entries[*index]).collect())
    }

    /// The entry of this path; `None`: there is none.
    pub(super) fn entry(&self, path: &[u8]) -> Option<&Entry> {
        let place = self.entries.binary_search_by(|entry| entry.path.as_slice().cmp(path));
        place.ok().map(|place| &self.entries[place])
    }

    /// Whether there is a folder at this path.
    pub(super) fn has_folder(&self, path: &[u8]) -> bool {
        !self.below(&[path, b"/"].concat()).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let entry = |(path, object): &(&str, &str)| Entry {
            path: (*path).into(),
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
            let entry = Entry { path: "x".into(), kind: EntryKind::File, object: String::new() };
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
        let entry = |mode, path: &str| Entry::new(path.into(), mode, "aa".to_owned());
        assert_eq!(entry(0o100_664, "old").expect("sound").kind, EntryKind::File);
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
        let entry = |path: &str, kind| Entry { path: path.into(), kind, object: String::new() };
        let (link, file) = (EntryKind::Link, EntryKind::File);
        let within = vec![entry("a", link), entry("ab", file), entry("a/b", file)];
        assert!(Tree::new(within, String::new()).is_none());
        assert!(Tree::new(vec![entry("a", link), entry("a", file)], String::new()).is_none());
    }
}
