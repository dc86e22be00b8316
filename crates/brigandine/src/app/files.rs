//! The specification files that the server was given, and what it does not do of what they say.
//!
//! A file is used when the server starts, and then only as far as nothing else is stored under the same name, unless it
//! may be replaced. So one may say otherwise than what the server does: since it started, or since it was edited. Each
//! file is asked for its size and times every second, and read again when these have changed.

use super::tasks::LOOK;
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

/// What is told at most: more than can be read.
const UNUSED_MAX: usize = 100;

/// What tells that a file was changed; `None`: it cannot be asked.
type Stamp = Option<(u64, u64, (i64, i64), (i64, i64))>;

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    let (modified, changed) =
        ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
    Some((found.ino(), found.size(), modified, changed))
}

/// A file that was given.
#[derive(Debug)]
struct Given {
    path: PathBuf,
    /// When it was read last; the outer `None`: never.
    stamp: Option<Stamp>,
    /// What it said then, or the first of its mistakes.
    said: Result<Vec<Specification>, String>,
}

/// The files that were given.
#[derive(Debug)]
pub(super) struct Files {
    given: Vec<Given>,
    /// Names that the files had when they were read first: what of them is not stored was removed on purpose.
    begun_with: BTreeSet<String>,
}

impl Files {
    pub(super) fn new(paths: &[PathBuf]) -> Self {
        let paths: BTreeSet<PathBuf> = paths
            .iter()
            .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
            .collect();
        let given = |path| Given { path, stamp: None, said: Ok(Vec::new()) };
        Self { given: paths.into_iter().map(given).collect(), begun_with: BTreeSet::new() }
    }

    /// Reads what has changed. Blocks.
    pub(super) fn look(&mut self) {
        for given in &mut self.given {
            // Asked first: what is written while it is read is seen by the next look.
            let now = stamp(&given.path);
            if given.stamp == Some(now) {
                continue;
            }
            let first = given.stamp.replace(now).is_none();
            given.said = read(&given.path);
            if let (true, Ok(found)) = (first, &given.said) {
                self.begun_with.extend(found.iter().map(|one| one.name.clone()));
            }
        }
    }

    /// What is not used of the files when this is what is stored.
    pub(super) fn unused(&self, stored: &[SpecificationState]) -> Vec<Unused> {
        let mut all = Vec::new();
        for given in &self.given {
            let file = given.path.display().to_string();
            let found = match &given.said {
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
                    None if self.begun_with.contains(&one.name) => {}
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

/// The specifications of a file, or the first of its mistakes.
fn read(path: &Path) -> Result<Vec<Specification>, String> {
    let file = path.display().to_string();
    let parsed = config::load(path).and_then(|text| config::specification::parse(&file, &text));
    match parsed {
        Ok(placed) => Ok(placed.into_iter().map(|placed| placed.specification).collect()),
        Err(problems) => Err(model::one_line(&problems.first(), MESSAGE_BYTES_MAX)),
    }
}

impl App {
    /// Looks each second whether the specification files say what the server does, until it ends.
    pub(super) async fn watch_files(&self) -> Result<(), String> {
        let shared: &Shared = &self.shared;
        let mut stop = shared.stop.subscribe();
        let mut files = Files::new(&shared.settings.specification_files);
        if files.given.is_empty() {
            return Ok(());
        }
        loop {
            let looked = tokio::task::spawn_blocking(move || {
                files.look();
                files
            });
            files = tokio::select! {
                looked = looked => looked.map_err(|error| error.to_string())?,
                // A dead network file system must not hold the server.
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return Ok(()),
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
                let _ = shared.events.send(Event::Notice);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = shared.stored.notified() => {}
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return Ok(()),
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
        // `removed` was in the file from the beginning, and somebody removed it.
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
