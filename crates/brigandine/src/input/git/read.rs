//! Reads the files of a clone, and follows the branches of a repository on the same machine.

use super::error::FetchError;
use super::name::local_path;
use super::repositories::{Bare, Repositories};
use crate::input::address::Origin;
use crate::input::objects;
use crate::input::reader::About;
use crate::input::revision::Resolved;
use crate::input::tree::Entry;
use crate::model::redact;

/// The most bytes of files in one answer, unless the first file alone is larger.
const READ_BYTES_MAX: usize = 4 << 20;

impl Repositories {
    /// All files of a revision that the clone has, without those of its submodules, with `prefix` before their paths.
    /// It is an error if the revision has more than `most` files and folders.
    pub(crate) async fn list(
        &self,
        origin: &Origin,
        revision: &str,
        prefix: &[u8],
        most: usize,
    ) -> Result<Vec<Entry>, FetchError> {
        let doing = "list the files of";
        let list = move || async move {
            let (path, revision) = (self.path(origin), revision.to_owned());
            let clone = Bare { origin, path: &path };
            let listing = self.ask(doing, clone, About::List { revision, most }).await?;
            let url = redact(&origin.url);
            let refused = |said| FetchError::Refused { doing, url, said };
            Entry::parse(&listing, prefix, most).map_err(refused)
        };
        self.mended(origin, revision, list).await
    }

    /// The contents of these files of a revision: as many as fit in one answer, but at least the first. `None` for each
    /// file that is larger than `bytes_max`.
    pub(crate) async fn read_objects(
        &self,
        origin: &Origin,
        revision: &str,
        objects: &[String],
        bytes_max: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, FetchError> {
        let doing = "read the files of";
        let read = move || async move {
            let path = self.path(origin);
            let about = About::Read { objects: objects.to_vec(), bytes_max, most: READ_BYTES_MAX };
            let answer = self.ask(doing, Bare { origin, path: &path }, about).await?;
            objects::contents(&answer)
                .filter(|contents| !contents.is_empty())
                .ok_or_else(|| FetchError::Unreadable { doing, url: redact(&origin.url) })
        };
        self.mended(origin, revision, read).await
    }

    /// Updates the clone's reference `local` from the reference `remote` of a repository on this machine, without a git
    /// process. `None`: the caller must use git, which also reports what is wrong.
    pub(super) async fn follow(
        &self,
        clone: Bare<'_>,
        remote: &str,
        local: &str,
    ) -> Option<Resolved> {
        let source = local_path(&clone.origin.url)?;
        // If git's configuration cannot be read, git itself says why.
        if self.configuration().await.ok()?.rewrites {
            return None;
        }
        let about = About::Follow {
            source: source.into_os_string(),
            remote: remote.to_owned(),
            local: local.to_owned(),
            time: self.fetch_timeout.get() / 2,
        };
        let followed = self.ask("fetch", clone, about).await;
        let followed = followed.inspect_err(|error| tracing::debug!(%error, "left to git")).ok()?;
        serde_json::from_slice(&followed).ok().flatten()
    }
}
