//! Tidying a clone: unpins revisions that are no longer needed, and packs objects.

use super::error::FetchError;
use super::mend::remove_locks;
use super::repositories::{Bare, OUTPUT_MAX, Repositories};
use crate::input::address::Origin;
use crate::input::objects;
use crate::input::reader::About;
use std::collections::HashSet;
use std::path::Path;

/// If a clone has more pins than this, `tidy` asks which revisions are needed.
const PINS_MAX: usize = 32;
/// If a clone has more loose objects than this, `tidy` packs them. It counts them itself, because `git gc --auto` only
/// estimates their number from one of 256 folders, and the estimate may be twice the number.
const LOOSE_MAX: usize = 256;
/// If a clone has more packs than this, `tidy` lets git collect garbage.
const PACKS_MAX: usize = 50;
/// git deletes unreachable objects that are older than this. It keeps younger ones, because a build may be reading
/// them.
const UNNEEDED_FOR: &str = "1.day.ago";
/// A clone is tidied after the first evaluation, and then once in this many evaluations.
const TIDY_EVERY: u32 = 32;

impl Repositories {
    /// Unpins revisions that are not `needed`, once there are more than [`PINS_MAX`] pins, and collects garbage once
    /// there is enough of it. If `needed` returns `None`, nothing is unpinned. Called after each evaluation; most calls
    /// do nothing.
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
        let names = self.ask("list the revisions of", clone, About::References).await?;
        let names = String::from_utf8_lossy(&names);
        let names = names.lines().filter(|name| !name.starts_with(objects::TIPS));
        // All references but tips and pins are removed. Earlier versions have left some; others are branches that were
        // fetched to get one revision, which is pinned.
        let (pins, mut gone): (Vec<String>, Vec<String>) =
            names.map(str::to_owned).partition(|name| name.starts_with(objects::PINS));
        if pins.len() > PINS_MAX
            && let Some(needed) = needed().await
        {
            gone.extend(pins.into_iter().filter(|pin| {
                pin.strip_prefix(objects::PINS).is_none_or(|revision| !needed.contains(revision))
            }));
        }
        if !gone.is_empty() {
            let about = About::RemoveReferences { names: gone };
            self.ask("let go of a revision of", clone, about).await?;
        }
        let path = clone.path.to_owned();
        let counted = tokio::task::spawn_blocking(move || count_objects(&path)).await;
        let (loose, packs) = counted.unwrap_or_default();
        if packs > PACKS_MAX {
            self.collect(clone, &["gc", "--quiet", &format!("--prune={UNNEEDED_FOR}")]).await
        } else if loose > LOOSE_MAX {
            self.collect(clone, &["repack", "-d", "-l", "--quiet"]).await?;
            // `repack` leaves unreachable objects loose; `prune` deletes those that are old enough.
            self.collect(clone, &["prune", "--expire", UNNEEDED_FOR]).await
        } else {
            Ok(())
        }
    }

    /// Runs a git command that packs or deletes a clone's objects.
    async fn collect(&self, clone: Bare<'_>, arguments: &[&str]) -> Result<(), FetchError> {
        let mut command = self.command(clone.path, clone.origin.access);
        command.args(arguments);
        let done = self.check("tidy the clone of", &clone.origin.url, command, OUTPUT_MAX).await;
        self.written(clone.path);
        // Idle readers may hold deleted packs open.
        self.readers.dismiss();
        if done.is_err() {
            remove_locks(clone.path);
        }
        done.map(drop)
    }
}

/// The numbers of a clone's loose objects and packs. A folder that cannot be read is treated as empty, because git
/// reports the error when it needs the folder.
fn count_objects(clone: &Path) -> (usize, usize) {
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    let objects = clone.join("objects");
    // A loose object lies in a folder named by the first byte of its hash.
    let folders = names(&objects).filter(|name| name.len() == 2);
    let loose = folders.map(|folder| names(&objects.join(folder)).count()).sum();
    (loose, names(&objects.join("pack")).filter(|name| name.ends_with(".pack")).count())
}
