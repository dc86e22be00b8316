//! A clone is looked after: what nobody needs any more goes, and what git stored piece by piece is packed.

use super::{Bare, FetchError, OUTPUT_MAX, Repositories};
use crate::input::address::Origin;
use crate::input::reader::About;
use crate::input::{by_git, mend, objects};
use std::collections::HashSet;
use std::path::Path;

/// How many revisions a clone keeps before it asks whether they are needed.
const PINS_MAX: usize = 32;
/// Loose objects from which on git packs them.
const LOOSE_MAX: usize = 512;
/// Packs from which on git makes one of them.
const PACKS_MAX: usize = 50;
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
        if !is_untidy(clone.path) {
            return Ok(());
        }
        let mut command = self.command(clone.path, clone.origin.access);
        command
            .args(["-c", &format!("gc.auto={LOOSE_MAX}")])
            .args(["-c", &format!("gc.autoPackLimit={PACKS_MAX}")])
            .args(["-c", "gc.autoDetach=false", "-c", "gc.pruneExpire=1.day.ago"])
            .args(["gc", "--auto", "--quiet"]);
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

/// Whether git would collect garbage, judged as git does: by one of the 256 folders of loose
/// objects, and by the packs.
fn is_untidy(clone: &Path) -> bool {
    let count = |folder: &str| std::fs::read_dir(clone.join(folder)).map_or(0, Iterator::count);
    // A pack comes with an index, and mostly with a reverse index.
    count("objects/17") > LOOSE_MAX / 256 || count("objects/pack") > PACKS_MAX * 2
}
