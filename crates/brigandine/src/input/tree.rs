//! The files of a revision: names, modes and git objects, without their contents.

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
    /// Selections by pattern list: jobs of one evaluation mostly share a few. Bounded by
    /// [`SELECTIONS_MAX`], emptied when full.
    selections: Mutex<HashMap<Vec<String>, Selection>>,
}

const SELECTIONS_MAX: usize = 256;

#[derive(Debug, Clone)]
struct Selection {
    digest: String,
    files: std::sync::Arc<[usize]>,
}

impl Tree {
    /// Sorts the entries by path. `None`: one is both a file and a directory, as a hostile tree may
    /// have it to lead a copy through a link.
    pub(crate) fn new(mut entries: Vec<Entry>) -> Option<Self> {
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
        Some(Self { entries, selections: Mutex::default() })
    }

    /// The digest of the files that the patterns select: of their paths, kinds and objects. No
    /// pattern selects all.
    ///
    /// # Errors
    /// A pattern that cannot be understood, for people.
    pub(crate) fn digest(&self, patterns: &[String]) -> Result<String, String> {
        Ok(self.select(patterns)?.digest)
    }

    /// How many files the patterns select.
    pub(crate) fn count(&self, patterns: &[String]) -> Result<usize, String> {
        Ok(self.select(patterns)?.files.len())
    }

    fn select(&self, patterns: &[String]) -> Result<Selection, String> {
        let cached = {
            let selections = self.selections.lock().unwrap_or_else(PoisonError::into_inner);
            selections.get(patterns).cloned()
        };
        if let Some(cached) = cached {
            return Ok(cached);
        }
        let mut chosen = vec![patterns.is_empty(); self.entries.len()];
        for pattern in patterns {
            let pattern = Pattern::new(pattern)?;
            for index in self.below(pattern.prefix()) {
                chosen[index] = chosen[index] || pattern.matches(&self.entries[index].path);
            }
        }
        let files: Vec<usize> = chosen
            .iter()
            .enumerate()
            .filter_map(|(index, chosen)| chosen.then_some(index))
            .collect();
        let mut digest = Sha256::new();
        for index in &files {
            let entry = &self.entries[*index];
            digest.update(entry.path.as_bytes());
            digest.update([0, entry.kind as u8]);
            digest.update(entry.object.as_bytes());
            digest.update([0]);
        }
        let selection = Selection { digest: hex(&digest.finalize()), files: files.into() };
        let mut selections = self.selections.lock().unwrap_or_else(PoisonError::into_inner);
        if selections.len() >= SELECTIONS_MAX {
            selections.clear();
        }
        selections.insert(patterns.to_vec(), selection.clone());
        Ok(selection)
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
        let selection = self.select(patterns).map_err(io::Error::other)?;
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
        Tree::new(files.iter().map(entry).collect()).expect("a sound tree")
    }

    fn digest(tree: &Tree, patterns: &[&str]) -> String {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        tree.digest(&patterns).expect("patterns")
    }

    #[test]
    fn the_digest_changes_with_the_selected_files_only() {
        let before = tree(&[("a/x.c", "1"), ("a-b", "9"), ("b/y.c", "2"), ("README", "3")]);
        let after = tree(&[("a/x.c", "1"), ("a-b", "9"), ("b/y.c", "4"), ("README", "3")]);
        assert_eq!(digest(&before, &["a"]), digest(&after, &["a/**"]));
        assert_ne!(digest(&before, &["b"]), digest(&after, &["b"]));
        assert_ne!(digest(&before, &[]), digest(&after, &[]));
        assert_eq!(before.count(&["a".to_owned()]), Ok(1));
        assert_eq!(before.count(&["**/*.c".to_owned()]), Ok(2));
        assert_eq!(before.count(&["a/x.c".to_owned(), "a".to_owned()]), Ok(1));
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
        assert!(Tree::new(within).is_none());
        assert!(Tree::new(vec![entry("a", link), entry("a", file)]).is_none());
    }
}
