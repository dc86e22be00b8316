//! Compares the configured specification files with the stored specifications.
//!
//! The server loads the files only when it starts, and replaces a stored specification only with `--replace`. So a file
//! may differ from what the server uses, since the start or since the file was edited. Every second the server checks
//! the size and times of each file, and reads a file that has changed.

use super::tasks::{LOOK_PAUSE, stopped};
use super::{App, Shared};
use crate::config;
use crate::health;
use crate::model::{
    self, Event, MESSAGE_BYTES_MAX, Specification, SpecificationState, Unused, UnusedPart,
};
use crate::store;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most differences that are reported.
const UNUSED_MAX: usize = 100;

/// The inode, size and times of a file, which change whenever the file is written. `None`: the file cannot be read.
type Stamp = Option<(u64, u64, [i64; 4])>;

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    Some((found.ino(), found.size(), times))
}

/// A specification file.
#[derive(Debug)]
struct SpecificationFile {
    path: PathBuf,
    /// The stamp at the last read; the outer `None`: the file has never been read.
    stamp: Option<Stamp>,
    /// The specifications at the last read, or the first problem of the file.
    contents: Result<Vec<Specification>, String>,
}

/// The configured specification files.
#[derive(Debug)]
pub(super) struct Files {
    files: Vec<SpecificationFile>,
    /// The names of the specifications in each file when the file was first read. If one of these is not stored,
    /// somebody has removed it on purpose, so it is not reported as new.
    first_names: BTreeSet<String>,
}

impl Files {
    pub(super) fn new(paths: &[PathBuf]) -> Self {
        let paths: BTreeSet<PathBuf> = paths
            .iter()
            .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
            .collect();
        let file = |path| SpecificationFile { path, stamp: None, contents: Ok(Vec::new()) };
        Self { files: paths.into_iter().map(file).collect(), first_names: BTreeSet::new() }
    }

    /// Reads the files that have changed. Blocks the thread.
    pub(super) fn look(&mut self) {
        for file in &mut self.files {
            // Taken before the read, so that a write during the read gives another stamp.
            let now = stamp(&file.path);
            if file.stamp == Some(now) {
                continue;
            }
            let first = file.stamp.replace(now).is_none();
            file.contents = read(&file.path);
            if let (true, Ok(found)) = (first, &file.contents) {
                self.first_names.extend(found.iter().map(|one| one.name.clone()));
            }
        }
    }

    /// How the files differ from the stored specifications.
    pub(super) fn unused(&self, stored: &[SpecificationState]) -> Vec<Unused> {
        let mut all = Vec::new();
        for SpecificationFile { path, contents, .. } in &self.files {
            let file = path.display().to_string();
            let found = match contents {
                Ok(found) => found,
                Err(first) => {
                    all.push(Unused { file, what: UnusedPart::Wrong(first.clone()) });
                    continue;
                }
            };
            let mut new = Vec::new();
            for one in found {
                let known = stored.iter().find(|state| state.specification.name == one.name);
                let keys = known.map(|known| one.differences(&known.specification));
                match keys {
                    Some(keys) if keys.is_empty() => {}
                    Some(keys) => {
                        let specification = one.name.clone();
                        let what = UnusedPart::Differs { specification, keys };
                        all.push(Unused { file: file.clone(), what });
                    }
                    None if self.first_names.contains(&one.name) => {}
                    None => new.push(one.name.clone()),
                }
            }
            if !new.is_empty() {
                all.push(Unused { file, what: UnusedPart::New(new) });
            }
        }
        all.truncate(UNUSED_MAX);
        all
    }
}

/// The specifications of a file, or the file's first problem.
fn read(path: &Path) -> Result<Vec<Specification>, String> {
    match config::read(path, config::specification::parse) {
        Ok(placed) => Ok(placed.into_iter().map(|placed| placed.specification).collect()),
        Err(problems) => Err(model::one_line(&problems.first(), MESSAGE_BYTES_MAX)),
    }
}

impl App {
    /// The first of these names that stands in a specification file now, and the file. A file that cannot be read
    /// states nothing: the server would not start with it.
    pub(super) async fn standing_in_file(&self, names: Vec<String>) -> Option<(String, PathBuf)> {
        let paths = self.config().specifications.clone();
        let find = move || {
            paths.into_iter().find_map(|path| {
                let stated = read(&path).unwrap_or_default();
                let name = names.iter().find(|name| stated.iter().any(|one| one.name == **name))?;
                Some((name.clone(), path))
            })
        };
        tokio::task::spawn_blocking(find).await.unwrap_or_default()
    }

    /// Compares the files with the stored specifications every second, until the server ends.
    pub(super) async fn watch_files(&self) -> Result<(), String> {
        let shared: &Shared = &self.shared;
        let mut stop = shared.stop.subscribe();
        let mut config = self.config();
        let mut files = Files::new(&config.specifications);
        loop {
            // After a reload other files may be named, and all of them have been used.
            let now = self.config();
            if !Arc::ptr_eq(&config, &now) {
                files = Files::new(&now.specifications);
                config = now;
            }
            let looked = tokio::task::spawn_blocking(move || {
                files.look();
                files
            });
            files = tokio::select! {
                looked = looked => looked.map_err(|error| error.to_string())?,
                // A read that a broken network file system blocks must not delay the end of the server.
                () = stopped(&mut stop) => return Ok(()),
            };
            let stored = match shared.health.read(&shared.main, store::specifications).await {
                Ok(stored) => stored,
                Err(error) if error.is_closed() || health::passes(&error) => return Ok(()),
                Err(error) => return Err(model::with_causes(&error)),
            };
            let unused = files.unused(&stored);
            let changed = shared.unused.send_if_modified(|known| {
                let changed = *known != unused;
                *known = unused;
                changed
            });
            if changed {
                self.note_running();
                self.publish(Event::Notice);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_PAUSE) => {}
                () = shared.stored.notified() => {}
                () = stopped(&mut stop) => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &Path, text: &str) {
        std::fs::write(path, text).expect("written");
    }

    fn specification(name: &str, branch: &str) -> String {
        format!(
            "[[specification]]\nname = \"{name}\"\n[[specification.input]]\nurl = \"/srv/x\"\nbranch = \"{branch}\"\n"
        )
    }

    fn stored(path: &Path) -> Vec<SpecificationState> {
        let found = read(path).expect("specifications");
        let state = |specification| SpecificationState {
            id: model::SpecificationId::new(1),
            specification,
            created_at: 1,
            look: model::Look::default(),
            current_evaluation: None,
            latest_evaluation: None,
        };
        found.into_iter().map(state).collect()
    }

    #[test]
    fn a_file_is_read_again_when_it_was_changed_and_told_until_it_is_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file.toml");
        written(&path, &(specification("one", "main") + &specification("removed", "main")));
        // `removed` was in the file from the beginning, and then somebody removed the specification.
        let mut used = stored(&path);
        used.retain(|state| state.specification.name == "one");
        let mut files = Files::new(&[path.clone(), directory.path().join("./file.toml")]);
        let mut look = |used: &[SpecificationState]| {
            files.look();
            files.unused(used)
        };
        assert_eq!(look(&used), []);
        written(&path, &(specification("one", "next") + &specification("two", "main")));
        let file = path.display().to_string();
        let keys = vec!["input source".to_owned()];
        let differs = UnusedPart::Differs { specification: "one".to_owned(), keys };
        let new = UnusedPart::New(vec!["two".to_owned()]);
        let unused = |what| Unused { file: file.clone(), what };
        assert_eq!(look(&used), [unused(differs), unused(new)]);
        assert_eq!(look(&stored(&path)), []);
        written(&path, &(specification("one", "main") + "oops = 1\n"));
        let [wrong] = &look(&used)[..] else { panic!("one is told") };
        assert!(wrong.sentences().contains("line 6: unknown key `oops`"), "{wrong:?}");
        std::fs::remove_file(&path).expect("removed");
        let [gone] = &look(&used)[..] else { panic!("one is told") };
        assert!(gone.sentences().contains("cannot be read"), "{gone:?}");
    }
}
