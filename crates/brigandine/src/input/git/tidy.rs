//! A clone is looked after: what nobody needs any more goes, and what git stored piece by piece is packed.

use super::{Bare, FetchError, OUTPUT_MAX, Repositories};
use crate::input::address::Origin;
use crate::input::reader::About;
use crate::input::{by_git, mend, objects};
use std::collections::HashSet;
use std::path::Path;

/// How many revisions a clone keeps before it asks whether they are needed.
const PINS_MAX: usize = 32;
/// With more loose objects than this, they are packed. Counted, where `git gc --auto` estimates by one of
/// 256 folders, and is off by as many again.
const LOOSE_MAX: usize = 256;
/// With more packs than this, git makes one of them.
const PACKS_MAX: usize = 50;
/// How long an object that no reference leads to is kept: a build may just be reading it.
const UNNEEDED_FOR: &str = "1.day.ago";
/// Every so many evaluations a clone is looked after.
const TIDY_EVERY: u32 = 32;

impl Repositories {
    /// The references of a clone, by name.
    async fn references(&self, clone: Bare<'_>) -> Result<Vec<String>, FetchError> {
        let names = if by_git::is_for(clone.path) {
            by_git::references(self, clone).await?
        } else {
            self.ask("list the revisions of", clone, About::References).await?
        };
        Ok(String::from_utf8_lossy(&names).lines().map(str::to_owned).collect())
    }

    async fn remove_references(
        &self,
        clone: Bare<'_>,
        names: Vec<String>,
    ) -> Result<(), FetchError> {
        if by_git::is_for(clone.path) {
            return by_git::remove_references(self, clone, &names).await;
        }
        let about = About::RemoveReferences { names };
        self.ask("let go of a revision of", clone, about).await.map(drop)
    }

    /// Collects garbage when it is worth it, and lets go of revisions that only the server still
    /// kept, once there are more than [`PINS_MAX`] of them and `needed` does not name them.
    /// `needed` gives nothing when it is not known. Called after each evaluation; most calls do
    /// nothing.
    pub(crate) async fn tidy<N, F>(&self, url: &str, needed: N) -> Result<(), FetchError>
    where
        N: FnOnce() -> F,
        F: Future<Output = Option<HashSet<String>>>,
    {
        let origin = Origin::input(url);
        let path = self.path(&origin);
        let count = self.known(&path, |known| {
            known.untidied = known.untidied.wrapping_add(1);
            known.untidied
        });
        if count % TIDY_EVERY != 1 {
            return Ok(());
        }
        let _lock = self.lock(&path).await;
        let clone = Bare { origin: &origin, path: &path };
        let tidied = self.tidy_locked(clone, needed).await;
        if tidied.as_ref().is_err_and(FetchError::may_be_damage) {
            self.known(&path, |known| known.suspect = true);
        }
        tidied
    }

    async fn tidy_locked<N, F>(&self, clone: Bare<'_>, needed: N) -> Result<(), FetchError>
    where
        N: FnOnce() -> F,
        F: Future<Output = Option<HashSet<String>>>,
    {
        let (pins, others): (Vec<String>, Vec<String>) = self
            .references(clone)
            .await?
            .into_iter()
            .filter(|name| !name.starts_with(objects::TIPS))
            .partition(|name| name.starts_with(objects::PINS));
        // What earlier versions kept, and what was fetched for the sake of one revision, which is pinned.
        let mut gone = others;
        if pins.len() > PINS_MAX
            && let Some(needed) = needed().await
        {
            gone.extend(pins.into_iter().filter(|pin| {
                pin.strip_prefix(objects::PINS).is_none_or(|revision| !needed.contains(revision))
            }));
        }
        if !gone.is_empty() {
            self.remove_references(clone, gone).await?;
        }
        let path = clone.path.to_owned();
        let Ok(stored) = tokio::task::spawn_blocking(move || Stored::count(&path)).await else {
            return Ok(());
        };
        if stored.packs > PACKS_MAX {
            self.collect(clone, &["gc", "--quiet", &format!("--prune={UNNEEDED_FOR}")]).await
        } else if stored.loose > LOOSE_MAX {
            self.collect(clone, &["repack", "-d", "-l", "--quiet"]).await?;
            // What no reference leads to stays loose.
            self.collect(clone, &["prune", "--expire", UNNEEDED_FOR]).await
        } else {
            Ok(())
        }
    }

    /// Lets git store a clone's objects in another way, or delete some.
    async fn collect(&self, clone: Bare<'_>, arguments: &[&str]) -> Result<(), FetchError> {
        let mut command = self.command(clone.path, clone.origin.access);
        command.args(arguments);
        let done = self.check("tidy the clone of", &clone.origin.url, command, OUTPUT_MAX).await;
        self.written(clone.path);
        // They may hold packs open that are deleted now.
        self.readers.dismiss();
        if done.is_err() {
            mend::remove_locks(clone.path);
        }
        done.map(drop)
    }
}

/// How a clone's objects are stored.
struct Stored {
    loose: usize,
    packs: usize,
}

impl Stored {
    /// What cannot be read counts as absent: git says what is wrong with it when it is needed.
    fn count(clone: &Path) -> Self {
        let names = |folder: &Path| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
        };
        let objects = clone.join("objects");
        // A loose object is in a folder named for the first byte of its hash.
        let folders = names(&objects).filter(|name| name.len() == 2);
        let loose = folders.map(|folder| names(&objects.join(folder)).count()).sum();
        let packs = names(&objects.join("pack")).filter(|name| name.ends_with(".pack")).count();
        Self { loose, packs }
    }
}
