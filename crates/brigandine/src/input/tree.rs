//! The files of a revision: names, modes and git objects, without their contents.

use super::{Pattern, git::hex};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::symlink;
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

    /// Reads `git ls-tree -r -z`. `None` when it cannot be understood.
    pub(super) fn parse(listing: &[u8], prefix: &str) -> Option<Vec<Entry>> {
        let mut entries = Vec::new();
        for record in listing.split(|byte| *byte == 0).filter(|record| !record.is_empty()) {
            let tab = record.iter().position(|byte| *byte == b'\t')?;
            let (head, path) = (std::str::from_utf8(&record[..tab]).ok()?, &record[tab + 1..]);
            let mut fields = head.split(' ');
            let (mode, _type, object) = (fields.next()?, fields.next()?, fields.next()?);
            let kind = match mode {
                "100644" | "100664" => EntryKind::File,
                "100755" => EntryKind::Executable,
                "120000" => EntryKind::Link,
                "160000" => EntryKind::Submodule,
                _ => return None,
            };
            // A name that is not UTF-8 cannot be named by a pattern; it is refused by the caller.
            let path = std::str::from_utf8(path).ok()?;
            // git refuses such trees as well; here nothing may depend on it.
            if path.split('/').any(|part| matches!(part, "" | "." | ".." | ".git")) {
                return None;
            }
            entries.push(Entry {
                path: format!("{prefix}{path}"),
                kind,
                object: object.to_owned(),
            });
        }
        Some(entries)
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

    /// Copies the selected files from the export in `from` to `to`, which is there.
    ///
    /// Files are copies (shared blocks where the file system can), never hard links: a build may
    /// write to its sources, and must not write to anybody else's. Blocks.
    pub(crate) fn copy(&self, patterns: &[String], from: &Path, to: &Path) -> io::Result<()> {
        let selection = self.select(patterns).map_err(io::Error::other)?;
        let mut last_parent = String::new();
        for index in selection.files.iter() {
            let entry = &self.entries[*index];
            let parent = entry.path.rsplit_once('/').map_or("", |(parent, _)| parent);
            if parent != last_parent && !parent.is_empty() {
                std::fs::create_dir_all(to.join(parent))?;
                parent.clone_into(&mut last_parent);
            }
            let (source, target) = (from.join(&entry.path), to.join(&entry.path));
            let done = match entry.kind {
                EntryKind::File | EntryKind::Executable => {
                    std::fs::copy(&source, &target).map(drop)
                }
                EntryKind::Link => std::fs::read_link(&source)
                    .and_then(|destination| symlink(destination, &target)),
                EntryKind::Submodule => std::fs::create_dir_all(&target),
            };
            done.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", entry.path)))?;
        }
        Ok(())
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
    fn a_listing_is_read_with_its_modes() {
        let listing = b"100755 blob aa\trun\x00120000 blob bb\tlink\x00160000 commit cc\tsub/m\x00";
        let entries = Tree::parse(listing, "").expect("readable");
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].kind, EntryKind::Executable);
        assert_eq!(entries[2].path, "sub/m");
        for hostile in ["nonsense", "100644 blob aa\t../x", "100644 blob aa\ta//x"] {
            assert!(Tree::parse(format!("{hostile}\0").as_bytes(), "").is_none(), "{hostile}");
        }
    }

    #[test]
    fn a_path_that_is_a_link_and_a_directory_is_refused() {
        let listing = b"120000 blob aa\ta\x00100644 blob bb\tab\x00100644 blob bb\ta/b\x00";
        assert!(Tree::new(Tree::parse(listing, "").expect("readable")).is_none());
        let twice = b"120000 blob aa\ta\x00100644 blob bb\ta\x00";
        assert!(Tree::new(Tree::parse(twice, "").expect("readable")).is_none());
    }
}
